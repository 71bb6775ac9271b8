"""How a request in a greenlet of gevent's is broken.

All greenlets of a hub share one thread of the system's, so an exception set on the thread
does not know which of them it hits, and the hub itself must never be hit. But one thread has
its merits: what runs in the hub runs while no request does. The watchdog (a native thread)
asks the hub, by the one call of its loop that other threads may make, to throw the exception
into the request's greenlet. There the request is looked at exactly: it has come back, or it
has not, and no shot is ever left pending.

A greenlet that computes without waiting keeps the hub from running. If the hub has not
answered after :data:`_STARVED_AFTER`, the thread's own stack tells whose greenlet is
running; only if it is the very one that is due, it is fired at by the protocol of
``_interrupts``: where the hub is in the main thread, as it nearly always is, by the signal,
whose handler sees in which greenlet it is and would raise; else by the asynchronous
exception, but not on a CPython that raises it late.

Code computes, waits and computes again, so neither way is decided on for good: each step of
the one breaker asks the hub first.

Imports: ``_interrupts`` and what that is made of. gevent is imported where it is in use.
"""

import importlib
import logging
import sys
from _thread import LockType
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from time import monotonic
from types import FrameType
from typing import Any

from hostline import _frames, _safepoints, _stacks
from hostline._abortable import Block, call_each
from hostline._breaker import DEFERRAL, Breaker, firing, main_thread
from hostline._deadlines import watchdog
from hostline._interrupts import ThreadRequest
from hostline._log import log_stack
from hostline._native import native_get_ident, start_native_thread
from hostline.errors import RequestTimeoutException

_STARVED_AFTER = 0.02
# From CPython 3.13 on a thread may run on to its next check point before it raises what was set
# (``_safepoints``). There it may have become another greenlet's, by a call from Cython to Cython.
_RAISES_LATE = sys.version_info >= (3, 13)
#: How often a greenlet looks whether what it waits for, which may be in a native thread, has come.
_POLL = 0.001


def in_use() -> bool:
    """Whether gevent has replaced the blocking calls of this process."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("socket"))


def prepare(signum: int) -> None:
    """Have code that starves the hub broken by this signal. To be called in the hub's thread."""
    with suppress(ValueError):  # not the main thread: no handler would run in it
        main_thread.prepare(signum)


def main_frame() -> FrameType | None:
    """Where the greenlet stands that the server began with. To be called in a greenlet of its."""
    gevent = importlib.import_module("gevent")

    return _main_frame(gevent.get_hub())


def _main_frame(hub: Any) -> FrameType | None:
    frame: FrameType | None = hub.parent.gr_frame
    return frame


class GreenletRequest(ThreadRequest):
    """A request that is served by one greenlet from its start to its end."""

    #: Since when the hub has something to do for it; None: nothing.
    _asked_at: float | None = None

    def bind(self) -> None:
        """Remember the greenlet that serves it. To be called in that greenlet."""
        gevent = importlib.import_module("gevent")

        self._gevent: Any = gevent
        self._greenlet: Any = gevent.getcurrent()
        self._hub: Any = gevent.get_hub()
        self._hub_thread_id = native_get_ident()

    @property
    def thread_id(self) -> int:
        """The hub's native thread, in which it runs."""
        return self._hub_thread_id

    @thread_id.setter
    def thread_id(self, thread_id: int) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        # The guard's `get_ident` may be gevent's, which tells greenlets apart.
        del thread_id

    def is_here(self) -> bool:
        """Whether what asks is the greenlet that serves it."""
        return self._gevent.getcurrent() is self._greenlet

    def report(self, job: Callable[[], object]) -> None:
        """In a greenlet, though it may come late: what tells uses locks that are gevent's.

        In a native thread, as the log's handlers are used here, such a lock may never be given back to
        greenlets that wait for it too: gevent has that thread's hub see to it, which does not run.
        """
        self._hub.loop.run_callback_threadsafe(self._gevent.spawn, job)

    def frames(self) -> Iterator[FrameType]:
        """Those of its greenlet, which may be the one that runs."""
        frame = self.suspended_frame()
        return super().frames() if frame is None else _frames.outwards(frame)

    def current_trace(self) -> _stacks.Trace:
        """What its greenlet waits for, or is at; nothing where it has just been resumed."""
        frame = self.suspended_frame()
        if frame is None:
            frame = _frames.of_thread(self.thread_id)
            if not any(self.is_run_by(each) for each in _frames.outwards(frame)):
                frame = None
        return _stacks.of_thread(frame, self.outermost)

    def suspended_frame(self) -> FrameType | None:
        """Where its greenlet waits; None where it is the one that runs."""
        with _frames.still:
            frame: FrameType | None = self._greenlet.gr_frame
        return frame

    def main_frame(self) -> FrameType | None:
        """Where the greenlet stands that the server began with."""
        return _main_frame(self._hub)

    def expire(self) -> None:
        """Time it out. In the watchdog's thread, which has won the claim."""
        self.ask_hub(self.abort)
        watchdog.at(starved := _Starved(self), starved.deadline)

    def ask_hub(self, job: Callable[[], object]) -> None:
        """Have this done in the hub, unless it has still to do something else. From any thread."""
        if self._asked_at is None:
            self._asked_at = monotonic()
            self._hub.loop.run_callback_threadsafe(self._answer, job)

    def _answer(self, job: Callable[[], object]) -> None:
        self._asked_at = None
        job()

    def is_hub_late(self) -> bool:
        """Whether the hub has not come to what it was asked for."""
        asked_at = self._asked_at
        return asked_at is not None and monotonic() - asked_at >= _STARVED_AFTER

    def abort(self) -> None:
        """Enter the state, and begin to break it. With the claim won."""
        self.spare_if_debugged()
        if self.time_out(self.trace_now()):
            self.report(self.tell_timeout)
            if self.is_breakable:
                self.break_thread()

    def make_breaker(self) -> Breaker:
        """What throws at its greenlet, or fires at the thread, until it comes back."""
        self._breaker = breaker = _GreenletBreaker(self, self.guard.settings.deferral_limit or 0.0)
        return breaker

    def throw(self) -> None:
        """Raise the abort where its greenlet waits, at once. In the hub."""
        self._greenlet.throw(RequestTimeoutException)

    def tell_unstoppable(self, frame: FrameType | None) -> None:
        """As everywhere; what the thread runs need not be this greenlet."""
        super().tell_unstoppable(self.suspended_frame() or frame)

    def cancel_each(self, blocks: list[Block]) -> None:
        """In a greenlet, for what is called may wait in gevent's way; unless the hub would be waited for.

        A query of a driver that waits in C keeps the hub from running: it is what is to be cancelled.
        """
        if native_get_ident() != self._hub_thread_id and self.is_running():
            try:
                start_native_thread(_call_in_thread, (blocks,))
            except RuntimeError:  # out of threads, or of memory
                pass
            else:
                return
        self.report(partial(call_each, blocks))

    def wait_for(self, done: LockType) -> None:
        """Take this lock, and let the hub run meanwhile: what is waited for may be in another greenlet.

        Whatever is thrown into this one meanwhile is raised behind it.
        """
        if native_get_ident() != self._hub_thread_id:
            super().wait_for(done)
            return
        thrown: BaseException | None = None
        while not done.acquire(blocking=False):
            try:
                self._gevent.sleep(_POLL)
            except BaseException as error:  # noqa: BLE001 - gevent's Timeout, GreenletExit, an abort
                thrown = thrown or error
        try:
            if thrown is not None:
                raise thrown
        finally:
            del thrown  # its traceback holds this frame, which would hold it


def _call_in_thread(blocks: list[Block]) -> None:
    """Cancel them in a native thread, in which what waits in gevent's way makes a hub of its own."""
    try:
        call_each(blocks)
    finally:
        importlib.import_module("gevent").get_hub().destroy(destroy_loop=True)


class _GreenletBreaker(Breaker):
    """Fires at one greenlet: the hub throws where it waits; where it computes, it is a thread.

    Both ways are one breaker's, whose shots they are, so no two are ever on their way.
    """

    def __init__(self, request: GreenletRequest, deferral_limit: float) -> None:
        # Its thread_id is a property, as is told there.
        super().__init__(request, deferral_limit)  # pyright: ignore[reportArgumentType]
        self._greenlet = request
        self._looked_at = self.deadline

    def _inject(self, now: float) -> float:
        """Set the exception on the thread, where it cannot come to be raised in another greenlet."""
        return super()._inject(now) if self._is_starving() and not _RAISES_LATE else DEFERRAL

    def _knock(self) -> float:
        """Signal the thread, in which the handler sees whose greenlet it is in."""
        return super()._knock() if self._is_starving() else DEFERRAL

    def answer_knock(self, frame: FrameType | None) -> bool:
        """In the main thread: whether to raise in this frame."""
        return self._greenlet.is_here() and super().answer_knock(frame)

    def _is_starving(self) -> bool:
        """Whether this very greenlet keeps the hub from throwing; the hub is asked to in any case."""
        now = monotonic()
        looked_at, self._looked_at = self._looked_at, now
        if not self._greenlet.is_hub_late():
            self._greenlet.ask_hub(self._throw)
        elif self._greenlet.is_running():
            return True
        else:  # another one keeps it from running on, which is to cost it none of the time it is given
            self._since = min(now, self._since + now - looked_at)
        return False

    def _throw(self) -> None:
        """In the hub, so the greenlet stands still, and can be looked at exactly."""
        request = self._greenlet
        with firing.lock:
            is_due = request.is_armed and not request.came_back and self._shots < self._shots_due
            if not is_due or not self._may_throw(request.suspended_frame(), monotonic()):
                return
            request.shot_at = True
            self._count()
            self._place = None
        request.throw()

    def _may_throw(self, frame: FrameType | None, now: float) -> bool:
        """Whether an exception in the wait that this frame is in will do no harm."""
        request = self._greenlet
        if frame is None or request.is_held_back() or request.is_being_cancelled():
            return False
        if self._is_overdue(frame, now):
            return True
        return not request.is_shielded and _safepoints.may_break(frame, is_waiting=True)


class _Starved:
    """Looks whether the hub has been able to answer, until it has. An entry of the watchdog's."""

    def __init__(self, request: GreenletRequest) -> None:
        self._request = request
        self._is_told = False
        self.deadline = monotonic() + _STARVED_AFTER

    def survives_fork(self) -> bool:
        """A child has a hub of its own."""
        return False

    def expire(self) -> None:
        """Break the request if it is what starves the hub."""
        request = self._request
        if request.ended is not None or request.came_back:
            return
        if request.is_running():
            request.abort()
            return
        if not self._is_told:
            self._is_told = True
            request.report(partial(_log_blocked, request, ThreadRequest.current_trace(request)))
        self.deadline = monotonic() + _STARVED_AFTER
        watchdog.at(self, self.deadline)


def _log_blocked(request: GreenletRequest, trace: _stacks.Trace) -> None:
    """Say who has kept the hub from running."""
    log_stack(
        logging.WARNING,
        f"source=hostline id={request.id} had to wait for gevent's hub, which this code kept from running:",
        trace,
        {"request_id": request.id, "state": "hub_is_blocked"},
    )
