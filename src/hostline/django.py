"""The guards as Django ``MIDDLEWARE`` entries.

They are configured in Django's settings, under the names of the environment variables and
with values of any type that an argument may have: ``HOSTLINE_CANONICAL_HOST = None``. What
is not there is taken from the environment. The canonical host belongs first in
``MIDDLEWARE``, so that no other entry redirects within the wrong host.

Needs Django alone. A request's host is read from ``META``, since ``get_host()`` raises
where a host is not allowed, and one that is to be redirected often is not.
"""

import weakref
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeAlias

from hostline._environment import PREFIX, unknown_variables
from hostline._host_guard import HostGuard
from hostline._hosts import Asked
from hostline._responses import PAGES, TEXT, host_response
from hostline._routes import DJANGO_REQUEST
from hostline._targets import Target, asgi_target, wsgi_target
from hostline.errors import SettingsError
from hostline.settings import CanonicalHostSettings, RequestTimeoutSettings, Setting

try:
    from asgiref.sync import iscoroutinefunction, markcoroutinefunction
    from django.conf import settings as django_settings
    from django.core.exceptions import MiddlewareNotUsed
    from django.http import HttpRequest, HttpResponse
    from django.http.response import HttpResponseBase
except ImportError as error:
    raise ImportError('hostline.django needs Django: pip install "hostline[django]"') from error

__all__ = ["CanonicalHostMiddleware", "RouteMiddleware"]

# What the next layer gives: sync and async stacks have the same kind of entries.
_Response: TypeAlias = HttpResponseBase | Awaitable[HttpResponseBase]
_GetResponse: TypeAlias = Callable[[HttpRequest], _Response]


class CanonicalHostMiddleware:
    """Redirects each request for another host to the canonical one; not used without one."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: _GetResponse) -> None:
        guard = _load_guard()
        if guard is None:
            raise MiddlewareNotUsed("No canonical host is set.")
        settings = guard.rules.settings
        self._get_response = get_response
        self._guard = guard
        self._known = guard.known
        self._host_key = "HTTP_X_FORWARDED_HOST" if settings.trust_forwarded_host else "HTTP_HOST"
        self._scheme = settings.scheme
        # asgiref's: before CPython 3.12 inspect's does not see what markcoroutinefunction does.
        self._is_async = iscoroutinefunction(get_response)  # pyright: ignore[reportDeprecated]
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> _Response:
        """Answer, or have the next layer answer."""
        # In an async stack the awaitable of the next layer is handed on as it is: a coroutine
        # of our own around it would be one more to run, for nothing.
        if request.META.get(self._host_key) in self._known and self._has_right_scheme(request):
            return self._get_response(request)
        answer = self._answer(request)
        if answer is None:
            return self._get_response(request)
        return _awaitable(answer) if self._is_async else answer

    def _has_right_scheme(self, request: HttpRequest) -> bool:
        if self._scheme is None:
            return True
        forwarded = _octets(request, "HTTP_X_FORWARDED_PROTO")
        return self._guard.rules.scheme_of(request.scheme or "", forwarded) == self._scheme

    def _answer(self, request: HttpRequest) -> HttpResponse | None:
        """What to answer instead of the app, if anything."""
        refusal = self._guard.refusal(_asked(request), request)
        if refusal is None:
            return None
        cache_control = self._guard.rules.settings.cache_control
        response = host_response(refusal, _preferred_type(request), cache_control)
        response = response.to(request.method or "")
        return HttpResponse(response.body, status=response.status, headers=dict(response.headers))


class RouteMiddleware:
    """Has hostline's events know Django's routes, wherever it is in ``MIDDLEWARE``.

    The guard of the timeout is around all of Django, which leaves no word of the route where
    that could find it.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: _GetResponse) -> None:
        self._get_response = get_response
        if iscoroutinefunction(get_response):  # pyright: ignore[reportDeprecated] - as above
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> _Response:
        """Leave a reference to the request, whose route is resolved later."""
        source = getattr(request, "scope", request.META)
        source[DJANGO_REQUEST] = weakref.ref(request)  # the request holds the environ or scope itself
        return self._get_response(request)


async def _awaitable(response: HttpResponseBase) -> HttpResponseBase:
    return response


def _load_guard() -> HostGuard | None:
    fields = {name: each.name for name, each in _attributes(CanonicalHostSettings.settings(), "CANONICAL")}
    timeouts = dict(_attributes(RequestTimeoutSettings.settings(), "TIMEOUT"))
    given = {name: getattr(django_settings, name) for name in dir(django_settings) if name.startswith(PREFIX)}
    texts = {name: value if isinstance(value, str) else repr(value) for name, value in given.items()}
    problems = list(unknown_variables(texts, {*fields, *timeouts}))
    guard = None
    try:
        guard = HostGuard.load({fields[name]: value for name, value in given.items() if name in fields})
    except SettingsError as error:
        problems += error.problems
    if problems:
        raise SettingsError(problems)
    return guard


def _attributes(settings: tuple[Setting, ...], prefix: str) -> Iterator[tuple[str, Setting]]:
    """Each setting under its name in Django's: that of its variable, or what would be its name."""
    for each in settings:
        yield each.variable or f"HOSTLINE_{prefix}_{each.name.upper()}", each


def _asked(request: HttpRequest) -> Asked:
    target = _target(request)
    return Asked(
        method=request.method or "",
        scheme=request.scheme or "",
        host=_octets(request, "HTTP_HOST"),
        forwarded_host=_octets(request, "HTTP_X_FORWARDED_HOST"),
        forwarded_proto=_octets(request, "HTTP_X_FORWARDED_PROTO"),
        path=target.path,
        query=target.query,
        request_id=_octets(request, "HTTP_X_REQUEST_ID"),
    )


def _target(request: HttpRequest) -> Target:
    scope = getattr(request, "scope", None)
    if scope is not None:
        return asgi_target(
            root_path=scope.get("root_path") or "",
            path=scope["path"],
            raw_path=scope.get("raw_path"),
            query=scope.get("query_string") or b"",
        )
    # Django has written its own reading of these two, in text, over the server's.
    return wsgi_target(
        root=request.META["SCRIPT_NAME"].encode("utf-8", "replace"),
        path=request.META["PATH_INFO"].encode("utf-8", "replace"),
        query=_octets(request, "QUERY_STRING") or b"",
        request_uri=_octets(request, "REQUEST_URI") or _octets(request, "RAW_URI") or b"",
    )


def _octets(request: HttpRequest, key: str) -> bytes | None:
    """PEP 3333: every character is an octet. Where a server breaks this, there is none to be had."""
    text: str | None = request.META.get(key)
    return None if text is None else text.encode("latin-1", "replace")


def _preferred_type(request: HttpRequest) -> str:
    try:
        return request.get_preferred_type(PAGES) or TEXT
    except ValueError:  # of a parameter in a character set that does not exist
        return TEXT
