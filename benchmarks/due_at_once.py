"""What happens when many deadlines come at the same instant: an outage of a database, say.

First deadlines alone, which is what the watchdog and the loop's timers are bound by; then
whole requests on asyncio, each hung in its task, cancelled and answered 504.
"""

# ruff: noqa: ARG001 - an app has the signature of its protocol

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from benchmarks import loops
from benchmarks.results import Report, Table
from benchmarks.scale import Scale
from benchmarks.spans import Span, quietly
from benchmarks.traffic import PLAIN, receive, scope
from hostline._deadlines import watchdog
from hostline._loop_deadlines import lanes_of
from hostline.asgi import RequestTimeoutMiddleware


@dataclass
class Count:
    """How many deadlines are still to come, and when one came."""

    left: int
    on_last: Callable[[], object]
    fired_at: list[float] = field(default_factory=list)

    def one(self) -> None:
        self.fired_at.append(monotonic())
        self.left -= 1
        if not self.left:
            self.on_last()


class Due:
    """An entry of a lane, of the watchdog's or of a loop's."""

    filed = None
    timer = None

    def __init__(self, deadline: float, count: Count) -> None:
        self.deadline = deadline
        self.claims: Any = None
        self.expire = count.one

    def survives_fork(self) -> bool:
        return False


def run(scale: Scale, report: Report, show: Callable[[str, float], object]) -> None:
    """Deadlines alone, of threads and on each loop, then whole requests."""
    number, due_in, rows = scale.deadlines, scale.due_in, []
    steps: dict[str, Callable[[], Span]] = {
        "thread watchdog, one lane": lambda: _watchdog(number, due_in, in_lane=True),
        "thread watchdog, each its own": lambda: _watchdog(number, due_in, in_lane=False),
    }
    for loop, factory in loops.factories().items():
        steps[f"{loop}, one lane"] = lambda make=factory: loops.run(_loop(number, due_in, in_lane=True), make)
        steps[f"{loop}, each its own"] = lambda make=factory: loops.run(
            _loop(number, due_in, in_lane=False), make
        )
    for done, (name, step) in enumerate(steps.items()):
        show(name, done / len(steps))
        span = step()
        rows.append([name, *span.figures()])
        if "lane" in name:
            report.expect(f"{number:,} deadlines at once, {name}", span.worst, "ms", (1.0, 0.3))
    columns = [("deadlines", ""), ("first", "ms"), ("half", "ms"), ("99%", "ms"), ("last", "ms")]
    report.add(Table(f"{number:,} deadlines at once: how long after the deadline", columns, rows))
    _add_requests(scale, report, show)


def _watchdog(number: int, due_in: float, *, in_lane: bool) -> Span:
    last = threading.Event()
    count = Count(number, last.set)
    deadline = monotonic() + due_in
    lane = watchdog.lane(due_in)
    watchdog.rouse()  # as the first of them would
    for _ in range(number):
        entry = Due(deadline, count)
        if in_lane:
            lane.entries[entry] = True
        else:
            watchdog.at(entry, deadline)
    if not last.wait(60):
        raise TimeoutError(f"{count.left} of {number} deadlines have never come")
    return Span([at - deadline for at in count.fired_at])


async def _loop(number: int, due_in: float, *, in_lane: bool) -> Span:
    last = asyncio.Event()
    count = Count(number, last.set)
    lanes = lanes_of(asyncio.get_running_loop())
    lane = lanes.lane(due_in)
    if in_lane:
        lane.start_timer()  # as the first of them would
    deadline = monotonic() + due_in
    for _ in range(number):
        entry: Any = Due(deadline, count)
        if in_lane:
            lane.entries[entry] = True
        else:
            lanes.at(entry, deadline)
    async with asyncio.timeout(60):
        await last.wait()
    return Span([at - deadline for at in count.fired_at])


def _add_requests(scale: Scale, report: Report, show: Callable[[str, float], object]) -> None:
    rows = []
    for loop, factory in loops.factories().items():
        show(f"whole requests, {loop}", 0.5)
        with quietly():
            span = loops.run(_hung_requests(scale.hung_requests, scale.due_in), factory)
        rows.append([loop, *span.figures()])
    columns = [("requests", ""), ("first", "ms"), ("half", "ms"), ("99%", "ms"), ("last", "ms")]
    title = f"{scale.hung_requests:,} hung requests time out together: from its deadline to its 504"
    report.add(
        Table(title, columns, rows, "Their log lines are switched off: those cost more than all else.")
    )


async def _hung_requests(number: int, due_in: float) -> Span:
    answered: list[float] = []

    async def hang(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    guarded = RequestTimeoutMiddleware(hang, service_timeout=due_in)

    async def request() -> None:
        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                answered.append(monotonic() - made["hostline.request"].deadline)

        made = scope(PLAIN)
        await guarded(made, receive, send)

    await asyncio.gather(*(request() for _ in range(number)))
    if len(answered) != number:
        raise RuntimeError(f"{len(answered)} answers to {number} requests")
    return Span(answered)
