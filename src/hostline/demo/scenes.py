"""What the demo does to each app, and what it expects of it.

Every scene sends real requests, writes what happened, and raises a
:class:`~hostline.demo.surprise.Surprise` unless it is what hostline promises.
"""

import json
import time
from dataclasses import dataclass
from statistics import quantiles
from typing import Self

from hostline.demo.client import Answer, Connection, get
from hostline.demo.servers import Server
from hostline.demo.surprise import Surprise, expect
from hostline.demo.transcript import Transcript, shortened

# Milliseconds from the deadline: event loops count whole ones, and a busy machine is late.
_EARLIEST, _LATEST = -5, 250
_WAITED = 40  # seconds; the wait timeout is 30 unless told otherwise
_ROUNDS = 300


@dataclass(frozen=True)
class Play:
    """One app on its server, behind the guards and without them."""

    framework: str
    guarded: Server
    bare: Server
    service_timeout: float
    slow_code: str  #: what GET /slow runs
    transcript: Transcript
    caveat: str = ""  #: what else one has to know about stopping it

    def perform(self) -> None:
        """All scenes."""
        self.transcript.title(f"\n{self.framework}, {self.guarded.url('localhost', '/')}")
        self.show_redirect()
        self.show_timeout()
        self.show_expiry()
        self.show_cost()

    def show_redirect(self) -> None:
        """A request for another name."""
        self.transcript.scene("A request for another name is sent to the canonical host.")
        asked, canonical = (self.guarded.url(host, "/?page=2") for host in ("127.0.0.1", "localhost"))
        answer = self._get(asked)
        location = answer.headers["Location"]
        expect(f"status of GET {asked}", 301, answer.status)
        expect(f"Location of GET {asked}", canonical, location)
        followed = get(location)
        self.transcript.got(f"{_status(answer)}, Location: {location} (there: {_status(followed)})")
        expect(f"status of GET {location}", 200, followed.status)

    def show_timeout(self) -> None:
        """A request that runs too long."""
        self.transcript.scene(f"{self.slow_code} is stopped after {self.service_timeout:g} s.")
        answer = self._get(self.guarded.url("localhost", "/slow"), {"X-Request-ID": "demo-slow"})
        late = round((answer.seconds - self.service_timeout) * 1000)
        self.transcript.got(f"{_status(answer)}, {late} ms after the deadline")
        expect("status of GET /slow", 504, answer.status)
        if not _EARLIEST <= late <= _LATEST:
            raise Surprise(f"GET /slow: expected at most {_LATEST} ms after the deadline, got {late} ms")
        record = self.guarded.log.await_record("demo-slow", "timed_out")
        self.transcript.logged(shortened(record))
        if not any("_app.py" in line and line.endswith(", in slow") for line in record):
            raise Surprise("stack of GET /slow: expected the slow view in it, got\n" + "\n".join(record))
        counts = self._counts()
        begun, ended = counts["slow_begun"], counts["slow_ended"]
        self.transcript.measured(f"slow views begun: {begun}, ended: {ended}")
        expect("slow views begun and ended", (1, 1), (begun, ended))
        if self.caveat:
            self.transcript.note(f"    ({self.caveat})")

    def show_expiry(self) -> None:
        """A request that waited too long."""
        self.transcript.scene(f"A request that waited {_WAITED} s for a free worker does not reach the app.")
        before = self._counts()["calls"]
        start = f"t={(time.time() - _WAITED) * 1000:.0f}"
        headers = {"X-Request-Start": start, "X-Request-ID": "demo-late"}
        answer = self._get(self.guarded.url("localhost", "/"), headers)
        self.transcript.got(f"{_status(answer)}, Retry-After: {answer.headers['Retry-After']}")
        expect("status of the late request", 503, answer.status)
        self.transcript.logged(self.guarded.log.await_record("demo-late", "expired"))
        after = self._counts()["calls"]
        self.transcript.measured(f"calls of the app before: {before}, after: {after}")
        expect("calls of the app", before, after)

    def show_cost(self) -> None:
        """Normal requests, guarded and not."""
        self.transcript.scene("A normal request passes, at this cost.")
        without = f"a second {self.bare.name} that runs the app without hostline"
        self.transcript.sent(f"GET / {_ROUNDS} times on one connection, in turn with {without}")
        with_hostline, without_hostline = map(Spread.of, _times_in_turn(self.guarded, self.bare))
        self.transcript.got(f"200 OK after {with_hostline} with hostline")
        self.transcript.got(f"200 OK after {without_hostline} without")

    def _get(self, url: str, headers: dict[str, str] | None = None) -> Answer:
        shown = "".join(f", {name}: {value}" for name, value in (headers or {}).items())
        self.transcript.sent(f"GET {url}{shown}")
        return get(url, headers or {})

    def _counts(self) -> dict[str, int]:
        counts: dict[str, int] = json.loads(get(self.guarded.url("localhost", "/counts")).body)
        return counts


@dataclass(frozen=True)
class Spread:
    """Where the middle half of some durations lies, in milliseconds."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, seconds: list[float]) -> Self:
        """Measure it."""
        return cls(*(each * 1000 for each in quantiles(seconds, n=4)))

    def __str__(self) -> str:
        return f"{self.median:.2f} ms (median; half of them {self.low:.2f} to {self.high:.2f} ms)"


def _times_in_turn(guarded: Server, bare: Server) -> tuple[list[float], list[float]]:
    """How many seconds requests take, in turn: what slows the machine down slows both down."""
    times: dict[Server, list[float]] = {guarded: [], bare: []}
    connections = {server: Connection(server.port) for server in times}
    try:
        for _ in range(_ROUNDS // 2):
            for server in (guarded, bare, bare, guarded):
                answer = connections[server].get(server.url("localhost", "/"))
                expect(f"status of GET / from {server.command}", 200, answer.status)
                times[server].append(answer.seconds)
    finally:
        for connection in connections.values():
            connection.close()
    return times[guarded], times[bare]


def _status(answer: Answer) -> str:
    return f"{answer.status} {answer.reason}"
