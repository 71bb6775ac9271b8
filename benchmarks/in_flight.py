"""What a request pays for the others that are in flight.

Every number in flight has a middleware with a timeout of its own, and so a lane of its
own, so that all of them can take turns in one process. On asyncio the others are real
requests, each waiting in its task. Ten thousand threads are not to be had: on WSGI the
others are entries of the same lane, as their requests would be.
"""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from math import inf
from typing import Any

from benchmarks import asgi_cost, loops, wsgi_cost
from benchmarks.results import Report, Table
from benchmarks.rounds import Cost, measure
from benchmarks.scale import Scale
from benchmarks.traffic import PLAIN, asgi_app, receive, scope, send, wsgi_app
from hostline import asgi, wsgi
from hostline._deadlines import watchdog

_LONG = 3_600  # seconds: none of these is to time out


class InFlight:
    """What a hung WSGI request is to the watchdog."""

    deadline = inf

    def expire(self) -> None:
        raise AssertionError("an infinite deadline has come")

    def survives_fork(self) -> bool:
        return False


def run(scale: Scale, report: Report, show: Callable[[str, float], object]) -> None:
    """Threads, then each loop."""
    _add(report, "WSGI", scale, _measure_wsgi(scale, partial(show, "WSGI")))
    for loop, factory in loops.factories().items():
        costs = loops.run(_measure_asgi(scale, partial(show, loop)), factory)
        _add(report, f"ASGI on {loop}", scale, costs)


def _measure_wsgi(scale: Scale, show: Callable[[float], object]) -> dict[str, Cost]:
    compared: dict[str, Any] = {wsgi_cost.BARE: wsgi_app}
    for number in scale.in_flight:
        compared[_name(number)] = wsgi.RequestTimeoutMiddleware(wsgi_app, service_timeout=_LONG + number)
        lane = watchdog.lane(_LONG + number)
        lane.entries.update((InFlight(), True) for _ in range(number - 1))
    try:
        return measure(
            {name: partial(wsgi_cost.serve, app, PLAIN) for name, app in compared.items()},
            baseline=wsgi_cost.BARE,
            rounds=scale.rounds,
            requests=scale.requests,
            show=show,
        )
    finally:
        for number in scale.in_flight:
            watchdog.lane(_LONG + number).entries.clear()


async def _measure_asgi(scale: Scale, show: Callable[[float], object]) -> dict[str, Cost]:
    compared: dict[str, Any] = {asgi_cost.BARE: _app}
    hung: list[asyncio.Task[None]] = []
    for number in scale.in_flight:
        guarded = asgi.RequestTimeoutMiddleware(_app, service_timeout=_LONG + number)
        compared[_name(number)] = guarded
        hung += [asyncio.create_task(_hang(guarded)) for _ in range(number - 1)]
    await asyncio.sleep(0)
    costs = await asgi_cost.measure(compared, PLAIN, scale, show)
    for task in hung:
        task.cancel()
    await asyncio.gather(*hung, return_exceptions=True)
    return costs


async def _hang(app: Any) -> None:
    await app({**scope(PLAIN), "path": "/hang"}, receive, send)


async def _app(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/hang":
        await asyncio.Event().wait()
    await asgi_app(scope, receive, send)


def _name(number: int) -> str:
    return f"{number:,} in flight"


def _add(report: Report, what: str, scale: Scale, costs: Mapping[str, Cost]) -> None:
    one = costs[_name(1)].added
    rows = [[name, cost.whole, cost.added, cost.spread, cost.added / one] for name, cost in costs.items()]
    columns = [
        (what, ""),
        ("in all", "ns"),
        ("added", "ns"),
        ("quartiles apart", "ns"),
        ("of 1 in flight", "x"),
    ]
    report.add(Table(f"What the request timeout adds, with others in flight: {what}", columns, rows))
    for number in scale.in_flight[2:]:
        name = _name(number)
        report.expect(f"{what}, {name} / 1 in flight", costs[name].added / one, "x", (1.2, 1.05))
