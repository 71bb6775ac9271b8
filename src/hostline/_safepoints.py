"""May an exception be raised here? Where code stands at which it would break something.

An asynchronous exception can arrive between any two bytecodes. Most code bears that (it
is what KeyboardInterrupt does), but some leaves a lock held, a module half imported or a
pool one connection short. So the innermost frames are looked at before an abort is let
go, and it is put off while they are in such code.

A frame says exactly at what it stands only where it cannot run on meanwhile: in a signal
handler, for the main thread. For another thread it is a snapshot; ``_interrupts`` takes
an injection back whose target has moved.

Imports: ``_calls``.
"""

import dis
import itertools
import sys
import threading
from functools import lru_cache
from types import CodeType, FrameType

from hostline._calls import calls

# How many frames inwards count: bookkeeping calls bookkeeping, but an app that is called
# *by* concurrent.futures, or inside a context manager of contextlib's, must stay breakable.
_INNERMOST = 3

# Their critical sections are `acquire(); try: ... finally: release()` and the like; the
# connection pools' end with a connection that is in nobody's hands.
_BOOKKEEPING = frozenset(
    {
        "_weakrefset",
        "concurrent.futures._base",
        "concurrent.futures.thread",
        "contextlib",
        "logging",
        "logging.handlers",
        "psycopg_pool.pool",
        "queue",
        "sqlalchemy.pool.base",
        "sqlalchemy.pool.impl",
        "sqlalchemy.util.queue",
        "threading",
        "weakref",
    }
)
_CLEANING_UP = frozenset({"__del__", "__enter__", "__exit__", "acquire", "close", "release"})
# urllib3's and Django's ways into and out of a pool, or of "the connection of this thread".
_CHECKING_OUT = frozenset(
    {"_get_conn", "_put_conn", "close_if_health_check_failed", "close_if_unusable_or_obsolete", "connect"}
)
_POOLS = frozenset({"django.db.backends.base.base", "urllib3.connectionpool"})

_IMPORTING = "<frozen importlib._bootstrap>"
_CONDITION_WAIT = threading.Condition.wait.__code__
_WAITING_LINES = frozenset(
    line
    for line, names in itertools.groupby(
        dis.get_instructions(_CONDITION_WAIT), key=lambda i: i.positions and i.positions.lineno
    )
    if any(i.argval == "acquire" for i in names)
)

# python/cpython: up to 3.11 a newborn thread bears its parent's id until it runs, and the
# exception meant for the parent would hit the child.
_NEWBORN_MISTAKEN = sys.version_info < (3, 12)
_THREAD_START = threading.Thread.start.__code__

# Between a bare `lock.acquire()` and the `try` behind it the lock belongs to nobody who
# would give it back. CPython 3.13 raises at the next point where it looks for exceptions,
# not at the one where the thread was seen: there, the way to the call counts as well.
_BEHIND_ACQUIRE = 8
_BEFORE_ACQUIRE = 8 if sys.version_info >= (3, 13) else 0


def may_break(frame: FrameType | None, *, is_waiting: bool = False) -> bool:
    """Whether an exception raised in this frame leaves everything behind it whole.

    ``is_waiting``: the frame is known to wait in its innermost call, from which it would
    be raised. So a lock that it stands at has not been taken.
    """
    innermost = frame
    if not is_waiting and is_acquiring(frame):
        return False
    depth = 0
    while frame is not None:
        code = frame.f_code
        is_harmless = is_waiting and code.co_name == "acquire"
        if depth < _INNERMOST and not is_harmless and _is_critical(frame, innermost):
            return False
        if code.co_filename == _IMPORTING or (_NEWBORN_MISTAKEN and code is _THREAD_START):
            return False
        frame = frame.f_back
        depth += 1
    return True


def is_acquiring(frame: FrameType | None) -> bool:
    """Whether this frame stands where an exception would leave a bare lock taken."""
    if frame is None or _waits_on_a_condition(frame):
        return False
    return frame.f_lasti in _near_acquire(frame.f_code)


def _is_critical(frame: FrameType, innermost: FrameType | None) -> bool:
    name = frame.f_code.co_name
    module = frame.f_globals.get("__name__")
    if name in _CLEANING_UP or (module in _POOLS and name in _CHECKING_OUT):
        return True
    return module in _BOOKKEEPING and not _waits_on_a_condition(innermost)


def _waits_on_a_condition(frame: FrameType | None) -> bool:
    """Whether the frame sits where Condition.wait was written to be interrupted.

    There it takes its lock again and leaves the queue of waiters, and the ``with`` of
    whoever waits (Event, Queue, Future) gives the lock back.
    """
    return frame is not None and frame.f_code is _CONDITION_WAIT and frame.f_lineno in _WAITING_LINES


@lru_cache(maxsize=512)
def _near_acquire(code: CodeType) -> frozenset[int]:
    """The offsets at, and close to, a bare ``acquire()``."""
    offsets = [i.offset for i in dis.get_instructions(code)]
    near: set[int] = set()
    for offset, call in calls(code).items():
        if call.method == "acquire":
            at = offsets.index(offset)
            near.update(offsets[max(0, at - _BEFORE_ACQUIRE) : at + 1 + _BEHIND_ACQUIRE])
    return frozenset(near)
