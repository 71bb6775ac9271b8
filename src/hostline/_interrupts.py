"""How running code is broken: a thread by an asynchronous exception, the main thread by a signal.

Theory of operation. A request that runs in a thread is a :class:`ThreadRequest`. When its
deadline comes, the watchdog has won the claim on it (``_deadlines``) and calls
:meth:`ThreadRequest.expire`; from then on a ``Breaker`` (``_breaker``) fires at the thread. What
keeps a shot from hitting anything but the request:

1. A shot is sent only with the lock ``firing`` held and the request armed. The request's own
   thread, once it has lost the claim, disarms it under the same lock, and then clears
   what was sent and has not been raised (``SetAsyncExc(id, NULL)``). After
   :meth:`ThreadCall.disarm` nothing of this request can be raised in its thread any
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

import logging
from collections.abc import Callable, Iterator
from functools import partial
from itertools import takewhile
from threading import get_ident
from types import CodeType, FrameType
from typing import Protocol

from hostline import _frames, _stacks
from hostline._breaker import Breaker, absorb, firing
from hostline._budget import WaitReader
from hostline._debuggers import debugger_at
from hostline._log import log_stack
from hostline._observers import Observers
from hostline._requests import RequestDetails, State, logger, reporter
from hostline._termination import main_frame, terminator
from hostline.errors import RequestTimeoutException
from hostline.settings import RequestTimeoutSettings


class Guard(Protocol):
    """What a request has to know of the middleware that guards it."""

    observers: Observers
    settings: RequestTimeoutSettings
    waits: WaitReader
    #: Whether to break what runs too long; False only reports (``mode="report"``, or no way is safe).
    breaks: bool


class GuardedRequest(RequestDetails):
    """A request, as far as its guard's settings decide how it may be aborted."""

    guard: Guard
    #: Whether somebody looked at its code with a debugger when its time was up.
    is_spared = False
    #: Its ``X-Request-Start`` as it came, where nothing depends on it; read when somebody asks.
    stamp: str | bytes | None
    #: What was read in it, where something did.
    judged_wait: float | None = None

    def __init__(self) -> None:
        super().__init__()
        self.stamp = None

    @property
    def wait(self) -> float | None:
        """How long it waited in the queue; None where the proxy did not say."""
        if self.stamp is None:
            return self.judged_wait
        return self.guard.waits.since(self.stamp, self.started)

    @property
    def is_breakable(self) -> bool:
        return self.guard.breaks and not self.is_spared

    def code_frames(self) -> Iterator[FrameType]:
        """Those in which its code runs just now, as far as that can be told."""
        return iter(())

    def current_trace(self) -> _stacks.Trace:
        """What its code is doing just now."""
        raise NotImplementedError

    def trace_now(self) -> _stacks.Trace | None:
        """The same; None where it cannot be told, which is to cost nobody the abort."""
        try:
            return self.current_trace()
        except Exception as error:  # noqa: BLE001 - what is looked at is not ours
            message = "hostline cannot tell what a request is doing, and aborts it all the same."
            self.report(partial(logger.error, message, exc_info=error))
            return None

    def spare_if_debugged(self) -> bool:
        """Whether its code is not to be broken, and what has run long is the debugger's doing."""
        if not self.is_spared and self.guard.breaks:
            debugger = debugger_at(self.code_frames())
            if debugger is not None:
                self.is_spared = True
                tell_of_debugger(self.report, debugger)
        return self.is_spared

    @property
    def shield_limit(self) -> float:
        return self.guard.settings.shield_limit or 0.0


class ThreadCall:
    """Code that one thread runs for a request, from its start to its end: what is fired at.

    Whoever runs it does so as ``try: ... except BaseException: request.came_back = True`` and,
    having lost the claim, calls :meth:`disarm` in another ``try``, as point 2 says.
    """

    thread_id: int
    guard: Guard
    #: The code that runs it, in whose frames the local ``request`` is this one, and outside
    #: of which the stack is of no interest.
    outermost: frozenset[CodeType] = frozenset()
    #: Set by the thread itself, when the app's code runs no longer.
    came_back = False
    #: Whether an exception may be, or have been, on its way. Set by who sends it, before.
    shot_at = False
    #: Whether its thread is in code of the server's, as far as an abort can be put off.
    is_shielded = False
    #: Whether shots may be sent; guarded by ``firing``.
    is_armed = True
    #: Whether one was sent of the kind that has to be cleared.
    is_pending = False
    _breaker: Breaker | None = None

    @property
    def owner(self) -> RequestDetails:
        """The request that it is run for."""
        raise NotImplementedError

    def is_running(self) -> bool:
        """Whether its thread is inside it: thread identities recur, greenlets take turns."""
        return any(self.is_run_by(each) for each in ThreadCall.frames(self))

    def frames(self) -> Iterator[FrameType]:
        """Those of its thread, innermost first."""
        return _frames.outwards(_frames.of_thread(self.thread_id))

    def code_frames(self) -> Iterator[FrameType]:
        """Those of them that it runs: pdb leaves its trace function in what is further out."""
        return takewhile(lambda frame: frame.f_code not in self.outermost, self.frames())

    def is_run_by(self, frame: FrameType) -> bool:
        """Whether this frame is the one that runs it."""
        return frame.f_code in self.outermost and _frames.local(frame, "request") is self

    def is_hit(self, frame: FrameType | None) -> bool:
        """Whether this frame is its own: it has the thread for itself."""
        del frame
        return True

    def current_trace(self) -> _stacks.Trace:
        """What its thread is doing just now."""
        return _stacks.of_thread(_frames.of_thread(self.thread_id), self.outermost)

    def make_breaker(self) -> Breaker:
        """What fires at its thread until it comes back."""
        self._breaker = Breaker(self, self.guard.settings.deferral_limit or 0.0)
        return self._breaker

    def disarm(self) -> None:
        """When this returns, no exception of this call's can reach its thread any more.

        In that thread, which has lost the claim. Interrupted by one, it is to be called again.
        """
        with firing.lock:
            self.is_armed = False
        if self.is_pending:
            absorb()
        breaker, self._breaker = self._breaker, None
        if breaker is not None:
            breaker.let_go()

    def strike(self) -> bool:
        """Whether its own thread, which asks, is to raise the abort that is due."""
        breaker = self._breaker
        return breaker is not None and breaker.strike()

    def report(self, job: Callable[[], object]) -> None:
        """Have something told soon, by a thread that has nothing better to do."""
        reporter.submit(job)

    def main_frame(self) -> FrameType | None:
        """Where the server's own code stands."""
        return main_frame()

    def tell_unstoppable(self, frame: FrameType | None) -> None:
        """Say that its code has not taken notice, and where it is."""
        if terminator.count_unstoppable(self, self.guard.settings.term_on_timeout):
            self.report(partial(terminator.ask, self.main_frame()))
        self.report(partial(log_unstoppable, self.owner, _stacks.of_thread(frame, self.outermost)))


class ThreadRequest(ThreadCall, GuardedRequest):
    """A request that is served by one thread from its start to its end."""

    #: Whether its timeout has still to be told; popped by who tells it.
    is_untold = False

    @property
    def owner(self) -> RequestDetails:
        return self

    @property
    def has_left(self) -> bool:
        return self.came_back or (self.ended is not None and self.outcome is not State.TIMED_OUT)

    def is_here(self) -> bool:
        """Whether what asks is the thread that serves it."""
        return self.thread_id == get_ident()

    def survives_fork(self) -> bool:
        """Whether this is the request that forked."""
        return self.is_here()

    def fall_due(self) -> None:
        """The abort falls at the very end of its thread's last shield."""
        self.end_here()

    def end_here(self) -> None:
        """Raise the abort in place of its shot, in its own thread."""
        if self.is_here() and self.strike():
            raise RequestTimeoutException

    def refuse_work(self) -> None:
        """Raise the abort in place of its shot; behind that, it is clean-up that asks."""
        if not self.is_here() or self.strike():
            raise RequestTimeoutException

    def withdraw(self) -> bool:
        """Claim it, whatever lane it is in. From any thread."""
        raise NotImplementedError

    def give_up(self) -> None:
        """As at the deadline, but without a shot: its code is about to end itself."""
        super().give_up()
        if not self.is_here() or self.strike():
            return
        if self.withdraw() and self.time_out(self.trace_now()):
            breaker = self.make_breaker()
            breaker.strike()
            breaker.expire()  # which looks again whether that was heeded
            self.report(self.tell_timeout)

    def expire(self) -> None:
        """Time it out. In the watchdog's thread, which has won the claim."""
        self.spare_if_debugged()
        if not self.time_out(self.trace_now()):
            return  # it came back in the very moment, and has seen to all
        try:
            if self.is_breakable:
                self.break_thread()
        finally:
            self.report(self.tell_timeout)

    def break_thread(self) -> None:
        """Fire at its thread until it comes back. In the watchdog's thread."""
        self.make_breaker().expire()

    def time_out(self, trace: _stacks.Trace | None) -> bool:
        """Enter the state; False: it has been entered. Called with the claim won, or lost."""
        if self.ended is None:
            self.note_route()
        with firing.lock:
            if self.ended is not None:
                return False
            # First, for whoever finds it untold looks at it. And then that, in case that a guard further
            # out is aborted here.
            self.term = not self.is_spared and terminator.count(self.guard.settings.term_on_timeout)
            self.is_untold = True
            self.move_to(State.TIMED_OUT)
            self.trace = trace
        return True

    def tell_timeout(self) -> None:
        """Tell the observers, and end the process if this timeout was one too many.

        Whoever has it done, and however often, they are told once.
        """
        if not self.__dict__.pop("is_untold", False):
            return
        self.guard.observers.tell(self, State.TIMED_OUT)
        if self.term:
            terminator.ask(self.main_frame())

    def leave(self) -> None:
        """Have done with an expiry. In the request's thread, which has lost the claim."""
        self.disarm()
        self.time_out(None)
        if self.is_untold:
            self.report(self.tell_timeout)
        self.guard.observers.note_timeout(self)

    def see_out(self) -> None:
        """Have it ended and told, where an abort of a guard further out came in between."""
        if self.ended is None or self.is_untold:
            self.leave()


_debuggers_met: set[str] = set()


def tell_of_debugger(report: Callable[[Callable[[], object]], object], debugger: str) -> None:
    """Say once why requests are not aborted."""
    if debugger not in _debuggers_met:
        _debuggers_met.add(debugger)
        message = "hostline reports requests that run too long, but aborts none that a debugger (%s) is at."
        report(partial(logger.warning, message, debugger))


def log_unstoppable(request: RequestDetails, trace: _stacks.Trace) -> None:
    """Say that its code has not taken notice, and where it is. In the reporter's thread."""
    log_stack(
        logging.ERROR,
        f"source=hostline id={request.id} unstoppable: the abort has not taken effect; "
        "the code is still here:",
        trace,
        {"request_id": request.id, "state": "unstoppable"},
    )
