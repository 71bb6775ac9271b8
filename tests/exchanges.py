"""One request through one adapter, as a whole exchange, so that adapters can be compared.

Between ``wsgiref.validate`` on both sides of a WSGI middleware, and between checks of the
order of messages on both sides of an ASGI one. Django's two are behind its own handlers.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any
from urllib.parse import unquote_to_bytes
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

from django.conf import settings as django_settings
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import re_path

import hostline.asgi
import hostline.wsgi

# wsgiref warns of any other.
_METHODS_OF_WSGIREF = {"GET", "HEAD", "POST", "OPTIONS", "PATCH", "PUT", "DELETE", "TRACE"}
_APP_HEADERS = {"content-type": "text/plain", "content-length": "3", "x-reached": "app"}
_APP_BODY = b"app"


@dataclass(frozen=True)
class Request:
    """All text is one character an octet; ``root``, ``path`` and ``query`` as on the request line."""

    host: str | None = "www.example.com"
    path: str = "/"
    query: str = ""
    root: str = ""
    method: str = "GET"
    scheme: str = "http"
    headers: Mapping[str, str] = field(default_factory=dict)

    def decoded(self, text: str) -> bytes:
        return unquote_to_bytes(text.encode("latin-1"))

    def environ(self) -> dict[str, Any]:
        environ: dict[str, Any] = {
            "REQUEST_METHOD": self.method,
            "SCRIPT_NAME": self.decoded(self.root).decode("latin-1"),
            "PATH_INFO": self.decoded(self.path).decode("latin-1"),
            "QUERY_STRING": self.query,
            "REQUEST_URI": self.root + self.path + (f"?{self.query}" if self.query else ""),
            "wsgi.url_scheme": self.scheme,
            "SERVER_NAME": "server.internal",
            "SERVER_PORT": "8000",
            "wsgi.input": BytesIO(),
        }
        setup_testing_defaults(environ)
        for name, value in {**self.headers, "host": self.host}.items():
            environ["HTTP_" + name.upper().replace("-", "_")] = value
        if self.host is None:
            del environ["HTTP_HOST"]
        return environ

    def scope(self) -> dict[str, Any]:
        host = {} if self.host is None else {"host": self.host}
        headers = {**host, **self.headers}.items()
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": self.method,
            "scheme": self.scheme,
            "root_path": self.decoded(self.root).decode("utf-8", "replace"),
            "path": self.decoded(self.root + self.path).decode("utf-8", "replace"),
            "raw_path": (self.root + self.path).encode("latin-1"),
            "query_string": self.query.encode("latin-1"),
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
            "client": ("127.0.0.1", 4711),
            "server": ("127.0.0.1", 8000),
        }


@dataclass(frozen=True)
class Exchange:
    """What the client gets, and whether the app was asked."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def reached(self) -> bool:
        return self.headers.get("x-reached") == "app"


PASSED = Exchange(200, _APP_HEADERS, _APP_BODY)
PASSED_HEAD = Exchange(200, _APP_HEADERS, b"")


def passed(request: Request) -> Exchange:
    """What the app answers."""
    return PASSED_HEAD if request.method == "HEAD" else PASSED


# WSGI


def wsgi_app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", list(_APP_HEADERS.items()))
    return [b"" if environ["REQUEST_METHOD"] == "HEAD" else _APP_BODY]


def exchange_wsgi(app: Any, environ: dict[str, Any]) -> Exchange:
    """One call of any WSGI app."""
    begun: list[Any] = []
    written: list[bytes] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        begun[:] = [int(status.partition(" ")[0]), headers]
        return written.append

    if environ["REQUEST_METHOD"] in _METHODS_OF_WSGIREF:
        app = validator(app)
    body = app(environ, start_response)
    try:
        written += body
    finally:
        if hasattr(body, "close"):
            body.close()
    status, headers = begun
    return _exchange(status, headers, b"".join(written))


def _exchange(status: int, headers: Iterable[tuple[str, str]], body: bytes) -> Exchange:
    named = [(name.lower(), value) for name, value in headers]
    assert len({name for name, _ in named}) == len(named), "a header twice"
    return Exchange(status, dict(named), body)


def send_wsgi(request: Request, **options: Any) -> Exchange:
    environ = request.environ()
    app = validator(wsgi_app) if request.method in _METHODS_OF_WSGIREF else wsgi_app
    return exchange_wsgi(hostline.wsgi.CanonicalHostMiddleware(app, **options), environ)


# ASGI


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    headers = [(name.encode(), value.encode()) for name, value in _APP_HEADERS.items()]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    body = b"" if scope["method"] == "HEAD" else _APP_BODY
    await send({"type": "http.response.body", "body": body[:1], "more_body": True})
    await send({"type": "http.response.body", "body": body[1:]})


class Messages:
    """The server's side of one HTTP exchange; takes nothing out of order."""

    def __init__(self, kind: str = "http.response") -> None:
        self.kind = kind
        self.start: dict[str, Any] | None = None
        self.body = b""
        self.is_complete = False

    async def send(self, message: dict[str, Any]) -> None:
        if self.start is None:
            assert message["type"] == f"{self.kind}.start"
            assert all(type(part) is bytes for pair in message["headers"] for part in pair)
            self.start = message
            return
        assert message["type"] == f"{self.kind}.body"
        assert not self.is_complete
        assert type(message["body"]) is bytes
        self.body += message["body"]
        self.is_complete = not message.get("more_body", False)

    @property
    def exchange(self) -> Exchange:
        assert self.start is not None
        assert self.is_complete
        headers = [(name.decode(), value.decode("latin-1")) for name, value in self.start["headers"]]
        return _exchange(self.start["status"], headers, self.body)


def run_to_end(awaitable: Awaitable[None]) -> None:
    """Run what never has to wait, without any event loop: it is right on each of them."""
    iterator = awaitable.__await__()
    try:
        next(iterator)
    except StopIteration:
        return
    raise AssertionError("waits for something that no test sends")


async def no_receive() -> Any:
    raise AssertionError("nobody has to read a request that is not the app's")


def send_asgi(request: Request, **options: Any) -> Exchange:
    messages = Messages()
    app = hostline.asgi.CanonicalHostMiddleware(asgi_app, **options)
    run_to_end(app(request.scope(), no_receive, messages.send))
    assert messages.start is not None
    assert all(name == name.lower() for name, _ in messages.start["headers"])  # Django's are not
    return messages.exchange


# Django


def _view(request: HttpRequest) -> HttpResponse:
    return HttpResponse(b"" if request.method == "HEAD" else _APP_BODY, headers=_APP_HEADERS)


async def _async_view(request: HttpRequest) -> HttpResponse:
    return _view(request)


class SyncUrls:
    urlpatterns = (re_path("", _view),)


class AsyncUrls:
    urlpatterns = (re_path("", _async_view),)


if not django_settings.configured:
    django_settings.configure(ALLOWED_HOSTS=[], SECRET_KEY="only for tests", LOGGING_CONFIG=None)

CANONICAL_HOST_ENTRY = "hostline.django.CanonicalHostMiddleware"


def django(is_async: bool, options: Mapping[str, Any]) -> Any:
    """Django's settings for one stack with the middleware alone."""
    return override_settings(
        ROOT_URLCONF=AsyncUrls if is_async else SyncUrls,
        MIDDLEWARE=[CANONICAL_HOST_ENTRY],
        **{f"HOSTLINE_CANONICAL_{name.upper()}": value for name, value in options.items()},
    )


def send_django_wsgi(request: Request, **options: Any) -> Exchange:
    with django(False, options):
        return exchange_wsgi(WSGIHandler(), request.environ())


def send_django_asgi(request: Request, **options: Any) -> Exchange:
    return asyncio.run(_send_django_asgi(request, options))


async def _send_django_asgi(request: Request, options: Mapping[str, Any]) -> Exchange:
    messages = Messages()
    incoming = [{"type": "http.request", "body": b""}]

    async def receive() -> Any:
        if incoming:
            return incoming.pop()
        return await asyncio.Event().wait()  # Django listens for a disconnect that never comes

    with django(True, options):
        await ASGIHandler()(request.scope(), receive, messages.send)
    return messages.exchange


SENDERS: Mapping[str, Callable[..., Exchange]] = {
    "wsgi": send_wsgi,
    "asgi": send_asgi,
    "django-wsgi": send_django_wsgi,
    "django-asgi": send_django_asgi,
}
