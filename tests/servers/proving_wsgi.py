"""The WSGI app of the trials, behind both guards; ``proving`` has what is behind none."""

import json
import queue
import time
from collections.abc import Callable, Iterable, Iterator
from urllib.parse import parse_qsl
from wsgiref.types import StartResponse, WSGIEnvironment

import proving

from hostline.wsgi import CanonicalHostMiddleware, RequestTimeoutMiddleware

Query = dict[str, str]


def ok(environ: WSGIEnvironment, query: Query) -> str:
    return "ok"


def wait(environ: WSGIEnvironment, query: Query) -> str:
    time.sleep(float(query["seconds"]))
    return "ok"


def slow(environ: WSGIEnvironment, query: Query) -> str:
    """Wait for what never comes."""
    queue.Queue[str]().get(timeout=60)
    return "too late"


def busy(environ: WSGIEnvironment, query: Query) -> str:
    """Compute without an end."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        sum(range(20))
    return "too late"


def upload(environ: WSGIEnvironment, query: Query) -> str:
    """Take all of the body, then tell how much it was."""
    taken = 0
    while chunk := environ["wsgi.input"].read(4096):
        taken += len(chunk)
    return str(taken)


def boom(environ: WSGIEnvironment, query: Query) -> str:
    raise ValueError("the app's own")


def gulp(environ: WSGIEnvironment, query: Query) -> str:
    return str(proving.gulp())


def stream(query: Query) -> Iterator[bytes]:
    """Chunks, a little apart."""
    for _ in range(int(query.get("chunks", "5"))):
        yield b"chunk;"
        time.sleep(0.001)


def stall(query: Query) -> Iterator[bytes]:
    """A chunk, and then none for ever so long."""
    yield b"chunk;"
    queue.Queue[str]().get(timeout=60)


WHOLE: dict[str, Callable[[WSGIEnvironment, Query], str]] = {
    f"/{each.__name__}": each for each in (ok, wait, slow, busy, upload, boom, gulp)
}
STREAMED = {"/stream": stream, "/stall": stall}


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    query = dict(parse_qsl(environ.get("QUERY_STRING", "")))
    if path in STREAMED:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return STREAMED[path](query)
    body = WHOLE[path](environ, query).encode() if path in WHOLE else b"nothing here"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


guarded = CanonicalHostMiddleware(RequestTimeoutMiddleware(app, observers=proving.observers), proving.HOST)


def outermost(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """What the servers serve."""
    unguarded = proving.UNGUARDED.get(environ["PATH_INFO"])
    if unguarded is None:
        return guarded(environ, start_response)
    body = json.dumps(unguarded(dict(parse_qsl(environ.get("QUERY_STRING", ""))))).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
