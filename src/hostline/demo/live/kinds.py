"""The requests that one can send, and how a request can end."""

from dataclasses import dataclass
from enum import StrEnum

HOST = "shop.example"


@dataclass(frozen=True, slots=True)
class Kind:
    """One button of the page."""

    name: str
    label: str
    hint: str
    host: str = HOST
    waited: float = 0.0  #: seconds; what the router says that it has been queued already

    @property
    def path(self) -> str:
        """What it asks for."""
        return "/fast" if self.name in ("late", "host") else f"/{self.name}"


KINDS = {
    kind.name: kind
    for kind in (
        Kind("fast", "Fast", "20 ms"),
        Kind("slow", "Slow", "0.6 s, in time"),
        Kind("stuck", "Stuck call", "no answer"),
        Kind("loop", "Stuck loop", "no end"),
        Kind("sleep", "Long sleep", "5 s, in C"),
        Kind("stream", "Stream", "3 s, line by line"),
        Kind("late", "Expired", "has waited 40 s", waited=40),
        Kind("host", "Wrong host", "www.shop.example", host=f"www.{HOST}"),
    )
}


class Ending(StrEnum):
    """How it ended, as its client sees it."""

    SERVED = "served"
    REDIRECTED = "redirected"  #: to the canonical host
    STOPPED = "stopped"  #: it ran too long: 504
    DROPPED = "dropped"  #: it had waited too long: 503
    GIVEN_UP = "given-up"  #: by the router, which waits no longer (H12)
    BROKEN = "broken"  #: closed without an answer, or in the middle of one

    @property
    def is_good(self) -> bool:
        """Whether the client has what it wanted, or knows where."""
        return self in (Ending.SERVED, Ending.REDIRECTED)


LABELS = {
    Ending.SERVED: "Served",
    Ending.REDIRECTED: "Redirected",
    Ending.STOPPED: "Stopped",
    Ending.DROPPED: "Dropped",
    Ending.GIVEN_UP: "Given up",
    Ending.BROKEN: "Broken off",
}
