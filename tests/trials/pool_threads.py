"""How many threads do timed-out sync endpoints take, and do they end?

    python tests/trials/pool_threads.py             # 300 requests
    python tests/trials/pool_threads.py --count 60

A FastAPI ``def`` endpoint that goes on for seconds, asked by many, at once and one after the other, under
the limit of 40 threads that anyio sets by default. Where fastapi-timeout is installed, the same with that
in hostline's place. Ends with status 1 where there was ever a thread more under hostline than
the limiter allows, where one is still at work in the end, or where an answer was not 504.
"""

import argparse
import asyncio
import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import anyio.to_thread
from fastapi import FastAPI
from trial import in_child, table, versions

LIMIT = 0.3
LASTS = 4.0
SPREAD = 1.2  # of the requests that do not come at once
SETTLED = 0.5  # how long after the last answer the threads are counted again

api = FastAPI()
at_work: set[int] = set()


@api.get("/")
def slow() -> str:
    """Goes on in small steps, whoever waits for it."""
    at_work.add(threading.get_ident())
    try:
        end = time.monotonic() + LASTS
        while time.monotonic() < end:
            time.sleep(0.005)
    finally:
        at_work.discard(threading.get_ident())
    return "late"


def _hostline() -> Any:
    from hostline.asgi import RequestTimeoutMiddleware  # noqa: PLC0415 - one of the two in a process

    return RequestTimeoutMiddleware(api, service_timeout=LIMIT)


def _fastapi_timeout() -> Any:
    from fastapi_timeout import TimeoutMiddleware  # noqa: PLC0415

    return TimeoutMiddleware(api, timeout_seconds=LIMIT)


GUARDS: dict[str, Callable[[], Any]] = {"hostline": _hostline, "fastapi-timeout": _fastapi_timeout}


async def ask(guard: Any, after: float) -> tuple[int, float]:
    """The status of one request, and how long it took."""
    await asyncio.sleep(after)
    status, took, began = 0, 0.0, time.monotonic()

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        nonlocal status, took
        if message["type"] == "http.response.start":
            status, took = message["status"], time.monotonic() - began

    scope = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "root_path": "", "headers": []}
    scope |= {"http_version": "1.1", "scheme": "http", "query_string": b"", "server": ("127.0.0.1", 80)}
    await guard(scope, receive, send)
    return status, took


async def measure(guard: Any, count: int, over: float) -> dict[str, Any]:
    def pool() -> int:
        return sum(thread.name == "AnyIO worker thread" for thread in threading.enumerate())

    most = 0
    limiter = anyio.to_thread.current_default_thread_limiter()
    asking = asyncio.gather(*(ask(guard, over * number / count) for number in range(count)))
    while not asking.done():
        most = max(most, pool())
        await asyncio.sleep(0.002)
    answers = await asking
    end = time.monotonic() + SETTLED
    while time.monotonic() < end:
        most = max(most, pool())
        await asyncio.sleep(0.01)
    return {
        "504": sum(status == 504 for status, _ in answers),
        "last": round(max(took for _, took in answers), 2),
        "allowed": int(limiter.total_tokens),
        "most": most,
        "at work": len(at_work),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--guard", choices=GUARDS, help=argparse.SUPPRESS)  # a child process
    parser.add_argument("--over", type=float, default=0.0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.guard:
        logging.disable()
        try:
            guard = GUARDS[arguments.guard]()
        except ImportError:
            print("null")
        else:
            print(json.dumps(asyncio.run(measure(guard, arguments.count, arguments.over))))
        return 0
    print(f"{arguments.count} sync requests, limit {LIMIT} s; each would last {LASTS:g} s. {versions()}.\n")
    rows: list[list[object]] = []
    is_right = True
    for name in GUARDS:
        for over, when in ((0.0, "at once"), (SPREAD, f"within {SPREAD} s")):
            options = ("--guard", name, "--count", str(arguments.count), "--over", str(over))
            found = in_child(__file__, *options)
            if found is None:
                continue
            rows.append([f"{name}, {when}", *found.values()])
            if name == "hostline":
                is_kept = found["most"] <= found["allowed"] and not found["at work"]
                is_right = is_right and is_kept and found["504"] == arguments.count
    heads = ["", "504", "slowest answer, s", "threads allowed", "most threads", f"at work {SETTLED} s later"]
    print(table(heads, rows))
    return int(not is_right)


if __name__ == "__main__":
    sys.exit(main())
