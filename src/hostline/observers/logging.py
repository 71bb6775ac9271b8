"""The log: rack-timeout's line on logger ``hostline``, on by default.

``ready`` and ``completed`` are INFO, ``active`` is DEBUG, ``expired`` and ``timed_out``
are ERROR. The line's values are there as attributes of the record too (``extra``), for
JSON loggers: ``request_id``, ``method``, ``path``, ``wait``, ``timeout``, ``service``,
``state``, ``stack``; durations in seconds there, in milliseconds in the line.

Nothing that a client sends can forge a line: the id is reduced to printable ASCII
without blanks, and the path is in the attributes alone.
"""

import logging
from collections.abc import Mapping
from enum import StrEnum
from functools import partial

from hostline._host_events import HostEvent, HostState, fit_for_a_line
from hostline._log import log_line, logger
from hostline._log_ration import log_ration as log_ration  # noqa: PLC0414 - from here on it is at work
from hostline._requests import RequestEvent, State

LEVELS: Mapping[StrEnum, int] = {
    State.READY: logging.INFO,
    State.ACTIVE: logging.DEBUG,
    State.COMPLETED: logging.INFO,
    State.EXPIRED: logging.ERROR,
    State.TIMED_OUT: logging.ERROR,
    HostState.REDIRECTED: logging.INFO,
    HostState.WOULD_REDIRECT: logging.WARNING,
    HostState.REJECTED: logging.WARNING,
    HostState.WOULD_REJECT: logging.WARNING,
}


class LogObserver:
    """Writes one line for each event whose level is enabled."""

    #: A line is written where the event happens, as any line of the app's own.
    is_immediate = True

    def __init__(self) -> None:
        #: Whether INFO is enabled: what a request asks before it makes any event.
        self.is_attentive = partial(logger.isEnabledFor, logging.INFO)
        #: What the logger remembers of its own answers, level by level, until somebody changes one.
        #: Looked up where a call would cost as much as all else that a request pays for.
        self.attention: Mapping[int, bool] = getattr(logger, "_cache", {logging.INFO: True})

    def wants(self, state: StrEnum) -> bool:
        """Whether a line at this state's level would be written."""
        return logger.isEnabledFor(LEVELS[state])

    def __call__(self, event: RequestEvent | HostEvent) -> None:
        """Write the line."""
        if isinstance(event, HostEvent):
            log_line(LEVELS[event.state], format_host_line(event), None, host_fields(event))
            return
        log_line(LEVELS[event.state], format_line(event), event.stack, extra_fields(event))


def format_line(event: RequestEvent) -> str:
    """``source=hostline id=... wait=369ms timeout=10000ms service=15ms state=completed``."""
    parts = ["source=hostline", f"id={event.id}"]
    for name, seconds in (("wait", event.wait), ("timeout", event.timeout), ("service", event.service)):
        if seconds is not None:
            parts.append(f"{name}={seconds * 1000:.0f}ms")
    parts.append(f"state={event.state}")
    if event.term:
        parts.append("term=true")
    return " ".join(parts)


def format_host_line(event: HostEvent) -> str:
    """``source=hostline id=... host=example.com location=https://... status=301 state=redirected``."""
    parts = ["source=hostline", f"id={event.id}", f"host={event.host}"]
    if event.location is not None:
        parts.append(f"location={fit_for_a_line(event.location)}")
    parts.append(f"status={event.status}")
    if event.reason is not None:
        parts.append(f"reason={event.reason}")
    parts.append(f"state={event.state}")
    return " ".join(parts)


def host_fields(event: HostEvent) -> dict[str, object]:
    """The attributes of the log record of a :class:`HostEvent`."""
    return {
        "request_id": event.id,
        "method": event.method,
        "path": event.path,
        "host": event.host,
        "location": event.location,
        "status": event.status,
        "reason": event.reason,
        "state": str(event.state),
    }


def extra_fields(event: RequestEvent) -> dict[str, object]:
    """The attributes of the log record."""
    return {
        "request_id": event.id,
        "method": event.method,
        "path": event.path,
        "wait": event.wait,
        "timeout": event.timeout,
        "service": event.service,
        "state": str(event.state),
        "stack": event.stack,
        "route": event.route,
    }


log = LogObserver()
