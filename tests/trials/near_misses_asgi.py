"""Is a task or a pool's thread ever hit too late, or in the wrong place?

    python tests/trials/near_misses_asgi.py             # 100,000 requests that end at their deadline
    python tests/trials/near_misses_asgi.py --count 3000

Every request ends within a few milliseconds of its deadline: just before, just after, or in
the very moment, on asyncio and on uvloop, a hundred at a time; in another part its work is
done by a pool's thread. A cancellation that is left over, ``cancelling()`` that is not 0, an
exception in a pool's thread behind its call, an ending told twice or not at all, or an
answer that does not fit its ending, ends the program with status 1.
"""

import argparse
import asyncio
import json
import logging
import random
import sys
import time
from collections import Counter
from typing import Any

import anyio.to_thread
import uvloop
from trial import in_child, table, tell, versions

from hostline._requests import RequestEvent, State, reporter
from hostline.asgi import RequestTimeoutMiddleware
from hostline.errors import RequestTimeoutError, RequestTimeoutException

TIMEOUT = 0.02
SPREAD = 0.003
AT_ONCE = 100
FAULTS = (
    "cancellations left over",
    "late in pool threads",
    "endings doubled",
    "endings lost",
    "answers that do not fit",
)


class Trial:
    """Serves near misses and keeps the books, in the loop's thread."""

    def __init__(self, *, uses_threads: bool) -> None:
        self.uses_threads = uses_threads
        self.endings: dict[str, list[State]] = {}
        self.faults: Counter[str] = Counter()
        self.timeouts = 0
        self.chance = random.Random(1)
        self.guard = RequestTimeoutMiddleware(self.app, service_timeout=TIMEOUT, observers=[self.observe])

    def observe(self, event: RequestEvent) -> None:
        if event.state in {State.COMPLETED, State.TIMED_OUT}:
            self.endings.setdefault(event.id, []).append(event.state)

    observe.is_immediate = True  # type: ignore[attr-defined]

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        until = scope["hostline.request"].deadline + scope["trial.margin"]
        if self.uses_threads:
            await anyio.to_thread.run_sync(compute, until)
        else:
            await asyncio.sleep(until - time.monotonic())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    async def serve(self, number: int) -> None:
        """One request; nothing may be left of it for this task."""
        sent: list[Any] = []
        scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/", "http_version": "1.1"}
        scope["headers"] = [(b"x-request-id", b"%d" % number)]
        scope["trial.margin"] = self.chance.uniform(-SPREAD, SPREAD)

        async def send(message: Any) -> None:
            sent.append(message.get("status", "body"))
            await asyncio.sleep(0)

        is_cut = False
        task = asyncio.current_task()
        assert task is not None  # it runs
        try:
            await self.guard(scope, receive, send)
        except RequestTimeoutError:
            is_cut = True
        except asyncio.CancelledError:
            self.faults["cancellations left over"] += 1
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.faults["cancellations left over"] += 1
        self.faults["cancellations left over"] += task.cancelling()
        state = scope["hostline.request"].state
        self.timeouts += state is State.TIMED_OUT
        fitting = {
            (State.COMPLETED, False): [200, "body"],
            (State.TIMED_OUT, False): [504, "body"],
            (State.TIMED_OUT, True): [200],
        }
        self.faults["answers that do not fit"] += sent != fitting.get((state, is_cut))
        if self.uses_threads:
            self.faults["late in pool threads"] += await anyio.to_thread.run_sync(is_hit)

    async def serve_all(self, count: int) -> None:
        at_once = 20 if self.uses_threads else AT_ONCE
        for first in range(0, count, at_once):
            await asyncio.gather(*(self.serve(number) for number in range(first, first + at_once)))

    def books(self, count: int) -> dict[str, int]:
        reporter.flush(30)
        told = [len(self.endings.get(str(number), ())) for number in range(count)]
        self.faults["endings doubled"] += sum(times > 1 for times in told)
        self.faults["endings lost"] += sum(times == 0 for times in told)
        return {"timeouts": self.timeouts, **{fault: self.faults[fault] for fault in FAULTS}}


async def receive() -> Any:
    await asyncio.Event().wait()


def compute(until: float) -> None:
    while time.monotonic() < until:
        time.sleep(0.0002)


def is_hit() -> bool:
    try:
        for _ in range(50):
            pass
    except RequestTimeoutException:
        return True
    return False


def run_part(part: str, count: int) -> dict[str, int]:
    logging.getLogger("hostline").setLevel(logging.CRITICAL)
    loop_factory = uvloop.new_event_loop if "uvloop" in part else asyncio.new_event_loop
    trial = Trial(uses_threads="threads" in part)
    started = time.monotonic()
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(trial.serve_all(count))
    tell(f"{part}: {count} in {time.monotonic() - started:.0f} s")
    return trial.books(count)


PARTS = {"asyncio": 0.45, "uvloop": 0.45, "asyncio, pool threads": 0.05, "uvloop, pool threads": 0.05}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)  # a child process
    arguments = parser.parse_args()
    if arguments.part:
        print(json.dumps(run_part(arguments.part, arguments.count)))
        return 0
    counts = {part: round(arguments.count * share / AT_ONCE) * AT_ONCE for part, share in PARTS.items()}
    books = {part: in_child(__file__, "--part", part, "--count", str(n)) for part, n in counts.items()}
    print(f"Near misses: {sum(counts.values()):,} requests that end within 3 ms of their deadline.")
    print(f"{versions()}.\n")
    rows = [[part, counts[part], *books[part].values()] for part in PARTS]
    print(table(["", "requests", "of them timed out", *FAULTS], rows))
    return int(any(found[fault] for found in books.values() for fault in FAULTS))


if __name__ == "__main__":
    sys.exit(main())
