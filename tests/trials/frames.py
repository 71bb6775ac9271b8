"""Are the frames of a thread that runs read without harm while the collector is at work?

    python tests/trials/frames.py --walks 2000
    python tests/trials/frames.py --bare      # without hostline's care CPython 3.11 dies of it, or hangs

A thread runs through functions of many shapes; another walks its stack again and again, just when
the collector is due, and leaves garbage whose finalizers let the first one run on.
"""

import argparse
import faulthandler
import gc
import random
import sys
import threading
from collections.abc import Callable, Iterator
from time import sleep
from types import CodeType, FrameType

from hostline import _frames

_SHAPES = 12
_DEEPEST = 30
_LONGEST = 500  # frames: far more than the thread can have
_COLLECTS_AT = 60  # pieces of garbage: the last of them are made while the stack is walked
_PATIENCE = 120


class Garbage:
    """A circle whose finalizer, where it runs in the middle of a walk, lets go of the interpreter."""

    is_walking = False

    def __init__(self) -> None:
        self.me = self

    def __del__(self) -> None:
        if Garbage.is_walking:
            sleep(0.00005)


def functions() -> list[Callable[[int], object]]:
    """Functions that call one another, each with a number of locals of its own."""
    every: list[Callable[[int], object]] = []
    for shape in range(_SHAPES):
        variables = ", ".join(f"v{n}" for n in range(3 * shape + 1))
        source = (
            f"def f(n):\n  {variables}, = ((n,),) * {3 * shape + 1}\n"
            f"  return n <= 0 or (every[(n * 7 + {shape}) % {_SHAPES}](n - 1), {variables})\n"
            "every.append(f)"
        )
        exec(source, {"every": every})
    return every


def bare(thread_id: int) -> Iterator[FrameType]:
    frame = sys._current_frames().get(thread_id)
    while frame is not None:
        yield frame
        frame = frame.f_back


def with_care(thread_id: int) -> Iterator[FrameType]:
    return _frames.outwards(_frames.of_thread(thread_id))


def walk(frames: Iterator[FrameType]) -> None:
    for length, frame in enumerate(frames):
        assert isinstance(frame, FrameType), f"{frame!r} is no frame"
        assert isinstance(frame.f_code, CodeType), f"a frame of {frame.f_code!r}"
        assert length < _LONGEST, "the way out of the stack does not end"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--walks", type=int, default=2_000)
    parser.add_argument("--bare", action="store_true", help="walk without hostline's care")
    options = parser.parse_args()
    faulthandler.dump_traceback_later(_PATIENCE, exit=True)
    sys.setswitchinterval(1e-6)
    stop = threading.Event()
    every = functions()

    def work() -> None:
        while not stop.is_set():
            for depth in range(_DEEPEST):
                every[depth % _SHAPES](depth)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    gc.set_threshold(_COLLECTS_AT)
    for _ in range(options.walks):
        gc.disable()
        for _ in range(random.randrange(_COLLECTS_AT - 12, _COLLECTS_AT)):
            Garbage()
        gc.enable()
        Garbage.is_walking = True
        walk((bare if options.bare else with_care)(thread.ident or 0))
        Garbage.is_walking = False
    assert gc.isenabled()
    stop.set()
    thread.join()
    print(f"CPython {sys.version.split()[0]}: {options.walks} walks, all of them through frames")


if __name__ == "__main__":
    main()
