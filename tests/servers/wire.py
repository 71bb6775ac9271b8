"""A client that keeps to no rule: octets out, octets in, and away when it likes."""

import socket
import struct
import time
from collections.abc import Iterable
from typing import Self

_RESET_AT_CLOSE = struct.pack("ii", 1, 0)


class Wire:
    """One TCP connection."""

    def __init__(self, port: int, patience: float = 20.0) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=patience)

    def send(self, *pieces: bytes, pause: float = 0.0) -> bool:
        """Send them, a pause behind each; False: the server has broken off."""
        try:
            for piece in pieces:
                self._socket.sendall(piece)
                time.sleep(pause)
        except OSError:
            return False
        return True

    def receive(self, least: bytes = b"") -> bytes:
        """All that comes until the server closes; with ``least``, until that was among it."""
        parts = b""
        while not (least and least in parts):
            try:
                part = self._socket.recv(65_536)
            except OSError:  # reset; or nothing for too long
                break
            if not part:
                break
            parts += part
        return parts

    def leave(self, *, abruptly: bool = False) -> None:
        """Close it; abruptly: by a reset, that throws away what is on its way."""
        if abruptly:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()


def head(target: str, *lines: str | bytes, method: str = "GET", version: str = "HTTP/1.1") -> bytes:
    """A request's head, with these lines as they are."""
    encoded = [line if isinstance(line, bytes) else line.encode() for line in lines]
    return b"\r\n".join([f"{method} {target} {version}".encode(), *encoded, b"", b""])


def exchange(port: int, *pieces: bytes, pause: float = 0.0, patience: float = 20.0) -> bytes:
    """What a server answers to these octets, to the end of the connection."""
    with Wire(port, patience) as wire:
        wire.send(*pieces, pause=pause)
        return wire.receive()


def statuses(octets: bytes) -> list[int]:
    """Those of the answers, in their order. No body of the trials' apps has such a line."""
    lines = octets.replace(b"chunk;", b"").split(b"HTTP/1.")[1:]
    return [int(line[2:5]) for line in lines]


def header(octets: bytes, name: bytes) -> bytes:
    """The value of the first answer's header; empty without."""
    for line in octets.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.strip().lower() == name:
            return value.strip()
    return b""


def one_by_one(octets: bytes) -> Iterable[bytes]:
    """Octet for octet."""
    return (octets[at : at + 1] for at in range(len(octets)))
