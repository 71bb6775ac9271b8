"""Reading an environ and writing a response, for both guards.

Needs no framework: Django's entry comes here, too.
"""

from collections.abc import Callable, Iterable, Sequence
from wsgiref.types import StartResponse, WSGIEnvironment

from hostline._responses import TEXT, Response, preferred_type
from hostline._targets import Target, wsgi_target

#: Tells which of some media types a client prefers, by its ``Accept``. ``hostline.wsgi`` has
#: Werkzeug do it, to whose answers the tests hold this one.
negotiate: Callable[[str, Sequence[str]], str | None] = preferred_type


def octets(environ: WSGIEnvironment, key: str) -> bytes | None:
    """PEP 3333: every character is an octet. Where a server breaks this, there is none to be had."""
    text: str | None = environ.get(key)
    return None if text is None else text.encode("latin-1", "replace")


def target(environ: WSGIEnvironment) -> Target:
    """What the client asked for."""
    return wsgi_target(
        root=octets(environ, "SCRIPT_NAME") or b"",
        path=octets(environ, "PATH_INFO") or b"",
        query=octets(environ, "QUERY_STRING") or b"",  # bjoern leaves an empty one out
        request_uri=octets(environ, "REQUEST_URI") or octets(environ, "RAW_URI") or b"",
    )


def media_type(environ: WSGIEnvironment, offers: Sequence[str]) -> str:
    """Which of the offers the client likes best; plain text where it likes none of them."""
    return negotiate(environ.get("HTTP_ACCEPT", ""), offers) or TEXT


def send(response: Response, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Write the response."""
    response = response.to(environ["REQUEST_METHOD"])
    start_response(f"{response.status} {response.reason}", list(response.headers))
    return [response.body]
