"""Is an exception ever raised too late, or in the wrong place?

    python tests/trials/near_misses.py             # 100,000 requests that end at their deadline
    python tests/trials/near_misses.py --count 3000

Every request ends within a millisecond of its deadline: just before, just after, or in the
very moment. Some threads serve one request after the other, as with keep-alive
connections; in some of them requests start threads all the time; another part of the
requests runs in the main thread. An exception that arrives between requests, in a started
thread or in another request, an ending told twice or not at all, or a status that does not
fit its ending, ends the program with status 1.
"""

import argparse
import json
import logging
import random
import sys
import threading
import time
from collections import Counter

from trial import app, in_child, in_threads, request, table, tell, versions

from hostline._deadlines import watchdog
from hostline._requests import RequestEvent, State, reporter
from hostline.errors import RequestTimeoutException
from hostline.wsgi import RequestTimeoutMiddleware

TIMEOUT = 0.002
WORKERS = 4
FAULTS = (
    "late or misdirected",
    "in started threads",
    "endings doubled",
    "endings lost",
    "answers that do not fit",
)


class Trial:
    """Serves near misses and keeps the books. The counters are changed under a lock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.endings: dict[str, list[str]] = {}
        self.faults: Counter[str] = Counter()
        self.timeouts = 0
        self.guard = RequestTimeoutMiddleware(app, service_timeout=TIMEOUT, observers=[self.observe])

    def observe(self, event: RequestEvent) -> None:
        if event.state in {State.COMPLETED, State.TIMED_OUT}:
            with self.lock:
                self.endings.setdefault(event.id, []).append(event.state.value)

    observe.is_immediate = True  # type: ignore[attr-defined]

    def serve(self, worker: str, count: int, *, starts_threads: bool) -> None:
        """One request after the other in this thread, which no exception may reach."""
        chance = random.Random(worker)
        statuses: dict[str, str] = {}
        number = 0
        while number < count:
            try:
                while number < count:
                    number += 1
                    request_id = f"{worker}-{number}"
                    until = time.monotonic() + TIMEOUT + chance.uniform(-0.0005, 0.0012)
                    run = self.start_threads if starts_threads else compute
                    statuses[request_id] = request(self.guard, lambda: run(until), request_id)  # noqa: B023
                    for _ in range(100):  # here an exception that is late is raised
                        pass
            except RequestTimeoutException:
                self.count("late or misdirected")
        self.audit(statuses)

    def start_threads(self, until: float) -> None:
        while time.monotonic() < until:
            threading.Thread(target=self.be_started).start()

    def be_started(self) -> None:
        try:
            for _ in range(50):
                pass
        except RequestTimeoutException:
            self.count("in started threads")

    def count(self, fault: str, by: int = 1) -> None:
        with self.lock:
            self.faults[fault] += by

    def audit(self, statuses: dict[str, str]) -> None:
        reporter.flush(30)
        with self.lock:
            endings = [self.endings.pop(request_id, []) for request_id in statuses]
        self.count("endings doubled", sum(len(states) > 1 for states in endings))
        self.count("endings lost", sum(not states for states in endings))
        fitting = {("200 OK", "completed"), ("504 Gateway Timeout", "timed_out")}
        pairs = [
            (status, states[0]) for status, states in zip(statuses.values(), endings, strict=True) if states
        ]
        self.count("answers that do not fit", sum(pair not in fitting for pair in pairs))
        with self.lock:
            self.timeouts += sum(state == "timed_out" for _, state in pairs)

    def books(self) -> dict[str, int]:
        self.count("endings lost", sum(len(lane.entries) for lane in watchdog._lanes.values()))
        return {"timeouts": self.timeouts, **{fault: self.faults[fault] for fault in FAULTS}}


def compute(until: float) -> None:
    while time.monotonic() < until:
        pass


def run_part(part: str, count: int) -> dict[str, int]:
    logging.getLogger("hostline").setLevel(logging.CRITICAL)
    sys.setswitchinterval(0.0005)  # that a watchdog comes near a deadline of 2 ms at all
    # On CPython 3.11 the exception of a thread that starts another may hit a newborn one,
    # whose death by it `threading` would print.
    threading.excepthook = lambda arguments: trial.count("in started threads")
    trial = Trial()
    started = time.monotonic()
    if part == "main thread":
        trial.serve("main", count, starts_threads=False)
    else:
        starts_threads = part == "threads that start threads"
        shares = [f"worker-{n}" for n in range(WORKERS)]
        runs = [lambda s=s: trial.serve(s, count // WORKERS, starts_threads=starts_threads) for s in shares]
        in_threads(runs)
    tell(f"{part}: {count} in {time.monotonic() - started:.0f} s")
    return trial.books()


PARTS = {"threads": 0.5, "threads that start threads": 0.25, "main thread": 0.25}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)  # a child process
    arguments = parser.parse_args()
    if arguments.part:
        print(json.dumps(run_part(arguments.part, arguments.count)))
        return 0
    counts = {part: round(arguments.count * share) for part, share in PARTS.items()}
    books = {part: in_child(__file__, "--part", part, "--count", str(n)) for part, n in counts.items()}
    print(f"Near misses: {arguments.count:,} requests that end within a millisecond of their deadline.")
    print(f"{versions()}.\n")
    rows = [[part, counts[part], *books[part].values()] for part in PARTS]
    print(table(["", "requests", "of them timed out", *FAULTS], rows))
    return int(any(found[fault] for found in books.values() for fault in FAULTS))


if __name__ == "__main__":
    sys.exit(main())
