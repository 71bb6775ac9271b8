"""The deadline of an ASGI request as its app may bend it, from the loop's thread or another.

What is asked in another thread is handed to the loop, where alone claims are moved and
tasks are ended. ``_deadline_api`` is what calls all this; what differs from loop to loop is
in ``_asyncio_request`` and ``_trio_request``.

Imports: ``_abortable``, ``_deadlines``, ``_pool_threads``, ``_requests``, ``_stacks``.
"""

from collections.abc import Callable
from contextvars import Context
from functools import partial
from math import inf
from threading import get_ident
from typing import Any, Protocol

import anyio.lowlevel

from hostline import _stacks
from hostline._abortable import Block, call_each
from hostline._deadlines import watchdog
from hostline._pool_threads import LoopRequest
from hostline._requests import State
from hostline.errors import RequestTimeoutException

_TIMED_OUT = State.TIMED_OUT


class Lanes(Protocol):
    """Where deadlines are kept that change while the request runs."""

    thread_id: int

    def at(self, entry: Any, deadline: float) -> None:
        """Enter, or enter anew. ``inf``: it never expires."""

    def move(self, entry: Any, deadline: float) -> None:
        """Give an entry that has not expired another deadline."""


class _ShieldEnd:
    """Breaks a request off though it is in a shield. An entry of the watchdog's."""

    def __init__(self, request: "BendableRequest", deadline: float) -> None:
        self._request = request
        self.deadline = deadline

    def survives_fork(self) -> bool:
        """A loop does not."""
        return False

    def expire(self) -> None:
        """In the watchdog's thread."""
        self._request.call_in_loop(self._request.break_off_unshielded)


class BendableRequest(LoopRequest):
    """A request of an event loop's, as far as its app has a say in when and how it ends."""

    lanes: Lanes
    #: Where its claim is to be popped. Read by whoever ends it.
    claims: dict[Any, bool]
    is_stream = False
    #: Whether the app's code runs no longer.
    came_back: bool
    #: Ends the shield that its abort has found it in. Used in the loop's thread.
    _shield_end: _ShieldEnd | None = None
    #: The deadline that a thread has asked for and the loop has not seen to yet.
    _asked: float | None = None
    #: How long it has waited for its client's body; and the deadline that waits meanwhile.
    paused = 0.0
    service_deadline: float | None = None

    # What the request itself has to offer

    def current_trace(self) -> _stacks.Trace:
        """What its task waits for just now, and a thread that works for it does."""
        raise NotImplementedError

    def time_out(self, trace: _stacks.Trace | None) -> None:
        """Enter the state, and have it told. In the loop's thread, with the claim won."""
        raise NotImplementedError

    def answer_at_once(self) -> None:
        """Answer for the app, which may take its time to come to its end."""
        raise NotImplementedError

    def break_off(self) -> None:
        """Have the app's code end."""
        raise NotImplementedError

    def break_off_above(self) -> None:
        """Have the request's task end, where the running one may be another below it."""
        raise NotImplementedError

    def insist_later(self) -> None:
        """Look whether its code has ended itself, as it was about to."""
        raise NotImplementedError

    def call_in_loop(self, call: Callable[[], object]) -> bool:
        """Have the loop do it in its next round; False: it does nothing any more."""
        raise NotImplementedError

    # What the app asks for

    def is_in_loop(self) -> bool:
        """Whether this is the thread of the event loop that serves it."""
        return get_ident() == self.lanes.thread_id

    @property
    def has_left(self) -> bool:
        return self.ended is not None and (self.outcome is not _TIMED_OUT or self.came_back)

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
        self._asked = self._counted_from_start(timeout)
        return self.call_in_loop(partial(self._set_timeout, timeout))

    def _set_timeout(self, timeout: float | None) -> None:
        self._asked = None
        if self.is_stream or self.ended is not None:
            return
        self.timeout = timeout
        deadline = self._counted_from_start(timeout)
        if self.service_deadline is None:
            self.lanes.move(self, deadline)
        else:
            self.service_deadline = deadline

    def _counted_from_start(self, timeout: float | None) -> float:
        return inf if timeout is None else self.started + self.paused + timeout

    # Shields

    def is_put_off(self) -> bool:
        """Whether a shield puts its end off; then it is looked at again."""
        self.forget_shield_end()
        if not self.is_held_back():
            return False
        self._shield_end = end = _ShieldEnd(self, self.deadline + self.shield_limit)
        watchdog.at(end, end.deadline)
        if not self.is_held_back():  # a thread has left it meanwhile, and may not have seen this
            self.forget_shield_end()
            return False
        return True

    def break_off_unshielded(self) -> None:
        """The shield that has put it off is over. In the loop's thread."""
        if self._shield_end is not None:
            self.break_off()

    def forget_shield_end(self) -> None:
        """There is nothing more to be put off."""
        end, self._shield_end = self._shield_end, None
        if end is not None:
            watchdog.forget(end)

    def fall_due(self) -> None:
        """Break it off where that has waited for its last shield."""
        if self._shield_end is not None:
            self.break_off_soon()

    def break_off_soon(self) -> None:
        """Not at once: a task that is cancelled while it runs may take notice in the guard."""
        self.call_in_loop(self.break_off_unshielded)

    async def fall_due_now(self) -> None:
        """Let this task be cancelled here."""
        if self.outcome is _TIMED_OUT:
            await anyio.lowlevel.checkpoint()

    # Blocks

    def call_cancels(self) -> None:
        """In the loop's thread alone, which claims what is to be called there."""
        if self.is_in_loop():
            super().call_cancels()

    def cancel_each(self, blocks: list[Block]) -> None:
        """What was begun in the loop's thread is cancelled there, all else in another."""
        # In a context of their own: what one sets in the timers' would be there for every later request.
        Context().run(call_each, [block for block in blocks if block.is_of_loop])
        others = [block for block in blocks if not block.is_of_loop]
        if others:
            super().cancel_each(others)

    def refuse_work(self) -> None:
        """As in ``_interrupts``, for a thread; a task is cancelled at its next wait."""
        if not self.is_in_loop() and ((call := self.call_here) is None or call.strike()):
            raise RequestTimeoutException

    def end_here(self) -> None:
        """Raise the abort in place of its shot, in a thread that works for it."""
        if not self.is_in_loop() and (call := self.call_here) is not None and call.strike():
            raise RequestTimeoutException

    # Checkpoints

    def give_up(self) -> None:
        """Time it out without ending the code that asks for this: it is about to end itself."""
        super().give_up()
        if not self.is_in_loop():
            if (call := self.call_here) is not None:
                call.strike()
        elif self.ended is None and self.claims.pop(self, False):
            self.time_out(self.trace_now())
            self.answer_at_once()
            self.call_cancels()
            self.break_off_above()
            self.insist_later()
