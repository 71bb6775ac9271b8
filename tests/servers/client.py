"""An HTTP client that tells exactly what came back: a whole answer, a cut one, or none."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, IncompleteRead
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Answer:
    """What the client got, and after how many seconds."""

    status: int | None  # None: the connection ended before there was one
    seconds: float
    headers: dict[str, str] = field(default_factory=dict)  # names in lower case
    repeated: frozenset[str] = frozenset()  # of these names
    body: bytes = b""
    is_cut: bool = False  # the client can tell that the body is not whole
    error: str = ""


class Connection:
    """One connection, for one request after the other."""

    def __init__(self, port: int, patience: float = 20.0) -> None:
        self._http = HTTPConnection("127.0.0.1", port, timeout=patience)
        self._sockets: list[Any] = []

    def get(
        self, path: str, headers: Mapping[str, str] | None = None, *, body: Iterable[bytes] | None = None
    ) -> Answer:
        """Ask for it; with a body, by POST and in chunks."""
        began = time.monotonic()
        method = "GET" if body is None else "POST"
        try:
            self._http.request(method, path, body=body, headers={"Host": "localhost", **(headers or {})})
            self._sockets.append(self._http.sock)
            response = self._http.getresponse()
        except (OSError, HTTPException) as error:
            self._http.close()
            return Answer(None, time.monotonic() - began, error=type(error).__name__)
        is_cut, problem = False, ""
        try:
            body = response.read()
        except IncompleteRead as error:
            is_cut, problem, body = True, "IncompleteRead", error.partial
        except (OSError, HTTPException) as error:
            # Nothing for so long is no end that a client could tell.
            is_cut, problem, body = not isinstance(error, TimeoutError), type(error).__name__, b""
        names = Counter(name.lower() for name, _ in response.getheaders())
        return Answer(
            response.status,
            time.monotonic() - began,
            headers={name.lower(): value for name, value in response.getheaders()},
            repeated=frozenset(name for name, count in names.items() if count > 1),
            body=body,
            is_cut=is_cut,
            error=problem,
        )

    @property
    def was_kept(self) -> bool:
        """Whether all requests so far went over one and the same connection."""
        return all(each is self._sockets[0] for each in self._sockets)

    def close(self) -> None:
        """Close it."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def get(port: int, path: str, headers: Mapping[str, str] | None = None, *, patience: float = 20.0) -> Answer:
    """Ask for it on a connection of its own."""
    with Connection(port, patience) as connection:
        return connection.get(path, {"Connection": "close", **(headers or {})})
