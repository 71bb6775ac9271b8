"""Deadlines for many, at almost no cost for each: lanes, and the one watchdog.

Theory of operation. A constant timeout makes deadlines first in, first out. So every
distinct timeout has a *lane*, an insertion-ordered dict of entries: to enter is one dict
store, to leave is one ``dict.pop``, the head is always the next to be due, and there is
no heap, no lock and no timer per entry. The few deadlines that fit no lane (a budget cut
by waiting, a retry) go into a heap. ``_loop_deadlines`` has the same for asyncio's loops.

**The claim.** ``entries.pop(entry, False)`` is atomic and answers True to exactly one
caller: the one who finishes the entry, or the one who lets it expire. Nobody does either
without it. That is all the synchronisation there is between a request and its deadline.

**Being woken.** The watchdog sleeps until the instant that it has planned, published in
each lane as ``earliest``. Whoever enters a lane compares its deadline with that *after*
having entered: either the watchdog's scan saw the entry, or the entrant sees the plan.
While the watchdog scans, the plan is "never before infinity", which wakes it once too
often rather than once too seldom. ``latest`` is the latest deadline that a watchdog which
is alive can meet here; beyond it something has stopped the watchdog (a fork that ran no
hooks, a host that freezes threads), and it is looked after. A late entrant (a thread that
read the clock, lost the interpreter and entered behind a younger one) is let expire late
by as much as it was held up, never early.

An *entry* has a ``deadline`` (a :func:`time.monotonic` instant) and a method ``expire``,
called by the watchdog's thread when the claim has been won.
This module knows nothing of requests. Imports: ``_native``.
"""

import contextlib
import heapq
import itertools
import logging
import os
import sys
import threading
import weakref
from _thread import LockType
from math import inf
from time import monotonic
from typing import Protocol, TypeVar

from hostline._native import after_fork_in_child, native_lock, start_native_thread

logger = logging.getLogger("hostline")

BATCH = 256
# Of an entry that has left, its place in the heap stays until its deadline, or until there
# are this many places and most of them are empty.
_HEAP_LEAST = 1_000
# How long a watchdog may be held up before somebody looks whether it still lives.
_PATIENCE = 1.0


class Expiring(Protocol):
    """Something that has a deadline."""

    deadline: float

    def expire(self) -> None:
        """The deadline has passed and the claim is won. May raise: it is logged."""


class Entry(Expiring, Protocol):
    """Something that has a deadline, of a thread's."""

    def survives_fork(self) -> bool:
        """Whether this entry belongs to the thread that forked, the only one in the child."""
        ...


Claims = dict[Entry, bool]
_E = TypeVar("_E")


class Lane:
    """The entries that share one timeout, oldest first.

    ``entries`` is changed by any thread, by single dict operations alone. ``earliest``
    and ``latest`` are written by the watchdog and read by whoever enters.
    """

    __slots__ = ("earliest", "entries", "latest", "timeout")

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.entries: Claims = {}
        self.earliest = inf
        self.latest = -inf

    def take_due(self, now: float) -> tuple[list[Entry], float]:
        """Claim what is due; with it, when to look again."""
        due: list[Entry] = []
        while True:
            batch = first(self.entries, BATCH)
            for entry in batch:
                deadline = entry.deadline
                if deadline > now:
                    if entry not in self.entries:
                        continue  # it has left, or been given another deadline, just now
                    return due, min(deadline, now + self.timeout)
                if self.entries.pop(entry, False):
                    due.append(entry)
            if not batch:
                return due, now + self.timeout


def first(entries: "dict[_E, bool]", count: int) -> "list[_E]":
    """The oldest entries. Other threads go on entering and leaving meanwhile."""
    while True:
        try:
            return list(itertools.islice(entries, count))
        except RuntimeError:  # the dict changed under the iterator
            continue


class Watchdog:
    """The one thread of a process that lets entries expire.

    The heap refers to its entries weakly: what has been popped is let go at once.

    Started when first needed, never at import: servers fork. ``rouse`` and ``at`` may be
    called from any thread; ``_lock()`` guards the heap, the table of lanes and the start.
    """

    def __init__(self) -> None:
        self._lanes: dict[float, Lane] = {}
        self._odd: Claims = {}
        self._heap: list[tuple[float, int, weakref.ref[Entry]]] = []
        self._heap_limit = _HEAP_LEAST
        self._numbers = itertools.count()
        self._plan = inf
        self._pid = 0
        self._locks: dict[int, LockType] = {}
        self._wake = _sleeping()
        self._has_complained = False

    def _lock(self) -> LockType:
        """The lock of this process: one that came over a fork may be held by a thread that did not."""
        return self._locks.setdefault(os.getpid(), native_lock())

    def lane(self, timeout: float) -> Lane:
        """The lane of this timeout; the same one for all who ask."""
        with self._lock():
            return self._lanes.setdefault(timeout, Lane(timeout))

    def at(self, entry: Entry, deadline: float) -> Claims:
        """Enter one that fits no lane; the claims from which it is to be popped.

        An infinite deadline never comes, but may be popped like any other.
        """
        self._odd[entry] = True
        if deadline < inf:
            with self._lock():
                self._push(entry, deadline)
            self._rouse_by(deadline)
        return self._odd

    def _push(self, entry: Entry, deadline: float) -> None:
        """File it, and throw out what has gone, once that is the greater part. With the lock held."""
        if len(self._heap) > self._heap_limit:
            self._heap = [item for item in self._heap if self._counts(item[2](), item[0])]
            heapq.heapify(self._heap)
            self._heap_limit = _HEAP_LEAST + 2 * len(self._heap)
        heapq.heappush(self._heap, (deadline, next(self._numbers), weakref.ref(entry)))

    def _counts(self, entry: Entry | None, deadline: float) -> bool:
        """Whether what the heap says of an entry still holds."""
        return entry is not None and entry.deadline == deadline and entry in self._odd

    def _rouse_by(self, deadline: float) -> None:
        if not self._plan <= deadline or self._pid != os.getpid():
            self.rouse()

    def move(self, entry: Entry, claims: Claims, deadline: float) -> bool:
        """Give an entry of this lane, or of none, another deadline; False: its claim is gone.

        Whoever finishes it meanwhile finds no claim in either place, so a claim that is not
        in its lane is popped by :meth:`reclaim`, which waits until it is somewhere.
        """
        with self._lock():
            if not claims.pop(entry, False) and not self._odd.pop(entry, False):
                return False
            entry.deadline = deadline
            self._odd[entry] = True
            if deadline < inf:
                self._push(entry, deadline)
        if deadline < inf:
            self._rouse_by(deadline)
        return True

    def reclaim(self, entry: Entry) -> bool:
        """Pop the claim of one that may have been moved out of its lane."""
        with self._lock():
            return self._odd.pop(entry, False)

    def forget(self, entry: Entry) -> None:
        """Withdraw one that was entered by :meth:`at`."""
        self._odd.pop(entry, False)

    def rouse(self) -> None:
        """Have the watchdog look again, and be there in the first place."""
        if self._pid != os.getpid():
            self._start()
        try:
            self._wake.release()
        except RuntimeError:
            pass  # it has been roused already

    def _start(self) -> None:
        with self._lock():
            if self._pid == os.getpid():
                return
            if self._pid:  # forked by something that runs no Python hooks
                self._wake = _sleeping()
            self._pid = os.getpid()
            try:
                start_native_thread(self._run, (self._wake, self._pid))
            except RuntimeError as error:  # out of threads, or of memory: the next one tries again
                self._pid = 0
                self._complain(error)

    def _complain(self, error: RuntimeError) -> None:
        if not self._has_complained:
            self._has_complained = True
            logger.error(
                "hostline keeps no deadline until it can start a thread, which has failed: %s. It is logged "
                "once.",
                error,
            )

    def _run(self, wake: LockType, pid: int) -> None:
        """The watchdog's life. ``wake`` is this thread's own: a fork makes another."""
        try:
            while pid == self._pid and wake is self._wake:
                try:
                    plan = self._look()
                except Exception:  # a defect of ours may cost one round, not the service
                    with contextlib.suppress(Exception):  # there may be no memory for that either
                        logger.exception("hostline's watchdog failed and goes on.")
                    plan = monotonic() + _PATIENCE
                wake.acquire(timeout=max(0.0, min(plan - monotonic(), threading.TIMEOUT_MAX)))
        finally:
            if pid == self._pid and wake is self._wake:
                self._pid = 0  # it dies, of what nobody foresaw: the next one who enters starts another

    def _look(self) -> float:
        """Let expire what is due; publish and return when to look again."""
        self._publish(inf)
        now = monotonic()
        plan = self._expire_odd(now)
        for lane in list(self._lanes.values()):
            due, look_again = lane.take_due(now)
            for entry in due:
                expire(entry)
            plan = min(plan, look_again)
        self._publish(plan)
        return plan

    def _publish(self, plan: float) -> None:
        self._plan = plan
        # uWSGI forks without Python's hooks: there, every request asks for its process.
        forks_silently = "uwsgi" in sys.modules
        for lane in list(self._lanes.values()):
            lane.latest = -inf if forks_silently else plan + lane.timeout + _PATIENCE
            lane.earliest = plan

    def _expire_odd(self, now: float) -> float:
        """Let the heap's due entries expire; when the next of them is due."""
        while True:
            with self._lock():
                if not self._heap:
                    return inf
                deadline, _, reference = self._heap[0]
                entry = reference()
                if deadline > now and entry is not None and entry in self._odd:
                    return deadline
                heapq.heappop(self._heap)
                # Under the lock, and only if it has not been given another deadline since.
                is_due = entry is not None and entry.deadline == deadline and self._odd.pop(entry, False)
            if entry is not None and is_due:
                expire(entry)
            del entry  # or it would be kept until the next one comes

    def after_fork(self) -> None:
        """Only the thread that forked goes on here: the others' entries mean nothing."""
        self._locks.clear()
        self._wake = _sleeping()
        self._pid = 0
        self._plan = inf
        self._forget_other_threads()

    def _forget_other_threads(self) -> None:
        for claims in (self._odd, *(lane.entries for lane in self._lanes.values())):
            for entry in list(claims):
                if not entry.survives_fork():
                    del claims[entry]
        for lane in self._lanes.values():
            lane.earliest, lane.latest = inf, -inf


def expire(entry: Expiring) -> None:
    try:
        entry.expire()
    except Exception:  # one entry's failure must not cost the others their deadline
        with contextlib.suppress(Exception):  # as above
            logger.exception("hostline could not end a request at its deadline.")


def _sleeping() -> LockType:
    """What a watchdog waits on; released to rouse it."""
    wake = native_lock()
    wake.acquire()
    return wake


watchdog = Watchdog()
after_fork_in_child(watchdog.after_fork)
