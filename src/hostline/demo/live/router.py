"""Sends each request to both servers at the same moment, as a platform's router would send it.

It stamps when the request came in (``X-Request-Start``), waits so long for the first byte of the
answer, and then, as long for each further piece, and then gives up: it closes the connection,
and the app is not told.
"""

import asyncio
import time
from collections.abc import Callable
from time import monotonic

import httptools

from hostline.demo.live.board import Board, Pair, Trip
from hostline.demo.live.kinds import Ending, Kind
from hostline.demo.live.sides import PATIENCE

_ENDINGS = {301: Ending.REDIRECTED, 503: Ending.DROPPED, 504: Ending.STOPPED}


class Router:
    """Belongs to the event loop in which it is used."""

    def __init__(self, board: Board, port: Callable[[str], int]) -> None:
        self._board = board
        self._port = port
        self._tasks: set[asyncio.Task[None]] = set()

    def send(self, kind: Kind) -> Pair:
        """Send it to both; the board is told what becomes of it."""
        pair = self._board.add(kind, monotonic())
        for trip in pair.trips.values():
            task = asyncio.create_task(self._ask(trip, kind))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return pair

    async def drain(self) -> None:
        """Wait until each request under way has an end."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _ask(self, trip: Trip, kind: Kind) -> None:
        response = _Response()
        try:
            await _exchange(self._port(trip.side), _request(trip, kind), response)
            ending = _ENDINGS.get(response.status, Ending.SERVED) if response.is_whole else Ending.BROKEN
        except TimeoutError:
            ending = Ending.GIVEN_UP
        except (OSError, httptools.HttpParserError):
            ending = Ending.BROKEN
        location = response.headers.get("location", "")
        self._board.end(trip, ending, monotonic(), status=response.status or None, location=location)


def _request(trip: Trip, kind: Kind) -> bytes:
    came_in = round((time.time() - kind.waited) * 1000)
    return (
        f"GET {kind.path} HTTP/1.1\r\nHost: {kind.host}\r\nX-Request-ID: {trip.side}-{trip.number}\r\n"
        f"X-Request-Start: {came_in}\r\nConnection: close\r\n\r\n"
    ).encode()


class _Response:
    """What has come back so far."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.is_whole = False
        self._parser = httptools.HttpResponseParser(self)
        self.feed = self._parser.feed_data

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode().lower()] = value.decode()

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()

    def on_message_complete(self) -> None:
        self.is_whole = True


async def _exchange(port: int, request: bytes, response: _Response) -> None:
    async with asyncio.timeout(PATIENCE) as patience:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(request)
            while not response.is_whole and (received := await reader.read(1 << 16)):
                response.feed(received)
                patience.reschedule(asyncio.get_running_loop().time() + PATIENCE)
        finally:
            writer.close()
