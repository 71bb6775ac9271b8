"""A WebSocket client, as small as the tests need it."""

import socket
from typing import Self

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Event, Request, TextMessage


class WebSocket:
    """One that has been accepted."""

    def __init__(self, port: int, path: str, patience: float = 20.0) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=patience)
        self._protocol = WSConnection(ConnectionType.CLIENT)
        self._send(Request(host="localhost", target=path))
        accepted = self._next()
        assert isinstance(accepted, AcceptConnection), accepted

    def say(self, text: str) -> str:
        """Send something, and wait for what comes back."""
        self._send(TextMessage(data=text))
        message = self._next()
        assert isinstance(message, TextMessage), message
        return str(message.data)

    def _send(self, event: Event) -> None:
        self._socket.sendall(self._protocol.send(event))

    def _next(self) -> Event:
        while True:
            for event in self._protocol.events():
                return event
            self._protocol.receive_data(self._socket.recv(65536) or None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._send(CloseConnection(code=1000))
        self._socket.close()
