"""Does an interpreter end as it should, with requests in flight and deadlines due?

    python tests/trials/shutdowns.py                # 300 interpreters
    python tests/trials/shutdowns.py --count 12

Each starts requests that time out all the time and ends in the middle of that: with daemon threads, with
threads that it waits for, with tasks of asyncio's. One that hangs, crashes, ends with
another status than its program's, or prints anything, ends the program with status 1.
"""

import argparse
import asyncio
import logging
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import Any

from trial import app, request, table, tell, versions

from hostline import asgi, wsgi

TIMEOUT = 0.002
STATUS = 7  # of a program that ends as it is to end
PATIENCE = 60
FAULTS = ("hang", "crash", "end otherwise", "print")


def compute() -> None:
    while True:
        pass


def time_out_until(end: float) -> None:
    guard = wsgi.RequestTimeoutMiddleware(app, service_timeout=TIMEOUT)
    while time.monotonic() < end:
        request(guard, compute)


def end_with_threads(seed: str, *, daemon: bool) -> None:
    """Threads whose requests time out; daemons go on when all is over, the others end a little later."""
    lasts = random.Random(seed).uniform(0.02, 0.1)
    end = time.monotonic() + (60.0 if daemon else lasts + 0.02)
    for _ in range(3):
        threading.Thread(target=time_out_until, args=(end,), daemon=daemon).start()
    time.sleep(lasts)


def end_with_tasks(seed: str) -> None:
    """Tasks that ``asyncio.run`` cancels; some of them have just been timed out."""

    async def wait(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(60)

    async def time_out() -> None:
        guard = asgi.RequestTimeoutMiddleware(wait, service_timeout=TIMEOUT)

        async def nowhere(*_: object) -> None:
            await asyncio.sleep(0)

        while True:
            await guard({"type": "http", "method": "GET", "path": "/", "headers": []}, nowhere, nowhere)

    async def run() -> None:
        tasks = [asyncio.create_task(time_out()) for _ in range(20)]
        await asyncio.sleep(random.Random(seed).uniform(0.02, 0.1))
        del tasks

    asyncio.run(run())


WAYS = {
    "daemon threads": lambda seed: end_with_threads(seed, daemon=True),
    "threads": lambda seed: end_with_threads(seed, daemon=False),
    "tasks": end_with_tasks,
}


def fault_of(way: str, seed: int) -> str:
    """What was wrong with the end of one interpreter; empty if nothing was."""
    command = [sys.executable, __file__, "--way", way, "--seed", str(seed)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return "hang"
    if done.stderr:
        tell(f"{way}, seed {seed}: {done.stderr}")
    if done.returncode < 0:
        return "crash"
    if done.returncode != STATUS:
        return "end otherwise"
    return "print" if done.stdout or done.stderr else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)  # a child process
    parser.add_argument("--seed", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        logging.getLogger("hostline").addHandler(logging.NullHandler())
        WAYS[arguments.way](arguments.seed)
        return STATUS
    count = arguments.count // len(WAYS)
    found = {way: Counter(fault_of(way, seed) for seed in range(count)) for way in WAYS}
    print(f"Interpreters that end with requests in flight.\n{versions()}.\n")
    print(table(["", "ended", *FAULTS], [[w, count, *(found[w][fault] for fault in FAULTS)] for w in WAYS]))
    return int(any(found[way][fault] for way in WAYS for fault in FAULTS))


if __name__ == "__main__":
    sys.exit(main())
