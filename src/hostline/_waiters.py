"""Whether somebody waits for one of asyncio's tasks, by what is to be called at its end.

``await``, ``gather``, task groups, ``wait`` and ``shield`` each leave a callback of their own
with the task. What only passes its results on, by an event or a queue, leaves none: that
nobody waits for a task is no proof that nobody needs it. That its app keeps it in a set
until it ends, as asyncio's documentation has it for background tasks, is taken for one.

Imports nothing of hostline's. From any thread.
"""

import sys
from asyncio import Task
from enum import Enum, auto
from typing import Any
from weakref import WeakSet

_KEEPERS = (set, WeakSet)


class Tie(Enum):
    """What ties a task to the one of a request."""

    #: That one waits for it, or somebody of whom nothing is known.
    AWAITED = auto()
    #: Nobody waits for it, and nothing else is known.
    NONE = auto()
    #: None: it is kept as a background task is.
    KEPT = auto()


def tie_of(task: "Task[Any] | None", request_task: "Task[Any] | None") -> Tie:
    """What ties this task, or whichever waits for it, to the request's."""
    while task is not None and task is not request_task and not _is_called_by_thread(task):
        callbacks = _callbacks(task)
        waiting = [each for each in callbacks if not _keeps(each)]
        if not waiting:
            return Tie.KEPT if callbacks else Tie.NONE
        task = _woken_by(waiting[0]) if len(waiting) == 1 else None
    return Tie.AWAITED


def _callbacks(task: "Task[Any]") -> list[object]:
    """What is to be called at its end. It has no public name; without it somebody may wait."""
    every: Any = getattr(task, "_callbacks", [(None, None)])
    return [callback for callback, *_ in every or ()]


def _keeps(callback: object) -> bool:
    """Whether it takes the task out of the set that it is kept in, and does nothing else."""
    keeper = getattr(callback, "__self__", None)
    return type(keeper) in _KEEPERS and getattr(callback, "__name__", "") == "discard"


def _woken_by(callback: object) -> "Task[Any] | None":
    """The task that this goes on with, if that is what it does."""
    owner: Any = getattr(callback, "__self__", None)
    return owner if issubclass(type(owner), Task) else None


def _is_called_by_thread(task: "Task[Any]") -> bool:
    """Whether asgiref runs it for a thread, which waits for it."""
    asgiref = sys.modules.get("asgiref.sync")
    wrap: Any = getattr(getattr(asgiref, "AsyncToSync", None), "main_wrap", None)
    return wrap is not None and getattr(task.get_coro(), "cr_code", None) is wrap.__code__
