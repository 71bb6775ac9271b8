"""The canonical host as an entry of ``MIDDLEWARE``: the first of them.

No other is to redirect within a wrong host. A request's host is read from ``META``, since
``get_host()`` raises where a host is not allowed, and one that is to be redirected often
is not.
"""

from django.core.exceptions import MiddlewareNotUsed
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from hostline import _flat_names
from hostline._host_guard import HostGuard
from hostline._hosts import Asked
from hostline._responses import PAGES, TEXT, host_response
from hostline._targets import Target, asgi_target, wsgi_target
from hostline.django import flat_settings
from hostline.django.layers import GetResponse, Response, is_made_async


class CanonicalHostMiddleware:
    """Redirects each request for another host to the canonical one; not used without one."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: GetResponse) -> None:
        given = flat_settings.given()
        _flat_names.check(given)
        guard = HostGuard.load(_flat_names.arguments(given, _flat_names.HOST_FIELDS))
        if guard is None:
            raise MiddlewareNotUsed("No canonical host is set.")
        settings = guard.rules.settings
        self._get_response = get_response
        self._guard = guard
        self._known = guard.known
        self._host_key = "HTTP_X_FORWARDED_HOST" if settings.trust_forwarded_host else "HTTP_HOST"
        self._scheme = settings.scheme
        self._is_async = is_made_async(self, get_response)

    def __call__(self, request: HttpRequest) -> Response:
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


async def _awaitable(response: HttpResponseBase) -> HttpResponseBase:
    return response


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
