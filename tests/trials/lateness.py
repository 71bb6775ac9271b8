"""How late is the answer of a request that has run into its limit?

    python tests/trials/lateness.py                # 300 timeouts for each row
    python tests/trials/lateness.py --timeouts 40

From the deadline to the answer, as the server has it: code that computes in Python, and
code that waits; in a worker thread and in the main thread; alone, and beside two threads
that never let go of the interpreter by themselves. The switch interval is CPython's own.
"""

import argparse
import json
import logging
import queue
import sys
import threading
import time
from collections.abc import Callable

from trial import Run, app, in_child, in_threads, percentile, request, table, tell, versions

from hostline.wsgi import RequestTimeoutMiddleware

TIMEOUT = 0.05
BUSY = 2


def compute() -> None:
    while True:
        sum(range(10))


def wait_for_queue() -> None:
    queue.Queue[int]().get()


def sleep_shortly() -> None:
    while True:
        time.sleep(0.001)


RUNS: dict[str, Run] = {"computes": compute, "polls and sleeps": sleep_shortly, "`Queue.get`": wait_for_queue}


def measure(run: Run, timeouts: int) -> list[float]:
    """The lateness of each, in milliseconds. In this thread."""
    guard = RequestTimeoutMiddleware(app, service_timeout=TIMEOUT, observers=())
    lateness: list[float] = []
    for _ in range(timeouts):
        started = time.monotonic()
        status = request(guard, run)
        lateness.append((time.monotonic() - started - TIMEOUT) * 1000)
        if not status.startswith("504"):
            raise RuntimeError(f"the answer was {status}")
    return lateness


def keep_busy(is_over: Callable[[], bool]) -> None:
    while not is_over():
        sum(range(1_000))


def run_road(road: str, busy: int, timeouts: int) -> dict[str, list[float]]:
    logging.getLogger("hostline").setLevel(logging.CRITICAL)
    over = threading.Event()
    others = [threading.Thread(target=keep_busy, args=(over.is_set,), daemon=True) for _ in range(busy)]
    for thread in others:
        thread.start()
    results: dict[str, list[float]] = {}

    def work() -> None:
        for name, run in RUNS.items():
            results[name] = measure(run, timeouts)
            tell(f"{road}, {busy} busy threads: {name}")

    if road == "main":
        work()
    else:
        in_threads([work])
    over.set()
    for thread in others:
        thread.join()
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--timeouts", type=int, default=300, help="for each row")
    parser.add_argument("--at-most", type=float, default=float("inf"), help="p50 of an idle process, in ms")
    parser.add_argument("--road", choices=("thread", "main"), help=argparse.SUPPRESS)  # a child process
    parser.add_argument("--busy", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.road:
        print(json.dumps(run_road(arguments.road, arguments.busy, arguments.timeouts)))
        return 0
    print(f"Lateness of the answer in ms, of {arguments.timeouts:,} timeouts each.\n{versions()}.\n")
    rows: list[list[object]] = []
    worst_idle = 0.0
    for road in ("thread", "main"):
        for busy in (0, BUSY):
            child = (__file__, "--road", road, "--busy", str(busy), "--timeouts", str(arguments.timeouts))
            for name, late in in_child(*child).items():
                figures = [percentile(late, 50), percentile(late, 99), max(late)]
                rows.append([f"{road}, {name}", busy or "idle", *(f"{ms:.1f}" for ms in figures)])
                worst_idle = max(worst_idle, 0.0 if busy else figures[0])
    print(table(["code", "busy threads", "p50", "p99", "max"], rows))
    return int(worst_idle > arguments.at_most)


if __name__ == "__main__":
    sys.exit(main())
