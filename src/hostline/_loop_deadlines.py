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
from typing import Protocol

from hostline._deadlines import BATCH, Expiring, expire, first

# A timer keeps the context that it was made in, and so whatever the first request has put
# into that; this one is empty.
NO_CONTEXT = contextvars.Context()
# The resolution of uvloop's timers; a shorter delay would spin until the deadline.
_TICK = 0.001


class LoopEntry(Expiring, Protocol):
    """An entry of an asyncio loop: used in the loop's thread alone."""

    #: The deadline with which it entered its lane, once that has been moved; else None.
    filed: float | None
    #: Where its claim is to be popped.
    claims: "dict[LoopEntry, bool]"
    #: Its own timer, where it fits no lane.
    timer: asyncio.TimerHandle | None


class LoopLane:
    """A lane of one asyncio loop, with one timer for all its entries."""

    __slots__ = ("entries", "lanes", "timeout", "timer")

    def __init__(self, lanes: "LoopLanes", timeout: float) -> None:
        self.lanes = lanes
        self.timeout = timeout
        self.entries: dict[LoopEntry, bool] = {}
        self.timer: asyncio.Handle | None = None

    def start_timer(self) -> None:
        """To be called by whoever enters and finds ``timer`` None."""
        self.timer = self.lanes.loop.call_later(self.timeout, self._fire, context=NO_CONTEXT)

    def _fire(self) -> None:
        now = monotonic()
        for entry in first(self.entries, BATCH):
            if entry.filed is not None:
                if self.entries.pop(entry, False):
                    self.lanes.at(entry, entry.deadline)
            elif entry.deadline > now:
                delay = max(entry.deadline - now, _TICK)
                self.timer = self.lanes.loop.call_later(delay, self._fire, context=NO_CONTEXT)
                return
            elif self.entries.pop(entry, False):  # another's expiry may have ended it
                expire(entry)
        self.timer = None
        if self.entries:
            # After what the batch has set going, or the first answer would wait for the last.
            self.timer = self.lanes.loop.call_soon(self._fire, context=NO_CONTEXT)


class LoopLanes:
    """The lanes of one asyncio loop, and the deadlines there that fit none."""

    __slots__ = ("_lanes", "_odd", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._lanes: dict[float, LoopLane] = {}
        self._odd: dict[LoopEntry, bool] = {}

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

    def _start_timer(self, entry: LoopEntry) -> None:
        delay = max(entry.deadline - monotonic(), _TICK)
        entry.timer = self.loop.call_later(delay, self._fire, entry, context=NO_CONTEXT)

    def _fire(self, entry: LoopEntry) -> None:
        entry.timer = None
        if entry.deadline > monotonic():  # uvloop's clock has ticks of a millisecond
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
