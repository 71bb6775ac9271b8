"""Who is told of what happens, and how: each observer isolated from the requests and the others.

An observer is called by a thread of its own, which has a queue of :data:`MOST_WAITING`
events; what does not fit is dropped, counted and said in the log. So one that raises, is
slow or blocks costs nobody anything but itself. One that says ``is_immediate`` is called
where the event happens: by the request's own thread or task when it is ready and completed,
by the reporter's when it has timed out. hostline's own sinks that cannot block do.

The threads and queues are those of :mod:`threading` and :mod:`queue`, not native ones: under
gevent they are greenlets, and what an observer waits for is then gevent's too.

Imports: ``_heartbeat``, ``_requests``, ``_routes``.
"""

import atexit
import logging
import os
import queue
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from time import monotonic
from typing import Any, Protocol

from hostline._heartbeat import heartbeat
from hostline._requests import RequestDetails, RequestEvent, State, reporter
from hostline._routes import Source

logger = logging.getLogger("hostline")

#: How many events an observer may be behind.
MOST_WAITING = 1_000
#: How long a process that ends waits for what has still to be told, all in all.
LAST_WORDS = 1.0
#: How often it is said how many events were dropped.
_DROPS_TOLD_EVERY = 60.0

_READY, _ACTIVE, _COMPLETED = State.READY, State.ACTIVE, State.COMPLETED


class Event(Protocol):
    """What every event has."""

    @property
    def state(self) -> StrEnum:
        """What has happened."""
        ...


Observer = Callable[[Any], object]
_Wants = Callable[[Any], bool]
_Meets = Callable[[RequestDetails], object]
_OBSERVER_FAILED = "An observer of hostline failed and was skipped: %r"


class Mailbox:
    """An observer with a thread of its own. ``post`` may be called from any thread.

    The thread is started with the first event of each process: servers fork. Whoever puts
    the process's queue into the dict is who starts it, so no lock is needed, which under
    gevent could not be held while a thread is started.
    """

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._queues: dict[int, queue.SimpleQueue[Any]] = {}
        # Changed by single operations; two who drop at once may at worst both say so.
        self.dropped = 0
        self._told_drops_at = -_DROPS_TOLD_EVERY
        _mailboxes.add(self)

    def post(self, event: Event) -> None:
        """Have the observer told soon."""
        waiting = self._queues.get(os.getpid())
        if waiting is None:
            waiting = self._start()
        if waiting.qsize() < MOST_WAITING:
            waiting.put(event)
        else:
            self._drop()

    def flush(self, timeout: float) -> bool:
        """Wait until all that was posted before is told; False: not within the timeout."""
        waiting = self._queues.get(os.getpid())
        if waiting is None:
            return True
        told = threading.Event()
        waiting.put(told)
        return told.wait(timeout)

    def _start(self) -> "queue.SimpleQueue[Any]":
        mine: queue.SimpleQueue[Any] = queue.SimpleQueue()
        waiting = self._queues.setdefault(os.getpid(), mine)
        if waiting is mine:
            name = f"hostline-observer-{getattr(self._observer, '__name__', type(self._observer).__name__)}"
            try:
                threading.Thread(target=self._run, args=(mine,), name=name, daemon=True).start()
            except RuntimeError:  # out of threads, or at the very end: the next one tries again
                del self._queues[os.getpid()]
                raise
        return waiting

    def _run(self, waiting: "queue.SimpleQueue[Any]") -> None:
        try:
            while self._tell(waiting.get()):
                pass
        finally:
            self._queues.pop(os.getpid(), None)  # the next event has another thread started
            for _ in range(waiting.qsize()):
                self._drop()

    def _tell(self, event: Any) -> bool:
        """Whether the thread is to go on: not if somebody ends it, as gevent does by an exception."""
        if isinstance(event, threading.Event):
            event.set()
            return True
        try:
            self._observer(event)
        except BaseException as error:
            logger.exception(_OBSERVER_FAILED, self._observer)
            return isinstance(error, (Exception, SystemExit))
        return True

    def _drop(self) -> None:
        self.dropped += 1
        now = monotonic()
        if now - self._told_drops_at >= _DROPS_TOLD_EVERY:
            self._told_drops_at = now
            logger.warning(
                "An observer of hostline is too slow: %d events so far were not told to %r.",
                self.dropped,
                self._observer,
            )


# Of this process's. Weakly, for they live as long as what posts to them.
_mailboxes: weakref.WeakSet[Mailbox] = weakref.WeakSet()


class Observers:
    """Hands events to observers, each isolated from the request and from the others.

    An observer may have a method ``wants(state) -> bool``, which is asked where the event
    happens; one that answers False is not told, and where nobody wants a state, no event is made.
    """

    def __init__(self, observers: Iterable[Observer]) -> None:
        self._observers = tuple(_Told(each) for each in observers)
        # Of sinks that belong to a request's context, such as its trace: no event can hold that.
        self._meets = _methods(self._observers, "meet")
        self._notes = _methods(self._observers, "note_timeout")
        #: Whether anybody wants to hear just now of how a request goes in the normal way.
        self.are_attentive: Callable[[], bool] = self._are_attentive
        #: What a request looks into before it asks that: False at ``logging.INFO`` says that nobody does.
        self.attention: Mapping[int, bool] = {logging.INFO: bool(self._observers)}
        # Each request asks this, so what can be known before is.
        if any(each.is_attentive is _always for each in self._observers):
            self.are_attentive = _always
        elif len(self._observers) == 1:  # the log alone, as a rule
            self.are_attentive = self._observers[0].is_attentive
            self.attention = getattr(self._observers[0].observer, "attention", self.attention)

    def __bool__(self) -> bool:
        return bool(self._observers)

    def _are_attentive(self) -> bool:
        return any(each.is_attentive() for each in self._observers)

    def want(self, state: StrEnum) -> bool:
        """Whether anybody wants to hear of it just now."""
        return any(each.wants(state) for each in self._observers)

    def begin(self, request: RequestDetails, source: Source) -> None:
        """A request begins, and somebody is attentive. ``source`` is its environ or scope."""
        request.find_route_in(source)
        if self.want(_ACTIVE):
            heartbeat.add(request, self.tell)
        self.tell(request, _READY)

    def tell(self, request: RequestDetails, state: State) -> None:
        """Tell of a request that enters a state."""
        if state is _READY:
            self._call_each(self._meets, request)
        self.tell_of(state, lambda: RequestEvent.of(request, state))

    def tell_of(self, state: StrEnum, make_event: Callable[[], Event]) -> None:
        """Tell each observer that wants the state, holding no lock; never raises."""
        event = None
        for each in self._observers:
            if each.wants(state):
                try:
                    event = event or make_event()
                    each.tell(event)
                except Exception:
                    logger.exception(_OBSERVER_FAILED, each.observer)

    def note_timeout(self, request: RequestDetails) -> None:
        """Call ``note_timeout`` of each observer that has one, once for each request; never raises.

        In the request's own thread or loop, and before its answer goes out: the telling of a
        timeout is another thread's, and may be later.
        """
        if request.is_timeout_noted:
            return
        request.is_timeout_noted = True
        self._call_each(self._notes, request)

    def _call_each(
        self, calls: Iterable[Callable[[RequestDetails], object]], request: RequestDetails
    ) -> None:
        for call in calls:
            try:
                call(request)
            except Exception:
                logger.exception(_OBSERVER_FAILED, call)

    def flush(self, timeout: float) -> bool:
        """Wait until all that has happened before is told; False: not within the timeout."""
        return all(each.mailbox is None or each.mailbox.flush(timeout) for each in self._observers)


def _always() -> bool:
    return True


class _Told:
    """An observer, and how it is told."""

    def __init__(self, observer: Observer) -> None:
        self.observer = observer
        self.mailbox = None if getattr(observer, "is_immediate", False) else Mailbox(observer)
        self.tell: Callable[[Any], object] = observer if self.mailbox is None else self.mailbox.post
        self._wants: _Wants | None = getattr(observer, "wants", None)
        by_itself = self._is_attentive if self._wants else _always
        self.is_attentive: Callable[[], bool] = getattr(observer, "is_attentive", by_itself)

    def _is_attentive(self) -> bool:
        return any(map(self.wants, (_READY, _COMPLETED, _ACTIVE)))

    def wants(self, state: StrEnum) -> bool:
        try:
            return self._wants is None or self._wants(state)
        except Exception:
            logger.exception(_OBSERVER_FAILED, self.observer)
            return False


def _methods(observers: Iterable[_Told], name: str) -> tuple[_Meets, ...]:
    found = (getattr(each.observer, name, None) for each in observers)
    return tuple(method for method in found if method is not None)


def _last_words() -> None:
    """Tell what is left before the process ends, as far as that can be told soon."""
    end = monotonic() + LAST_WORDS
    reporter.finish(LAST_WORDS)
    for mailbox in list(_mailboxes):
        mailbox.flush(max(0.0, end - monotonic()))


atexit.register(_last_words)
