"""The app of the live page: ``bare``, and ``guarded``, the same behind both guards.

Whatever gets stuck here lasts :data:`LONGEST` at most: the thread is lost for as long as anybody
looks, and not for ever where nobody ends the server.
"""

import logging
import os
import socket
import time
from collections.abc import Iterable, Iterator
from time import monotonic
from typing import Any

from flask import Flask
from werkzeug.wsgi import ClosingIterator

from hostline.demo.live.reports import Teller, tell_begun, tell_ended
from hostline.wsgi import CanonicalHostMiddleware, RequestTimeoutMiddleware

LONGEST = 180.0

logging.basicConfig()
shop = Flask(__name__)
_parent = os.getppid()


@shop.get("/fast")
def fast() -> str:
    """What most requests are like."""
    time.sleep(0.02)
    return "Here you are.\n"


@shop.get("/slow")
def slow() -> str:
    """Slow, and in time all the same."""
    time.sleep(0.6)
    return "Here you are, at last.\n"


@shop.get("/stuck")
def stuck() -> str:
    """A call of another service, by somebody who forgot its timeout."""
    return ask_the_stock_service()


def ask_the_stock_service() -> str:
    """It has accepted the connection, and says nothing."""
    connection, service = socket.socketpair()
    connection.settimeout(LONGEST)
    with connection, service:
        return connection.recv(1024).decode()


@shop.get("/loop")
def loop() -> str:
    """A loop that does not end."""
    return f"{add_up_prices()}\n"


def add_up_prices() -> int:
    """Keep the processor busy."""
    total, end = 0, monotonic() + LONGEST
    # The parent: a server whose master was killed is nobody's, and computes for nobody.
    while monotonic() < end and os.getppid() == _parent:
        total += sum(range(1_000))
    return total


@shop.get("/sleep")
def sleep() -> str:
    """One call that CPython cannot be torn out of, in a thread."""
    time.sleep(5)
    return "Good morning.\n"


@shop.get("/stream")
def stream() -> Iterator[str]:
    """A response that is on its way for longer than a request may take, and well."""
    for number in range(1, 14):
        yield f"Line {number}\n"
        time.sleep(0.25)


@shop.get("/counts")
def counts() -> dict[str, int]:
    """The health check."""
    return {}


class Told:
    """Tells when a request takes a thread, and when the thread is free again."""

    def __init__(self, app: Flask) -> None:
        self._app = app

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Any WSGI app's."""
        request_id = environ.get("HTTP_X_REQUEST_ID", "")
        tell_begun(request_id)
        try:
            body = self._app(environ, start_response)
        except BaseException:
            tell_ended(request_id)
            raise
        return ClosingIterator(body, lambda: tell_ended(request_id))


bare = Told(shop)
guarded = CanonicalHostMiddleware(RequestTimeoutMiddleware(bare, observers=("log", Teller())))
