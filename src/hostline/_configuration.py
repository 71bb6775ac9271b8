"""What ``hostline config`` prints: every setting, where its value comes from, and what is wrong.

A :class:`Configuration` is what can be known from outside of the app: the environment and
the defaults. Rendered as text for people and as JSON for programs; neither depends on the
terminal.

Imports: ``_advice``, ``_authority``, ``_environment``, ``_reports``, ``settings``.
"""

import json
import re
import signal
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias, cast

from hostline._advice import Advice, Situation, advice
from hostline._authority import Authority
from hostline._environment import Setting
from hostline._reports import bullets, wrapped
from hostline.errors import SettingsError
from hostline.settings import CanonicalHostSettings, RequestTimeoutSettings, check_environment

_Json: TypeAlias = str | float | bool | list[Any] | dict[str, Any] | None

#: Said once, for it is true of every row.
NOTE = "An argument in the code, or a setting of the framework's, beats these and cannot be known here."

_GUARDS: dict[str, type[CanonicalHostSettings | RequestTimeoutSettings]] = {
    "canonical host": CanonicalHostSettings,
    "request timeout": RequestTimeoutSettings,
}
_INDENT = " " * 6


@dataclass(frozen=True, slots=True)
class Row:
    """One setting."""

    guard: str
    name: str
    value: _Json
    source: str  #: the variable that it comes from, or ``default``
    variable: str | None
    unit: str | None
    meaning: str


@dataclass(frozen=True, slots=True)
class Configuration:
    """All settings; none of them where there are problems, which have no values."""

    settings: tuple[Row, ...]
    warnings: tuple[Advice, ...]
    problems: tuple[str, ...]

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "Configuration":
        """The configuration of a process with this environment."""
        try:
            check_environment(environ)
        except SettingsError as error:
            return cls((), (), error.problems)
        host = CanonicalHostSettings.load({}, environ)
        timeout = RequestTimeoutSettings.load({}, environ)
        rows = (row for guard in (host, timeout) for row in _rows(guard, environ))
        return cls(tuple(rows), tuple(advice(Situation(host, timeout, environ))), ())

    def as_json(self) -> str:
        """For programs."""
        return json.dumps(
            {
                "note": NOTE,
                "settings": [asdict(row) for row in self.settings],
                "warnings": [each._asdict() for each in self.warnings],
                "problems": self.problems,
            },
            indent=2,
        )

    def as_text(self) -> str:
        """For people."""
        return "\n".join(self._lines()).strip()

    def _lines(self) -> Iterator[str]:
        for guard in _GUARDS:
            yield from _table(guard, [row for row in self.settings if row.guard == guard])
        yield from wrapped(NOTE if self.settings else "")
        yield from bullets("Warnings", (f"{each.text} [{each.id}]" for each in self.warnings))
        yield from bullets("Problems", self.problems)


def _rows(guard: CanonicalHostSettings | RequestTimeoutSettings, environ: Mapping[str, str]) -> Iterator[Row]:
    name = next(name for name, cls in _GUARDS.items() if isinstance(guard, cls))
    sources = type(guard).sources({}, environ)
    for each in guard.settings():
        value = _plain(each, getattr(guard, each.name))
        source = sources[each.name]
        yield Row(name, each.name, value, source, each.variable, each.unit, each.doc)


def _plain(setting: Setting, value: object) -> _Json:
    """The value as JSON has it, spelled as a variable would be where JSON has no such thing."""
    if setting.name == "signal":
        return _signal_name(cast("int", value))
    if isinstance(value, Authority):
        return value.text
    if isinstance(value, re.Pattern):
        return f"/{cast('re.Pattern[str]', value).pattern}/"
    if isinstance(value, tuple):
        return [_plain(setting, each) for each in cast("tuple[object, ...]", value)]
    return cast("_Json", value)


def _signal_name(number: int) -> str | None:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal has a number only, and 0 stands for none
        return str(number) if number else None


def _table(title: str, rows: list[Row]) -> Iterator[str]:
    if not rows:
        return
    yield f"{title[0].upper()}{title[1:]}"
    widths = [max(len(cell) for cell in column) for column in zip(*map(_cells, rows), strict=True)]
    for row in rows:
        yield (
            "  "
            + "  ".join(cell.ljust(width) for cell, width in zip(_cells(row), widths, strict=True)).rstrip()
        )
        yield from wrapped(row.meaning, _INDENT, _INDENT)
    yield ""


def _cells(row: Row) -> tuple[str, str, str]:
    return row.name, _shown(row.value, row.unit), row.source


def _shown(value: _Json, unit: str | None) -> str:
    if value is None or value is False or value == [] or (unit and not value):
        return "off" if unit or value is False else "none"
    if value is True:
        return "on"
    if isinstance(value, list):
        return ",".join(map(_item, value))
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{text} {unit}" if unit else text


def _item(item: _Json) -> str:
    """One of a list: a path of ``timeout_for`` comes with its seconds."""
    if not isinstance(item, list):
        return str(item)
    path, seconds = item
    return f"{path}={'off' if seconds is None else f'{seconds:g}s'}"
