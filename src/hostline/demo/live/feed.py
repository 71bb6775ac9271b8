"""Server-sent events: everybody who has the page open is told what has changed, ten times a second at most.

Belongs to the event loop. A reader who does not keep up is left behind; its browser asks again.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

_EVERY = 0.1  # seconds
_BEHIND = 50  # messages
_KEEP_ALIVE = ": still here\n\n"
_KEEP_ALIVE_AFTER = 15.0

Message = dict[str, Any]


class Feed:
    """``whole`` makes the first message of a reader, ``changes`` the later ones, None for none."""

    def __init__(self, whole: Callable[[], Message], changes: Callable[[], Message | None]) -> None:
        self._whole = whole
        self._changes = changes
        self._readers: set[asyncio.Queue[Message | None]] = set()

    async def run(self) -> None:
        """Look for changes until cancelled."""
        while True:
            await asyncio.sleep(_EVERY)
            message = self._changes()
            if message is not None:
                for reader in tuple(self._readers):
                    self._tell(reader, message)

    def _tell(self, reader: asyncio.Queue[Message | None], message: Message | None) -> None:
        try:
            reader.put_nowait(message)
        except asyncio.QueueFull:
            self._readers.discard(reader)
            reader.get_nowait()
            reader.put_nowait(None)

    async def read(self) -> AsyncIterator[str]:
        """The events of one reader."""
        reader: asyncio.Queue[Message | None] = asyncio.Queue(_BEHIND)
        self._readers.add(reader)
        try:
            yield _event(self._whole())
            while True:
                try:
                    message = await asyncio.wait_for(reader.get(), _KEEP_ALIVE_AFTER)
                except TimeoutError:
                    yield _KEEP_ALIVE
                    continue
                if message is None:
                    return
                yield _event(message)
        finally:
            self._readers.discard(reader)

    def close(self) -> None:
        """Let every reader go."""
        for reader in tuple(self._readers):
            self._tell(reader, None)


def _event(message: Message) -> str:
    return f"data: {json.dumps(message, separators=(',', ':'))}\n\n"
