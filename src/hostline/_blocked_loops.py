"""An event loop that is blocked: noticed from outside, and broken where that is possible.

``time.sleep`` or a long computation in an ``async def`` keeps every timer of its loop from
running, those of hostline's deadlines too. So the watchdog's thread looks after the loop:
a :class:`Sentinel` wakes a little after each instant at which a deadline's timer is due.
If that timer has not run, and the same task is found running a few times in a row, the
loop is blocked by it.

Whose code that is, is told by the context that it runs in (``current_request``). Nobody
but the loop's own thread can read that, so the decision is made there: in the handler of
the signal by which code in the main thread is broken, exactly where it would raise. It is
raised only in code of a request whose own deadline has passed; the requests that merely
wait behind it are given back the time that they have lost (``Watched.revive``).

A loop in any other thread is only reported.

Imports: ``_abortable``, ``_breaker``, ``_deadlines``, ``_frames``, ``_loop_deadlines``, ``_obstacles``,
``_requests``, ``_stacks``.
"""

import logging
import weakref
from collections.abc import Mapping
from functools import partial
from itertools import islice
from math import inf
from time import monotonic
from types import CodeType, FrameType
from typing import Any

from hostline import _frames, _stacks
from hostline._abortable import Abortable
from hostline._breaker import Breaker, firing, main_thread
from hostline._deadlines import watchdog
from hostline._log import log_stack
from hostline._loop_deadlines import Watched
from hostline._obstacles import obstacle
from hostline._requests import RequestDetails, current_request, reporter

#: How long after the instant at which a timer is due its loop is looked at.
LATE = 0.02
#: How often, and at what distance, the same task has to be found running.
LOOKS = 3
LOOK_AGAIN = 0.01
#: How soon to look again while nothing can be done about it.
_STILL_BLOCKED = 0.02
#: The same while nobody runs the loop.
_STANDS_STILL = 1.0

# What the running code may be in the middle of, and an exception would break.
_LOOPS_AND_SERVERS = frozenset(
    {
        *{"anyio", "asyncio", "outcome", "trio", "uvloop"},
        *{"daphne", "granian", "gunicorn", "h11", "h2", "hypercorn", "twisted", "uvicorn"},
    }
)
_INNERMOST = 3


class Breakable(RequestDetails):
    """A request of a loop's that can be timed out in the middle of a step of its task."""

    def is_overdue(self) -> bool:
        """Whether its time has come, and its code has not come back and is to be broken."""
        raise NotImplementedError

    def expire_in_step(self, frame: FrameType | None) -> bool:
        """Time it out, if its time has come; whether an exception is to be raised in it.

        In the loop's thread, in code that works for this request.
        """
        raise NotImplementedError


class Block:
    """A task that blocks its loop. What a ``Breaker`` fires at; made by the watchdog's thread."""

    is_shielded = False
    came_back = False
    shot_at = False
    is_pending = False
    #: Nobody: whose code it is, and whether that is in a shield, is found out in the handler.
    owner = Abortable()

    def __init__(
        self, lanes: Watched[Any], task: object, trace: _stacks.Trace, culprit: RequestDetails | None
    ) -> None:
        self._lanes = lanes
        self._task = task
        self.thread_id = lanes.thread_id
        self.found_at = monotonic()
        self.trace = trace
        #: Whose code it is, as far as that can be told from outside.
        self.culprit = culprit
        #: Guarded by ``firing``; the handler clears it without, for nobody else runs then.
        self.is_armed = True
        self.is_past = False
        self.breaker: Breaker | None = None

    def is_running(self) -> bool:
        """Only by signal: see :meth:`is_hit`."""
        return False

    def is_hit(self, frame: FrameType | None) -> bool:
        """Whether an expired request's own code is here. In the loop's thread, in the handler."""
        coroutine = self._lanes.coroutine()
        if self._lanes.running() is not self._task:
            self.is_armed = False  # what has blocked the loop is over; this has waited behind it
            self.is_past = True
            return False
        self.culprit = request = None if coroutine is None else current_request.get()
        if not _is_overdue(request):
            self.is_armed = False  # until its time has come
            return False
        assert isinstance(request, Breakable)  # or it could not be
        return not _is_in_the_loop_s(frame, coroutine) and request.expire_in_step(frame)

    def fire(self, deferral_limit: float) -> None:
        """Have the running code asked, and broken if it is to be. In the watchdog's thread."""
        culprit = self.culprit
        is_at_work = self.breaker is not None and self.is_armed
        is_unknown = culprit is None and self.breaker is None
        if (
            is_at_work
            or not (is_unknown or _is_overdue(culprit))
            or not main_thread.can_break(self.thread_id)
        ):
            return
        if self.breaker is not None:
            self.breaker.let_go()
        with firing.lock:
            self.is_armed = not self.is_past
        self.breaker = Breaker(self, deferral_limit)
        self.breaker.expire()

    def tell_unstoppable(self, frame: FrameType | None) -> None:
        """Nothing more than has been said: see :func:`_tell`."""

    def is_over(self) -> None:
        """The loop runs again. In its thread."""
        with firing.lock:
            self.is_armed = False
            self.is_past = True
        if self.breaker is not None:
            self.breaker.let_go()


def _is_overdue(request: RequestDetails | None) -> bool:
    return isinstance(request, Breakable) and request.is_overdue()


def _is_in_the_loop_s(frame: FrameType | None, coroutine: object) -> bool:
    """Whether the innermost frames of this step are the loop's or the server's own code."""
    outermost = getattr(coroutine, "cr_frame", None)
    for each in islice(_frames.outwards(frame), _INNERMOST):
        module = str(each.f_globals.get("__name__"))
        if module.startswith("hostline._"):
            return False  # the guard: what is further out has called it
        if module.partition(".")[0] in _LOOPS_AND_SERVERS:
            return True
        if each is outermost:
            return False
    return False


class Sentinel:
    """Looks after one loop. An entry of the watchdog's, in whose thread :meth:`expire` runs."""

    def __init__(self, lanes: Watched[Any], outermost: frozenset[CodeType], deferral_limit: float) -> None:
        self._lanes = weakref.ref(lanes)
        self._outermost = outermost
        self._deferral_limit = deferral_limit
        self.deadline = inf
        #: Until when nobody needs to wake it. Written by both threads, the loop's last.
        self.plan = inf
        self._suspect: object = None
        self._looks = 0
        self._found_block: Block | None = None

    def survives_fork(self) -> bool:
        """A loop does not."""
        return False

    def wake(self, due: float) -> None:
        """A timer is due before anybody would look. In the loop's thread."""
        self.plan = due
        self._look_at(due + LATE)

    def _look_at(self, deadline: float) -> None:
        self.deadline = deadline
        watchdog.at(self, deadline)

    def expire(self) -> None:
        """Look whether the loop has run its timers."""
        self.plan = inf  # first: from here on, the loop wakes it for whatever we do not see
        lanes = self._lanes()
        if lanes is None or lanes.is_over():
            return
        due, now = lanes.due(), monotonic()
        if due + LATE > now:
            self._suspect = self._found_block = None  # it would keep its request
            while due < inf:
                self.wake(due)
                planned, due = due, lanes.due()
                if due >= planned:
                    break  # else the loop may have woken it for that just before
            return
        self.plan = -inf  # it is looked at anyhow
        self._look_at(now + self._look(lanes, now - due))

    def _look(self, lanes: Watched[Any], late: float) -> float:
        """The timers are late: how soon to look again."""
        found = self._found_block
        if found is not None and lanes.block is found and not found.is_past:
            found.fire(self._deferral_limit)
            return _STILL_BLOCKED
        if not lanes.is_running():
            return _STANDS_STILL
        task = lanes.running()
        self._looks = self._looks + 1 if task is not None and task is self._suspect else 1
        self._suspect = task
        if task is None or self._looks < LOOKS:
            return LOOK_AGAIN
        self._suspect = None
        self._found(lanes, task, late)
        return _STILL_BLOCKED

    def _found(self, lanes: Watched[Any], task: object, late: float) -> None:
        frame = _frames.of_thread(lanes.thread_id)
        trace = _stacks.of_thread(frame, self._outermost)
        block = Block(lanes, task, trace, self._request_of(task, frame))
        lanes.block = self._found_block = block
        reporter.submit(partial(_tell, block, late))
        block.fire(self._deferral_limit)

    def _request_of(self, task: object, frame: FrameType | None) -> RequestDetails | None:
        """Which request the task works for: by its guard's frame, or by the task's context."""
        found = _stacks.request_in(frame, self._outermost)
        if isinstance(found, RequestDetails):
            return found
        context: Mapping[Any, Any] = getattr(task, "get_context", dict)()  # from CPython 3.12 on
        return context.get(current_request)


def watch(lanes: Watched[Any], outermost: frozenset[CodeType], deferral_limit: float | None) -> None:
    """Have this loop looked after, once. ``outermost``: the guard's code that runs its requests."""
    if lanes.sentinel is None and obstacle() is None:
        lanes.sentinel = Sentinel(lanes, outermost, deferral_limit or 0.0)


def _tell(block: Block, late: float) -> None:
    request_id = "-" if block.culprit is None else block.culprit.id
    log_stack(
        logging.ERROR,
        f"source=hostline id={request_id} blocks the event loop, "
        f"whose timers are late by {late * 1000:.0f}ms; the code is here:",
        block.trace,
        {"request_id": request_id, "late": late, "state": "blocks_loop"},
    )
