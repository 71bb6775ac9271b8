"""Comparing variants of one piece of work on a machine that is never quiet.

The variants take turns, many times for a short while, in an order that changes from round
to round: what disturbs the machine for a second disturbs them all. Of the rounds the
quietest quarter counts, and what a variant adds is the median of its differences from the
baseline *of the same round*. The clock is the process's processor time: what other
programs use does not count, and what a thread of hostline's own would use does. It does
not make quiet rounds superfluous: two programs on one core's two threads slow each other
down by half, and the processor time of both grows.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from time import process_time

_WARM_UP = 0.05  # of the rounds: the interpreter adapts its code to what it sees
_QUIET = 0.25
_FEWEST = 2  # rounds that have quartiles


class Rounds:
    """Iterate to learn whose turn it is, and record each turn."""

    def __init__(self, names: list[str], count: int, show: Callable[[float], object]) -> None:
        self._names = names
        self._count = count
        self._warm_up = max(1, round(count * _WARM_UP))
        self._show = show
        self._costs: dict[str, list[float]] = {name: [] for name in names}

    def __iter__(self) -> Iterator[str]:
        # Seeded: two runs differ in what they measure, and not in how.
        shuffled = random.Random(1)
        names = list(self._names)
        for number in range(self._warm_up + self._count):
            shuffled.shuffle(names)
            yield from names
            self._show((number + 1) / (self._warm_up + self._count))

    def record(self, name: str, cost: float) -> None:
        """Note one turn of the variant."""
        self._costs[name].append(cost)

    def costs(self, baseline: str) -> dict[str, "Cost"]:
        """What each variant costs."""
        rounds = list(zip(*self._costs.values(), strict=True))[self._warm_up :]
        rounds.sort(key=sum)
        quiet = rounds[: max(_FEWEST, round(len(rounds) * _QUIET))]
        measured = dict(zip(self._costs, zip(*quiet, strict=True), strict=True))
        return {name: Cost.of(costs, measured[baseline]) for name, costs in measured.items()}


@dataclass(frozen=True)
class Cost:
    """Seconds per request."""

    whole: float
    added: float  #: to the baseline
    spread: float  #: between the quartiles of what it added, round by round

    @classmethod
    def of(cls, costs: Sequence[float], baseline: Sequence[float]) -> "Cost":
        added = [cost - base for cost, base in zip(costs, baseline, strict=True)]
        lower, _, upper = quantiles(added, n=4)
        return cls(median(costs), median(added), upper - lower)


def measure(
    variants: Mapping[str, Callable[[int], object]],
    *,
    baseline: str,
    rounds: int,
    requests: int,
    show: Callable[[float], object],
) -> dict[str, Cost]:
    """Compare functions that are given how many requests to serve."""
    turns = Rounds(list(variants), rounds, show)
    for name in turns:
        serve = variants[name]
        began = process_time()
        serve(requests)
        turns.record(name, (process_time() - began) / requests)
    return turns.costs(baseline)
