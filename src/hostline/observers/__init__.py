"""Where hostline's events go: one module per sink. No sink but the log is imported unasked."""

from collections.abc import Iterable
from typing import Any

from hostline._requests import Observer, Observers
from hostline.observers.logging import log


def named(observers: Iterable[Any]) -> Observers:
    """The observers of a setting, in which ``"log"`` names the one built in."""
    every: list[Observer] = [log if each == "log" else each for each in observers]
    return Observers(every)
