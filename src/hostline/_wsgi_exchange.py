"""Reading an environ and writing a response, for both guards. Needs Werkzeug.

Every WSGI framework but Django and Pyramid brings it; see ``hostline.django`` for Django.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, cast
from wsgiref.types import StartResponse, WSGIEnvironment

from hostline._responses import TEXT, Response
from hostline._targets import Target, wsgi_target

try:
    from werkzeug.datastructures import MIMEAccept
    from werkzeug.http import parse_accept_header
except ImportError as error:
    raise ImportError('hostline.wsgi needs Werkzeug: pip install "hostline[wsgi]"') from error

if TYPE_CHECKING:
    from _typeshed import OptExcInfo


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
    return parse_accept_header(environ.get("HTTP_ACCEPT"), MIMEAccept).best_match(offers, TEXT)


def send(
    response: Response,
    environ: WSGIEnvironment,
    start_response: StartResponse,
    error: BaseException | None = None,
) -> Iterable[bytes]:
    """Write the response; with an error, in place of a head that was not sent yet.

    Raises ``error`` where the head has been sent (PEP 3333, ``exc_info``).
    """
    response = response.to(environ["REQUEST_METHOD"])
    status, headers = f"{response.status} {response.reason}", list(response.headers)
    if error is None:
        start_response(status, headers)
    else:
        _start_anew(status, headers, start_response, error)
    return [response.body]


def _start_anew(
    status: str, headers: list[tuple[str, str]], start_response: StartResponse, error: BaseException
) -> None:
    try:
        start_response(status, headers, cast("OptExcInfo", (type(error), error, error.__traceback__)))
    except type(error):
        # The head is out; or this is Werkzeug's test client, which raises what it is given
        # in any case. It takes the first head, which servers refuse after another.
        try:
            start_response(status, headers)
        except Exception:  # noqa: BLE001 - whatever the server says to that
            raise error from error.__cause__
