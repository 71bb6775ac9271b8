"""Where hostline's events go: one module per sink. No sink but the log is imported unasked.

What an observer of a user's own has to know is here too: the events, and their states.
"""

from collections.abc import Iterable
from functools import cache
from importlib import import_module
from typing import Any, cast

from hostline._host_events import HostEvent, HostState
from hostline._observers import Observer, Observers
from hostline._requests import RequestEvent, State
from hostline.observers.logging import log

__all__ = ["HostEvent", "HostState", "Observer", "RequestEvent", "State"]


_CLASSES = {
    "prometheus": "PrometheusObserver",
    "opentelemetry": "OpenTelemetryObserver",
    "sentry": "SentryObserver",
}


def named(observers: Iterable[Any]) -> Observers:
    """The observers of a setting, in which words stand for those built in.

    Raises an ImportError that names the extra, where the library of a sink is missing.
    """
    return Observers([_built_in(each) if isinstance(each, str) else each for each in observers])


@cache
def _built_in(name: str) -> Observer:
    """The one of this process: a registry of Prometheus's takes no second."""
    if name == "log":
        return log
    return cast(Observer, getattr(import_module(f"{__name__}.{name}"), _CLASSES[name])())
