"""The frames of threads that run, read so that neither they nor the memory they are in come to harm.

On CPython 3.11 whatever makes a frame object may run the cyclic collector first. A finalizer or
a weak reference's callback that is run then lets other threads go on, the one that is looked at
among them, and its frame, of which only the address is known by now, may be gone when it is
written to: the stack that is walked leads to some other object, or for ever in a circle, or the
process dies; ``sys._current_frames`` holds a lock of the interpreter's meanwhile, for which a
thread that starts another waits with the GIL in its hands. From 3.12 on the collector waits for
the evaluation loop (python/cpython#97922). So on 3.11 it is held off for the moment.

The invariant: of a thread that may run, hostline reads frames by these functions alone, and
while one of them is at work on 3.11 the collector is off. They may be called from any thread
and from a signal handler. Imports: ``_native``.
"""

import gc
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from types import FrameType

from hostline._native import after_fork_in_child, native_rlock


class CollectorOff:
    """Holds the cyclic collector off, unless it is off already. Can be nested.

    The lock guards the two attributes. A signal handler may come in between: it is in the same
    thread, and of its own thread's frames none can go.
    """

    def __init__(self) -> None:
        self._lock = native_rlock()
        self._depth = 0
        self._was_on = False

    def __enter__(self) -> None:
        self._lock.acquire()
        self._depth += 1
        if self._depth == 1:
            self._was_on = gc.isenabled()
            gc.disable()

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0 and self._was_on:
            gc.enable()
        self._lock.release()

    def after_fork(self) -> None:
        """Another thread may have been at it, and is not here to put it on again."""
        if self._depth and self._was_on:
            gc.enable()
        self._lock = native_rlock()
        self._depth = 0


#: Within it frames may be read by other means than these functions.
still: AbstractContextManager[None] = nullcontext()
if sys.version_info < (3, 12):
    still = CollectorOff()
    after_fork_in_child(still.after_fork)


def of_thread(thread_id: int) -> FrameType | None:
    """The innermost frame of this thread; None where it is gone, or newborn."""
    with still:
        return sys._current_frames().get(thread_id)


def caller(frame: FrameType) -> FrameType | None:
    """The frame that has called this one."""
    with still:
        return frame.f_back


def outwards(frame: FrameType | None) -> Iterator[FrameType]:
    """The frame, and those that have called it."""
    while frame is not None:
        yield frame
        frame = caller(frame)


def local(frame: FrameType, name: str, default: object = None) -> object:
    """A local variable of the frame's; the default where it is not set."""
    with still:
        return frame.f_locals.get(name, default)
