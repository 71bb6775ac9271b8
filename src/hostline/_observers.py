"""Who is told of what happens, and how: each observer isolated from the requests and the others.

Imports: ``_requests``.
"""

import logging
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Any, Protocol

from hostline._requests import RequestDetails, RequestEvent, State

logger = logging.getLogger("hostline")

_READY, _COMPLETED = State.READY, State.COMPLETED


class Event(Protocol):
    """What every event has."""

    @property
    def state(self) -> StrEnum:
        """What has happened."""
        ...


Observer = Callable[[Any], object]
_OBSERVER_FAILED = "An observer of hostline failed and was skipped: %r"


class Observers:
    """Hands events to observers, each isolated from the request and from the others.

    An observer may have a method ``wants(state) -> bool``; one that answers False is not
    called, and where nobody wants a state, no event is made.
    """

    def __init__(self, observers: Iterable[Observer]) -> None:
        self._observers = tuple((o, getattr(o, "wants", None)) for o in observers)
        #: Whether anybody wants to hear just now of how a request goes in the normal way.
        self.are_attentive: Callable[[], bool] = self._are_attentive
        if len(self._observers) == 1:  # the log alone, as a rule: spare each request the loop
            self.are_attentive = getattr(self._observers[0][0], "is_attentive", self._are_attentive)

    def __bool__(self) -> bool:
        return bool(self._observers)

    def _are_attentive(self) -> bool:
        return any(self._wants(*each, _READY) or self._wants(*each, _COMPLETED) for each in self._observers)

    def tell(self, request: RequestDetails, state: State) -> None:
        """Tell of a request that enters a state."""
        self.tell_of(state, lambda: RequestEvent.of(request, state))

    def tell_of(self, state: StrEnum, make_event: Callable[[], Event]) -> None:
        """Call each observer that wants the state, holding no lock; never raises."""
        event = None
        for observer, wants in self._observers:
            if self._wants(observer, wants, state):
                try:
                    event = event or make_event()
                    observer(event)
                except Exception:
                    logger.exception(_OBSERVER_FAILED, observer)

    def _wants(self, observer: Observer, wants: Callable[[Any], bool] | None, state: StrEnum) -> bool:
        try:
            return wants is None or wants(state)
        except Exception:
            logger.exception(_OBSERVER_FAILED, observer)
            return False
