"""Fires at one thread: by an asynchronous exception, or at the main thread by a signal.

The protocol, and why it is one, is told in ``_interrupts``; this is how a shot is sent,
sent again, taken back, and helped along where the thread waits in C.

Imports: ``_abortable``, ``_async_exceptions``, ``_deadlines``, ``_frames``, ``_native``, ``_requests`` for
the log, ``_safepoints``, ``_standing``, ``_unblocking``, ``_wait_probe``.
"""

import signal
import threading
import time
from time import monotonic, thread_time
from types import FrameType
from typing import Protocol

from hostline import _frames, _safepoints, _unblocking
from hostline._abortable import Abortable
from hostline._async_exceptions import clear_async_exc, set_async_exc
from hostline._deadlines import watchdog
from hostline._native import after_fork_in_child, native_get_ident, native_lock
from hostline._requests import logger
from hostline._standing import Standing
from hostline._wait_probe import wait_probe
from hostline.errors import RequestTimeoutException

SHOTS = 2
#: How long a shot has to take effect before the next, or before giving up.
GRACE = 1.0
#: How many times as long as anything else an import may put it off. A package that is cut short
#: half-way is not imported anew: what was done is there, what was not never comes.
IMPORT_PATIENCE = 10
#: How soon to look again while the code is where it may not be broken.
DEFERRAL = 0.001
#: And while it is in a shield, at whose end it looks itself.
HELD_BACK = 0.01
#: How often the main thread is signalled anew while its handler finds no safe point.
_RESIGNAL = 0.001
#: How much a thread that stands still may have computed between two looks, where taking notice of
#: a knock is computing.
_NO_WORK = 0.0002
#: After so many knocks that no handler has heard, they come seldom: C code that polls
#: (libpq's) begins its turn anew with each signal, and never gets to where it is heard.
_UNHEARD = 15
_RESIGNAL_UNHEARD = 0.15
#: How long a thread may stand at one call, with its exception pending, before it counts as
#: waiting there; doubled each time that nothing could be done about it.
_STANDSTILL = 0.003
#: How soon after having taken one back: if it had been raised already, the code is unwinding.
_TAKEN_BACK = 0.02
#: How often to look again at what has been given up.
_HOPELESS = 0.1


class _Firing:
    """The one lock under which shots are sent; a fork makes another.

    Held for microseconds, by the watchdog and by threads whose requests have timed out;
    never by a request that ends in time.
    """

    def __init__(self) -> None:
        self.lock = native_lock()

    def after_fork(self) -> None:
        """The parent's watchdog may have held it."""
        self.lock = native_lock()
        main_thread.breakers.clear()


firing = _Firing()


class _Absorbed(BaseException):
    """Takes the place of an exception that is not to be raised any more, and is raised at once."""


def absorb() -> None:
    """Take back what was sent to this very thread and has not been raised.

    ``SetAsyncExc(id, NULL)`` would do, but up to CPython 3.12 it leaves the interpreter
    looking for an exception that is not there, at every check point of every thread, until
    the next one is raised; in a traced function of 3.11 it looks for ever. So another one
    replaces it, which this thread raises at the end of the call that sets it.
    """
    thread_id = native_get_ident()  # gevent's own tells greenlets apart
    try:
        set_async_exc(thread_id, _Absorbed)
        for _ in range(2):
            pass  # a check point more
        clear_async_exc(thread_id, None)  # in here, should it be raised as late as this
    except _Absorbed:
        return


class Target(Protocol):
    """What is fired at: a request that runs in a thread. ``_interrupts`` tells what each is."""

    thread_id: int
    is_armed: bool
    is_shielded: bool
    came_back: bool
    shot_at: bool
    is_pending: bool

    @property
    def owner(self) -> Abortable:
        """The request that it works for, which has a say."""
        ...

    def is_running(self) -> bool:
        """Whether the thread runs this request just now."""
        ...

    def is_hit(self, frame: FrameType | None) -> bool:
        """In the main thread: whether this frame is its own, and is to be broken."""
        ...

    def tell_unstoppable(self, frame: FrameType | None) -> None:
        """It has taken no notice, and is in this frame."""


class Breaker:
    """Fires at one thread until its request has left, then gives up on it.

    An entry of the watchdog's, which calls ``expire`` for every step.
    """

    def __init__(self, request: Target, deferral_limit: float) -> None:
        self.request = request
        self.deadline = monotonic()
        self._deferral_limit = deferral_limit
        self._patience = deferral_limit  # for the code where it was last seen
        self._by_signal = main_thread.can_break(request.thread_id)
        self._shots = 0  # that took effect, as far as one can tell
        self._shots_due = 1
        self._since = self.deadline  # when the present shot fell due, or was fired
        self._place: tuple[FrameType, int] | None = None  # where the thread stood when it was fired
        self._standstill = _STANDSTILL
        self._standing = Standing()
        self._is_hopeless = False
        self._unheard = 0  # how many knocks have come to nobody's ear
        if self._by_signal:
            main_thread.breakers[self] = True

    def survives_fork(self) -> bool:
        """A child's code is not to be broken at its parent's deadline."""
        return False

    def let_go(self) -> None:
        """The request has left: hold nothing of it any longer. In the request's thread."""
        watchdog.forget(self)
        main_thread.breakers.pop(self, False)
        self._place = None
        self._standing.let_go()

    def expire(self) -> None:
        """Take the next step, and plan the one after."""
        self.request.owner.call_cancels()
        with firing.lock:
            is_over = not self.request.is_armed
            now = monotonic()
            delay = None if is_over else self._step(now)
            if delay is not None:  # under the lock: whoever leaves later will find it to forget
                self.deadline = now + delay
                watchdog.at(self, self.deadline)
        if is_over:
            self.let_go()
        elif delay is None and not self._is_hopeless:
            self.request.tell_unstoppable(_frames.of_thread(self.request.thread_id))

    def _step(self, now: float) -> float | None:
        """Fire if it is time to, and if that is safe; when to look again, None: never."""
        if self._shots < self._shots_due:
            if self.request.owner.is_held_back():
                self._since = now
                return HELD_BACK
            delay = self._knock() if self._by_signal else self._inject(now)
            if now - self._since <= self._patience + GRACE:
                return delay
            # No signal is heard, or it stands at a lock: it will be broken when it moves.
            if not self._is_hopeless:
                self._is_hopeless = True
                self.request.tell_unstoppable(_frames.of_thread(self.request.thread_id))
            return delay if self._standing.until == now else max(delay, _HOPELESS)
        left = GRACE - (now - self._since)
        if left > 0:
            return min(left, self._wake())
        if self._shots_due == SHOTS:
            return None
        self._shots_due += 1
        self._since = now
        return 0.0

    def _is_overdue(self, frame: FrameType | None, now: float) -> bool:
        """Whether it has been put off for so long that it is let go all the same."""
        self._patience = self._deferral_limit * (IMPORT_PATIENCE if _safepoints.is_importing(frame) else 1)
        # A thread that stands still where it gets no shot is not put off: it does nothing.
        return now - max(self._since, self._standing.idle_until) >= self._patience

    def _may_raise(self, frame: FrameType | None, now: float) -> bool:
        """Whether to raise here. In the main thread's handler."""
        if self.request.owner.is_held_back():
            return False
        has_waited = self._standing.look(frame, thread_time(), _NO_WORK)
        # A lock that has just been taken would never be given back: here it waits longer.
        if self._is_overdue(frame, now) and (has_waited or not _safepoints.has_acquired(frame)):
            return True
        return not self.request.is_shielded and _safepoints.may_break(frame, is_waiting=has_waited)

    def _may_inject(self, frame: FrameType, now: float) -> bool:
        """Whether to have an exception raised where this thread goes from here."""
        if self.request.owner.is_held_back() or self.request.owner.is_being_cancelled():
            return False
        stands_still = self._standing.look(frame, _cpu_time(self.request.thread_id), 0.0)
        # The exception is raised when the call returns: where that is a bare acquire(), the
        # lock would be taken, and never given back.
        if self._is_overdue(frame, now) and not _safepoints.is_acquiring(frame):
            return True
        return not self.request.is_shielded and _safepoints.may_inject(frame, stands_still=stands_still)

    def _count(self) -> None:
        self._shots += 1
        self._since = monotonic()

    def _knock(self) -> float:
        """Signal the main thread, whose handler decides; again until it has.

        It is heard in all that waits, but not in a computation in C.
        """
        frame = _frames.of_thread(self.request.thread_id)
        if frame is not None and self._place == (frame, frame.f_lasti):
            _unblocking.interrupt_sqlite(frame)
        self._place = None if frame is None else (frame, frame.f_lasti)
        signal.pthread_kill(self.request.thread_id, main_thread.signum)
        self._unheard += 1
        return _RESIGNAL if self._unheard < _UNHEARD else _RESIGNAL_UNHEARD

    def answer_knock(self, frame: FrameType | None) -> bool:
        """In the main thread: whether to raise in this frame."""
        self._unheard = 0
        request = self.request
        if request.came_back or not request.is_armed or self._shots >= self._shots_due:
            return False
        if not self._may_raise(frame, monotonic()) or not request.is_hit(frame):
            return False
        request.shot_at = True
        self._count()
        return True

    def strike(self) -> bool:
        """Whether the thread is to raise the abort itself, which counts as a shot. In that thread."""
        with firing.lock:
            if not self.request.is_armed or self._shots >= self._shots_due:
                return False
            self.request.shot_at = True
            self._count()
            return True

    def _inject(self, now: float) -> float:
        """Set the asynchronous exception; take it back if the thread was not where we looked."""
        request, thread_id = self.request, self.request.thread_id
        frame = _frames.of_thread(thread_id)
        if frame is None:
            return GRACE  # the thread is gone, or newborn
        place = frame.f_lasti
        if not self._may_inject(frame, now):
            return DEFERRAL
        if not request.is_running():
            return DEFERRAL
        pause = self._standing.pause(frame, now)
        if pause is not None and not self._can_end_wait():
            return pause
        request.shot_at = request.is_pending = True
        # One step under the interpreter's lock: nothing between the test and the call lets
        # another thread run.
        if not request.came_back:
            set_async_exc(thread_id, RequestTimeoutException)
        if _frames.of_thread(thread_id) is not frame or frame.f_lasti != place:
            return self._take_back()
        self._count()
        self._place = (frame, place)
        return self._standstill

    def _take_back(self) -> float:
        """Have the exception that was set not raised any more; when to look again."""
        clear_async_exc(self.request.thread_id, None)
        absorb()  # what that leaves behind, as told there
        return _TAKEN_BACK

    def _is_at_risk(self, frame: FrameType) -> bool:
        cpu_time = _cpu_time(self.request.thread_id)
        return self._standing.is_at_risk(frame, cpu_time) and not self._can_end_wait()

    def _can_end_wait(self) -> bool:
        """Whether nothing but an exception that is pending ends the thread's wait, and that does."""
        return self._standing.is_beyond_waking and main_thread.ends_waits()

    def _wake(self) -> float:
        """Wake the thread if it has stood still since it was fired at; when to look again."""
        if self._place is None or self._by_signal:
            return GRACE
        frame, place = self._place
        stands = _frames.of_thread(self.request.thread_id) is frame and frame.f_lasti == place
        if stands and self._is_at_risk(frame):
            self._place = None
            self._shots -= 1
            self._standing.note_that_it_stays(monotonic())
            return self._take_back()
        if not stands or _unblocking.unblock(frame):
            self._place = None
            return GRACE
        main_thread.end_wait(self.request.thread_id)
        self._standstill *= 2
        return self._standstill


def _cpu_time(thread_id: int) -> float:
    """How long this thread, which lives, has computed; always 0 where that cannot be told."""
    if not hasattr(time, "pthread_getcpuclockid"):  # macOS
        return 0.0
    return time.clock_gettime(time.pthread_getcpuclockid(thread_id))


class _MainThread:
    """The process's main thread, as far as a signal may be used to break it.

    ``breakers`` is changed by single dict operations; the rest by the main thread alone.
    """

    def __init__(self) -> None:
        self.signum = 0
        self.breakers: dict[Breaker, bool] = {}
        self._ident: int | None = None

    def prepare(self, signum: int) -> bool:
        """Install the handler, unless the signal is taken. To be called in the main thread."""
        # A thread that has forked is the main one of its child. There CPython 3.13.0 goes on telling the
        # one of its parent that a signal has come, and the handler does not run.
        is_from_the_start = type(threading.main_thread()).__name__ == "_MainThread"
        if not signum or not is_from_the_start:
            return False
        before = signal.getsignal(signum)
        if before not in (signal.SIG_DFL, signal.SIG_IGN, self._handle):
            logger.warning(
                "hostline: %s is taken by %r; code that blocks in the main thread is aborted when the "
                "blocking call returns. Choose another signal by HOSTLINE_TIMEOUT_SIGNAL.",
                signal.Signals(signum).name,
                before,
            )
            return False
        try:
            signal.signal(signum, self._handle)
        except ValueError:  # an embedding host's: `threading` was imported in another than the real one
            return False
        self.signum = signum
        self._ident = native_get_ident()
        works = self.can_break(self._ident)
        if works:
            logger.info("hostline aborts code in the main thread by %s.", signal.Signals(signum).name)
        return works

    def can_break(self, thread_id: int) -> bool:
        """Whether this is that thread and the handler is still there (mod_wsgi takes none)."""
        return thread_id == self._ident and signal.getsignal(self.signum) == self._handle

    def ends_waits(self) -> bool:
        """Whether CPython can have any thread's blocking call raise what is pending for it."""
        return bool(self.signum) and wait_probe.ask(self.signum)

    def end_wait(self, thread_id: int) -> None:
        """Have it do that, if it can."""
        if self.ends_waits():
            signal.pthread_kill(thread_id, self.signum)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        del signum
        for breaker in tuple(self.breakers):
            if breaker.answer_knock(frame):
                raise RequestTimeoutException


main_thread = _MainThread()
after_fork_in_child(firing.after_fork)
