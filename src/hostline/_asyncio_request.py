"""A request on asyncio or uvloop: its task is cancelled, and the loop sends the answer meanwhile.

Whether a cancellation was ours is told as ``asyncio.timeout`` does, by the number of
requests to cancel that the task has got.
"""

import asyncio
import gc
import sys
from asyncio import CancelledError, current_task
from collections.abc import Awaitable, Callable
from contextvars import Context
from time import monotonic
from typing import TYPE_CHECKING, Any

from hostline import _slow, _stacks, _tasks
from hostline._asgi_exchange import Message
from hostline._asgi_request import AsgiRequest
from hostline._breaker import GRACE, HELD_BACK, SHOTS
from hostline._loop_deadlines import LoopEntry, LoopLanes
from hostline._pool_threads import PoolCall

# The loop holds a task weakly; this holds the answers that are on their way.
_answering: set[asyncio.Task[None]] = set()


def _context_of(task: "asyncio.Task[Any] | None") -> Context:
    """The context that the task's code runs in."""
    if task is not None and sys.version_info >= (3, 12):
        return task.get_context()
    held = gc.get_referents(task)  # before, it has no name
    return next((each for each in held if type(each) is Context), Context())


class AsyncioRequest(AsgiRequest):
    """A request that a task of asyncio's serves."""

    lanes: LoopLanes  # pyright: ignore[reportIncompatibleVariableOverride] - set once
    claims: dict[LoopEntry, bool]
    task: asyncio.Task[Any] | None
    filed: float | None = None
    timer: asyncio.TimerHandle | None
    answer: asyncio.Task[None] | None = None
    #: How often its task has been cancelled by us, and its code told to end in whichever way.
    cancels = 0
    shots = 0
    _listener: asyncio.Task[Any] | None = None
    _told: asyncio.Task[Any] | None = None
    _insistence: asyncio.TimerHandle | None = None

    # CPython before 3.13 makes an object far sooner without an __init__ of its class's: what
    # there is to be set, the guard sets.
    if TYPE_CHECKING:

        def __init__(self) -> None: ...

    else:
        __init__ = object.__init__

    def _withdraw(self) -> None:
        self.claims.pop(self, False)
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def answer_at_once(self) -> None:
        """Answer for the app, which may take its time to come to its end."""
        if self.is_answered_for:
            self.is_answered = True
            context = _context_of(self.task).copy()  # what is around the guard may look into it
            self.answer = self.lanes.loop.create_task(self._send_answer(), context=context)
            _answering.add(self.answer)
            self.answer.add_done_callback(_answering.discard)

    def leave_behind(self, call: PoolCall) -> None:
        """Nobody comes to `end_with` for it: its task, cancelled by somebody else, has left."""
        if self._is_last_of_broken(call):
            # Not at once: see `break_off_soon`.
            self.lanes.loop.call_soon(self._cancel_once, context=self.lanes.no_context)

    def _is_last_of_broken(self, call: PoolCall) -> bool:
        """Strike it off, if it is there; whether no other is left for the task to wait for."""
        if not self.broken_calls or call not in self.broken_calls:
            return False
        self.broken_calls.discard(call)
        return not self.broken_calls

    def _cancel_once(self) -> None:
        if self.shots == 0:
            self.cancel()

    async def end_with(self, call: PoolCall) -> None:
        """Go on where a task waited for a thread that has ended: be cancelled there."""
        if not self.broken_calls or call not in self.broken_calls:
            raise CancelledError  # its task has been cancelled, and the thread has come to its end by that
        if self._is_last_of_broken(call):
            self._cancel_once()
        # Whoever waits here is cancelled with the request's task, be it that task or one below
        # it; what nobody cancels has been left behind by the app, and ends by itself.
        await asyncio.sleep(GRACE)
        raise CancelledError

    def cancel(self) -> None:
        """Cancel its task, and see to it that this is heeded."""
        if self.task is not None and not self.came_back:
            self.shots += 1
            if not self._tell_listener():
                self.cancels += 1
                self.task.cancel()
            self._insist_in(GRACE)

    def _insist_in(self, delay: float) -> None:
        if self._insistence is not None:
            self._insistence.cancel()
        self._insistence = self.lanes.loop.call_later(delay, self._insist, context=self.lanes.no_context)

    def receive(self) -> Awaitable[Message]:
        """What the app gets as ``receive``."""
        if self._upload_complete:
            return self._listen()
        return super().receive()

    async def _listen(self) -> Message:
        """Wait for the client to go away, or for the deadline."""
        self._listener = task = current_task()
        cancelling = 0 if task is None else task.cancelling()
        try:
            return await self._server_receive()
        except CancelledError:
            if task is None or self._told is not task:
                raise
            self._told = None
            if task.uncancel() > cancelling:
                raise  # somebody else has cancelled it too
            return {"type": "http.disconnect"}  # it is over, as far as the app is concerned
        finally:
            if self._listener is task:
                self._listener = None

    def _tell_listener(self) -> bool:
        """Tell Django that the client has gone, for its handler leaves its tasks to themselves.

        That waits for two of them, which nobody ends when it is cancelled; but what it does
        when a client goes away, cancelling the view and cleaning up, is what is wanted here.
        """
        listener, self._listener = self._listener, None
        if listener is None or listener is self.task:
            return False
        if getattr(listener.get_coro(), "__qualname__", "") != "ASGIHandler.listen_for_disconnect":
            return False
        self._told = listener
        listener.cancel()
        return True

    def _insist(self) -> None:
        """The cancellation has been swallowed, or the clean-up takes its time."""
        if self.is_held_back():  # a shield of the clean-up's
            self._insist_in(HELD_BACK)
        elif self.shots < SHOTS:
            self.cancel()
        else:
            self.tell_unstoppable()

    def break_off_above(self) -> None:
        """Have the request's task end, where the running one is another below it."""
        assert self.task is not None  # it has not come back
        if getattr(self.task.get_coro(), "cr_running", False):
            # Not at once: this may be in a signal handler, and eager tasks run within the one that made them.
            ends_itself = current_task() is self.task
            self.lanes.loop.call_soon(
                self.break_calls if ends_itself else self.break_off, context=self.lanes.no_context
            )
        else:
            self.break_off()

    def call_in_loop(self, call: Callable[[], object]) -> bool:
        """Have the loop do it in its next round; False: it does nothing any more."""
        try:
            self.lanes.loop.call_soon_threadsafe(call, context=self.lanes.no_context)
        except RuntimeError:
            return False
        return True

    def insist_later(self) -> None:
        """Look whether its code has ended itself, as it was about to."""
        if self._insistence is None:
            self._insist_in(GRACE)

    def count_foreign(self) -> int:
        """The app has come back: how often somebody else has cancelled its task."""
        self.came_back = True
        self.forget_shield_end()
        if self._insistence is not None:
            self._insistence.cancel()
        assert self.task is not None  # it has not left
        for _ in range(self.cancels):
            self.task.uncancel()
        self.cancels = 0
        return self.task.cancelling()

    async def see_answer_off(self, cancelling: int) -> None:
        """Wait until the answer has been sent. ``cancelling``: as when the app was called."""
        answer, self.answer = self.answer, None  # its context holds the request
        assert answer is not None  # who calls has looked
        while not answer.done():
            try:
                await asyncio.shield(answer)
            except CancelledError:
                if self.count_foreign() > cancelling:
                    raise
                # One that nobody has asked for: CPython 3.12's task groups leave such behind.
        answer.result()

    @property
    def task_coroutine(self) -> object:
        """The outermost coroutine of its task; None where it has left."""
        return self.task and self.task.get_coro()

    def current_trace(self) -> _stacks.Trace:
        """What its task waits for just now, and a thread that works for it does."""
        return _tasks.of_task(self.task, self.outermost) + self.calls_trace()

    def warn_after(self, seconds: float) -> None:
        """Log where it is, if it has not ended by then. Rare: a timer of its own."""
        delay = max(0.0, self.started + seconds - monotonic())
        self.at_end(self.lanes.loop.call_later(delay, self._warn).cancel)

    def _warn(self) -> None:
        _slow.warn_soon(self, self.trace_now() or [])

    def detach(self) -> None:
        """Let go of what would keep the server's objects alive in a circle."""
        super().detach()
        self.task = None
