"""The settings of both guards among those of a framework: flat, under the names of the variables.

A value may be of any type that an argument may have. A setting without a variable, which
is a callable, is called as its variable would be. What is not given comes from the
environment.

Imports: ``_environment``, ``settings``.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias, TypeVar

from hostline._environment import PREFIX, Setting, unknown_variables
from hostline.errors import SettingsError
from hostline.settings import CanonicalHostSettings, RequestTimeoutSettings, check_both

T = TypeVar("T")

_Fields: TypeAlias = Mapping[str, str]


def _named(settings: Iterable[Setting], prefix: str) -> dict[str, str]:
    return {each.variable or f"{PREFIX}{prefix}_{each.name.upper()}": each.name for each in settings}


#: The field of each name, for each guard.
HOST_FIELDS: _Fields = _named(CanonicalHostSettings.settings(), "CANONICAL")
TIMEOUT_FIELDS: _Fields = _named(RequestTimeoutSettings.settings(), "TIMEOUT")
EVERY = (*HOST_FIELDS, *TIMEOUT_FIELDS)


def arguments(given: Mapping[str, object], fields: _Fields) -> dict[str, object]:
    """What of it is for a guard with these fields."""
    return {fields[name]: value for name, value in given.items() if name in fields}


def unknown(given: Mapping[str, object]) -> list[str]:
    """A problem for each that no guard has."""
    texts = {name: value if isinstance(value, str) else repr(value) for name, value in given.items()}
    return list(unknown_variables(texts, EVERY))


def loaded(load: Callable[[Mapping[str, object]], T], given: Mapping[str, object], fields: _Fields) -> T:
    """What ``load`` makes of it, or one error for that and for unknown names."""
    return _made(given, lambda: load(arguments(given, fields)))


def check(given: Mapping[str, object]) -> None:
    """Raise one error for all that is wrong with what is given to both guards."""
    _made(given, lambda: check_both(arguments(given, HOST_FIELDS), arguments(given, TIMEOUT_FIELDS)))


def _made(given: Mapping[str, object], make: Callable[[], T]) -> T:
    problems = unknown(given)
    try:
        made = make()
    except SettingsError as error:
        raise SettingsError([*problems, *error.problems]) from None
    if problems:
        raise SettingsError(problems)
    return made
