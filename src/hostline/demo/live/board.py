"""What became of each request, on both sides, and what is to be counted of that.

Belongs to the conductor's event loop: nothing here is to be touched from another thread.
"""

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from hostline.demo.live.kinds import Ending, Kind
from hostline.demo.live.reports import Report

SIDES = ("guarded", "bare")
_REMEMBERED = 500  # pairs


@dataclass(slots=True)
class Trip:
    """One request's way to one of the servers and back."""

    number: int
    side: str
    kind: str
    sent: float
    queued: float  #: how long before that, as the router says
    begun: float | None = None  #: when the app got it
    worker: int | None = None
    limit: float | None = None  #: how long hostline lets it run
    answered: float | None = None  #: when its client knew
    ended: float | None = None  #: when the app was done with it
    status: int | None = None
    ending: Ending | None = None
    location: str = ""
    stack: str = ""

    @property
    def is_busy(self) -> bool:
        """Whether a worker works for it, be it for nobody."""
        return self.begun is not None and self.ended is None

    @property
    def is_waiting(self) -> bool:
        """Whether somebody waits, and no worker has it."""
        return self.begun is None and self.ending is None

    def shown(self) -> dict[str, Any]:
        """What the page's script needs of it."""
        shown = asdict(self)
        shown["stack"] = bool(self.stack)
        return shown


@dataclass(slots=True)
class Pair:
    """The same request, to both."""

    number: int
    kind: Kind
    trips: dict[str, Trip]


@dataclass(slots=True)
class _Side:
    lanes: dict[int, int] = field(default_factory=dict[int, int])
    endings: Counter[Ending] = field(default_factory=Counter[Ending])


class Board:
    """All requests since the servers were started."""

    def __init__(self) -> None:
        self._number = 0
        self.changed: set[int] = set()  #: the numbers of the pairs to be told anew
        self.clear()

    def clear(self) -> None:
        """Begin anew: what is still under way belongs to servers that are gone."""
        self.pairs: deque[Pair] = deque()
        self._by_number: dict[int, Pair] = {}
        self._sides = {side: _Side() for side in SIDES}

    def add(self, kind: Kind, sent: float) -> Pair:
        """A new pair of requests, of which nothing is known yet."""
        self._number += 1
        trips = {side: Trip(self._number, side, kind.name, sent, kind.waited) for side in SIDES}
        pair = Pair(self._number, kind, trips)
        if len(self.pairs) == _REMEMBERED:
            del self._by_number[self.pairs.popleft().number]
        self.pairs.append(pair)
        self._by_number[pair.number] = pair
        self.changed.add(pair.number)
        return pair

    def pair(self, number: int) -> Pair | None:
        """One of those that are remembered."""
        return self._by_number.get(number)

    def end(self, trip: Trip, ending: Ending, at: float, *, status: int | None, location: str = "") -> None:
        """Its client knows now."""
        trip.ending, trip.answered, trip.status, trip.location = ending, at, status, location
        if self._is_current(trip):
            self._sides[trip.side].endings[ending] += 1
            self.changed.add(trip.number)

    def report(self, report: Report) -> None:
        """A server has told something."""
        side, _, number = report["id"].partition("-")
        pair = self._by_number.get(int(number)) if number.isdecimal() else None
        if pair is None or side not in SIDES:
            return
        trip = pair.trips[side]
        match report["state"]:
            case "begun":
                trip.begun, trip.worker = report["at"], self._lane(side, report["worker"])
            case "ended":
                trip.ended = report["at"]
            case "ready":
                trip.limit = report["timeout"]
            case "timed_out":
                trip.stack = report["stack"] or ""
            case _:
                pass
        self.changed.add(trip.number)

    def _lane(self, side: str, worker: int) -> int:
        lanes = self._sides[side].lanes
        return lanes.setdefault(worker, len(lanes))

    def _is_current(self, trip: Trip) -> bool:
        pair = self._by_number.get(trip.number)
        return pair is not None and pair.trips[trip.side] is trip

    def _trips(self, side: str) -> Iterator[Trip]:
        return (pair.trips[side] for pair in self.pairs)

    def in_flight(self) -> int:
        """How many answers are still awaited."""
        return sum(trip.ending is None for side in SIDES for trip in self._trips(side))

    def counts(self, side: str) -> dict[str, int]:
        """What the counters of a side say."""
        endings = self._sides[side].endings
        return {
            "served": sum(count for ending, count in endings.items() if ending.is_good),
            "refused": sum(count for ending, count in endings.items() if not ending.is_good),
            "waiting": sum(trip.is_waiting for trip in self._trips(side)),
            "busy": sum(trip.is_busy for trip in self._trips(side)),
        }
