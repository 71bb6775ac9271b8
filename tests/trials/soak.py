"""Is every request accounted for, and does nothing grow?

    python tests/trials/soak.py                                   # 2 minutes on each server
    python tests/trials/soak.py --minutes 10 --server "uvicorn"   # on one, for longer
    python tests/trials/soak.py --minutes 0.1

Mixed traffic at full load on a real server: good requests, uploads, streams, errors of the app's own,
requests that time out waiting, computing or in mid-stream, that have expired, that are
redirected, whose client goes away. Half of the time on one process, whose threads,
descriptors, deadlines and memory are counted before and behind it; then on one that
has itself replaced again and again (``term_on_timeout``).

Ends with status 1 where what a client got does not fit what the observers were told, where
a request that was begun has got no answer, where anything has grown, or where hostline has
logged a defect of its own.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from on_servers import Kind, Server, asgi_kinds, faults_of_ours, proving, told, until, vitals, wsgi_kinds
from traffic import Traffic
from trial import table, tell, versions

LIMITS = {"HOSTLINE_SERVICE_TIMEOUT": "0.3", "HOSTLINE_STREAM_TIMEOUT": "0.3"}
# Two processes: while one ends, the other serves.
SERVERS: dict[str, tuple[Kind, tuple[str, ...], tuple[str, ...]]] = {
    "gunicorn gthread": (wsgi_kinds.GUNICORN_GTHREAD, (), ("--workers=2",)),
    "gunicorn sync": (wsgi_kinds.GUNICORN_SYNC, (), ("--workers=3",)),
    "gunicorn gevent": (wsgi_kinds.GUNICORN_GEVENT, (), ("--workers=2",)),
    "uvicorn": (asgi_kinds.UVICORN_UVLOOP, (), ("--workers=2",)),
}
CLIENTS = 16
TERM_ON = 20
# What goes on growing slowly in any server that was started a moment ago: its allocators.
ALLOWED = {"descriptors": 2, "entries": 1, "memory": 6 << 20}
#: How many requests a server may let fall of itself when it replaces a worker: uvicorn does so with one.
MOST_UNSERVED = 4


@dataclass
class Outcome:
    """What has come of one server's soak."""

    requests: int = 0
    timed_out: int = 0
    expired: int = 0
    left: int = 0
    late: int = 0
    replaced: int = 0
    unserved: int = 0
    grown: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def add(self, done: Traffic) -> None:
        """Enter a server's books, once it has settled."""
        if not done.settle():
            self.faults.append("requests that were begun have never ended")
        states = [each[-1] for each in done.states().values()]
        self.requests += len(done.got)
        self.timed_out += states.count("timed_out")
        self.expired += states.count("expired")
        self.left += done.counts()["gone"]
        self.late += done.late()
        self.unserved += len(done.unserved())
        self.faults += done.misfits()
        self.faults += faults_of_ours(done.server.log)


def soak_one_process(server: Server, seconds: float, outcome: Outcome) -> None:
    """The same process from the beginning to the end: what has grown?"""
    at_rest = vitals(server)
    done = Traffic(server, CLIENTS)
    done.run_for(seconds / 3)
    done.settle()
    before = vitals(server)
    done.run_for(seconds * 2 / 3)
    done.settle()
    outcome.add(done)
    # A pool has as many threads as requests were ever in flight together; beside those, three of ours.
    most = {**ALLOWED, "threads": max(2, at_rest["threads"] + CLIENTS + 3 - before["threads"])}

    def grown(after: dict[str, Any]) -> list[str]:
        return [sign for sign in most if after[sign] - before[sign] > most[sign]]

    until(lambda: not grown(vitals(server)), 10)  # connections that are being closed
    after = vitals(server)
    outcome.grown = {sign: after[sign] - before[sign] for sign in most}
    outcome.faults += [f"{sign}: {before[sign]} before, {after[sign]} after" for sign in grown(after)]
    if before["pid"] != after["pid"]:
        outcome.faults.append("the process was replaced, unasked")


def soak_replaced(server: Server, seconds: float, outcome: Outcome) -> None:
    """Processes that end after ``TERM_ON`` timeouts each: is a good request lost?"""
    done = Traffic(server, CLIENTS, keeps_alive=False)
    done.run_for(seconds)
    outcome.add(done)
    outcome.replaced = server.log.count("hostline asks this process")
    if (
        outcome.replaced == 0
        and sum(states[-1] == "timed_out" for states in told(server).values()) > 4 * TERM_ON
    ):
        outcome.faults.append("no process was replaced")
    if outcome.unserved > MOST_UNSERVED * (outcome.replaced + 1):
        outcome.faults.append(f"{outcome.unserved} requests were let fall by the server")


def soak(name: str, seconds: float) -> Outcome:
    """One server, in both ways."""
    kind, one_process, replaced = SERVERS[name]
    outcome = Outcome()
    for each, options, limits in (
        (soak_one_process, one_process, {}),
        (soak_replaced, replaced, {"HOSTLINE_TERM_ON_TIMEOUT": str(TERM_ON)}),
    ):
        server = proving(kind).start(*options, **LIMITS, **limits)
        try:
            each(server, seconds / 2, outcome)
        finally:
            server.stop()
        tell(
            f"{name}: {outcome.requests} requests, {outcome.replaced} replaced, {len(outcome.faults)} faults"
        )
    return outcome


def rows(outcomes: dict[str, Outcome]) -> Iterator[list[object]]:
    for name, each in outcomes.items():
        grown = [each.grown.get(sign, 0) for sign in ("threads", "descriptors", "entries")]
        counts = (
            each.requests,
            each.timed_out,
            each.expired,
            each.left,
            each.late,
            each.replaced,
            each.unserved,
        )
        yield [name, *counts, *grown, f"{each.grown.get('memory', 0) >> 10:,}", len(each.faults)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=2.0, help="on each server")
    parser.add_argument("--server", choices=SERVERS, action="append", help="only on this one")
    arguments = parser.parse_args()
    began = time.monotonic()
    outcomes: dict[str, Outcome] = {}
    for name in arguments.server or SERVERS:
        if missing := SERVERS[name][0].missing:
            tell(f"{name}: left out, {missing}")
        else:
            outcomes[name] = soak(name, arguments.minutes * 60)
    print(f"Mixed traffic of {CLIENTS} clients, {time.monotonic() - began:.0f} s in all.\n{versions()}.\n")
    heads = ["", "requests", "timed out", "expired", "client gone", "good, no 200", "processes replaced"]
    heads += [
        "unserved",
        "threads grown",
        "descriptors grown",
        "deadlines left",
        "memory grown, KiB",
        "faults",
    ]
    print(table(heads, rows(outcomes)))
    for name, each in outcomes.items():
        for fault in each.faults[:10]:
            print(f"\n{name}: {fault}")
    return int(any(each.faults for each in outcomes.values()))


if __name__ == "__main__":
    sys.exit(main())
