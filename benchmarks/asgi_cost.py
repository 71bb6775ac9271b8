"""What each middleware adds to an ASGI request, in one task of one running loop.

No server, so that nothing but the middleware differs. Each turn ends with one pass of the
loop, inside what is timed: a cancelled timer is paid for where the loop clears it away.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import partial
from time import monotonic, process_time
from typing import Any

import anyio
from starlette.middleware.trustedhost import TrustedHostMiddleware

from benchmarks import loops
from benchmarks.results import Report, Table
from benchmarks.rounds import Cost, Rounds
from benchmarks.scale import Scale
from benchmarks.traffic import HEROKU, HOST, PLAIN, asgi_app, receive, scope, send
from hostline.asgi import CanonicalHostMiddleware, RequestTimeoutMiddleware

try:
    from fastapi_timeout import TimeoutMiddleware
except ImportError:
    TimeoutMiddleware = None

BARE, NOTHING = "bare app", "do-nothing middleware"
HOST_MATCHING, HOST_REDIRECTING = "canonical host, matching", "canonical host, redirecting (no app)"
TIMEOUT, BOTH = "request timeout, defaults", "both"
ASYNCIO_TIMEOUT, FAIL_AFTER = "reference: async with asyncio.timeout()", "reference: with anyio.fail_after()"
WAIT_FOR, CALL_LATER = "reference: asyncio.wait_for()", "reference: loop.call_later() and cancel()"
LEAST = "reference: the least that any guard has to do"
FASTAPI_TIMEOUT, TRUSTED_HOST = "reference: fastapi-timeout", "reference: Starlette's TrustedHostMiddleware"


class DoNothing:
    """The least that a middleware can be: uvicorn wants a coroutine function."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


class Request:
    """What is known of a request by :class:`Least`."""

    deadline: float
    task: Any

    def __init__(self, send: Any) -> None:
        self._send = send

    def send(self, message: Any) -> Any:
        if message["type"] == "http.response.body":
            _entries.pop(self, False)
        return self._send(message)


_entries: dict[Request, bool] = {}
_current: ContextVar[Request | None] = ContextVar("benchmarks.request", default=None)


class Least:
    """What no guard of this kind can be spared, and nothing else: it would neither abort nor answer.

    An object that the app can find, a clock, a claim entered, and withdrawn with the last message.
    """

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = scope["benchmarks.request"] = Request(send)
        request.deadline = monotonic() + 15
        request.task = asyncio.current_task()
        token = _current.set(request)
        _entries[request] = True
        try:
            await self.app(scope, receive, request.send)
        finally:
            _current.reset(token)


# The app limited by hand: no middleware's call and coroutine, so that the references are
# not made dearer than they are.
async def under_asyncio_timeout(scope: Any, receive: Any, send: Any) -> None:
    async with asyncio.timeout(15):
        await asgi_app(scope, receive, send)


async def under_fail_after(scope: Any, receive: Any, send: Any) -> None:
    with anyio.fail_after(15):
        await asgi_app(scope, receive, send)


async def under_wait_for(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.wait_for(asgi_app(scope, receive, send), 15)


async def under_call_later(scope: Any, receive: Any, send: Any) -> None:
    timer = asyncio.get_running_loop().call_later(15, _give_up)
    try:
        await asgi_app(scope, receive, send)
    finally:
        timer.cancel()


def _give_up() -> None:
    raise AssertionError("no request takes that long here")


def apps() -> dict[str, Any]:
    """What is compared."""
    compared = {
        BARE: asgi_app,
        NOTHING: DoNothing(asgi_app),
        HOST_MATCHING: CanonicalHostMiddleware(asgi_app, HOST),
        HOST_REDIRECTING: CanonicalHostMiddleware(asgi_app, "elsewhere.example.com"),
        TIMEOUT: RequestTimeoutMiddleware(asgi_app),
        BOTH: CanonicalHostMiddleware(RequestTimeoutMiddleware(asgi_app), HOST),
        LEAST: Least(asgi_app),
        ASYNCIO_TIMEOUT: under_asyncio_timeout,
        FAIL_AFTER: under_fail_after,
        WAIT_FOR: under_wait_for,
        CALL_LATER: under_call_later,
        TRUSTED_HOST: TrustedHostMiddleware(asgi_app, [HOST]),
    }
    if TimeoutMiddleware is not None:
        compared[FASTAPI_TIMEOUT] = TimeoutMiddleware(asgi_app, timeout_seconds=15)
    return compared


async def serve(app: Any, headers: Mapping[str, str], count: int) -> None:
    """Call the app as a server does, with a scope of its own for each request."""
    made = scope(headers)
    for _ in range(count):
        await app(made.copy(), receive, send)
    await asyncio.sleep(0)


async def measure(
    compared: Mapping[str, Any], headers: Mapping[str, str], scale: Scale, show: Callable[[float], object]
) -> dict[str, Cost]:
    """Compare apps; the one called ``BARE`` is the baseline."""
    turns = Rounds(list(compared), scale.rounds, show)
    for name in turns:
        began = process_time()
        await serve(compared[name], headers, scale.requests)
        turns.record(name, (process_time() - began) / scale.requests)
    return turns.costs(BARE)


def run(scale: Scale, report: Report, show: Callable[[str, float], object]) -> None:
    """Both kinds of requests, on each loop."""
    for loop, factory in loops.factories().items():
        for kind, headers in (("curl's 3 headers", PLAIN), ("Heroku's 9 headers", HEROKU)):
            what = f"{loop}, {kind}"
            costs = loops.run(measure(apps(), headers, scale, partial(show, what)), factory)
            report.add(_table(what, costs))
            _expect(report, what, costs)


def _table(what: str, costs: Mapping[str, Cost]) -> Table:
    nothing, timeout = costs[NOTHING].added, costs[ASYNCIO_TIMEOUT].added
    columns = [(what, ""), ("in all", "ns"), ("added", "ns"), ("quartiles apart", "ns")]
    columns += [("of do-nothing", "x"), ("of asyncio.timeout", "x")]
    return Table(
        f"What a middleware adds to an ASGI request: {what}",
        columns,
        [
            [name, c.whole, c.added, c.spread, c.added / nothing, c.added / timeout]
            for name, c in costs.items()
        ],
        "" if FASTAPI_TIMEOUT in costs else "fastapi-timeout is not installed and was left out.",
    )


def _expect(report: Report, what: str, costs: Mapping[str, Cost]) -> None:
    timeout, host = costs[TIMEOUT].added, costs[HOST_MATCHING].added
    bars = {ASYNCIO_TIMEOUT: (0.45, 0.30), FAIL_AFTER: (0.15, 0.10), FASTAPI_TIMEOUT: (0.15, 0.10)}
    for name, each in bars.items():
        if name in costs:
            reference = name.removeprefix("reference: ")
            report.expect(f"ASGI timeout / {reference}, {what}", timeout / costs[name].added, "x", each)
    report.expect(f"ASGI host / do-nothing, {what}", host / costs[NOTHING].added, "x", (3, 1.3))
