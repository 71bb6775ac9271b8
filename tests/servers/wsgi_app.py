"""The app that the servers serve: things that take long, behind the guard and not, and a journal of them.

What the environment may say: ``HOSTLINE_*``, ``TAKE_SIGNAL`` (a signal that the app uses for itself) and
``WARM_UP`` (serve one request at import, so that whatever the guard starts is there before a fork).

=================  =======================================================================
``/...``           behind the guard, as the environment configures it
``/bare/...``      without any guard
``/unhurried/...`` behind a guard of the same process that has a limit nobody meets
``/mounted/...``   behind both guards, under a mount prefix
``/ready``         behind nothing: which process and thread answers
``/journal/ID``    behind nothing: what became of the request with that ``X-Request-ID``
=================  =======================================================================
"""

import json
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment
from wsgiref.util import setup_testing_defaults, shift_path_info

from blocking import CALLS

from hostline.wsgi import CanonicalHostMiddleware, RequestTimeoutMiddleware

logging.basicConfig(level=logging.WARNING, format="%(levelname)s:%(name)s:%(process)d:%(message)s")

Journal = dict[str, Any]
Answer = Iterable[bytes]
Endpoint = Callable[[WSGIEnvironment, StartResponse, dict[str, str], Journal], Answer]

journals: defaultdict[str, Journal] = defaultdict(lambda: {"calls": 0, "closes": 0})
knocks: list[int] = []  # signals that reached the app's own handler


def here() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "thread": threading.get_native_id(),
        "in_main_thread": threading.get_native_id() == os.getpid(),
        "knocks": len(knocks),
    }


def linger(seconds: float) -> None:
    """Be slow in small steps, which can be broken anywhere."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.001)


def send(start_response: StartResponse, answer: object = "ok") -> Answer:
    body = json.dumps(answer).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


def ok(
    environ: WSGIEnvironment, start_response: StartResponse, query: dict[str, str], journal: Journal
) -> Answer:
    return send(start_response, here())


def block(
    environ: WSGIEnvironment, start_response: StartResponse, query: dict[str, str], journal: Journal
) -> Answer:
    CALLS[query["call"]](float(query["seconds"]))
    return send(start_response)


def boom(
    environ: WSGIEnvironment, start_response: StartResponse, query: dict[str, str], journal: Journal
) -> Answer:
    raise ValueError("the app's own")


class Chunks:
    """A body that counts how often it is closed; before each chunk it lingers."""

    def __init__(self, delays: list[float], journal: Journal) -> None:
        self._delays = delays
        self._journal = journal

    def __iter__(self) -> Iterator[bytes]:
        for delay in self._delays:
            linger(delay)
            yield b"chunk;"

    def close(self) -> None:
        self._journal["closes"] += 1


def _delays(query: dict[str, str]) -> list[float]:
    return [float(delay) for delay in query["delays"].split(",")]


def _head(query: dict[str, str]) -> list[tuple[str, str]]:
    head = [("Content-Type", "text/plain")]
    if "length" in query:
        head.append(("Content-Length", query["length"]))
    return head


def chunks(
    environ: WSGIEnvironment, start_response: StartResponse, query: dict[str, str], journal: Journal
) -> Answer:
    start_response("200 OK", _head(query))
    return Chunks(_delays(query), journal)


def write(
    environ: WSGIEnvironment, start_response: StartResponse, query: dict[str, str], journal: Journal
) -> Answer:
    writer = start_response("200 OK", _head(query))
    for delay in _delays(query):
        linger(delay)
        writer(b"chunk;")
    return Chunks([0.0], journal)


def file(
    environ: WSGIEnvironment, start_response: StartResponse, query: dict[str, str], journal: Journal
) -> Answer:
    wrapper = environ.get("wsgi.file_wrapper")
    if wrapper is None:
        return send(start_response, "no wsgi.file_wrapper")
    start_response("200 OK", [("Content-Type", "text/plain")])
    answer: Answer = wrapper(Path(__file__).open("rb"))  # noqa: SIM115 - the server closes it
    return answer


def hold(
    environ: WSGIEnvironment, start_response: StartResponse, query: dict[str, str], journal: Journal
) -> Answer:
    """Be in flight until a file is there."""
    Path(query["here"]).touch()
    while not Path(query["until"]).exists():
        time.sleep(0.005)
    return send(start_response, here())


def fork_and_serve(
    environ: WSGIEnvironment, start_response: StartResponse, query: dict[str, str], journal: Journal
) -> Answer:
    """In a child, serve a request behind the same guard, and write down what was answered."""
    if os.fork() == 0:
        _write_whole(Path(query["into"]), serve("/block?call=busy&seconds=5"))
        os._exit(0)
    return send(start_response, here())


def fork_and_block(
    environ: WSGIEnvironment, start_response: StartResponse, query: dict[str, str], journal: Journal
) -> Answer:
    """Time out, with a child that has work to finish."""
    if os.fork() == 0:
        linger(0.6)
        _write_whole(Path(query["into"]), "finished")
        os._exit(0)
    linger(5.0)
    return send(start_response)


def _work(number: int) -> int:
    linger(0.4)
    return number * number


def work_in_pool(
    environ: WSGIEnvironment, start_response: StartResponse, query: dict[str, str], journal: Journal
) -> Answer:
    # Not multiprocessing.Pool: it ends its processes by SIGTERM, which gunicorn's worker has taught them
    # to ignore.
    with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
        return send(start_response, list(pool.map(_work, range(4))))


def _write_whole(path: Path, text: str) -> None:
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(text)
    unfinished.rename(path)


ENDPOINTS: dict[str, Endpoint] = {
    each.__name__: each
    for each in (ok, block, boom, chunks, write, file, hold, fork_and_serve, fork_and_block, work_in_pool)
}


def endpoints(environ: WSGIEnvironment, start_response: StartResponse) -> Answer:
    """The app that is guarded. Writes down how it was left."""
    journal = journals[environ.get("HTTP_X_REQUEST_ID", "")]
    journal.update(here(), calls=journal["calls"] + 1, left_by="a return")
    details = environ.get("hostline.request")
    journal["path"] = details and details.path
    began = time.monotonic()
    try:
        endpoint = ENDPOINTS[environ["PATH_INFO"].strip("/")]
        query = dict(parse_qsl(environ.get("QUERY_STRING", "")))
        answer = journal["made"] = endpoint(environ, start_response, query, journal)
    except BaseException as error:
        journal.update(left_by=type(error).__name__)
        raise
    finally:
        journal["left_after"] = time.monotonic() - began
    return answer


def ready(environ: WSGIEnvironment, start_response: StartResponse) -> Answer:
    return send(start_response, here())


def journal_of(environ: WSGIEnvironment, start_response: StartResponse) -> Answer:
    journal = journals[environ["PATH_INFO"].strip("/")]
    told = {name: value for name, value in journal.items() if name not in {"made", "handed_over"}}
    is_untouched = "made" in journal and journal["made"] is journal.get("handed_over")
    is_alive = Path(f"/proc/self/task/{journal.get('thread')}").exists()
    answer = {**told, "is_untouched": is_untouched, "is_alive": is_alive, "asked_in": here()}
    return send(start_response, answer)


guarded = RequestTimeoutMiddleware(endpoints)
PREFIXES: dict[str, WSGIApplication] = {
    "bare": endpoints,
    "unhurried": RequestTimeoutMiddleware(endpoints, service_timeout=120),
    "mounted": CanonicalHostMiddleware(guarded, "canonical.test:8080", ip_hosts="redirect"),
    "ready": ready,
    "journal": journal_of,
}


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Answer:
    """What the servers serve."""
    served = PREFIXES.get(environ["PATH_INFO"].split("/")[1])
    if served is None:
        served = guarded
    else:
        shift_path_info(environ)
    answer = served(environ, start_response)
    journals[environ.get("HTTP_X_REQUEST_ID", "")]["handed_over"] = answer
    return answer


def serve(path: str) -> str:
    """The status with which the guarded app answers, without a server."""
    environ: WSGIEnvironment = {}
    environ["PATH_INFO"], _, environ["QUERY_STRING"] = path.partition("?")
    setup_testing_defaults(environ)
    environ["wsgi.input"] = BytesIO()
    statuses: list[str] = []

    def start_response(status: str, headers: object, exc_info: object = None) -> Callable[[bytes], object]:
        statuses.append(status)
        return len

    guarded(environ, start_response)
    return statuses[-1]


if os.environ.get("TAKE_SIGNAL"):
    signal.signal(signal.Signals[os.environ["TAKE_SIGNAL"]], lambda signum, _: knocks.append(signum))
if os.environ.get("WARM_UP"):
    print("warmed up:", serve("/block?call=busy&seconds=5"), file=sys.stderr, flush=True)
