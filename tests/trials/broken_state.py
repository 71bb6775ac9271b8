"""How often does an abort leave state broken?

    python tests/trials/broken_state.py            # 5,000 aborts for each idiom and road
    python tests/trials/broken_state.py --aborts 200

Code uses one idiom in an endless loop and is aborted at a random point, thousands of
times: on hostline's road for the main thread (a signal), on its road for worker threads,
and by a bare ``PyThreadState_SetAsyncExc`` at a random time. Half of the aborts hit a
loop that does next to nothing else, half one with some 200 steps of other work in each round. Then one
looks: is a lock held, a module half imported, a pool short of a connection, a transaction
open? Ends with status 1 where hostline breaks more than ``--at-most`` allows.

The interpreter's switch interval is made 0.2 ms, that many aborts fit into a minute: more
switches, at more places, than a server sees.
"""

import argparse
import ctypes
import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from functools import partial

from idioms import IDIOMS, Idiom, is_broken_for_good
from trial import Run, app, in_child, in_threads, request, table, tell, versions

from hostline.wsgi import RequestTimeoutMiddleware

TIMEOUT = 0.002
WORKERS = 2
ROADS = {
    "main": "hostline, main thread",
    "threads": "hostline, threads",
    "bare": "bare SetAsyncExc, threads",
}

Abort = Callable[[Run], bool]


def abort_by_hostline() -> Abort:
    guard = RequestTimeoutMiddleware(app, service_timeout=TIMEOUT, observers=())

    def abort(run: Run) -> bool:
        return request(guard, run).startswith("504")

    return abort


class BareAbort(BaseException):
    pass


class BareAborts:
    """The exception at a random time, and no more care than that it hits the right code."""

    def __init__(self) -> None:
        self._running: dict[int, float] = {}
        self._claim = threading.Lock()
        threading.Thread(target=self._fire, daemon=True).start()

    def abort(self, run: Run) -> bool:
        thread = threading.get_ident()
        try:
            self._running[thread] = time.monotonic() + TIMEOUT
            run()
        except BaseException:  # or what the code has made of it
            pass
        finally:
            self._running.pop(thread, None)
        return True

    def _fire(self) -> None:
        while True:
            time.sleep(TIMEOUT / 4)
            now = time.monotonic()
            for thread, due in tuple(self._running.items()):
                # One step under the interpreter's lock, as nothing in between gives it up.
                if due <= now and self._running.get(thread) == due:
                    self._running[thread] = due + 1.0  # again, if it should have been swallowed
                    set_async_exc(thread, BareAbort)


set_async_exc = ctypes.pythonapi.PyThreadState_SetAsyncExc
set_async_exc.argtypes = (ctypes.c_ulong, ctypes.py_object)


def use_endlessly(idiom: Idiom, other_work: int) -> None:
    while True:
        idiom.step()
        for _ in range(other_work):
            pass


def count_broken(kind: type[Idiom], abort: Abort, aborts: int, other_work: int) -> int:
    """Of so many aborts, how many have left an idiom broken? In one thread."""
    broken = done = 0
    idiom = kind()
    while done < aborts:
        done += abort(partial(use_endlessly, idiom, other_work))
        if is_broken_for_good(idiom):
            broken += 1
            idiom.discard()
            idiom = kind()
    idiom.discard()
    return broken


def count_in_this_thread(kind: type[Idiom], abort: Abort, aborts: int) -> tuple[int, int]:
    """The broken states of so many aborts, half of them tight and half mixed. In this thread."""
    tight, mixed = (count_broken(kind, abort, aborts // 2, other) for other in kind.other_work)
    return tight, mixed


def count_in_threads(kind: type[Idiom], abort: Abort, aborts: int, workers: int) -> tuple[int, int]:
    """The same in threads."""
    counts: list[tuple[int, int]] = []
    in_threads([lambda: counts.append(count_in_this_thread(kind, abort, aborts // workers))] * workers)
    return sum(tight for tight, _ in counts), sum(mixed for _, mixed in counts)


def run_road(road: str, aborts: int, only: str) -> dict[str, tuple[int, int]]:
    """Each idiom's broken states."""
    sys.setswitchinterval(0.0002)
    logging.getLogger("hostline").setLevel(logging.CRITICAL)
    abort = BareAborts().abort if road == "bare" else abort_by_hostline()
    results: dict[str, tuple[int, int]] = {}
    for kind in (each for each in IDIOMS if only in each.__name__):
        started = time.monotonic()
        if road == "main":
            results[kind.name] = count_in_this_thread(kind, abort, aborts)
        else:
            results[kind.name] = count_in_threads(kind, abort, aborts, 1 if kind.shares_a_lock else WORKERS)
        tell(f"{road}: {kind.name}: {results[kind.name]}, {time.monotonic() - started:.0f} s")
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--aborts", type=int, default=5_000, help="for each idiom and road")
    parser.add_argument("--at-most", type=float, default=0.001, help="share of broken states in threads")
    parser.add_argument("--only", default="", help="the idioms whose class name contains this")
    parser.add_argument("--roads", default=",".join(ROADS), help="which of them, by commas")
    parser.add_argument("--one-road", choices=ROADS, help=argparse.SUPPRESS)  # a child process
    arguments = parser.parse_args()
    if arguments.one_road:
        print(json.dumps(run_road(arguments.one_road, arguments.aborts, arguments.only)))
        return 0
    child = (__file__, "--aborts", str(arguments.aborts), "--only", arguments.only, "--one-road")
    results = {road: in_child(*child, road) for road in arguments.roads.split(",")}
    print(f"State left broken, of {arguments.aborts:,} aborts (tight + mixed with other work).")
    print(f"{versions()}.\n")
    names = next(iter(results.values()))
    rows = [[name, *(_cell(*found[name]) for found in results.values())] for name in names]
    print(table(["idiom", *(ROADS[road] for road in results)], rows))
    shares = {r: sum(map(sum, f.values())) / len(f) / arguments.aborts for r, f in results.items()}
    return int(shares.get("main", 0) > 0 or shares.get("threads", 0) > arguments.at_most)


def _cell(tight: int, mixed: int) -> str:
    return f"{tight + mixed} ({tight} + {mixed})" if tight + mixed else "0"


if __name__ == "__main__":
    sys.exit(main())
