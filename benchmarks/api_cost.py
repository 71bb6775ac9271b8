"""What each call of the deadline API costs, outside of a request and in one."""

from collections.abc import Callable, Mapping
from functools import partial
from time import process_time
from typing import Any

import hostline
from benchmarks import loops
from benchmarks.results import Cell, Report, Table
from benchmarks.rounds import Cost, Rounds, measure
from benchmarks.scale import Scale
from benchmarks.traffic import PLAIN, asgi_app, environ, receive, scope, send, start_response, wsgi_app
from hostline.asgi import RequestTimeoutMiddleware as AsgiTimeout
from hostline.wsgi import RequestTimeoutMiddleware as WsgiTimeout

Repeat = Callable[[int], object]
NOTHING = "an empty loop"
LIMIT = 20  # another than the default, so that there is something to set


def _nothing(count: int) -> None:
    for _ in range(count):
        pass


def _calls(function: Callable[[], object]) -> Repeat:
    def repeat(count: int) -> None:
        for _ in range(count):
            function()

    return repeat


def _set_timeouts(count: int) -> None:
    for _ in range(count):
        hostline.set_timeout(LIMIT)


def _shields(count: int) -> None:
    for _ in range(count):
        with hostline.shield():
            pass


def _interruptibles(count: int) -> None:
    for _ in range(count):
        with hostline.interruptible(_cancel):
            pass


def _cancel() -> None:
    """What is never called."""


@hostline.timeout(LIMIT)
def _limited() -> None:
    """A view."""


CALLS: Mapping[str, Repeat] = {
    NOTHING: _nothing,
    "current()": _calls(hostline.current),
    "deadline()": _calls(hostline.deadline),
    "remaining()": _calls(hostline.remaining),
    "checkpoint()": _calls(hostline.checkpoint),
    "set_timeout()": _set_timeouts,
    "@timeout, and the call": _calls(_limited),
    "with shield()": _shields,
    "with interruptible()": _interruptibles,
}


def in_wsgi(repeat: Repeat, count: int) -> None:
    """Repeat it in one request, in this thread."""

    def app(environ: Any, start_response: Any) -> Any:
        repeat(count)
        return wsgi_app(environ, start_response)

    WsgiTimeout(app)(environ(PLAIN), start_response)


async def in_asgi(repeat: Repeat, count: int) -> None:
    """Repeat it in one request, in its coroutine."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        repeat(count)
        await asgi_app(scope, receive, send)

    await AsgiTimeout(app)(scope(PLAIN), receive, send)


async def measure_asgi(scale: Scale, show: Callable[[float], object]) -> dict[str, Cost]:
    """As :func:`benchmarks.rounds.measure`, in one event loop."""
    turns = Rounds(list(CALLS), scale.rounds, show)
    for name in turns:
        began = process_time()
        await in_asgi(CALLS[name], scale.requests)
        turns.record(name, (process_time() - began) / scale.requests)
    return turns.costs(NOTHING)


def run(scale: Scale, report: Report, show: Callable[[str, float], object]) -> None:
    """In every place where the API may be used."""

    def threaded(place: str, variants: Mapping[str, Repeat]) -> dict[str, Cost]:
        return measure(
            variants,
            baseline=NOTHING,
            rounds=scale.rounds,
            requests=scale.requests,
            show=partial(show, place),
        )

    wsgi = {name: partial(in_wsgi, repeat) for name, repeat in CALLS.items()}
    places = {
        "outside of a request": threaded("outside", CALLS),
        "in a WSGI request": threaded("WSGI", wsgi),
        "in an ASGI request": loops.run(
            measure_asgi(scale, partial(show, "ASGI")), loops.factories()["asyncio"]
        ),
    }
    report.add(_table(places))


def _table(places: Mapping[str, Mapping[str, Cost]]) -> Table:
    columns = [("call", ""), *((place, "ns") for place in places)]
    rows: list[list[Cell]] = [
        [name, *(costs[name].added for costs in places.values())] for name in CALLS if name != NOTHING
    ]
    return Table("What a call of the deadline API costs", columns, rows)
