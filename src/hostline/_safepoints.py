"""May an exception be raised here? Where code stands at which it would break something.

An asynchronous exception can arrive between any two bytecodes. Most code bears that (it
is what KeyboardInterrupt does), but some leaves a lock held, a module half imported or a
pool one connection short. So the innermost frames are looked at before an abort is let
go, and it is put off while they are in such code.

A frame says exactly at what it stands only where it cannot run on meanwhile: in a signal
handler, for the main thread. For another thread it is a snapshot; ``_interrupts`` takes
an injection back whose target has moved.

Imports: ``_calls``, ``_frames``, ``_points``.
"""

import dis
import gc
import importlib
import itertools
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from types import CodeType, FrameType
from typing import Any

from hostline import _frames
from hostline._calls import offset_of
from hostline._points import GIVES_BACK, OUT, RAISED, Points, is_guarded, points

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
        "hostline._requests",
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
_CLEANING_UP = GIVES_BACK | {"__enter__", "acquire"}
# urllib3's and Django's ways into and out of a pool, or of "the connection of this thread".
_CHECKING_OUT = frozenset(
    {"_get_conn", "_put_conn", "close_if_health_check_failed", "close_if_unusable_or_obsolete", "connect"}
)
_POOLS = frozenset({"django.db.backends.base.base", "urllib3.connectionpool"})

# The signal handler, which a second signal may hit.
_OURSELVES = "hostline._breaker"
# Between two lines of a guard further in, its request would end half told. It is out of
# there at once. All modules of ours whose names begin so.
_GUARDS = "hostline._"
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

_SIGNALS = tuple(map(int, signal.valid_signals()))
# Not `signal`'s, which makes an `Enum` of all that is no handler: 0.03 ms a look.
_handler_of: Callable[[int], object] = importlib.import_module("_signal").getsignal

# CPython 3.13 looks whether an exception is pending, lets other threads run, and raises what
# it had seen before. So one that is set meanwhile is raised at the next check point only.
_RAISES_LATE = sys.version_info >= (3, 13)


def may_break(frame: FrameType | None, *, is_waiting: bool = False) -> bool:
    """Whether an exception raised in this very frame, now, leaves everything behind it whole.

    For the main thread and for greenlets. ``is_waiting``: the frame is known to wait in its
    innermost call, out of which it would be raised: a lock that it waits for is not taken.
    """
    if frame is None:
        return True
    if not _is_whole(frame, is_waiting=is_waiting):
        return False
    found, at = points(frame.f_code), offset_of(frame)
    if is_waiting:
        return at not in found.cleaning
    return _waits_on_a_condition(frame) or at not in found.delicate


def may_inject(frame: FrameType | None, *, stands_still: bool = False) -> bool:
    """Whether an exception that is set now for another thread, which is here, will do no harm.

    ``stands_still``: it has not run since it was last looked at, so it is in a C call.
    """
    if frame is None:
        return True
    if not _is_whole(frame):
        return False
    return _waits_on_a_condition(frame) or not any(
        at in (found.delicate_ahead if is_ahead else found.delicate)
        for found, at, is_ahead in _landings(frame, stands_still=stands_still)
    )


def is_importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported here: a package that is cut short never recovers."""
    return any(each.f_code.co_filename == _IMPORTING for each in _frames.outwards(frame))


def has_acquired(frame: FrameType | None) -> bool:
    """Whether this frame has just taken a bare lock, unless it still waits for it."""
    return frame is not None and offset_of(frame) in points(frame.f_code).acquiring


def is_acquiring(frame: FrameType | None) -> bool:
    """Whether an exception that is set now may leave a bare lock taken."""
    if frame is None or _waits_on_a_condition(frame):
        return False
    return any(at in found.acquiring for found, at, _ in _landings(frame, stands_still=False))


def fails_into_clean_up(frame: FrameType) -> bool:
    """Whether clean-up comes first if the call that this innermost frame stands at fails.

    Then CPython goes to the handler without looking whether an exception is pending: it would
    be raised in the first function that the clean-up calls, which has done nothing yet.
    """
    outer: FrameType | None = frame
    while outer is not None and not _is_a_guard_s(outer):
        caller = _frames.caller(outer)
        if is_guarded(outer.f_code, outer.f_lasti):
            found = points(outer.f_code)
            comes = found.failing.get(offset_of(outer), frozenset())
            if comes & found.clean_up:
                return True
            if OUT in comes and caller is not None and _comes_to_clean_up(caller):
                return True
            if RAISED not in comes:
                return False
        outer = caller
    return False


def _comes_to_clean_up(frame: FrameType) -> bool:
    """Whether clean-up comes next when a function that this frame has called returns."""
    return any(at in found.delicate_ahead for found, at, _ in _ahead(frame))


def _is_a_guard_s(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).startswith(_GUARDS)


def _is_whole(frame: FrameType, *, is_waiting: bool = False) -> bool:
    """Whether none of the functions that are being run is one that must not be cut short."""
    innermost = frame
    if _is_a_guard_s(frame):
        return False
    depth = 0
    called_in_between = _called_in_between()
    outer: FrameType | None = frame
    while outer is not None:
        code = outer.f_code
        if code.co_filename == _IMPORTING or outer.f_globals.get("__name__") == _OURSELVES:
            return False
        if code in called_in_between:
            return False
        if _NEWBORN_MISTAKEN and code is _THREAD_START:
            return False
        is_harmless = is_waiting and code.co_name == "acquire"
        if depth < _INNERMOST and not is_harmless and _is_critical(outer, innermost):
            return False
        if 0 < depth < _INNERMOST and offset_of(outer) in points(code).cleaning:
            return False
        outer = _frames.caller(outer)
        depth += 1
    return True


def _called_in_between() -> set[CodeType | None]:
    """The code that Python calls at any place in the app's own, and that is none of its business.

    What comes out of a callback of the collector's is printed, and no more. A handler of a signal is
    the server's: cut short, its log is half reopened, or its worker not told to stop.
    """
    handlers = map(_handler_of, _SIGNALS)
    return {_code_of(each) for each in (*gc.callbacks, *handlers) if callable(each)}


def _code_of(called: Any) -> CodeType | None:
    while type(called) is partial:
        called = called.func
    # A function's or a bound method's own; else that of an object that can be called.
    code = getattr(called, "__code__", None) or getattr(type(called).__call__, "__code__", None)
    return code if type(code) is CodeType else None


def _landings(frame: FrameType, *, stands_still: bool) -> Iterator[tuple[Points, int, bool]]:
    """Where an exception that is set now for this thread may be raised, and whether it runs on until then."""
    found, at = points(frame.f_code), offset_of(frame)
    is_late = at not in found.checks or (_RAISES_LATE and not stands_still)
    # In C a thread is found in calls alone; at other check points it has looked already.
    if at in found.checks and (at in found.calls or not is_late):
        yield found, at, False
    if is_late:
        yield from _ahead(frame)


def _ahead(frame: FrameType, depth: int = 0) -> Iterator[tuple[Points, int, bool]]:
    """The check points to which the thread comes next."""
    found, at = points(frame.f_code), offset_of(frame)
    ahead = found.ahead.get(at, frozenset())
    if at in ahead:
        ahead = frozenset({at})  # a loop without any other is taken to go on
    for offset in ahead - {OUT}:
        yield found, offset, True
    caller = _frames.caller(frame)
    if OUT in ahead and caller is not None and depth < _INNERMOST:
        yield points(caller.f_code), offset_of(caller), False
        yield from _ahead(caller, depth + 1)


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
