"""hostline's settings among Django's: flat, and under the names of the environment variables.

A value may be of any type that an argument may have. A setting without a variable, which
is a callable, is called as its variable would be.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from django.conf import settings as django_settings

from hostline._environment import PREFIX, Setting, unknown_variables
from hostline.errors import SettingsError
from hostline.settings import CanonicalHostSettings, RequestTimeoutSettings

T = TypeVar("T")
_Names = Mapping[str, str]


def _named(settings: Iterable[Setting], prefix: str) -> dict[str, str]:
    return {each.variable or f"{PREFIX}{prefix}_{each.name.upper()}": each.name for each in settings}


#: The field of each of Django's settings, for each guard.
HOST_FIELDS: _Names = _named(CanonicalHostSettings.settings(), "CANONICAL")
TIMEOUT_FIELDS: _Names = _named(RequestTimeoutSettings.settings(), "TIMEOUT")


def given() -> dict[str, object]:
    """All of Django's settings that are for hostline."""
    names = (name for name in dir(django_settings) if name.startswith(PREFIX))
    return {name: getattr(django_settings, name) for name in names}


def unknown() -> list[str]:
    """A problem for each of them that no guard has."""
    texts = {name: value if isinstance(value, str) else repr(value) for name, value in given().items()}
    return list(unknown_variables(texts, {*HOST_FIELDS, *TIMEOUT_FIELDS}))


def arguments(fields: _Names) -> dict[str, object]:
    """What a guard with these fields is given."""
    return {fields[name]: value for name, value in given().items() if name in fields}


def loaded(load: Callable[[Mapping[str, object]], T], fields: _Names) -> T:
    """What ``load`` makes of the arguments, or one error for them and for unknown names."""
    problems = unknown()
    try:
        made = load(arguments(fields))
    except SettingsError as error:
        raise SettingsError([*problems, *error.problems]) from None
    if problems:
        raise SettingsError(problems)
    return made
