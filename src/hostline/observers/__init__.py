"""Where hostline's events go: one module per sink. No sink but the log is imported unasked.

What an observer of a user's own has to know is here too: the events, and their states.
"""

from collections.abc import Iterable
from typing import Any

from hostline._host_events import HostEvent, HostState
from hostline._observers import Observer, Observers
from hostline._requests import RequestEvent, State
from hostline.observers.logging import log

__all__ = ["HostEvent", "HostState", "Observer", "RequestEvent", "State"]


def named(observers: Iterable[Any]) -> Observers:
    """The observers of a setting, in which ``"log"`` names the one built in."""
    every: list[Observer] = [log if each == "log" else each for each in observers]
    return Observers(every)
