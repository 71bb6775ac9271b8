"""The soft limit, ``warn_after``: log what a request is doing that runs so long, and let it.

Imports: ``_deadlines``, ``_interrupts``, ``_log``, ``_requests``, ``_stacks``.
"""

import logging
from functools import partial

from hostline import _stacks
from hostline._deadlines import watchdog
from hostline._interrupts import ThreadRequest
from hostline._log import log_stack
from hostline._requests import RequestDetails, reporter


class ThreadWatch:
    """Looks at a thread's request when its soft limit has passed. An entry of the watchdog's."""

    def __init__(self, request: ThreadRequest, warn_after: float) -> None:
        self._request = request
        self.deadline = request.started + warn_after
        request.at_end(partial(watchdog.forget, self))
        watchdog.at(self, self.deadline)

    def survives_fork(self) -> bool:
        """As its request."""
        return self._request.survives_fork()

    def expire(self) -> None:
        """In the watchdog's thread: the request is still running, or has just ended.

        Between two chunks of a stream it is the server that runs, and may wait for its client.
        """
        request = self._request
        if request.ended is None and any(map(request.is_run_by, request.frames())):
            request.report(partial(warn, request, request.trace_now() or []))


def warn(request: RequestDetails, trace: _stacks.Trace) -> None:
    """Log where it is."""
    log_stack(
        logging.WARNING,
        f"source=hostline id={request.id} service={request.service * 1000:.0f}ms is slow; the code is here:",
        trace,
        {"request_id": request.id, "service": request.service, "state": "slow"},
    )


def warn_soon(request: RequestDetails, trace: _stacks.Trace) -> None:
    """Log where it is, in the reporter's thread."""
    reporter.submit(partial(warn, request, trace))
