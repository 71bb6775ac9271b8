"""A request on asyncio or uvloop: its task is cancelled, and the loop sends the answer meanwhile.

Whether a cancellation was ours is told as ``asyncio.timeout`` does, by the number of
requests to cancel that the task has got.
"""

import asyncio
from asyncio import CancelledError, current_task
from time import monotonic
from types import CodeType, FrameType
from typing import Any

from hostline import _slow, _stacks
from hostline._asgi_request import AsgiRequest
from hostline._breaker import GRACE, SHOTS
from hostline._loop_deadlines import NO_CONTEXT, LoopEntry, LoopLanes
from hostline._pool_threads import PoolCall

# The loop holds a task weakly; this holds the answers that are on their way.
_answering: set[asyncio.Task[None]] = set()


class AsyncioRequest(AsgiRequest):
    """A request that a task of asyncio's serves."""

    lanes: LoopLanes
    claims: dict[LoopEntry, bool]
    #: The guard's own code, in whose frames the local ``request`` is this one.
    outermost: frozenset[CodeType] = frozenset()
    task: asyncio.Task[Any] | None = None
    filed: float | None = None
    timer: asyncio.TimerHandle | None = None
    answer: asyncio.Task[None] | None = None
    #: How often its task has been cancelled by us.
    cancels = 0
    _insistence: asyncio.TimerHandle | None = None

    def _withdraw(self) -> None:
        self.claims.pop(self, False)
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def _answer_at_once(self) -> None:
        """Answer for the app, which may take its time to come to its end."""
        if self.is_answered_for:
            self.answer = self.lanes.loop.create_task(self._send_answer())
            _answering.add(self.answer)
            self.answer.add_done_callback(_answering.discard)

    async def end_with(self, call: PoolCall) -> None:
        """Go on where a task waited for a thread that has ended: be cancelled there."""
        assert self.broken_calls is not None  # this one has been broken off
        self.broken_calls.discard(call)
        if not self.broken_calls and self.cancels == 0:
            self.cancel()
        # Whoever waits here is cancelled with the request's task, be it that task or one below
        # it; what nobody cancels has been left behind by the app, and ends by itself.
        await asyncio.sleep(GRACE)
        raise CancelledError

    def cancel(self) -> None:
        """Cancel its task, and see to it that this is heeded."""
        if self.task is not None and not self.came_back:
            self.cancels += 1
            self.task.cancel()
            self._insistence = self.lanes.loop.call_later(GRACE, self._insist, context=NO_CONTEXT)

    def _insist(self) -> None:
        """The cancellation has been swallowed, or the clean-up takes its time."""
        if self.cancels < SHOTS:
            self.cancel()
        else:
            self.tell_unstoppable()

    def expire_in_step(self, frame: FrameType | None) -> bool:
        """Time it out from within its code, which blocks the loop (``_blocked_loops``)."""
        if _stacks.runs(frame, self._send_code):
            return False  # half a message would be sent
        if self.ended is None and self.claims.pop(self, False):
            self._time_out(_stacks.of_thread(frame, self.outermost))
            self._answer_at_once()
            self._break_off_above()
        return not self.came_back

    def _break_off_above(self) -> None:
        """Have the request's task end, where the running one is another below it."""
        assert self.task is not None  # it has not come back
        if getattr(self.task.get_coro(), "cr_running", False):
            if current_task() is not self.task:  # an eager task runs within the one that made it
                self.lanes.loop.call_soon(self.break_off, context=NO_CONTEXT)
        else:
            self.break_off()

    def count_foreign(self) -> int:
        """The app has come back: how often somebody else has cancelled its task."""
        self.came_back = True
        if self._insistence is not None:
            self._insistence.cancel()
        assert self.task is not None  # it has not left
        for _ in range(self.cancels):
            self.task.uncancel()
        self.cancels = 0
        return self.task.cancelling()

    async def see_answer_off(self, cancelling: int) -> None:
        """Wait until the answer has been sent. ``cancelling``: as when the app was called."""
        assert self.answer is not None  # who calls has looked
        while not self.answer.done():
            try:
                await asyncio.shield(self.answer)
            except CancelledError:
                if self.count_foreign() > cancelling:
                    raise
                # One that nobody has asked for: CPython 3.12's task groups leave such behind.
        self.answer.result()

    def _current_trace(self) -> _stacks.Trace:
        """What its task waits for just now, and a thread that works for it does."""
        waits = _stacks.of_coroutine(self.task and self.task.get_coro(), self.outermost)
        return waits + self.calls_trace()

    def warn_after(self, seconds: float) -> None:
        """Log where it is, if it has not ended by then. Rare: a timer of its own."""
        delay = max(0.0, self.started + seconds - monotonic())
        self.on_end = self.lanes.loop.call_later(delay, self._warn).cancel

    def _warn(self) -> None:
        _slow.warn_soon(self, self._current_trace())

    def detach(self) -> None:
        """Let go of what would keep the server's objects alive in a circle."""
        super().detach()
        self.task = None
