"""What each middleware adds to a WSGI request, in this process and its main thread."""

# ruff: noqa: ARG001 - an app has the signature of its protocol

import signal
import threading
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import partial
from threading import get_ident
from time import monotonic
from typing import Any

from benchmarks.results import Report, Table
from benchmarks.rounds import Cost, measure
from benchmarks.scale import Scale
from benchmarks.traffic import BODY, HEROKU, HOST, PLAIN, environ, start_response, wsgi_app
from hostline.wsgi import CanonicalHostMiddleware, RequestTimeoutMiddleware

BARE, NOTHING, ITIMER = "bare app", "do-nothing middleware", "reference: signal.setitimer, set and clear"
TIMER = "reference: a threading.Timer per request"
LEAST = "reference: the least that any guard has to do"
HOST_MATCHING, HOST_REDIRECTING = "canonical host, matching", "canonical host, redirecting (no app)"
TIMEOUT, BOTH = "request timeout, defaults", "both"


class DoNothing:
    """The least that a middleware can be."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def __call__(self, environ: Any, start_response: Any) -> Any:
        return self.app(environ, start_response)


class Request:
    """What is known of a request by :class:`Least`."""

    deadline: float
    thread_id: int


_entries: dict[Request, bool] = {}
_current: ContextVar[Request | None] = ContextVar("benchmarks.request", default=None)


class Least:
    """What no guard of this kind can be spared, and nothing else: it would neither abort nor answer.

    An object that the app can find, a clock, a claim entered and withdrawn.
    """

    def __init__(self, app: Any) -> None:
        self.app = app

    def __call__(self, environ: Any, start_response: Any) -> Any:
        request = environ["benchmarks.request"] = Request()
        request.deadline = monotonic() + 15
        request.thread_id = get_ident()
        token = _current.set(request)
        try:
            _entries[request] = True
            return self.app(environ, start_response)
        finally:
            _entries.pop(request, False)
            _current.reset(token)


def under_itimer(environ: Any, start_response: Any) -> list[bytes]:
    """The app, limited by hand: no middleware, so that the reference is not made dearer."""
    signal.setitimer(signal.ITIMER_REAL, 15)
    try:
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))])
        return [BODY]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def under_timer(environ: Any, start_response: Any) -> list[bytes]:
    """The app, with a thread that waits beside it."""
    timer = threading.Timer(15, _give_up)
    timer.start()
    try:
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))])
        return [BODY]
    finally:
        timer.cancel()
        timer.join()  # or the threads of all rounds would be there at once


def _give_up() -> None:
    raise AssertionError("no request takes that long here")


def apps() -> dict[str, Any]:
    """What is compared."""
    return {
        BARE: wsgi_app,
        NOTHING: DoNothing(wsgi_app),
        HOST_MATCHING: CanonicalHostMiddleware(wsgi_app, HOST),
        HOST_REDIRECTING: CanonicalHostMiddleware(wsgi_app, "elsewhere.example.com"),
        TIMEOUT: RequestTimeoutMiddleware(wsgi_app),
        BOTH: CanonicalHostMiddleware(RequestTimeoutMiddleware(wsgi_app), HOST),
        LEAST: Least(wsgi_app),
        ITIMER: under_itimer,
        TIMER: under_timer,
    }


def serve(app: Callable[..., Any], headers: Mapping[str, str], count: int) -> None:
    """Call the app as a server does, with an environ of its own for each request."""
    made = environ(headers)
    for _ in range(count):
        app(made.copy(), start_response)


def run(scale: Scale, report: Report, show: Callable[[str, float], object]) -> None:
    """Both kinds of requests."""
    for kind, headers in (("curl's 3 headers", PLAIN), ("Heroku's 9 headers", HEROKU)):
        costs = measure(
            {name: partial(serve, app, headers) for name, app in apps().items()},
            baseline=BARE,
            rounds=scale.rounds,
            requests=scale.requests,
            show=partial(show, kind),
        )
        report.add(_table(kind, costs))
        _expect(report, kind, costs)


def _table(kind: str, costs: Mapping[str, Cost]) -> Table:
    nothing, itimer = costs[NOTHING].added, costs[ITIMER].added
    columns = [("WSGI, " + kind, ""), ("in all", "ns"), ("added", "ns"), ("quartiles apart", "ns")]
    columns += [("of do-nothing", "x"), ("of setitimer", "x")]
    return Table(
        f"What a middleware adds to a WSGI request, {kind}",
        columns,
        [
            [name, c.whole, c.added, c.spread, c.added / nothing, c.added / itimer]
            for name, c in costs.items()
        ],
    )


def _expect(report: Report, kind: str, costs: Mapping[str, Cost]) -> None:
    nothing, itimer = costs[NOTHING].added, costs[ITIMER].added
    timeout, host = costs[TIMEOUT].added, costs[HOST_MATCHING].added
    report.expect(f"WSGI timeout / do-nothing, {kind}", timeout / nothing, "x", (7, 4))
    report.expect(f"WSGI timeout / setitimer, {kind}", timeout / itimer, "x", (0.6, 0.6))
    report.expect(f"WSGI host / do-nothing, {kind}", host / nothing, "x", (2, 1.3))
