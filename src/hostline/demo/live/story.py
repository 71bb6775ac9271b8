"""The load of one button: the same for both sides, request by request, and what came of it."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from time import monotonic

from hostline.demo.live.board import Pair
from hostline.demo.live.kinds import KINDS, Ending
from hostline.demo.live.router import Router

RATE = 5  # requests a second
#: In turn. One in eight gets stuck: in half a minute, more than either server has threads.
MIX = ("fast", "fast", "slow", "fast", "stuck", "fast", "slow", "fast")

Numbers = dict[str, dict[str, int]]


@dataclass(slots=True)
class Story:
    """One that is played, or was."""

    seconds: int
    sent: int = 0
    is_over: bool = False

    @property
    def total(self) -> int:
        """How many requests it consists of."""
        return self.seconds * RATE

    async def play(self, router: Router, pairs: list[Pair]) -> None:
        """Send all of it, each at its moment, and wait for the last answer."""
        began = monotonic()
        for name in islice(cycle(MIX), self.total):
            await asyncio.sleep(began + self.sent / RATE - monotonic())
            pairs.append(router.send(KINDS[name]))
            self.sent += 1
        await router.drain()
        self.is_over = True


def numbers(pairs: Sequence[Pair], side: str) -> dict[str, int]:
    """How its requests have ended, on one side."""
    endings = Counter(pair.trips[side].ending for pair in pairs)
    return {
        "served": sum(count for ending, count in endings.items() if ending is not None and ending.is_good),
        **{ending.value: endings[ending] for ending in Ending if not ending.is_good},
    }
