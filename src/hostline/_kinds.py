"""What the values of settings may be: numbers, switches, words, texts, paths, callables.

Owns a check for each kind of value, which gives the normal form or raises a
``SettingsError``, and the :class:`Kind` that goes with it: how the text of a variable is
read and what to write instead of a wrong value. The kinds of hosts are in ``_host_kinds``.

May import ``errors`` and ``_environment`` of hostline.
"""

import inspect
import math
import re
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import timedelta
from typing import TypeVar, cast

from hostline._environment import (
    Given,
    Kind,
    Setting,
    read_list,
    read_path_table,
    read_seconds,
    read_signal,
    read_switch,
    read_whole_number,
    read_word,
)
from hostline.errors import SettingsError

T = TypeVar("T")

# Windows has neither of them.
_UNCATCHABLE = tuple(getattr(signal, name, None) for name in ("SIGKILL", "SIGSTOP"))


def check_seconds(name: str, value: object) -> float | None:
    """Seconds as the settings take them, or None for off; a problem calls the value by this name."""
    return _as_seconds(Given(Setting(name, None, "", None, None, SECONDS), value), value)


def check_header_name(name: str, value: object) -> str:
    """The name of a header in lower case; a problem calls the value by this name."""
    return _check_header_name(Given(Setting(name, None, "", None, None, _HEADER_NAME), value), value)


def check_each(check: Callable[[Given, object], T], given: Given, value: object) -> tuple[T, ...]:
    """Each item of a list in its normal form, or the problems of all of them."""
    checked: list[T] = []
    problems: list[str] = []
    for item in _items(value):
        try:
            checked.append(check(given, item))
        except SettingsError as error:
            problems += error.problems
    if problems:
        raise SettingsError(problems)
    return tuple(checked)


def _items(value: object) -> Iterable[object]:
    """The items of a list; what is no list is a list of one, and None an empty one."""
    if value is None:
        return ()
    if isinstance(value, (Sequence, AbstractSet)) and not isinstance(value, (str, bytes, bytearray)):
        return cast("Sequence[object] | AbstractSet[object]", value)
    return (value,)


# Numbers and switches. A bool is an int: False is a 0 that means off, True a mistake.


def _as_seconds(given: Given, value: object) -> float | None:
    if value is None or value is False:
        return None
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise given.refusal("is no number of seconds")
    if value < 0:
        raise given.refusal("is negative")
    try:
        seconds = float(value)
    except OverflowError:
        seconds = math.inf
    if not math.isfinite(seconds):
        raise given.refusal("is no finite number of seconds")
    return seconds or None


def _check_count(given: Given, value: object) -> int:
    if value is None or value is False:
        return 0
    if isinstance(value, bool) or not isinstance(value, int):
        raise given.refusal("is no whole number")
    if value < 0:
        raise given.refusal("is negative")
    return int(value)


def _check_switch(given: Given, value: object) -> bool:
    if not isinstance(value, bool):
        raise given.refusal("is neither True nor False")
    return value


def _check_switch_or_none(given: Given, value: object) -> bool | None:
    return None if value is None else _check_switch(given, value)


def _check_redirect_status(given: Given, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value not in (301, 302, 307, 308):
        raise given.refusal("is no status of a redirect")
    return int(value)


def _check_error_status(given: Given, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 400 <= value <= 599:
        raise given.refusal("is no status of an error")
    return int(value)


def _check_signal(given: Given, value: object) -> int:
    number = value
    if isinstance(value, str):
        number = signal.Signals.__members__.get(f"SIG{value.upper().removeprefix('SIG')}")
    if isinstance(number, bool) or not isinstance(number, int):
        raise given.refusal("is no signal")
    if number == 0 and given.setting.default == 0:
        return 0  # no signal: the default of a system without SIGURG
    found = next((each for each in signal.valid_signals() if each == number), None)
    if found is None:
        raise given.refusal("is no signal of this system")
    if found in _UNCATCHABLE:
        raise given.refusal("cannot be caught by any program")
    return found


# Words and texts


def one_of(*words: str, can_be_off: bool = False) -> Kind:
    """One of a few words."""

    def check(given: Given, value: object) -> str | None:
        if can_be_off and value is None:
            return None
        if not isinstance(value, str) or value not in words:
            raise given.refusal("is not allowed")
        return str(value)

    argument = " or ".join([*(repr(word) for word in words), *(["None"] if can_be_off else [])])
    text = " or ".join([*words, *(["off"] if can_be_off else [])])
    return Kind(check, argument, text, read_word, can_be_off)


def _check_header(given: Given, value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise given.refusal("is no text")
    # RFC 9110, 5.5; its obs-text is left out: no two servers agree on the bytes of it.
    if not value.isascii() or not value.isprintable():
        raise given.refusal("has a character that a header cannot have")
    if not value.strip():
        raise given.refusal("is empty")
    return value.strip()


def _check_content_type(given: Given, value: object) -> str | None:
    content_type = _check_header(given, value)
    if content_type is not None and re.match(r"[^\s/;,]+/[^\s/;,]+ *(;|\Z)", content_type) is None:
        raise given.refusal("is no media type")
    return content_type


def _check_body(given: Given, value: object) -> object:
    if value is not None and not isinstance(value, (str, bytes)) and not callable(value):
        raise given.refusal("is no body")
    return value


def _check_callable(given: Given, value: object) -> object:
    if value is not None and not callable(value):
        raise given.refusal("cannot be called")
    return value


#: The sinks that a setting can name; all but the log want a library, and are imported when named.
SINKS = ("log", "prometheus", "opentelemetry", "sentry")


def observers_of(*sinks: str) -> Kind:
    """Callables, and these sinks by their names."""

    def check_one(given: Given, item: object) -> object:
        if isinstance(item, str) and item in SINKS:
            if item not in sinks:
                raise given.refusal_of(item, "would be told of nothing here")
            return item
        return _check_observer(given, item)

    def check(given: Given, value: object) -> tuple[object, ...]:
        observers = check_each(check_one, given, value)
        names = [each for each in observers if isinstance(each, str)]
        for name in names:
            if names.count(name) > 1:
                raise given.refusal(f"has {name} twice")
        return observers

    quoted = ", ".join(map(repr, sinks))
    return Kind(
        check,
        f"{quoted}, a callable, or a list of them; () switches them off",
        f"{', '.join(sinks[:-1])} and {sinks[-1]}, or some of them, or off",
        read_list,
        can_be_off=True,
    )


def _check_observer(given: Given, item: object) -> object:
    if isinstance(item, type):
        name = cast("type[object]", item).__name__
        raise given.refusal_of(
            item, "is a class, which each event would make an object of", f"Write {name}()"
        )
    if not callable(item):
        raise given.refusal_of(item, "is no observer")
    if inspect.iscoroutinefunction(item) or inspect.iscoroutinefunction(type(item).__call__):
        raise given.refusal_of(item, "is an async function, which nobody would wait for")
    return item


def _check_path(given: Given, item: object) -> str:
    if not isinstance(item, str):
        raise given.refusal_of(item, "is no path")
    if not item.startswith("/"):
        raise given.refusal_of(item, "is no path: it does not begin with a slash")
    if not item.isprintable() or "?" in item or "#" in item:
        raise given.refusal_of(item, "is no path: it has a query, a fragment or an unprintable character")
    if item.endswith("*"):
        remedy = f"Write {given.spelled(item.rstrip('*'))}: a path stands for all that begins with it"
        raise given.refusal_of(item, "ends in a wildcard", remedy)
    return str(item)


def _check_paths(given: Given, value: object) -> tuple[str, ...]:
    return check_each(_check_path, given, value)


def _check_header_name(given: Given, item: object) -> str:
    if not isinstance(item, str) or re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", item) is None:
        raise given.refusal_of(item, "is no name of a header")
    return item.lower()


def _check_header_names(given: Given, value: object) -> tuple[str, ...]:
    return check_each(_check_header_name, given, value)


def _check_timeout_for(given: Given, value: object) -> object:
    """A callable as it is, a table as its rows: so they are one value, and cannot change."""
    if isinstance(value, Mapping):
        value = tuple(cast("Mapping[object, object]", value).items())
    if not isinstance(value, tuple):
        return _check_callable(given, value)
    rows = check_each(_check_row, given, cast("tuple[object, ...]", value))
    paths = [path for path, _ in rows]
    for path in paths:
        if paths.count(path) > 1:
            raise given.refusal(f"has {path} twice")
    return rows


def _check_row(given: Given, row: object) -> tuple[str, float | None]:
    wrong = given.refusal_of(row, "is no path with its seconds")
    pair = cast("tuple[object, ...]", row) if isinstance(row, tuple) else ()
    if len(pair) != 2:
        raise wrong
    path, seconds = pair
    checked = _check_path(given, path)
    return checked, check_seconds(f"the {checked} of {given.name}", seconds)


# The kinds

SECONDS = Kind(
    _as_seconds,
    "a number of seconds or a timedelta, such as 15 or 0.5; 0, False and None switch it off",
    "a number of seconds such as 15, 0.5, 15s or 500ms; 0 and off switch it off",
    read_seconds,
    can_be_off=True,
    unit="seconds",
)
COUNT = Kind(
    _check_count,
    "a whole number such as 3; 0, False and None switch it off",
    "a whole number such as 3; 0 and off switch it off",
    read_whole_number,
    can_be_off=True,
    unit="timeouts",
)
SWITCH = Kind(_check_switch, "True or False", "on or off", read_switch)
SWITCH_OR_NONE = Kind(_check_switch_or_none, "True, False or None", "on or off", read_switch)
REDIRECT_STATUS = Kind(
    _check_redirect_status, "301, 302, 307 or 308", "301, 302, 307 or 308", read_whole_number
)
ERROR_STATUS = Kind(
    _check_error_status, "a number from 400 to 599", "a number from 400 to 599", read_whole_number
)
SIGNAL = Kind(
    _check_signal,
    "a signal that can be caught, such as signal.SIGURG, its number or its name 'SIGURG'",
    "the name or the number of a signal that can be caught, such as SIGURG",
    read_signal,
)
HEADER = Kind(
    _check_header,
    "ASCII text such as 'max-age=3600', or None",
    "ASCII text such as max-age=3600, or off",
    can_be_off=True,
)
CONTENT_TYPE = Kind(
    _check_content_type,
    "one such as 'text/html; charset=utf-8', or None",
    "one such as text/html; charset=utf-8, or off",
    can_be_off=True,
)
BODY = Kind(
    _check_body,
    "str, bytes, a callable that takes RequestDetails and returns one of them, or None",
    "any text, or off",
    can_be_off=True,
)
CALLABLE = Kind(_check_callable, "a function, or None")
_HEADER_NAME = Kind(_check_header_name, "the name of a header, such as 'hostline-timeout', or None")
HEADER_NAMES = Kind(
    _check_header_names,
    "the names of headers, such as ['hostline-timeout', 'grpc-timeout'], or None",
    "the names of headers, such as hostline-timeout,grpc-timeout",
    read_list,
    can_be_off=True,
)
TIMEOUT_FOR = Kind(
    _check_timeout_for,
    "a function, a dict of paths and seconds such as {'/reports': 60, '/export/': None}, or None",
    "paths and their seconds, such as /reports=60s,/export/=off",
    read_path_table,
    can_be_off=True,
)
OBSERVERS = observers_of(*SINKS)
HOST_OBSERVERS = observers_of("log", "prometheus", "opentelemetry")  # Sentry has no issue for a host
PATHS = Kind(
    _check_paths,
    "what the paths begin with, such as ['/healthz', '/.well-known/']",
    "what the paths begin with, such as /healthz,/.well-known/",
    read_list,
    can_be_off=True,
)
