"""The settings of both guards among those of a framework: flat, under the names of the variables.

A value may be of any type that an argument may have. A setting without a variable, which
is a callable, is called as its variable would be. An extension's keyword is the same name in
lower case and without ``HOSTLINE_``. Problems call each by the name that its author wrote.
What is not given comes from the environment.

Imports: ``_environment``, ``errors``, ``settings``.
"""

from collections.abc import Iterable, Mapping
from typing import TypeAlias, TypeVar

from hostline._environment import PREFIX, Setting, unknown_variables
from hostline.errors import SettingsError
from hostline.settings import CanonicalHostSettings, RequestTimeoutSettings, check_all

_Guard = TypeVar("_Guard", CanonicalHostSettings, RequestTimeoutSettings)

_Fields: TypeAlias = Mapping[str, str]


def _named(settings: Iterable[Setting], prefix: str) -> dict[str, str]:
    return {each.variable or f"{PREFIX}{prefix}_{each.name.upper()}": each.name for each in settings}


#: The field of each name, for each guard.
HOST_FIELDS: _Fields = _named(CanonicalHostSettings.settings(), "CANONICAL")
TIMEOUT_FIELDS: _Fields = _named(RequestTimeoutSettings.settings(), "TIMEOUT")
EVERY = (*HOST_FIELDS, *TIMEOUT_FIELDS)
#: What an extension calls all of them.
KEYWORDS = tuple(name.removeprefix(PREFIX).lower() for name in EVERY)

_FLAT_NAMES = dict(zip(KEYWORDS, EVERY, strict=True))


def arguments(given: Mapping[str, object], fields: _Fields) -> dict[str, object]:
    """What of it is for a guard with these fields; the last counts where both names of one are there."""
    return {field: given[name] for field, name in _labels(given, fields).items()}


def _labels(given: Mapping[str, object], fields: _Fields) -> dict[str, str]:
    """By field, what its author calls it."""
    flat_names = ((name, _FLAT_NAMES.get(name, name)) for name in given)
    return {fields[flat_name]: name for name, flat_name in flat_names if flat_name in fields}


def unknown(given: Mapping[str, object]) -> list[str]:
    """A problem for each that no guard has."""
    texts = {name: value if isinstance(value, str) else repr(value) for name, value in given.items()}
    return list(unknown_variables(texts, EVERY))


def load(guard: type[_Guard], given: Mapping[str, object], fields: _Fields) -> _Guard:
    """The guard's settings, by what is given of these fields."""
    return guard.load(arguments(given, fields), labels=_labels(given, fields))


def check(given: Mapping[str, object]) -> None:
    """Raise one error for all that is wrong with what is given to both guards."""
    check_all(
        lambda: _refuse_unknown(given),
        lambda: load(CanonicalHostSettings, given, HOST_FIELDS),
        lambda: load(RequestTimeoutSettings, given, TIMEOUT_FIELDS),
    )


def _refuse_unknown(given: Mapping[str, object]) -> None:
    problems = unknown(given)
    if problems:
        raise SettingsError(problems)
