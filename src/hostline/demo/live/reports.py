"""What the servers tell the page while they work: datagrams to a port of loopback.

Written by the servers' threads, read by the conductor. A report is never waited for: one that
cannot be sent at once is lost; so it is UDP, of which some hundreds may lie unread, where a Unix
socket's queue may be no longer than ten. Instants are :func:`time.monotonic`'s, which all processes share.
"""

import json
import os
import socket
from collections.abc import Callable
from threading import get_ident
from time import monotonic
from typing import Any, cast

from hostline._requests import State

#: The environment variable that holds the port; without it nothing is told.
VARIABLE = "DEMO_REPORTS"

Report = dict[str, Any]

_socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
_socket.setblocking(False)


def tell(request_id: str, **report: object) -> None:
    """Tell something about a request."""
    port = os.environ.get(VARIABLE)
    if port and request_id:
        datagram = json.dumps({"id": request_id, "at": monotonic(), **report}).encode()
        try:
            _socket.sendto(datagram, ("127.0.0.1", int(port)))
        except OSError:
            pass  # nobody listens any more, or too slowly


def tell_begun(request_id: str) -> None:
    """The app has this request, in the thread that calls."""
    tell(request_id, state="begun", worker=get_ident())


def tell_ended(request_id: str) -> None:
    """The app is done with it, one way or the other."""
    tell(request_id, state="ended")


class Teller:
    """An observer of hostline's guards."""

    is_immediate = True  # it never waits, so it needs no thread of its own

    def wants(self, state: object) -> bool:
        """What the page shows; how a request ended in time it sees by itself."""
        return state in (State.READY, State.TIMED_OUT)

    def __call__(self, event: Any) -> None:
        """Tell it."""
        tell(event.id, state=str(event.state), timeout=event.timeout, wait=event.wait, stack=event.stack)


class Inbox:
    """Where the reports arrive."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self.port = str(self._socket.getsockname()[1])

    def fileno(self) -> int:
        """For the event loop, to know when there is something to :meth:`read`."""
        return self._socket.fileno()

    def read(self, receive: Callable[[Report], object]) -> None:
        """Hand over all that has arrived."""
        while True:
            try:
                datagram = self._socket.recv(1 << 16)
            except BlockingIOError:
                return
            receive(cast("Report", json.loads(datagram)))

    def close(self) -> None:
        """Close it."""
        self._socket.close()
