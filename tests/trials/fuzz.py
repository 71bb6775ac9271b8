"""Odd input, odd order: what the unit tests try in short, for as long as one likes.

    python tests/trials/fuzz.py                                # ten minutes, every part
    python tests/trials/fuzz.py --minutes 60 --part locations,browser
    python tests/trials/fuzz.py --list

The parts of ``tests/fuzz`` try a property of hostline's with input drawn by Hypothesis;
``browser`` has Chromium read hosts and Locations; ``watchdog`` and ``guard`` run threads
under drawn schedules, and under all with one switch; ``loop`` is the state machine of
requests on an event loop (all in ``tests/models``). Each part has its share of the time.
What is found is made as small as it gets and printed; the program then ends with status 1.
"""

import argparse
import logging
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from trial import table, tell, versions

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / each) for each in ("fuzz", "models", "browser", "")]

# One batch: tries some, and says how many. It raises where something is not as it should be.
Batch = Callable[[], int]
BATCH = 500
_QUIET = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}


def drawn(strategy: st.SearchStrategy[Any], check: Callable[[Any], object], count: int = BATCH) -> Batch:
    """A batch of examples, other ones each time."""

    def batch() -> int:
        tried = 0

        @seed(random.getrandbits(64))
        @settings(max_examples=count, **_QUIET)
        @given(strategy)
        def run(each: Any) -> None:
            nonlocal tried
            tried += 1
            check(each)

        run()
        return tried

    return batch


def schedules(name: str) -> Batch:
    """Threads under drawn schedules; the first time, under all with one switch."""
    model = __import__(f"test_{name}_model")
    from scheduler import Schedule, schedules  # noqa: PLC0415 - a module of the tests

    delays = getattr(model, "DELAYS", st.just(()))
    tries = st.tuples(st.sampled_from(model.SCENES), model.SWITCHES, delays)
    some = drawn(tries, lambda each: model.attempt(each[0])(Schedule(each[1], each[2])), 100)
    every = (tried for scene in model.SCENES for tried in schedules(model.attempt(scene), {}, 1, (), 1, 0))

    def batch() -> int:
        return sum(1 for _ in islice(every, 100)) or some()

    return batch


def sequences() -> Batch:
    """The rules of the loop's state machine in any order."""
    model = __import__("test_loop_model")

    def batch() -> int:
        model.explore(50, database=None, phases=(Phase.generate, Phase.shrink))
        return 50

    return batch


def browser() -> Batch:
    """What Chromium reads, by thousands."""
    from chromium import Chromium, missing  # noqa: PLC0415 - a module of the tests
    from host_confusion import (  # noqa: PLC0415
        HOSTS,
        LOCATIONS,
        Reader,
        confused_hosts,
        confused_locations,
    )

    if reason := missing():
        raise SystemExit(reason)
    chromium = Chromium(Path(tempfile.mkdtemp()))
    reader = Reader(chromium)
    hosts: list[Any] = []
    locations: list[Any] = []
    draw = drawn(
        st.tuples(HOSTS, LOCATIONS), lambda each: (hosts.append(each[0]), locations.append(each[1])), 1000
    )

    def batch() -> int:
        hosts.clear()
        locations.clear()
        draw()
        assert not (confused := confused_hosts(reader, hosts)), confused
        assert not (confused := confused_locations(reader, locations)), confused
        return len(hosts) + len(locations)

    batch.stop = chromium.stop  # type: ignore[attr-defined]
    return batch


def parts() -> dict[str, Callable[[], Batch]]:
    """All there are, by their names."""
    from properties import PROPERTIES  # noqa: PLC0415 - a module of the tests

    return {
        **{
            name: lambda each=each: drawn(each.tries, each.check)  # type: ignore[misc]
            for name, each in PROPERTIES.items()
        },
        "browser": browser,
        "watchdog": lambda: schedules("watchdog"),
        "guard": lambda: schedules("guard"),
        "loop": sequences,
    }


def try_for(seconds: float, name: str, batch: Batch) -> tuple[int, str]:
    """One part; how many were tried, and what came out."""
    end = time.monotonic() + seconds
    told = time.monotonic()
    tried = 0
    try:
        while time.monotonic() < end:
            tried += batch()
            if time.monotonic() > told + 10:
                told = time.monotonic()
                tell(f"{name}: {tried:,}")
    except Exception as error:
        traceback.print_exc()
        return tried, f"failed: {type(error).__name__}"
    finally:
        getattr(batch, "stop", lambda: None)()
    return tried, "nothing found"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--part", default="", help="which, with commas between them; all in doubt")
    parser.add_argument("--list", action="store_true", help="name the parts")
    arguments = parser.parse_args()
    logging.getLogger("hostline").setLevel(logging.CRITICAL)
    every = parts()
    if arguments.list:
        print("\n".join(every))
        return 0
    chosen = arguments.part.split(",") if arguments.part else list(every)
    rows = []
    for name in chosen:
        tell(name)
        tried, outcome = try_for(arguments.minutes * 60 / len(chosen), name, every[name]())
        rows.append([name, f"{tried:,}", outcome])
    print(f"{versions()}.\n")
    print(table(["part", "tried", "outcome"], rows))
    return int(any(row[2] != "nothing found" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
