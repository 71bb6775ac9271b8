"""The demo's HTTP client: every address is on this machine, whatever its host is called."""

from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPConnection, HTTPException
from time import perf_counter
from urllib.parse import SplitResult, urlsplit

from hostline.demo.surprise import Surprise

_NONE: Mapping[str, str] = {}
#: Seconds; longer than anything in the demo takes that is not stopped.
_PATIENCE = 12.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, and after how many seconds."""

    status: int
    reason: str
    headers: Message
    body: bytes
    seconds: float


class Connection:
    """One connection, to be used for one request after the other."""

    def __init__(self, port: int, patience: float = _PATIENCE) -> None:
        self._http = HTTPConnection("127.0.0.1", port, timeout=patience)

    def get(self, url: str, headers: Mapping[str, str] = _NONE) -> Answer:
        """Ask for it."""
        parts = urlsplit(url)
        try:
            return self._get(parts, headers)
        except (OSError, HTTPException) as error:
            raise Surprise(f"GET {url}: expected an answer, got {error!r}") from error

    def _get(self, parts: SplitResult, headers: Mapping[str, str]) -> Answer:
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        began = perf_counter()
        self._http.request("GET", target, headers={"Host": parts.netloc, **headers})
        response = self._http.getresponse()
        body = response.read()
        seconds = perf_counter() - began
        return Answer(response.status, response.reason, response.headers, body, seconds)

    def close(self) -> None:
        """Close it."""
        self._http.close()


def get(url: str, headers: Mapping[str, str] = _NONE, *, patience: float = _PATIENCE) -> Answer:
    """Ask for it on a connection of its own."""
    connection = Connection(urlsplit(url).port or 80, patience)
    try:
        return connection.get(url, headers)
    finally:
        connection.close()
