"""The guards as ASGI middlewares.

An adapter reads the scope, asks ``_hosts`` and sends a ``_responses.Response``; it decides
nothing. Needs Starlette for its types alone.
"""

from collections.abc import Mapping
from types import EllipsisType
from typing import Any, Self, Unpack, cast

from hostline._asgi_exchange import header, media_type, send_response, target
from hostline._asgi_startup import unstartable
from hostline._asgi_timeout import RequestTimeoutMiddleware
from hostline._authority import Authority
from hostline._host_guard import HostGuard
from hostline._hosts import Asked
from hostline._protocols import check_asgi_app
from hostline._responses import PAGES, PROBLEM, Response, host_response
from hostline.settings import CanonicalHostKeywords, check_environment

try:
    from starlette.types import ASGIApp, Receive, Scope, Send
except ImportError as error:
    raise ImportError('hostline.asgi needs Starlette: pip install "hostline[asgi]"') from error

__all__ = ["RESPONSES", "CanonicalHostMiddleware", "RequestTimeoutMiddleware", "from_env"]

_PROBLEM = {
    "type": "object",
    "properties": {
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
    },
}

#: What the request timeout answers, for OpenAPI: ``FastAPI(responses=RESPONSES)``. Clients
#: that ask for JSON get the problem of RFC 9457. True of the default ``status`` and ``body``.
RESPONSES: dict[int | str, dict[str, Any]] = {
    503: {
        "description": "The request had waited too long before the app got it.",
        "headers": {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}},
        "content": {PROBLEM: {"schema": _PROBLEM}},
    },
    504: {
        "description": "The app took too long to answer.",
        "content": {PROBLEM: {"schema": _PROBLEM}},
    },
}

_SPELLINGS: Mapping[str | None, frozenset[str]] = {
    None: frozenset(),
    "http": frozenset({"http", "ws"}),
    "https": frozenset({"https", "wss"}),
}


class CanonicalHostMiddleware:
    """Redirects each request and WebSocket handshake for another host to the canonical one.

    What is not given is taken from the environment (``HOSTLINE_CANONICAL_HOST``...), then
    from the defaults. Without a host the result is ``app`` itself, so that a middleware
    that does nothing costs nothing.
    """

    __slots__ = ("_app", "_forwarded_proto", "_guard", "_host_name", "_known", "_schemes")

    _app: ASGIApp
    _guard: HostGuard
    _host_name: bytes  # the header in which the host is, if it is where the settings say
    _known: set[bytes]  # of the guard, which says who may touch it
    _schemes: frozenset[str]  # the server's words for the right one; empty: each is right
    _forwarded_proto: bytes | None  # the trusted header's word for it, if one is trusted

    def __new__(
        cls,
        app: ASGIApp,
        host: str | Authority | None | EllipsisType = ...,
        **options: Unpack[CanonicalHostKeywords],
    ) -> Self:
        """The guarded app; without a host, the app."""
        # No __init__: Python would call it on whatever is returned here, that is also on
        # another instance, the app of one that has no host.
        try:
            check_asgi_app(app, "CanonicalHostMiddleware")
            guard = HostGuard.load({"host": host, **options})
        except Exception as error:  # noqa: BLE001 - whatever it is, it is to be heard of
            return cast("Self", unstartable(error))
        if guard is None:
            return cast("Self", app)
        self = super().__new__(cls)
        settings = guard.rules.settings
        self._app = app
        self._guard = guard
        self._known = guard.known_octets
        self._host_name = b"x-forwarded-host" if settings.trust_forwarded_host else b"host"
        self._schemes = _SPELLINGS[settings.scheme]
        trusts = settings.trust_forwarded_proto and settings.scheme is not None
        self._forwarded_proto = str(settings.scheme).encode() if trusts else None
        return self

    # A plain function that returns the app's own coroutine would be cheaper by a seventh, but
    # uvicorn, hypercorn and daphne take an app whose __call__ is no coroutine function for one
    # of another protocol, and before CPython 3.12 nothing can tell all of them otherwise.
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or have the app answer."""
        # The hot path: one walk over the headers, to its end, since a second Host header
        # makes the request malformed (RFC 9112, section 3.2), and some servers let it in.
        wanted = self._host_name
        host = None
        for name, value in scope.get("headers", ()):
            if name == wanted:
                host = value if host is None else b""
        if host not in self._known or (self._schemes and not self._is_known_scheme(scope)):
            response = self._response(scope)
            if response is not None:
                await _answer(response, scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _is_known_scheme(self, scope: Scope) -> bool:
        """Whether the scheme is right beyond doubt; still the hot path."""
        if self._forwarded_proto is not None:
            proto = None
            for name, value in scope["headers"]:
                if name == b"x-forwarded-proto":
                    proto = value if proto is None else b""
            if proto is not None:
                return bool(proto == self._forwarded_proto)
        return scope.get("scheme") in self._schemes

    def _response(self, scope: Scope) -> Response | None:
        """What to answer instead of the app, if anything."""
        if scope["type"] not in ("http", "websocket"):
            return None
        refusal = self._guard.refusal(_asked(scope, self._guard.rules.settings.scheme), scope)
        if refusal is None:
            return None
        cache_control = self._guard.rules.settings.cache_control
        return host_response(refusal, media_type(scope, PAGES), cache_control)


def _asked(scope: Scope, canonical_scheme: str | None) -> Asked:
    path, query = target(scope)
    return Asked(
        method=scope.get("method", "GET"),  # a WebSocket handshake is a GET without saying so
        scheme=_asked_scheme(scope, canonical_scheme),
        host=header(scope, b"host"),
        forwarded_host=header(scope, b"x-forwarded-host"),
        forwarded_proto=header(scope, b"x-forwarded-proto"),
        path=path,
        query=query,
        request_id=header(scope, b"x-request-id"),
    )


def _asked_scheme(scope: Scope, canonical_scheme: str | None) -> str:
    scheme: str | None = scope.get("scheme")
    if scheme is None and scope["type"] == "websocket":
        # daphne does not say. Taken for ws, as the specification has it, no handshake would
        # ever get through where the scheme is to be https; so it is taken for the right one.
        return "wss" if canonical_scheme == "https" else "ws"
    return scheme or "http"


async def _answer(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await send_response(response.to(scope["method"]), "http.response", send)
        return
    message = await receive()
    if message["type"] != "websocket.connect":
        return  # gone before it was there
    if "websocket.http.response" in (scope.get("extensions") or ()):
        await send_response(response, "websocket.http.response", send)
    else:
        # Before it is accepted, closing it answers 403. daphne takes no code below 3000 but this.
        await send({"type": "websocket.close", "code": 1000, "reason": ""})


def from_env(app: ASGIApp) -> ASGIApp:
    """``app`` behind both guards, configured by environment variables alone.

    The host comes first: a request for another host is redirected however late it is.
    Raises one :class:`hostline.SettingsError` for all that is wrong with the variables.
    """
    check_environment()
    return CanonicalHostMiddleware(RequestTimeoutMiddleware(app))
