"""Reading an environ and writing a response, for both guards.

What the client prefers to read is asked of Werkzeug, which ``hostline.wsgi`` needs. Django's
entry comes here without: what answers there instead, the tests hold to Werkzeug's answers.
"""

from collections.abc import Iterable, Sequence
from wsgiref.types import StartResponse, WSGIEnvironment

from hostline._responses import TEXT, Response, preferred_type
from hostline._targets import Target, wsgi_target

try:
    from werkzeug.datastructures import MIMEAccept
    from werkzeug.http import parse_accept_header
except ImportError:
    parse_accept_header = None


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
    accept = environ.get("HTTP_ACCEPT", "")
    if parse_accept_header is None:
        return preferred_type(accept, offers) or TEXT
    return parse_accept_header(accept, MIMEAccept).best_match(offers, TEXT)


def send(response: Response, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Write the response."""
    response = response.to(environ["REQUEST_METHOD"])
    start_response(f"{response.status} {response.reason}", list(response.headers))
    return [response.body]
