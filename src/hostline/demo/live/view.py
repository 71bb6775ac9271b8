"""How the page says it: HTML from templates, and the messages that its script gets."""

import re
from collections.abc import Callable
from time import monotonic
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from hostline.demo.live.board import SIDES, Pair, Trip
from hostline.demo.live.feed import Message
from hostline.demo.live.kinds import KINDS, LABELS, Ending
from hostline.demo.live.sides import PATIENCE, RANGES
from hostline.demo.live.stage import Stage
from hostline.demo.live.story import RATE
from hostline.demo.transcript import shortened

_ROWS = 60
_RECENT = 40.0  # seconds; longer than the timelines show

# Where the demo is installed is of no interest.
_FOLDER = re.compile(r'(?<=^File ").*hostline/demo/')

NAMES = {"guarded": "With hostline", "bare": "Without"}


class View:
    """Of one stage."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._told: tuple[object, ...] = ()
        self._generation = 0
        templates = Environment(
            loader=PackageLoader("hostline.demo.live"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        templates.filters["duration"] = duration
        names: dict[str, Any] = templates.globals
        names.update(
            {
                "stage": stage,
                "SIDES": SIDES,
                "NAMES": NAMES,
                "KINDS": KINDS,
                "LABELS": LABELS,
                "RANGES": RANGES,
                "PATIENCE": PATIENCE,
                "RATE": RATE,
                "Ending": Ending,
            }
        )
        self._page = templates.get_template("page.html")
        self._request = templates.get_template("request.html")
        parts: Any = templates.get_template("parts.html").module
        self._row: Callable[[Pair], object] = parts.row
        self._story: Callable[..., object] = parts.story

    def page(self) -> str:
        """All of it."""
        return self._page.render(pairs=self._latest())

    def request(self, pair: Pair) -> str:
        """One request, and what its code was doing."""
        stacks = {side: _code(pair.trips[side]) for side in SIDES}
        return self._request.render(pair=pair, stacks=stacks)

    def whole(self) -> Message:
        """What a script needs that begins, or begins anew."""
        since = monotonic() - _RECENT
        trips = [trip for pair in self._stage.board.pairs for trip in pair.trips.values()]
        shown = [trip.shown() for trip in trips if trip.sent > since or trip.is_busy]
        rows = [(pair.number, str(self._row(pair))) for pair in self._latest()]
        return {"whole": True, **self._state(), "trips": shown, "rows": rows[::-1]}

    def changes(self) -> Message | None:
        """What is new since the last call; None: nothing."""
        board, state = self._stage.board, self._state()
        numbers, told = sorted(board.changed), (state["sides"], state["story"], state["ready"])
        board.changed.clear()
        if self._generation != self._stage.generation:
            self._generation, self._told = self._stage.generation, told
            return self.whole()
        if not numbers and told == self._told:
            return None
        self._told = told
        pairs = [pair for pair in map(board.pair, numbers) if pair is not None]
        trips = [trip.shown() for pair in pairs for trip in pair.trips.values()]
        rows = [(pair.number, str(self._row(pair))) for pair in pairs]
        return {"whole": False, **state, "trips": trips, "rows": rows}

    def _state(self) -> Message:
        stage = self._stage
        return {
            "now": monotonic(),
            "ready": stage.is_ready,
            "threads": stage.settings.threads,
            "sides": {side: stage.board.counts(side) for side in SIDES},
            "story": str(self._story(stage.story, stage.numbers())) if stage.story else "",
            "over": stage.story is not None and stage.story.is_over,
        }

    def _latest(self) -> list[Pair]:
        return list(self._stage.board.pairs)[: -_ROWS - 1 : -1]


def duration(seconds: float) -> str:
    """For people: ``21 ms``, ``2.0 s``."""
    return f"{seconds * 1000:.0f} ms" if seconds < 0.9995 else f"{seconds:.1f} s"


def _code(trip: Trip) -> list[tuple[str, str]]:
    """The lines of a stack, each with what it is: a frame of the app, its line, or others' frames."""
    lines = [_FOLDER.sub("hostline/demo/", line.strip()) for line in shortened(trip.stack.splitlines())]
    return [(_sort(line), line) for line in lines]


def _sort(line: str) -> str:
    if line.startswith("..."):
        return "others"
    return "frame" if line.startswith("File ") else "code"
