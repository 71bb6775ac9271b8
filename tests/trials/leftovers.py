"""What do timeouts leave behind?

    python tests/trials/leftovers.py               # 10,000 timeouts
    python tests/trials/leftovers.py --timeouts 500

After a tenth of them, which fills caches, the process's threads, file descriptors, memory
and Python objects are counted, and again after all. Half of the requests compute, half
wait for a queue that stays empty, in several threads at a time and in the main thread.
Ends with status 1 where anything has grown with the number of timeouts.
"""

import argparse
import gc
import logging
import os
import queue
import sys
import threading
import time
from itertools import cycle
from pathlib import Path

from trial import app, in_threads, request, table, tell, versions

from hostline._deadlines import watchdog
from hostline._requests import reporter
from hostline.wsgi import RequestTimeoutMiddleware

TIMEOUT = 0.002
WORKERS = 4
# What a process's allocators take and keep anyway: not a function of the number of timeouts.
ALLOWED = {"threads": 0, "file descriptors": 0, "entries of lanes": 0, "objects": 200, "RSS, KiB": 3_072}


def compute() -> None:
    while True:
        sum(range(10))


def wait() -> None:
    queue.Queue[int]().get()


def time_out(guard: RequestTimeoutMiddleware, count: int) -> None:
    """So many timeouts in this thread."""
    runs = cycle((compute, wait))
    while count:
        count -= request(guard, next(runs)).startswith("504")


def count_all() -> dict[str, int]:
    reporter.flush(30)
    deadline = time.monotonic() + 30
    while len(watchdog._odd) and time.monotonic() < deadline:  # breakers that have nothing to do any more
        time.sleep(0.05)
    gc.collect()
    process = Path("/proc/self")
    pages = int((process / "statm").read_text().split()[1])
    return {
        "threads": len(list((process / "task").iterdir())),
        "file descriptors": len(list((process / "fd").iterdir())),
        "entries of lanes": len(watchdog._odd) + sum(len(lane.entries) for lane in watchdog._lanes.values()),
        "objects": len(gc.get_objects()),
        "RSS, KiB": pages * (os.sysconf("SC_PAGE_SIZE") // 1024),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--timeouts", type=int, default=10_000)
    total = parser.parse_args().timeouts
    logging.getLogger("hostline").setLevel(logging.CRITICAL)
    sys.setswitchinterval(0.0005)
    guard = RequestTimeoutMiddleware(app, service_timeout=TIMEOUT, observers=())

    def serve(count: int) -> None:
        in_threads([lambda: time_out(guard, count // (WORKERS + 1))] * WORKERS)
        time_out(guard, count // (WORKERS + 1))

    serve(total // 10)
    before = count_all()
    tell(f"{total // 10} timeouts: {before}")
    serve(total - total // 10)
    after = count_all()
    tell(f"{total} timeouts: {after}")
    print(f"What {total:,} timeouts leave behind, in {threading.active_count()} threads of Python's own.")
    print(f"{versions()}.\n")
    grown = {what: after[what] - before[what] for what in before}
    rows = [[what, before[what], after[what], grown[what], f"<= {most}"] for what, most in ALLOWED.items()]
    print(table(["", f"after {total // 10:,}", f"after {total:,}", "grown by", "allowed"], rows))
    return int(any(grown[what] > most for what, most in ALLOWED.items()))


if __name__ == "__main__":
    sys.exit(main())
