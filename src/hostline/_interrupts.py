"""How running code is broken: a thread by an asynchronous exception, the main thread by a signal.

Theory of operation. A request that runs in a thread is a :class:`ThreadRequest`. When its
deadline comes, the watchdog has won the claim on it (``_deadlines``) and calls
:meth:`ThreadRequest.expire`; from then on a :class:`Breaker` fires at the thread. What
keeps a shot from hitting anything but the request:

1. A shot is sent only with :data:`_firing` held and the request armed. The request's own
   thread, once it has lost the claim, disarms it under the same lock, and then clears
   what was sent and has not been raised (``SetAsyncExc(id, NULL)``). After
   :meth:`ThreadRequest.leave` nothing of this request can be raised in its thread any
   more. CPython 3.13 raises late, so looking at a flag alone is not enough.
2. Until then the thread is inside the ``try`` of its guard. The first thing that the
   guard does when it is back there is to set ``came_back``, before the interpreter looks
   for exceptions again; looking at that and sending is one step under the interpreter's
   lock. A thread holds one pending exception. So at most one can still be raised, while
   the guard is leaving, and a second ``try`` around that catches it.
3. The main thread is broken by a signal whose handler raises. The handler runs in that
   thread itself, so it looks at the request and at the frame exactly where it would raise.
4. Neither is let go while the thread is where an exception would break state
   (``_safepoints``), up to the setting ``deferral_limit``.
5. A thread that waits in C is woken, once its exception is pending (``_unblocking``).

What is raised is :class:`RequestTimeoutException`, which names no request: two guards in
one thread may take each other's. A guard takes it for its own if it has shots of its own
out, else lets it pass; either way each answers for its own request.
"""

import ctypes
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from threading import get_ident
from time import monotonic, thread_time
from types import CodeType, FrameType
from typing import Protocol

from hostline import _safepoints, _stacks, _unblocking
from hostline._deadlines import watchdog
from hostline._native import after_fork_in_child, native_lock
from hostline._requests import Observers, RequestDetails, State, logger, reporter
from hostline._termination import terminator
from hostline.errors import RequestTimeoutException
from hostline.settings import RequestTimeoutSettings

SHOTS = 2
#: How long a shot has to take effect before the next, or before giving up.
GRACE = 1.0
#: How soon to look again while the code is where it may not be broken.
DEFERRAL = 0.003
#: How often the main thread is signalled anew while its handler finds no safe point.
_RESIGNAL = 0.005
#: How long a thread may stand at one call, with its exception pending, before it counts as
#: waiting there; doubled each time that nothing could be done about it.
_STANDSTILL = 0.003
#: How often to look again at what has been given up.
_HOPELESS = 0.1

_set_async_exc = ctypes.pythonapi.PyThreadState_SetAsyncExc
# An identity is an unsigned long; as a signed one it overflows on some platforms.
_set_async_exc.argtypes = (ctypes.c_ulong, ctypes.py_object)
_clear_async_exc = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)(
    ("PyThreadState_SetAsyncExc", ctypes.pythonapi)
)

# Guards every request's `_armed`. Held for microseconds, by the watchdog and by threads
# whose requests have timed out; never by a request that ends in time.
_firing = native_lock()


def _after_fork() -> None:
    global _firing  # the parent's watchdog may have held it
    _firing = native_lock()
    main_thread.breakers.clear()


class Guard(Protocol):
    """What a request has to know of the middleware that guards it."""

    observers: Observers
    settings: RequestTimeoutSettings
    #: Whether to break what runs too long; False only reports (``mode="report"``, or no way is safe).
    breaks: bool


class ThreadRequest(RequestDetails):
    """A request that is served by one thread from its start to its end.

    Its guard runs it as ``try: ... except BaseException: request.came_back = True`` and,
    having lost the claim, calls :meth:`leave` in another ``try``, as point 2 says.
    """

    thread_id: int
    guard: Guard
    #: The guard's own code, in whose frames the local ``request`` is this one, and outside
    #: of which the stack is of no interest.
    outermost: frozenset[CodeType] = frozenset()
    #: Set by the request's thread, when the app's code runs no longer.
    came_back = False
    #: Whether an exception may be, or have been, on its way. Set by who sends it, before.
    shot_at = False

    _armed = True  # guarded by _firing
    _pending = False  # whether a shot is of the kind that has to be cleared
    _untold = False
    _breaker: "Breaker | None" = None

    def survives_fork(self) -> bool:
        """Whether this is the request that forked."""
        return self.thread_id == get_ident()

    def report(self, job: Callable[[], object]) -> None:
        """Have something told soon, by a thread that has nothing better to do."""
        reporter.submit(job)

    def expire(self) -> None:
        """Time it out. In the watchdog's thread, which has won the claim."""
        trace = _stacks.of_thread(sys._current_frames().get(self.thread_id), self.outermost)
        if not self.time_out(trace):
            return  # it came back in the very moment, and has seen to all
        if self.guard.breaks:
            self.break_thread()
        self.report(self.tell_timeout)

    def break_thread(self) -> None:
        """Fire at its thread until it comes back. In the watchdog's thread."""
        self._breaker = breaker = Breaker(self)
        breaker.expire()

    def is_running(self) -> bool:
        """Whether its thread is inside its guard: thread identities recur, greenlets take turns."""
        frame = sys._current_frames().get(self.thread_id)
        while frame is not None:
            if frame.f_code in self.outermost and frame.f_locals.get("request") is self:
                return True
            frame = frame.f_back
        return False

    def time_out(self, trace: _stacks.Trace | None) -> bool:
        """Enter the state; False: it has been entered. Called with the claim won, or lost."""
        with _firing:
            if not self.move_to(State.TIMED_OUT):
                return False
            self.trace = trace
        self.term = terminator.count(self.guard.settings.term_on_timeout)
        return True

    def tell_timeout(self) -> None:
        """Tell the observers, and end the process if this timeout was one too many."""
        self.guard.observers.tell(self, State.TIMED_OUT)
        if self.term:
            terminator.ask(self.main_frame())

    def main_frame(self) -> FrameType | None:
        """Where the process's main thread stands: at its bottom, the server."""
        return sys._current_frames().get(threading.main_thread().ident or 0)

    def leave(self) -> None:
        """Have done with an expiry. In the request's thread, which has lost the claim.

        When this returns, no exception of this request can reach its thread any more.
        Interrupted by one, it is to be called again.
        """
        with _firing:
            self._armed = False
        if self.time_out(None):
            self._untold = True
        if self._pending:
            _clear_async_exc(self.thread_id, None)
        breaker, self._breaker = self._breaker, None
        if breaker is not None:
            breaker.let_go()
        if self._untold:
            self._untold = False
            self.report(self.tell_timeout)

    def tell_unstoppable(self, frame: FrameType | None) -> None:
        """Say that its code has not taken notice, and where it is."""
        if terminator.count_unstoppable(self.guard.settings.term_on_timeout):
            self.report(partial(terminator.ask, self.main_frame()))
        trace = _stacks.of_thread(frame, self.outermost)
        self.report(partial(_log_unstoppable, self, trace))


def _log_unstoppable(request: ThreadRequest, trace: _stacks.Trace) -> None:
    logger.error(
        "source=hostline id=%s unstoppable: the abort has not taken effect; the code is still here:\n%s",
        request.id,
        _stacks.render(trace),
    )


class Breaker:
    """Fires at one thread until its request has left, then gives up on it.

    An entry of the watchdog's, which calls ``expire`` for every step.
    """

    def __init__(self, request: ThreadRequest) -> None:
        self.request = request
        self.deadline = monotonic()
        self._deferral_limit = request.guard.settings.deferral_limit or 0.0
        self._by_signal = main_thread.can_break(request.thread_id)
        self._shots = 0  # that took effect, as far as one can tell
        self._shots_due = 1
        self._since = self.deadline  # when the present shot fell due, or was fired
        self._place: tuple[FrameType, int] | None = None  # where the thread stood when it was fired
        self._standstill = _STANDSTILL
        self._knocked_at: tuple[FrameType | None, int, float] = (None, -1, 0.0)
        self._is_hopeless = False
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
        self._knocked_at = (None, -1, 0.0)

    def expire(self) -> None:
        """Take the next step, and plan the one after."""
        with _firing:
            is_armed = self.request._armed
            now = monotonic()
            delay = self._step(now) if is_armed else None
            if delay is not None:  # under the lock: whoever leaves later will find it to forget
                self.deadline = now + delay
                watchdog.at(self, self.deadline)
        if is_armed and delay is None and not self._is_hopeless:
            self.request.tell_unstoppable(sys._current_frames().get(self.request.thread_id))

    def _step(self, now: float) -> float | None:
        """Fire if it is time to, and if that is safe; when to look again, None: never."""
        if self._shots < self._shots_due:
            delay = self._knock() if self._by_signal else self._inject(now)
            if now - self._since <= self._deferral_limit + GRACE:
                return delay
            # No signal is heard, or it stands at a lock: it will be broken when it moves.
            if not self._is_hopeless:
                self._is_hopeless = True
                self.request.tell_unstoppable(sys._current_frames().get(self.request.thread_id))
            return max(delay, _HOPELESS)
        left = GRACE - (now - self._since)
        if left > 0:
            return min(left, self._wake())
        if self._shots_due == SHOTS:
            return None
        self._shots_due += 1
        self._since = now
        return 0.0

    def _may_break(self, frame: FrameType | None, now: float, *, is_waiting: bool = False) -> bool:
        # In another thread, an exception is raised when the call returns: where that is a
        # bare acquire(), the lock would be taken, and never given back. There it waits.
        if now - self._since >= self._deferral_limit and (
            self._by_signal or not _safepoints.is_acquiring(frame)
        ):
            return True
        return _safepoints.may_break(frame, is_waiting=is_waiting)

    def _count(self) -> None:
        self._shots += 1
        self._since = monotonic()

    def _knock(self) -> float:
        """Signal the main thread, whose handler decides; again until it has.

        It is heard in all that waits, but not in a computation in C.
        """
        frame = sys._current_frames().get(self.request.thread_id)
        if frame is not None and self._place == (frame, frame.f_lasti):
            _unblocking.interrupt_sqlite(frame)
        self._place = None if frame is None else (frame, frame.f_lasti)
        signal.pthread_kill(self.request.thread_id, main_thread.signum)
        return _RESIGNAL

    def answer_knock(self, frame: FrameType | None) -> bool:
        """In the main thread: whether to raise in this frame."""
        request = self.request
        if request.came_back or not request._armed or self._shots >= self._shots_due:
            return False
        if not self._may_break(frame, monotonic(), is_waiting=self._has_waited(frame)):
            return False
        request.shot_at = True
        self._count()
        return True

    def _has_waited(self, frame: FrameType | None) -> bool:
        """In the main thread: whether it has done nothing since the last knock but wait."""
        before = self._knocked_at
        self._knocked_at = now = (frame, -1 if frame is None else frame.f_lasti, thread_time())
        return before[:2] == now[:2] and now[2] - before[2] < _RESIGNAL / 5

    def _inject(self, now: float) -> float:
        """Set the asynchronous exception; take it back if the thread was not where we looked."""
        request, thread_id = self.request, self.request.thread_id
        frame = sys._current_frames().get(thread_id)
        if frame is None:
            return GRACE  # the thread is gone, or newborn
        place = frame.f_lasti
        if not self._may_break(frame, now):
            return DEFERRAL
        if not request.is_running():
            return DEFERRAL
        request.shot_at = request._pending = True
        # One step under the interpreter's lock: nothing between the test and the call lets
        # another thread run.
        if not request.came_back:
            _set_async_exc(thread_id, RequestTimeoutException)
        if sys._current_frames().get(thread_id) is not frame or frame.f_lasti != place:
            _clear_async_exc(thread_id, None)
            return DEFERRAL
        self._count()
        self._place = (frame, place)
        return self._standstill

    def _wake(self) -> float:
        """Wake the thread if it has stood still since it was fired at; when to look again."""
        if self._place is None or self._by_signal:
            return GRACE
        frame, place = self._place
        stands = sys._current_frames().get(self.request.thread_id) is frame and frame.f_lasti == place
        if not stands or _unblocking.unblock(frame):
            self._place = None
            return GRACE
        self._standstill *= 2
        return self._standstill


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
        if not signum:
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
        signal.signal(signum, self._handle)
        self.signum = signum
        self._ident = get_ident()
        works = self.can_break(self._ident)
        if works:
            logger.info("hostline aborts code in the main thread by %s.", signal.Signals(signum).name)
        return works

    def can_break(self, thread_id: int) -> bool:
        """Whether this is that thread and the handler is still there (mod_wsgi takes none)."""
        return thread_id == self._ident and signal.getsignal(self.signum) == self._handle

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        del signum
        for breaker in tuple(self.breakers):
            if breaker.answer_knock(frame):
                raise RequestTimeoutException


main_thread = _MainThread()
after_fork_in_child(_after_fork)


def obstacle() -> str | None:
    """Why no thread of this process may be interrupted; None: they may be."""
    if sys.implementation.name != "cpython":
        return f"{sys.implementation.name} cannot raise an exception in a thread"
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        return "in a free-threaded build a running thread's frames may not be read"
    patcher = sys.modules.get("eventlet.patcher")
    if patcher is not None and patcher.is_monkey_patched("socket"):
        return "eventlet's greenlets cannot be told apart from another thread"
    return None
