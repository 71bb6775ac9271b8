"""What is known of a request, which states it goes through, and the thread that tells of it.

The states are rack-timeout's. :data:`_MOVES` is the one table of legal moves and
:meth:`RequestDetails.move_to` the one place that changes a state: ``expired``,
``timed_out`` and ``completed`` are final, so that a request ends exactly once however
many parties believe that they end it.

Who may move a request is settled before, by the claim (see ``_deadlines``): whoever pops
it from its lane. So no lock is needed here.

Imports: ``_abortable``, ``_log``, ``_native``, ``_routes``, ``_stacks``. Times are seconds; instants are
:func:`time.monotonic`'s.
"""

import contextlib
import logging
import os
import re
import uuid
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from math import inf
from time import monotonic

from hostline import _routes, _stacks
from hostline._abortable import Abortable
from hostline._log import as_text
from hostline._native import SimpleQueue, after_fork_in_child, native_lock, start_native_thread

logger = logging.getLogger("hostline")


class State(StrEnum):
    """Where a request stands."""

    READY = "ready"  #: about to be handed to the app
    ACTIVE = "active"  #: still running, about once a second
    COMPLETED = "completed"  #: answered in time
    EXPIRED = "expired"  #: dropped: it had waited too long
    TIMED_OUT = "timed_out"  #: aborted: it ran too long


_READY, _COMPLETED = State.READY, State.COMPLETED
_FINAL: frozenset[State] = frozenset()
_MOVES: Mapping[State, frozenset[State]] = {
    State.READY: frozenset({State.ACTIVE, State.COMPLETED, State.EXPIRED, State.TIMED_OUT}),
    State.ACTIVE: frozenset({State.ACTIVE, State.COMPLETED, State.TIMED_OUT}),
    State.COMPLETED: _FINAL,
    State.EXPIRED: _FINAL,
    State.TIMED_OUT: _FINAL,
}

# A client chooses X-Request-ID. It goes into logs, so nothing of it may end a line, start
# a field or fill a disk.
_ID_LENGTH = 128
_NOT_IN_AN_ID = re.compile(r"[^!-~]+")


def clean_request_id(text: str) -> str:
    """A client's request id, fit for a log: printable ASCII without blanks, capped."""
    return _NOT_IN_AN_ID.sub("", text[: 2 * _ID_LENGTH])[:_ID_LENGTH]


class RequestDetails(Abortable):
    """One request, as observers, the app and a configurable answer may see it.

    Found at ``environ["hostline.request"]`` and ``scope["hostline.request"]``. To be
    read, from any thread; what changes it is hostline alone.
    """

    # What each request sets has no default on the class: such an attribute takes CPython five times
    # as long to write from 3.12 on, and four times as long to read where it is not set on 3.11. What
    # few requests set has one, and costs the others nothing.
    method: str
    #: The :func:`time.monotonic` instant at which hostline got it.
    started: float
    #: How long it may run, or, once expired, how long it could wait; None: unlimited.
    timeout: float | None
    #: The :func:`time.monotonic` instant at which it is aborted; infinity: never.
    deadline: float
    #: The final state that it has entered; None: it has not ended.
    outcome: State | None
    ended: float | None
    #: Whether it has been told of as running. Of no meaning when it has ended.
    is_active = False
    #: Whether this timeout asked the process to end (``term_on_timeout``).
    term: bool = False
    is_timeout_noted = False
    #: What traces it, as far as an observer has met it.
    span: object = None
    #: Called when it ends, whichever way.
    on_end: Callable[[], object] | None = None
    trace: _stacks.Trace | None = None
    #: Where the app leaves word of its route, while somebody is to be told. Holds this object.
    routing: _routes.Source | None = None
    _route: str | None = None
    _id: str | None = None

    def __init__(self) -> None:
        """For those that are not made on a hot path, which writes all this itself."""
        self.timeout = None
        self.deadline = inf
        self.outcome = None
        self.ended = None

    @property
    def state(self) -> State:
        """Where it stands."""
        if self.outcome is not None:
            return self.outcome
        return State.ACTIVE if self.is_active else State.READY

    @property
    def wait(self) -> float | None:
        """How long it waited in the queue; None where the proxy did not say."""
        return None

    @property
    def path(self) -> str:
        """The whole path, decoded, without the query."""
        raise NotImplementedError

    @property
    def id(self) -> str:
        """``X-Request-ID``, made fit for a log; else a random one, made when first read."""
        if self._id is None:
            made = clean_request_id(self._raw_id()) or uuid.uuid4().hex
            self.__dict__.setdefault("_id", made)  # one for all, whoever else asks just now
        assert self._id is not None
        return self._id

    @property
    def stack(self) -> str | None:
        """What the code was doing when its time was up, outermost frame first."""
        return None if self.trace is None else as_text(self.trace)

    @property
    def route(self) -> str | None:
        """The template of its route, as far as that is known now; None: it is not."""
        found = None if self.routing is None else _routes.route_of(self.routing)
        return found or self._route

    def find_route_in(self, source: _routes.Source) -> None:
        """Have the route known, from here on to the end."""
        self.routing = source
        self.at_end(self.note_route)

    def note_route(self) -> None:
        """Remember the route, and let go of where it was found."""
        if self.routing is None:
            self.routing = self.find_routing()
        if self.routing is not None:
            self._route, self.routing = self.route, None

    @property
    def service(self) -> float:
        """How long the request has run, or ran."""
        return (monotonic() if self.ended is None else self.ended) - self.started

    @property
    def has_left(self) -> bool:
        """Whether its code runs no longer, as far as its deadline is concerned."""
        return self.ended is not None

    @property
    def next_deadline(self) -> float:
        """The instant that counts, a change on its way to another thread included."""
        return self.deadline

    def set_timeout(self, timeout: float | None) -> bool:
        """Let it run for so long from its start; False: too late. From any thread."""
        raise NotImplementedError

    def move_to(self, state: State) -> bool:
        """Enter a state; False, and nothing done, where that would not be legal."""
        moves = _MOVES[self.state]
        if state not in moves:
            return False
        if not _MOVES[state]:
            return self.end(state)
        self.is_active = state is State.ACTIVE
        return self.outcome is None  # its end may have come just now, in another thread

    def at_end(self, call: Callable[[], object]) -> None:
        """Have this done too when it ends, whichever way."""
        before = self.on_end
        self.on_end = call if before is None else lambda: (before(), call())

    def report(self, job: Callable[[], object]) -> None:
        """Have something told soon, by a thread that has nothing better to do."""
        reporter.submit(job)

    def end(self, state: State) -> bool:
        """Enter a final state, as every other state may; False where it has ended already.

        :meth:`move_to` without the look into the table, for the end of each request.
        """
        if self.ended is not None:
            return False
        self.outcome = state
        self.ended = monotonic()
        if self.on_end is not None:
            self.on_end()
            self.on_end = None
        return True

    def find_routing(self) -> _routes.Source | None:
        """Its environ or scope, found by the guard's frame while it runs: it holds none itself."""
        return None

    def _raw_id(self) -> str:
        """The header as it came, or ``""``; each protocol finds it in its own place."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.method} {self.path!r} {self.state}>"


#: The request that the running code works for: in its thread or task, and in whatever
#: copies the context of that, such as anyio's and asgiref's pool threads. Set by the guards.
current_request: ContextVar[RequestDetails | None] = ContextVar("hostline.request", default=None)


@dataclass(frozen=True, slots=True)
class RequestEvent:
    """What an observer is told: a state, and the request as it was at that moment.

    Durations are seconds. ``service`` is None for a request that never ran. ``route`` is the
    template of its route, one of a closed set; None where nobody knows it, or not yet.
    """

    state: State
    id: str
    method: str
    path: str
    wait: float | None
    service: float | None
    timeout: float | None
    term: bool
    #: What the code was doing, as text, outermost frame first.
    stack: str | None
    route: str | None = None
    #: The same: file name, line number and function of each frame.
    trace: tuple[_stacks.Position, ...] | None = None

    @classmethod
    def of(cls, request: RequestDetails, state: State) -> "RequestEvent":
        """The event of ``request`` entering ``state``."""
        ran = state not in (State.READY, State.EXPIRED)
        return cls(
            state=state,
            id=request.id,
            method=request.method,
            path=request.path,
            wait=request.wait,
            service=request.service if ran else None,
            timeout=request.timeout,
            term=request.term,
            stack=request.stack,
            route=request.route,
            trace=None if request.trace is None else tuple(request.trace),
        )


# How many the reporter may be behind, before it counts as stuck, as in a handler of the log's.
_MOST_JOBS = 100_000


class Reporter:
    """The one thread that tells observers what the watchdog has found.

    So that formatting a stack, or an observer that writes to a slow disk, delays no
    other request's deadline. Started when first needed. ``submit`` may be called from any
    thread; jobs are done in order.
    """

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self.after_fork()

    def after_fork(self) -> None:
        """What the parent had to report is the parent's to report."""
        self._pid = 0
        self._start_lock = native_lock()

    def submit(self, job: Callable[[], object]) -> bool:
        """Have ``job`` done soon, in the reporter's thread; where there can be none, at once in this.

        False: not at all, for that is stuck.
        """
        if self._pid != os.getpid() and not self._start():
            _do(job)
        elif self._jobs.qsize() >= _MOST_JOBS:  # each keeps a request
            return False
        else:
            self._jobs.put(job)
        return True

    def flush(self, timeout: float) -> bool:
        """Wait until all that was submitted before is done; False: not within the timeout."""
        done = native_lock()
        done.acquire()
        self.submit(done.release)
        return done.acquire(timeout=timeout)

    def finish(self, timeout: float) -> bool:
        """Wait for what is left to be done, if there may be anything."""
        return self._pid != os.getpid() or self.flush(timeout)

    def _start(self) -> bool:
        with self._start_lock:
            if self._pid != os.getpid():
                self._jobs = SimpleQueue()
                try:
                    start_native_thread(self._run, (self._jobs,))
                except RuntimeError:  # out of threads, or of memory: the next one tries again
                    return False
                self._pid = os.getpid()  # last: from here on, others put into this queue
        return True

    def _run(self, jobs: "SimpleQueue[Callable[[], object]]") -> None:
        while True:
            job = jobs.get()
            _do(job)
            del job  # it holds a request, and the next one may be hours away


def _do(job: Callable[[], object]) -> None:
    try:
        job()
    except BaseException:  # somebody's SystemExit ends no thread that others need
        with contextlib.suppress(Exception):  # there may be no memory for that either
            logger.exception("hostline could not report a request.")


reporter = Reporter()
after_fork_in_child(reporter.after_fork)
