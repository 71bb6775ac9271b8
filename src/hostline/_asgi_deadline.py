"""The deadline of an ASGI request as its app may bend it, from the loop's thread or another.

What is asked in another thread is handed to the loop, where alone claims are moved and
tasks are cancelled. ``_deadline_api`` is what calls all this.

Imports: ``_abortable``, ``_breaker``, ``_loop_deadlines``, ``_pool_threads``, ``_requests``.
"""

import asyncio
from asyncio import CancelledError, current_task, get_running_loop
from collections.abc import Callable
from functools import partial
from math import inf
from time import monotonic
from typing import Any

from hostline import _stacks
from hostline._abortable import Block, call_each
from hostline._breaker import GRACE
from hostline._loop_deadlines import NO_CONTEXT, LoopEntry, LoopLanes
from hostline._pool_threads import LoopRequest
from hostline._requests import State
from hostline.errors import RequestTimeoutException

_TIMED_OUT = State.TIMED_OUT


class BendableRequest(LoopRequest):
    """A request of an asyncio loop's, as far as its app has a say in when and how it ends."""

    claims: dict[LoopEntry, bool]
    lanes: LoopLanes
    task: asyncio.Task[Any] | None = None
    filed: float | None = None
    timer: asyncio.TimerHandle | None = None
    response_started = False
    is_stream = False
    #: Whether its code has come to its end, behind the deadline.
    came_back = False
    #: Looks whether its abort was heeded.
    insistence: asyncio.TimerHandle | None = None
    #: Breaks it off at last, while a shield puts that off.
    _shield_end: asyncio.TimerHandle | None = None
    #: The deadline that a thread has asked for and the loop has not seen to yet.
    _asked: float | None = None
    #: How long it has waited for its client's body; and the deadline that waits meanwhile.
    paused = 0.0
    service_deadline: float | None = None

    # What the request itself has to offer

    def current_trace(self) -> _stacks.Trace:
        """What its code waits for just now."""
        raise NotImplementedError

    def time_out(self, trace: _stacks.Trace) -> None:
        """Enter the state, and have it told. In the loop's thread, with the claim won."""
        raise NotImplementedError

    def answer_at_once(self) -> None:
        """Answer for the app, which may take its time to come to its end."""
        raise NotImplementedError

    def expire(self) -> None:
        """Time it out. Called by the loop's timer, which has won the claim."""
        raise NotImplementedError

    def break_off(self) -> None:
        """Have the app's code end."""
        raise NotImplementedError

    def insist(self) -> None:
        """Its abort has been swallowed, or the clean-up takes its time."""
        raise NotImplementedError

    # What the app asks for

    @property
    def has_left(self) -> bool:
        return self.ended is not None and (self.state is not _TIMED_OUT or self.task is None)

    @property
    def next_deadline(self) -> float:
        return self.deadline if self._asked is None else self._asked

    def set_timeout(self, timeout: float | None) -> bool:
        """As everywhere; from a thread, True says that the loop has been asked to."""
        if self.is_stream or self.ended is not None:
            return False
        if self.is_in_loop():
            self._set_timeout(timeout)
            return True
        self._asked = inf if timeout is None else self.started + self.paused + timeout
        return self._call_in_loop(partial(self._set_timeout, timeout))

    def _set_timeout(self, timeout: float | None) -> None:
        self._asked = None
        if self.is_stream or self.ended is not None:
            return
        self.timeout = timeout
        deadline = inf if timeout is None else self.started + self.paused + timeout
        if self.service_deadline is None:
            self.lanes.move(self, deadline)
        else:
            self.service_deadline = deadline

    def fall_due(self) -> None:
        """Break it off where that has waited for its last shield."""
        if self._shield_end is not None:
            # Not at once: a task that is cancelled while it runs may be the guard's by the
            # time that it takes notice.
            self._call_in_loop(self._break_off_unshielded)

    async def fall_due_now(self) -> None:
        """Let the loop cancel this task here."""
        if self._shield_end is not None:
            await asyncio.sleep(0)

    def refuse_work(self) -> None:
        """As in ``_interrupts``, for a thread; a task is cancelled at its next wait."""
        if not self.is_in_loop() and ((call := self.call_here) is None or call.strike()):
            raise RequestTimeoutException

    def end_here(self) -> None:
        """Raise the abort in place of its shot, in a thread that works for it."""
        if not self.is_in_loop() and (call := self.call_here) is not None and call.strike():
            raise RequestTimeoutException

    def is_ended_by(self, error: BaseException | None) -> bool:
        """Whether this is its own abort, in a thread or in its task."""
        return super().is_ended_by(error) or (
            isinstance(error, CancelledError) and self.state is _TIMED_OUT and self.is_breakable
        )

    def give_up(self) -> None:
        """Time it out without cancelling the code that asks for this: it is about to end."""
        super().give_up()
        if not self.is_in_loop():
            if (call := self.call_here) is not None:
                call.strike()
        elif self.ended is None and self.claims.pop(self, False):
            self.time_out(self.current_trace())
            self.answer_at_once()
            if current_task() is self.task:
                self.insistence = self.lanes.loop.call_later(GRACE, self.insist, context=NO_CONTEXT)
            else:
                self.lanes.loop.call_soon(self.break_off, context=NO_CONTEXT)

    def call_cancels(self) -> None:
        """In the loop's thread alone, which claims what is to be called there."""
        if self.is_in_loop():
            super().call_cancels()

    def cancel_each(self, blocks: list[Block]) -> None:
        """What was begun in the loop's thread is cancelled there, all else in another."""
        call_each([block for block in blocks if block.is_of_loop])
        others = [block for block in blocks if not block.is_of_loop]
        if others:
            super().cancel_each(others)

    def is_put_off(self) -> bool:
        """Whether a shield puts its end off; then it is looked at again."""
        self.forget_shield_end()
        if not self.is_held_back():
            return False
        delay = max(0.0, self.deadline + self.shield_limit - monotonic())
        self._shield_end = self.lanes.loop.call_later(delay, self._break_off_unshielded, context=NO_CONTEXT)
        return True

    def _break_off_unshielded(self) -> None:
        if self._shield_end is not None:
            self.break_off()

    def forget_shield_end(self) -> None:
        if self._shield_end is not None:
            self._shield_end.cancel()
            self._shield_end = None

    def is_in_loop(self) -> bool:
        try:
            return get_running_loop() is self.lanes.loop
        except RuntimeError:
            return False

    def _call_in_loop(self, call: Callable[[], object]) -> bool:
        """Have the loop do it in its next round; False: it does nothing any more."""
        try:
            self.lanes.loop.call_soon_threadsafe(call, context=NO_CONTEXT)
        except RuntimeError:
            return False
        return True
