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
from hostline._environment import PREFIX, Setting, text_of
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
    is_wrong: bool  #: a problem tells why; there is no value then
    variable: str | None
    unit: str | None
    meaning: str


@dataclass(frozen=True, slots=True)
class Configuration:
    """All settings; those that are wrong have no value, and nothing can be advised then."""

    settings: tuple[Row, ...]
    warnings: tuple[Advice, ...]
    problems: tuple[str, ...]

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "Configuration":
        """The configuration of a process with this environment."""
        problems = _problems(environ)
        right, wrong = _sifted(environ) if problems else (environ, frozenset[str]())
        host = CanonicalHostSettings.load({}, right)
        timeout = RequestTimeoutSettings.load({}, right)
        rows = (row for guard in (host, timeout) for row in _rows(guard, right, wrong))
        warnings = () if problems else advice(Situation(host, timeout, environ))
        return cls(tuple(rows), tuple(warnings), problems)

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
        yield from wrapped(NOTE)
        yield from bullets("Warnings", (f"{each.text} [{each.id}]" for each in self.warnings))
        yield from bullets("Problems", self.problems)


def _problems(environ: Mapping[str, str]) -> tuple[str, ...]:
    try:
        check_environment(environ)
    except SettingsError as error:
        return error.problems
    return ()


def _sifted(environ: Mapping[str, str]) -> tuple[Mapping[str, str], frozenset[str]]:
    """The environment without what is wrong with it, and the variables that are."""
    settings = [each for cls in _GUARDS.values() for each in cls.settings()]
    read = {name for each in settings for name in (each.variable, each.ruby_variable)}
    right = {name: text for name, text in environ.items() if name not in read and not name.startswith(PREFIX)}
    wrong: set[str] = set()
    for each in settings:
        variable = _source(each, environ)
        if variable is not None:
            further = {**right, variable: environ[variable]}
            if _problems(further):
                wrong.add(variable)
            else:
                right = further
    return right, frozenset(wrong)


def _source(setting: Setting, environ: Mapping[str, str]) -> str | None:
    """The variable that the setting comes from; None where it has its default."""
    names = (setting.variable, setting.ruby_variable)
    return next((name for name in names if text_of(environ, name)), None)


def _rows(
    guard: CanonicalHostSettings | RequestTimeoutSettings, right: Mapping[str, str], wrong: frozenset[str]
) -> Iterator[Row]:
    name = next(name for name, cls in _GUARDS.items() if isinstance(guard, cls))
    for each in guard.settings():
        mistaken = wrong.intersection({each.variable, each.ruby_variable})
        value = None if mistaken else _plain(each, getattr(guard, each.name))
        source = next(iter(mistaken), None) or _source(each, right) or "default"
        yield Row(name, each.name, value, source, bool(mistaken), each.variable, each.unit, each.doc)


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
    yield f"{title[0].upper()}{title[1:]}"
    widths = [max(len(cell) for cell in column) for column in zip(*map(_cells, rows), strict=True)]
    for row in rows:
        yield (
            "  "
            + "  ".join(cell.ljust(width) for cell, width in zip(_cells(row), widths, strict=True)).rstrip()
        )
        sets = f" Variable: {row.variable}." if row.source == "default" and row.variable else ""
        yield from wrapped(row.meaning + sets, _INDENT, _INDENT)
    yield ""


def _cells(row: Row) -> tuple[str, str, str]:
    return row.name, "wrong" if row.is_wrong else _shown(row.value, row.unit), row.source


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
