"""What the page shows and what its buttons do: both sides, the router, the board, the story.

Belongs to one event loop. Only one thing at a time may start servers; what needs them meanwhile
is refused with :class:`Busy`.
"""

import asyncio
from asyncio import Task

from hostline.demo.live.board import SIDES, Board, Pair
from hostline.demo.live.kinds import Kind
from hostline.demo.live.reports import Inbox
from hostline.demo.live.router import Router
from hostline.demo.live.sides import Settings, Sides
from hostline.demo.live.story import Numbers, Story, numbers

_MOST_IN_FLIGHT = 300


class Busy(Exception):  # noqa: N818 - it is no error of the page's
    """The servers are being started."""


class Full(Exception):  # noqa: N818 - it is no error of the page's
    """There are enough requests under way."""


class Stage:
    """From the first start of the servers to :meth:`close`."""

    def __init__(self, inbox: Inbox) -> None:
        self.settings = Settings()
        self.board = Board()
        self.story: Story | None = None
        self.generation = 0  #: how often the servers have been started
        self.is_ready = False
        self._is_starting = False
        self._sides = Sides(inbox.port)
        self._router = Router(self.board, self._sides.port)
        self._pairs_of_story: list[Pair] = []
        self._playing: Task[None] | None = None

    async def start(self, settings: Settings) -> None:
        """Start both servers anew, and forget all that was."""
        if self._is_starting:
            raise Busy
        self._is_starting, self.is_ready = True, False
        self._forget_story()
        try:
            await asyncio.to_thread(self._sides.start, settings)
            self.settings, self.is_ready = settings, True
        finally:
            self._is_starting = False
            self.board.clear()
            self.generation += 1

    def send(self, kind: Kind) -> Pair:
        """Send it to both."""
        if not self.is_ready:
            raise Busy
        if self.board.in_flight() >= _MOST_IN_FLIGHT:
            raise Full
        return self._router.send(kind)

    async def tell_story(self, seconds: int) -> None:
        """Have the story begin, on fresh servers: what is stuck from before is not part of it."""
        await self.start(self.settings)
        self.story = Story(seconds)
        self._playing = asyncio.create_task(self.story.play(self._router, self._pairs_of_story))

    async def await_end_of_story(self) -> None:
        """Wait for the last answer."""
        if self._playing is not None:
            await self._playing

    def numbers(self) -> Numbers:
        """What has come of the story so far."""
        return {
            side: numbers(self._pairs_of_story, side) | {"busy": self.board.counts(side)["busy"]}
            for side in SIDES
        }

    def _forget_story(self) -> None:
        if self._playing is not None:
            self._playing.cancel()
        self._playing, self.story, self._pairs_of_story = None, None, []

    def close(self) -> None:
        """End the servers; waits for that."""
        self._forget_story()
        self._sides.stop()
