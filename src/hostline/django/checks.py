"""The system checks: what ``manage.py check`` says of hostline, and what ``--deploy`` adds.

Ids are stable: E for what stops the start or every request, W for what will not work as
expected; from W010 on with ``--deploy`` alone. ``docs/reference/checks.md`` lists them.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning  # noqa: A004 - its name
from django.http.request import validate_host
from django.utils.module_loading import import_string

from hostline import _flat_names
from hostline._advice import Situation, advice
from hostline.django import flat_settings
from hostline.errors import SettingsError
from hostline.settings import CanonicalHostSettings, RequestTimeoutSettings

_Guard = TypeVar("_Guard", CanonicalHostSettings, RequestTimeoutSettings)

_CANONICAL_HOST = "hostline.django.CanonicalHostMiddleware"
_REQUEST_TIMEOUT = "hostline.django.RequestTimeoutMiddleware"
_ENTRIES = frozenset({_CANONICAL_HOST, _REQUEST_TIMEOUT})
_NO_ENTRIES = ("hostline.wsgi.", "hostline.asgi.", "hostline.flask.")
#: What answers by itself, and so answers for a wrong host where it stands before the canonical one.
_ANSWERING = ("django.", "whitenoise.")


def check_configuration(app_configs: object = None, **_: object) -> list[CheckMessage]:
    """The checks of every ``manage.py check`` and every start of the development server."""
    del app_configs
    host, host_problems = _loaded(CanonicalHostSettings, _flat_names.HOST_FIELDS)
    timeout, timeout_problems = _loaded(RequestTimeoutSettings, _flat_names.TIMEOUT_FIELDS)
    return [
        # What is wrong with the environment is a problem of both guards.
        *(Error(each, id="hostline.E001") for each in dict.fromkeys([*host_problems, *timeout_problems])),
        *(Error(each, id="hostline.E002") for each in _flat_names.unknown(flat_settings.given())),
        *(_of_canonical_host(host) if host and _CANONICAL_HOST in settings.MIDDLEWARE else ()),
        *(_of_timeout(timeout) if timeout and _REQUEST_TIMEOUT in settings.MIDDLEWARE else ()),
        *_of_unread_settings(),
        *_of_entries(),
    ]


def check_deployment(app_configs: object = None, **_: object) -> list[CheckMessage]:
    """The checks of ``manage.py check --deploy``."""
    del app_configs
    host, _host_problems = _loaded(CanonicalHostSettings, _flat_names.HOST_FIELDS)
    timeout, _timeout_problems = _loaded(RequestTimeoutSettings, _flat_names.TIMEOUT_FIELDS)
    if host is None or timeout is None:
        return []  # the other check has told why
    return [*_of_wrappers(), *_of_redirects(host), *_of_advice(Situation(host, timeout, os.environ))]


def _loaded(guard: type[_Guard], fields: Mapping[str, str]) -> tuple[_Guard | None, tuple[str, ...]]:
    try:
        return _flat_names.load(guard, flat_settings.given(), fields), ()
    except SettingsError as error:
        return None, error.problems


def _above(entry: str) -> list[str]:
    """What stands before it in MIDDLEWARE."""
    return list(settings.MIDDLEWARE[: settings.MIDDLEWARE.index(entry)])


def _of_canonical_host(host: CanonicalHostSettings) -> Iterator[CheckMessage]:
    above = [each for each in _above(_CANONICAL_HOST) if each.startswith((*_ANSWERING, *_ENTRIES))]
    if above:
        yield Warning(
            f"{', '.join(above)} in front of {_CANONICAL_HOST} may answer a request for a wrong host.",
            hint=f"Put {_CANONICAL_HOST} first in MIDDLEWARE.",
            id="hostline.W001",
        )
    if _validates_hosts(above) and "*" not in settings.ALLOWED_HOSTS:
        yield Warning(
            "A request for a host that is not in ALLOWED_HOSTS is answered 400 before it can be redirected.",
            hint=f"Put {_CANONICAL_HOST} first in MIDDLEWARE.",
            id="hostline.W003",
        )
    allowed = settings.ALLOWED_HOSTS
    if host.host and not (settings.DEBUG and not allowed) and not validate_host(host.host.host, allowed):
        yield Error(
            f"Every request is answered 400: the canonical host, {host.host.host}, is not in ALLOWED_HOSTS.",
            hint=f"Add {host.host.host!r} to ALLOWED_HOSTS.",
            id="hostline.E003",
        )


def _validates_hosts(entries: Iterable[str]) -> bool:
    """Whether one of them asks ``request.get_host()``, which raises."""
    return any(
        each == "django.middleware.common.CommonMiddleware"
        or (each == "django.middleware.security.SecurityMiddleware" and settings.SECURE_SSL_REDIRECT)
        for each in entries
    )


def _of_timeout(timeout: RequestTimeoutSettings) -> Iterator[CheckMessage]:
    above = [each for each in _above(_REQUEST_TIMEOUT) if each.startswith("django.")]
    if above:
        yield Warning(
            f"{', '.join(above)} in front of {_REQUEST_TIMEOUT} may run for as long as it likes.",
            hint=f"Put {_REQUEST_TIMEOUT} in front, behind {_CANONICAL_HOST} alone.",
            id="hostline.W002",
        )
    if not getattr(settings, "ASGI_APPLICATION", None):
        return
    below = settings.MIDDLEWARE[settings.MIDDLEWARE.index(_REQUEST_TIMEOUT) + 1 :]
    sync_only = [each for each in below if _is_sync_only(each)]
    if sync_only:
        yield Warning(
            f"Under ASGI {_REQUEST_TIMEOUT} only reports requests that run too long, because "
            f"{', '.join(sync_only)} below it is sync-only.",
            hint=_WRAP_INSTEAD,
            id="hostline.W004",
        )
    if timeout.stream_timeout:
        yield Warning(
            f"Under ASGI {_REQUEST_TIMEOUT} does not see the chunks of a stream: HOSTLINE_STREAM_TIMEOUT "
            "counts for nothing.",
            hint=_WRAP_INSTEAD,
            id="hostline.W005",
        )


_WRAP_INSTEAD = "Wrap the app in asgi.py instead: application = hostline.asgi.from_env(application)."


def _is_sync_only(entry: str) -> bool:
    try:
        return not getattr(import_string(entry), "async_capable", False)
    except ImportError:
        return False  # Django will say so


def _of_unread_settings() -> Iterator[CheckMessage]:
    for entry, fields in (
        (_CANONICAL_HOST, _flat_names.HOST_FIELDS),
        (_REQUEST_TIMEOUT, _flat_names.TIMEOUT_FIELDS),
    ):
        unread = [name for name in flat_settings.given() if name in fields]
        if unread and entry not in settings.MIDDLEWARE:
            yield Warning(
                f"Nobody reads {', '.join(unread)}: {entry} is not in MIDDLEWARE.",
                hint="A wrapper in wsgi.py or asgi.py takes arguments and environment variables.",
                id="hostline.W006",
            )


def _of_entries() -> Iterator[CheckMessage]:
    middleware: list[str] = settings.MIDDLEWARE
    for entry, count in Counter(middleware).items():
        if entry.startswith(_NO_ENTRIES):
            yield Error(
                f"{entry} is no entry of MIDDLEWARE: the start fails, or each request.",
                hint=f"Write {_CANONICAL_HOST} or {_REQUEST_TIMEOUT}, or both.",
                id="hostline.E004",
            )
        if entry in _ENTRIES and count > 1:
            yield Warning(
                f"{entry} is {count} times in MIDDLEWARE.",
                hint="Once is enough: leave the first.",
                id="hostline.W007",
            )


def _of_wrappers() -> Iterator[CheckMessage]:
    for name in ("WSGI_APPLICATION", "ASGI_APPLICATION"):
        app = _imported(getattr(settings, name, None))
        if _REQUEST_TIMEOUT in settings.MIDDLEWARE and any(map(_is_timeout, _layers(app))):
            yield Warning(
                f"Requests are timed twice: by {_REQUEST_TIMEOUT}, and by what {name} is wrapped in.",
                hint="Remove one of them.",
                id="hostline.W010",
            )


def _imported(path: str | None) -> object:
    try:
        return import_string(path) if path else None
    except Exception:  # noqa: BLE001 - the server will say what is wrong with it
        return None


def _layers(app: object) -> Iterator[object]:
    """The app and all that it is wrapped in, as far as they keep to the usual names."""
    while app is not None:
        yield app
        app = getattr(app, "app", None) or getattr(app, "_app", None)


def _is_timeout(layer: object) -> bool:
    return type(layer).__name__ == "RequestTimeoutMiddleware" and type(layer).__module__.startswith(
        "hostline."
    )


def _of_redirects(host: CanonicalHostSettings) -> Iterator[CheckMessage]:
    if _CANONICAL_HOST not in settings.MIDDLEWARE:
        return
    if host.host is None and host.host_for is None:
        yield Warning(
            f"{_CANONICAL_HOST} does nothing, because there is no canonical host.",
            hint="Set HOSTLINE_CANONICAL_HOST, in Django's settings or in the environment.",
            id="hostline.W011",
        )
    elif settings.SECURE_SSL_REDIRECT and host.scheme is None:
        yield Warning(
            "Who asks for a wrong host by http is redirected twice: to the right host, then to https.",
            hint="Set HOSTLINE_CANONICAL_SCHEME = 'https': both are put right in one redirect.",
            id="hostline.W012",
        )


def _of_advice(situation: Situation) -> Iterator[CheckMessage]:
    for each in advice(situation):
        if each.id == "https-unseen" and settings.SECURE_PROXY_SSL_HEADER:
            continue  # by which Django sees it, and so does the entry
        yield Warning(
            each.text,
            hint=f"hostline config calls this {each.id}, and settings as arguments are called.",
            id="hostline.W013",
        )
