"""The two servers of the live page, and the settings that they are started with."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from hostline.demo.live.board import SIDES
from hostline.demo.live.kinds import HOST
from hostline.demo.live.reports import VARIABLE
from hostline.demo.servers import GUNICORN, Server
from hostline.demo.surprise import Surprise

#: Seconds; Heroku's router gives up after 30, here everything goes faster.
PATIENCE = 4.0
_LONGEST_STOP = 0.3  # seconds: what is stuck does not end by being asked


@dataclass(frozen=True, slots=True)
class Range:
    """What a slider lets one choose."""

    name: str
    label: str
    low: float
    high: float
    step: float
    unit: str


RANGES = (
    Range("service_timeout", "Service timeout", 0.5, 4, 0.5, "s"),
    Range("wait_timeout", "Wait timeout", 1, 4, 0.5, "s"),
    Range("threads", "Worker threads", 2, 8, 1, ""),
)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the page's sliders say."""

    service_timeout: float = 2.0
    wait_timeout: float = 3.0
    threads: int = 4

    @classmethod
    def of(cls, form: Mapping[str, str]) -> Self:
        """Those of a form; a ValueError where one is no number, or out of its range."""
        chosen = {each.name: _chosen(each, form[each.name]) for each in RANGES if each.name in form}
        values: dict[str, Any] = asdict(cls()) | chosen
        return cls(values["service_timeout"], values["wait_timeout"], int(values["threads"]))

    @property
    def environment(self) -> dict[str, str]:
        """All that hostline is configured by."""
        return {
            "HOSTLINE_CANONICAL_HOST": HOST,
            "HOSTLINE_CANONICAL_EXEMPT_PATHS": "/counts",
            "HOSTLINE_SERVICE_TIMEOUT": f"{self.service_timeout:g}",
            "HOSTLINE_WAIT_TIMEOUT": f"{self.wait_timeout:g}",
        }


def _chosen(each: Range, text: str) -> float:
    value = float(text)
    if not each.low <= value <= each.high:
        raise ValueError(f"{each.label}: {text} is not between {each.low:g} and {each.high:g}")
    return value


class Sides:
    """Both servers, from one start to the next. Its methods wait: not for an event loop's thread."""

    def __init__(self, reports: str) -> None:
        self._reports = reports
        self._servers: dict[str, Server] = {}

    def port(self, side: str) -> int:
        """Where it listens."""
        return self._servers[side].port

    def start(self, settings: Settings) -> None:
        """Start both, in place of those that run."""
        self.stop()
        for side in SIDES:
            command = (*GUNICORN[:-1], f"--threads={settings.threads}", GUNICORN[-1])
            environment = {**settings.environment, VARIABLE: self._reports}
            self._servers[side] = Server((*command, f"hostline.demo.live.shop:{side}"), environment)
        for server in self._servers.values():
            try:
                server.await_ready()
            except Surprise as surprise:
                raise Surprise("\n".join((str(surprise), *server.log.tail()))) from surprise

    def stop(self) -> None:
        """End both."""
        for server in self._servers.values():
            server.ask_to_stop()
        while self._servers:
            self._servers.popitem()[1].stop(_LONGEST_STOP)
