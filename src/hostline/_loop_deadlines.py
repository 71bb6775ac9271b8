"""Deadlines of an asyncio loop: lanes as in ``_deadlines``, with one timer of the loop's each.

Everything here runs in the loop's thread, so that nothing happens between two lines. The
claim is the same: an entry is popped once, by the one who finishes it or by its lane.

Imports: ``_deadlines``.
"""

import asyncio
import contextvars
import threading
from math import inf
from time import monotonic
from typing import Generic, Protocol, TypeVar

from hostline._deadlines import BATCH, Expiring, expire, first

# The resolution of uvloop's timers; a shorter delay would spin until the deadline.
_TICK = 0.001


class Timed(Expiring, Protocol):
    """Something that has a deadline, and has begun."""

    started: float


class LoopEntry(Timed, Protocol):
    """An entry of an asyncio loop: used in the loop's thread alone."""

    #: The deadline with which it entered its lane, once that has been moved; else None.
    filed: float | None
    #: Where its claim is to be popped.
    claims: "dict[LoopEntry, bool]"
    #: Its own timer, where it fits no lane.
    timer: asyncio.TimerHandle | None


class Sentinel(Protocol):
    """Who looks from outside whether a loop runs its timers (``_blocked_loops``)."""

    #: When it looks next.
    plan: float

    def wake(self, due: float) -> None:
        """Have it look behind this instant."""


class Block(Protocol):
    """What a sentinel has found to block a loop."""

    found_at: float

    @property
    def culprit(self) -> object:
        """Whose code it is; None: nobody knows."""
        ...

    def is_over(self) -> None:
        """The loop runs again."""


_T = TypeVar("_T", bound=Timed)


class Watched(Generic[_T]):
    """The deadlines of one loop, asyncio's or another, as far as they are looked after from outside.

    Used in the loop's thread, but for what a sentinel asks.
    """

    __slots__ = ("__weakref__", "alive", "block", "sentinel", "thread_id")

    def __init__(self) -> None:
        self.thread_id = threading.get_ident()
        self.sentinel: Sentinel | None = None
        #: What keeps the loop from running. Set by the sentinel, taken by the loop.
        self.block: Block | None = None
        #: When the loop was last seen to run one of its timers.
        self.alive = monotonic()

    def at(self, entry: _T, deadline: float) -> None:
        """Enter, or enter anew, with a deadline of its own. ``inf``: it never expires."""
        raise NotImplementedError

    def claimed(self) -> "tuple[dict[_T, bool], ...]":
        """All entries, by where their claims are to be popped."""
        raise NotImplementedError

    def due(self) -> float:
        """When the next of the timers is due, or was. May be called from any thread."""
        raise NotImplementedError

    def is_over(self) -> bool:
        """Whether there is nothing to look after any more. From any thread, as the next two."""
        raise NotImplementedError

    def is_running(self) -> bool:
        """Whether somebody runs the loop."""
        raise NotImplementedError

    def running(self) -> object:
        """What it runs just now, a task or a request; None: nothing that can be told."""
        raise NotImplementedError

    def coroutine(self) -> object:
        """The outermost one of the step that is run just now; None: there is none."""
        raise NotImplementedError

    def is_due(self, due: float) -> None:
        """A timer has been started: have it looked after."""
        if self.sentinel is not None and due < self.sentinel.plan:
            self.sentinel.wake(due)

    def revive(self) -> float:
        """The loop runs: what time it is. Called by the timers, and by who has blocked it."""
        now = monotonic()
        block = self.block
        if block is not None:  # nothing is written else: a sentinel may find one just now
            self.block = None
            block.is_over()
            self._give_back(block, now)
        self.alive = now
        return now

    def _give_back(self, block: Block, now: float) -> None:
        """Give back what a blocked loop has cost all but the one who has blocked it.

        As much as it can have been: since the last sign of life before it was found, that
        somebody entered.
        """
        every = self.claimed()
        entered = [entry.started for claims in every for entry in claims if entry.started < block.found_at]
        lost = now - max((self.alive, *entered))
        for claims in every:
            for entry in list(claims):
                if entry is not block.culprit and entry.deadline < inf and claims.pop(entry, False):
                    self.at(entry, entry.deadline + lost)


class LoopLane:
    """A lane of one asyncio loop, with one timer for all its entries."""

    __slots__ = ("due", "entries", "lanes", "loop", "timeout", "timer")

    def __init__(self, lanes: "LoopLanes", timeout: float) -> None:
        self.lanes = lanes
        self.loop = lanes.loop
        self.timeout = timeout
        self.entries: dict[LoopEntry, bool] = {}
        self.timer: asyncio.Handle | None = None
        #: When the timer is due; infinity without one.
        self.due = inf

    def start_timer(self) -> None:
        """To be called by whoever enters and finds ``timer`` None."""
        self._start_timer(self.timeout)

    def _start_timer(self, delay: float) -> None:
        self.timer = self.lanes.loop.call_later(delay, self._fire, context=self.lanes.no_context)
        self.due = monotonic() + delay
        self.lanes.is_due(self.due)

    def _fire(self) -> None:
        try:
            self._expire_due()
        except BaseException:
            self.timer = None  # or nobody who enters would start another, and nothing here expire any more
            raise

    def _expire_due(self) -> None:
        now = self.lanes.revive()
        self.due = inf
        for entry in first(self.entries, BATCH):
            if entry.filed is not None:
                if self.entries.pop(entry, False):
                    self.lanes.at(entry, entry.deadline)
            elif entry.deadline > now:
                self._start_timer(max(entry.deadline - now, _TICK))
                return
            elif self.entries.pop(entry, False):  # another's expiry may have ended it
                expire(entry)
        self.timer = None
        if self.entries:
            # After what the batch has set going, or the first answer would wait for the last.
            self.timer = self.lanes.loop.call_soon(self._fire, context=self.lanes.no_context)


class LoopLanes(Watched["LoopEntry"]):
    """The lanes of one asyncio loop, and the deadlines there that fit none."""

    __slots__ = ("_lanes", "_odd", "loop", "no_context")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.loop = loop
        self._lanes: dict[float, LoopLane] = {}
        self._odd: dict[LoopEntry, bool] = {}
        #: For timers, which else keep the context that they are made in, and so whatever the first request
        #: has put into that. Each loop has its own: one thread at a time can be in a context.
        self.no_context = contextvars.Context()

    def lane(self, timeout: float) -> LoopLane:
        """The lane of this timeout."""
        lane = self._lanes.get(timeout)
        if lane is None:
            lane = self._lanes[timeout] = LoopLane(self, timeout)
        return lane

    def at(self, entry: LoopEntry, deadline: float) -> None:
        """Enter, or enter anew, one that fits no lane. ``inf``: it never expires."""
        if entry.timer is not None:
            entry.timer.cancel()
        entry.timer = None
        entry.deadline = deadline
        entry.claims = self._odd
        self._odd[entry] = True
        if deadline < inf:
            self._start_timer(entry)

    def move(self, entry: LoopEntry, deadline: float) -> None:
        """Give an entry that has not expired another deadline.

        One that sits in a lane stays there while the new deadline is later than the one
        it was filed with: the lane refiles it when it comes across it, and most have left
        by then.
        """
        filed = entry.deadline if entry.filed is None else entry.filed
        if entry.claims is self._odd or deadline < filed:
            entry.claims.pop(entry, False)
            self.at(entry, deadline)
        else:
            entry.deadline = deadline
            entry.filed = filed

    def is_over(self) -> bool:
        """Whether the loop will never run again."""
        return self.loop.is_closed()

    def is_running(self) -> bool:
        """Whether somebody runs the loop."""
        return self.loop.is_running()

    def running(self) -> object:
        """The task that it runs just now; None: it runs none."""
        return asyncio.current_task(self.loop)

    def coroutine(self) -> object:
        """The outermost one of the step that is run just now."""
        task = asyncio.current_task(self.loop)
        return None if task is None else task.get_coro()

    def due(self) -> float:
        """When the next of the timers is due, or was. May be called from any thread."""
        lanes = [lane.due for lane in list(self._lanes.values())]
        return min((*lanes, *(entry.deadline for entry in list(self._odd))), default=inf)

    def claimed(self) -> "tuple[dict[LoopEntry, bool], ...]":
        """All entries, by where their claims are to be popped."""
        return self._odd, *(lane.entries for lane in self._lanes.values())

    def _start_timer(self, entry: LoopEntry) -> None:
        delay = max(entry.deadline - monotonic(), _TICK)
        entry.timer = self.loop.call_later(delay, self._fire, entry, context=self.no_context)
        self.is_due(entry.deadline)

    def _fire(self, entry: LoopEntry) -> None:
        fired = entry.timer
        now = self.revive()
        if entry.timer is not fired:
            return  # it has been given another
        entry.timer = None
        if entry.deadline > now:  # uvloop's clock has ticks of a millisecond
            self._start_timer(entry)
        elif self._odd.pop(entry, False):
            expire(entry)


class _OfThisThread(threading.local):
    lanes: LoopLanes | None = None


_of_this_thread = _OfThisThread()


def lanes_of(loop: asyncio.AbstractEventLoop) -> LoopLanes:
    """The lanes of the loop that runs in this thread."""
    lanes = _of_this_thread.lanes
    if lanes is None or lanes.loop is not loop:
        lanes = _of_this_thread.lanes = LoopLanes(loop)
    return lanes
