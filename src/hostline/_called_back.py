"""A coroutine that a pool's thread has its event loop run, by ``anyio.from_thread.run`` on asyncio.

Neither the end of the thread nor that of the request's task is the coroutine's: anyio has it
run in a task of its own, which only anyio's own scopes would cancel. So it is called off
before its thread is broken, and the thread waits for it while it cleans up. On trio the task
that waits for the thread runs the coroutine itself.

Imports nothing of hostline's.
"""

from asyncio import CancelledError, Task, current_task
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any


class CalledBack:
    """What a thread has given a loop to run: a coroutine function that is called once."""

    #: Set in the loop's thread.
    task: "Task[Any] | None" = None
    is_called_off = False

    def __init__(self, function: Callable[..., Awaitable[Any]]) -> None:
        self._function = function

    async def __call__(self, *args: Any) -> Any:
        """In the loop."""
        self.task = current_task()
        if self.is_called_off:
            raise CancelledError  # it has not begun
        return await self._function(*args)

    def call_off(self, tasks_that_wait: "set[Task[Any] | None]") -> None:
        """Cancel it, once, unless its task is one that waits for a thread, and ends by that one's end.

        In the thread of the request's loop; anyio can be told to use another.
        """
        self.is_called_off = True
        task = self.task
        if task is not None and task not in tasks_that_wait:
            with suppress(RuntimeError):  # its loop is closed
                task.get_loop().call_soon_threadsafe(task.cancel)
