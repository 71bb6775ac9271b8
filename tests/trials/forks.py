"""Does a fork at the worst moment leave anybody without deadlines?

    python tests/trials/forks.py                # 4,000 forks
    python tests/trials/forks.py --count 200

Requests fork, in the main thread and in another, while the requests of other threads time out as fast as
they can: so the watchdog, and whatever locks it holds, is anywhere. Each child serves two requests behind
the guards of its parent: one that ends by itself and one that has to be aborted. A child that
hangs, or whose answers are wrong, a deadline that the parent has not met, or one that it has
not forgotten, ends the program with status 1.
"""

import argparse
import json
import logging
import os
import random
import signal
import sys
import threading
import time
from collections import Counter

from trial import app, in_child, in_threads, request, table, tell, versions

from hostline._deadlines import watchdog
from hostline._requests import reporter
from hostline.wsgi import RequestTimeoutMiddleware

TIMEOUT = 0.002
WORKERS = 2
PATIENCE = 30  # seconds that a child has
FAULTS = ("children hang", "children answer wrongly", "parent's answers wrong", "deadlines left")

chance = random.Random(1)


def any_timeout(environ: object) -> float:
    """One of its own for each request: such deadlines are kept under the watchdog's lock."""
    return TIMEOUT * (0.5 + chance.random())


in_a_lane = RequestTimeoutMiddleware(app, service_timeout=TIMEOUT, observers=())
in_the_heap = RequestTimeoutMiddleware(app, service_timeout=TIMEOUT, timeout_for=any_timeout, observers=())
unhurried = RequestTimeoutMiddleware(app, service_timeout=120, observers=())
GUARDS = (in_a_lane, in_the_heap)


def compute() -> None:
    while True:
        pass


class Trial:
    """Forks, and keeps the books of it."""

    def __init__(self) -> None:
        self.faults: Counter[str] = Counter()
        self.is_over = threading.Event()
        self.timeouts = [0] * WORKERS

    def time_out(self, worker: int) -> None:
        """One timeout after the other; the watchdog has no rest."""
        while not self.is_over.is_set():
            for guard in GUARDS:
                self.timeouts[worker] += 1
                if not request(guard, compute).startswith("504"):
                    self.faults["parent's answers wrong"] += 1

    def fork_often(self, count: int) -> None:
        """In requests of this thread."""
        for _ in range(count):
            if request(unhurried, self.fork) != "200 OK":
                self.faults["parent's answers wrong"] += 1
        self.is_over.set()

    def fork(self) -> None:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                signal.alarm(PATIENCE)
                status = serve_in_child()
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            self.faults["children hang"] += 1
        elif os.WEXITSTATUS(status):
            self.faults["children answer wrongly"] += 1

    def books(self) -> dict[str, int]:
        reporter.flush(30)
        end = time.monotonic() + 10
        while entries() and time.monotonic() < end:  # breakers that have nothing to do any more
            time.sleep(0.01)
        self.faults["deadlines left"] = entries()
        return {"timeouts": sum(self.timeouts), **{fault: self.faults[fault] for fault in FAULTS}}


def serve_in_child() -> int:
    """0 where each deadline is met, in a lane and in the heap, and no other is."""
    for guard in GUARDS:
        if not request(guard, compute).startswith("504"):
            return 2
    return 0 if request(unhurried, lambda: None) == "200 OK" else 3


def entries() -> int:
    return len(watchdog._odd) + sum(len(lane.entries) for lane in watchdog._lanes.values())


def run_part(part: str, count: int) -> dict[str, int]:
    logging.getLogger("hostline").setLevel(logging.CRITICAL)
    sys.setswitchinterval(0.0005)
    trial = Trial()
    started = time.monotonic()
    beside = [lambda n=n: trial.time_out(n) for n in range(WORKERS)]
    if part == "in a thread":
        in_threads([*beside, lambda: trial.fork_often(count)])
    else:
        others = threading.Thread(target=in_threads, args=(beside,))
        others.start()
        trial.fork_often(count)
        others.join()
    tell(f"{part}: {count} in {time.monotonic() - started:.0f} s")
    return trial.books()


PARTS = ("in the main thread", "in a thread")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--count", type=int, default=4_000)
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)  # a child process
    arguments = parser.parse_args()
    if arguments.part:
        print(json.dumps(run_part(arguments.part, arguments.count)))
        return 0
    count = arguments.count // len(PARTS)
    books = {part: in_child(__file__, "--part", part, "--count", str(count)) for part in PARTS}
    print(f"Forks in requests, while others time out all the time.\n{versions()}.\n")
    rows = [[f"{part} that forks", count, *books[part].values()] for part in PARTS]
    print(table(["", "forks", "timeouts beside", *FAULTS], rows))
    return int(any(found[fault] for found in books.values() for fault in FAULTS))


if __name__ == "__main__":
    sys.exit(main())
