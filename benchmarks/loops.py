"""The event loops that there are to be measured."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

try:
    import uvloop
except ImportError:
    uvloop = None


def factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """By name; uvloop's where it is installed."""
    found: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if uvloop is not None:
        found["uvloop"] = uvloop.new_event_loop
    return found


def run(main: Coroutine[Any, Any, Any], factory: Callable[[], asyncio.AbstractEventLoop]) -> Any:
    """Run it in a new loop."""
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)
