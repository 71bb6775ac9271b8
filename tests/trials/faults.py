"""What do servers do whose world goes wrong?

    python tests/trials/faults.py                       # every fault on each server, 20 times
    python tests/trials/faults.py --fault clock --server "uvicorn" --times 5

====================  =========================================================================
``clock``             the wall clock jumps, by seconds, an hour, or years, either way
``stopped``           the processes are stopped (SIGSTOP) for shorter and longer than the limit
``memory``            there is none left (RLIMIT_AS), also for a thread
``observer``          an observer hangs
``disk``              the log cannot be written (``/dev/full``)
``term``              the server is asked to end (SIGTERM) with all its workers busy
====================  =========================================================================

Traffic goes on meanwhile. Ends with status 1 where what a client got does not fit what the
observers were told, where a good request that was begun has got no answer, where a server does not
end in time, does not serve on, or where hostline has logged a defect of its own.
"""

import argparse
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from on_servers import HOST, Kind, Server, asgi_kinds, faults_of_ours, proving, until, wsgi_kinds
from traffic import Traffic
from trial import table, tell, versions

LIMIT = 0.3
LIMITS = {"HOSTLINE_SERVICE_TIMEOUT": str(LIMIT), "HOSTLINE_STREAM_TIMEOUT": str(LIMIT)}
SERVERS: dict[str, Kind] = {
    "gunicorn gthread": wsgi_kinds.GUNICORN_GTHREAD,
    "gunicorn sync": wsgi_kinds.GUNICORN_SYNC,
    "gunicorn gevent": wsgi_kinds.GUNICORN_GEVENT,
    "uvicorn": asgi_kinds.UVICORN_UVLOOP,
}
CLIENTS = 4
#: Nobody waits for a worker longer than this, where a limit of 0.3 s is kept.
GRACE = 20.0
_MIXED = {"good": 30, "kept": 20, "held": 20, "streamed": 10, "waiting": 5, "computing": 5, "stalled": 5}
_UNHURRIED = {"good": 30, "kept": 20, "held": 30, "streamed": 10, "waiting": 5}
_HELD = {"held": 80, "waiting": 10, "streamed": 10}


@dataclass
class Outcome:
    """What has come of one fault on one server."""

    times: int = 0
    requests: int = 0
    timed_out: int = 0
    late: int = 0
    unserved: int = 0
    faults: list[str] = field(default_factory=list)


@contextmanager
def on_trial(
    kind: Kind, outcome: Outcome, *options: str, tolerates: tuple[str, ...] = (), **environment: str
) -> Iterator[Server]:
    """A server of the fault's own; what it has logged in the end is looked at."""
    server = proving(kind).start(*options, **{**LIMITS, **environment})
    try:
        yield server
        outcome.faults += [
            each
            for each in faults_of_ours(server.log)
            if not any(tolerated in each for tolerated in tolerates)
        ]
    finally:
        server.stop()


def enter(outcome: Outcome, done: Traffic) -> None:
    """Enter the books of what was asked for."""
    if not done.settle():
        outcome.faults.append("requests that were begun have never ended")
    outcome.requests += len(done.got)
    outcome.timed_out += sum(states[-1] == "timed_out" for states in done.states().values())
    outcome.late += done.late()
    outcome.unserved += len(done.unserved())
    outcome.faults += done.misfits()


@contextmanager
def going_on(done: Traffic) -> Iterator[None]:
    """Have traffic beside what is done here."""
    is_over = threading.Event()
    clients = threading.Thread(target=done.run, args=(is_over.is_set,))
    clients.start()
    try:
        yield
    finally:
        is_over.set()
        clients.join()


def serves(server: Server, outcome: Outcome) -> None:
    """It must, behind whatever has happened."""
    if server.get("/ok", {"Host": HOST}).status != 200:
        outcome.faults.append("the server does not serve on")


def clock(kind: Kind, times: int, outcome: Outcome) -> None:
    """Only the waits in queues are the wall clock's business."""
    chance = random.Random(1)
    with on_trial(kind, outcome, HOSTLINE_SERVICE_TIMEOUT="1") as server:
        done = Traffic(server, CLIENTS, _UNHURRIED)
        with going_on(done):
            for _ in range(times * 5):
                offset = chance.choice((1, -1)) * chance.choice((0.2, 5, 3_600, 10**6, 10**9))
                server.get(f"/clock?offset={offset}")
                outcome.times += 1
                time.sleep(0.1)
        enter(outcome, done)
        if outcome.late > 5 + len(done.got) / 10:
            outcome.faults.append(f"{outcome.late} good requests were aborted")
        serves(server, outcome)


def stopped(kind: Kind, times: int, outcome: Outcome) -> None:
    """The time goes on meanwhile: what was due then is due as soon as it can be."""
    with on_trial(kind, outcome) as server:
        done = Traffic(server, CLIENTS, _MIXED)
        with going_on(done):
            for number in range(times):
                time.sleep(0.3)
                os.killpg(server.process.pid, signal.SIGSTOP)
                time.sleep(LIMIT / 3 if number % 2 else 4 * LIMIT)
                os.killpg(server.process.pid, signal.SIGCONT)
                outcome.times += 1
        enter(outcome, done)
        serves(server, outcome)


def memory(kind: Kind, times: int, outcome: Outcome) -> None:
    """The app's MemoryError is its own; where no thread can be started, it is served all the same."""
    with on_trial(kind, outcome) as server:  # not a thread of ours has been started
        server.get("/memory?more=1000000")
        for _ in range(3):
            answer = server.get("/ok", {"Host": HOST})
            if answer.status != 200:
                outcome.faults.append(f"without memory for a thread: {answer}")
        server.get("/memory?more=0")
        serves(server, outcome)
    no_memory = ("MemoryError", "hostline could not", "hostline's watchdog failed")
    with on_trial(kind, outcome, tolerates=no_memory) as server:
        for number in range(times):
            Traffic(server, CLIENTS, _MIXED, name=f"before-{number}").run_for(0.2)
            server.get(f"/memory?more={16 << 20}")
            # Whoever asks for memory may be told that there is none: the server, the app, and we.
            Traffic(server, CLIENTS, {**_MIXED, "gulped": 20}, name=f"short-{number}").run_for(0.5)
            if not until(lambda: server.get("/memory?more=0").status == 200):
                outcome.faults.append("the server cannot be given its memory back")
            outcome.times += 1
            done = Traffic(server, CLIENTS, _MIXED, name=f"behind-{number}")
            done.run_for(0.3)
            enter(outcome, done)
        serves(server, outcome)


def observer(kind: Kind, times: int, outcome: Outcome) -> None:
    """It hangs at the first timeout, and harms nobody else."""
    with on_trial(kind, outcome, HANGING_OBSERVER="1") as server:
        done = Traffic(server, CLIENTS, _MIXED)
        done.run_for(times * 0.3)
        if not until((server.folder / "hangs").exists):
            outcome.faults.append("the observer was told nothing")
        outcome.times += 1
        enter(outcome, done)
        serves(server, outcome)


def disk(kind: Kind, times: int, outcome: Outcome) -> None:
    """Each line of the log is an error to whoever writes it."""
    with on_trial(kind, outcome, LOG_FILE="/dev/full", LOG_LEVEL="INFO") as server:
        done = Traffic(server, CLIENTS, _MIXED)
        done.run_for(times * 0.3)
        outcome.times += len(done.got)
        enter(outcome, done)
        serves(server, outcome)


def term(kind: Kind, times: int, outcome: Outcome) -> None:
    """Whatever has been begun is brought to its end."""
    for _ in range(max(1, times // 4)):
        with on_trial(kind, outcome) as server:
            done = Traffic(server, CLIENTS, _HELD, keeps_alive=False)
            with going_on(done):
                time.sleep(random.Random(outcome.times).uniform(0.4, 0.8))
                asked = time.monotonic()
                server.ask_to_stop()
            if not until(lambda: not server.is_running, GRACE):
                outcome.faults.append(f"the server has not ended after {time.monotonic() - asked:.0f} s")
            outcome.times += 1
            enter(outcome, done)


FAULTS: dict[str, Callable[[Kind, int, Outcome], None]] = {
    each.__name__: each for each in (clock, stopped, memory, observer, disk, term)
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--fault", choices=FAULTS, action="append", help="only this one")
    parser.add_argument("--server", choices=SERVERS, action="append", help="only on this one")
    arguments = parser.parse_args()
    outcomes: dict[tuple[str, str], Outcome] = {}
    for fault in arguments.fault or FAULTS:
        for name in arguments.server or SERVERS:
            if missing := SERVERS[name].missing:
                tell(f"{name}: left out, {missing}")
                continue
            outcome = outcomes[fault, name] = Outcome()
            FAULTS[fault](SERVERS[name], arguments.times, outcome)
            tell(f"{fault}, {name}: {outcome.requests} requests, {len(outcome.faults)} faults")
    print(f"Traffic of {CLIENTS} clients on servers whose world goes wrong.\n{versions()}.\n")
    heads = ["", "times", "requests", "timed out", "good, no 200", "unserved", "faults"]
    rows = [
        [
            f"{fault}, {name}",
            each.times,
            each.requests,
            each.timed_out,
            each.late,
            each.unserved,
            len(each.faults),
        ]
        for (fault, name), each in outcomes.items()
    ]
    print(table(heads, rows))
    for (fault, name), each in outcomes.items():
        for told_fault in each.faults[:5]:
            print(f"\n{fault}, {name}: {told_fault}")
    return int(any(each.faults for each in outcomes.values()))


if __name__ == "__main__":
    sys.exit(main())
