"""What the apps of the trials share: a ledger of what observers are told, vital signs, faults to order.

Runs in the server's process, below ``proving_wsgi`` and ``proving_asgi``.
"""

import logging
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

from hostline import _loop_deadlines, _trio_request
from hostline._deadlines import watchdog

#: The host that the guards hold for the right one.
HOST = "canonical.test"
LEDGER = "ledger"

logging.basicConfig(
    filename=os.environ.get("LOG_FILE"),
    level=os.environ.get("LOG_LEVEL", "WARNING"),
    format="%(levelname)s:%(name)s:%(process)d:%(message)s",
    force=True,  # daphne has a format of its own
)


class Ledger:
    """An observer that writes down each state of each request: ``STATE ID``, one line each.

    One file for all processes of a server: appended to in one step each, which no other's
    comes in between.
    """

    is_immediate = True

    def __init__(self) -> None:
        self._file = os.open(LEDGER, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def wants(self, state: Any) -> bool:
        return str(state) != "active"  # told each second, of whatever lasts so long

    def __call__(self, event: Any) -> None:
        os.write(self._file, f"{event.state} {event.id}\n".encode())


class HangingObserver:
    """One that never comes back from what it is told first. It wants to hear of timeouts alone."""

    def wants(self, state: Any) -> bool:
        return str(state) == "timed_out"

    def __call__(self, event: Any) -> None:
        Path("hangs").touch()
        while True:
            time.sleep(3600)


ledger = Ledger()
observers = ["log", ledger, *([HangingObserver()] if os.environ.get("HANGING_OBSERVER") else [])]


class Clock:
    """A wall clock that can be set: ``time.time``, as everything in this process sees it."""

    def __init__(self) -> None:
        self.offset = 0.0
        self._true = time.time
        time.time = self.time

    def time(self) -> float:
        return self._true() + self.offset


clock = Clock()


def vitals() -> dict[str, Any]:
    """What this process has and holds just now."""
    process = Path("/proc/self")
    pages = int((process / "statm").read_text().split()[1])
    return {
        "pid": os.getpid(),
        "threads": len(list((process / "task").iterdir())),
        "descriptors": len(list((process / "fd").iterdir())),
        "memory": pages * os.sysconf("SC_PAGE_SIZE"),
        "entries": _entries(),
    }


def _entries() -> int:
    """How many deadlines it keeps."""
    count = len(watchdog._odd) + sum(len(lane.entries) for lane in watchdog._lanes.values())
    for module in (_loop_deadlines, _trio_request):
        lanes = module._of_this_thread.lanes
        count += 0 if lanes is None else sum(map(len, lanes.claimed()))
    return count


def set_clock(query: dict[str, str]) -> str:
    """Have the wall clock jump."""
    clock.offset = float(query["offset"])
    return "set"


def limit_memory(query: dict[str, str]) -> str:
    """Let this process have so many bytes more than it has, and no more; 0: as many as there are."""
    more = int(query["more"])
    soft = resource.RLIM_INFINITY
    if more:
        soft = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE") + more
    resource.setrlimit(resource.RLIMIT_AS, (soft, resource.RLIM_INFINITY))
    return "limited"


def gulp() -> int:
    """Ask for more memory than there is under a limit."""
    return len(bytearray(4 << 30)) if sys.maxsize > 1 << 32 else 0


#: Behind no guard.
UNGUARDED = {
    "/ready": lambda query: "ready",
    "/vitals": lambda query: vitals(),
    "/clock": set_clock,
    "/memory": limit_memory,
}
