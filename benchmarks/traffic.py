"""The request that every benchmark sends, and the app that answers it.

Two kinds: ``PLAIN`` is what curl sends; ``HEROKU`` is that host and what Heroku's router
adds, nine headers in all, of which ``X-Request-Start`` is the one that gives the request
timeout more to do.
"""

# ruff: noqa: ARG001 - an app has the signature of its protocol

import io
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

HOST = "www.example.com"
BODY = b"Hello, world!\n"
_LENGTH = str(len(BODY))

PLAIN: Mapping[str, str] = {"Host": HOST, "User-Agent": "curl/8.14.1", "Accept": "*/*"}
HEROKU: Mapping[str, str] = {
    "Host": HOST,
    "X-Request-Id": "9e0b71ad-6f8c-4d3c-a3b1-5a1ff0d6f4c2",
    "X-Forwarded-For": "203.0.113.7",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Port": "443",
    "Via": "1.1 heroku-router",
    "Connect-Time": "0",
    "X-Request-Start": "",  # stamped when sent
    "Total-Route-Time": "0",
}


def stamped(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers with the time at which the router got the request: now."""
    now = str(int(time.time() * 1000))
    return {name: now if name == "X-Request-Start" else value for name, value in headers.items()}


def environ(headers: Mapping[str, str]) -> dict[str, Any]:
    """What gunicorn makes of it."""
    return {
        "wsgi.errors": io.StringIO(),
        "wsgi.version": (1, 0),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
        "wsgi.input": io.BytesIO(),
        "wsgi.url_scheme": "http",
        "SERVER_SOFTWARE": "gunicorn",
        "REQUEST_METHOD": "GET",
        "QUERY_STRING": "",
        "RAW_URI": "/",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "54321",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "PATH_INFO": "/",
        "SCRIPT_NAME": "",
        **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in stamped(headers).items()},
    }


def scope(headers: Mapping[str, str]) -> dict[str, Any]:
    """What uvicorn makes of it."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 54321),
        "scheme": "http",
        "root_path": "",
        "headers": [
            (name.lower().encode(), value.encode("latin-1")) for name, value in stamped(headers).items()
        ],
        "state": {},
        "method": "GET",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
    }


_WSGI_HEADERS = [("Content-Type", "text/plain"), ("Content-Length", _LENGTH)]


def wsgi_app(environ: Any, start_response: Any) -> Sequence[bytes]:
    start_response("200 OK", _WSGI_HEADERS)
    return [BODY]


def start_response(status: str, headers: Iterable[tuple[str, str]], exc_info: object = None) -> None:
    """A server's, that sends nothing."""


_ASGI_HEADERS = [(b"content-type", b"text/plain"), (b"content-length", _LENGTH.encode())]


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": _ASGI_HEADERS})
    await send({"type": "http.response.body", "body": BODY})


async def receive() -> dict[str, Any]:
    """A server's, that has received a request without a body."""
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message: Any) -> None:
    """A server's, that sends nothing."""
