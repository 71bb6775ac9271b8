"""What one of asyncio's tasks is doing: its chain of awaits, and on into the tasks that it waits for.

What the app holds is looked at from outside: ``isinstance()`` and ``getattr()`` would run the
code of a proxy (Django's ``request.user``, Werkzeug's ``LocalProxy``), which may take its time,
or fail.

In the loop's thread. Imports: ``_stacks``.
"""

import asyncio
import gc
import inspect
from asyncio import Future, Task
from collections import deque
from collections.abc import Container, Iterable, Iterator
from types import CodeType, FrameType
from typing import Any, cast

from hostline import _stacks

# By which shield() has the outer future end the wait for the inner one, which each holds in a cell.
_SHIELD_CALLBACKS = [each for each in asyncio.shield.__code__.co_consts if isinstance(each, CodeType)]


def of_task(task: "Task[Any] | None", outermost: Container[CodeType] = ()) -> _stacks.Trace:
    """The chain of awaits of a task, and on into the first task that it waits for.

    Frameworks run an app's code in tasks of its own, in groups and by ``gather``.
    """
    trace: _stacks.Trace = []
    seen: set[object] = set()
    while task is not None and task not in seen:
        seen.add(task)
        trace += _stacks.of_coroutine(task.get_coro(), outermost)
        task = _awaited_task(task)
    return trace[-_stacks.DEEPEST :]


def _awaited_task(task: "Task[Any]") -> "Task[Any] | None":
    """The first unfinished task that this one waits for, as far as that can be told."""
    every: deque[Any] = deque([getattr(task, "_fut_waiter", None)])  # it has no public name
    innermost = deque(_stacks.awaits(task.get_coro()), maxlen=1)
    for frame, awaitable in innermost:
        every += _held_by(frame, awaitable)
    seen: set[int] = set()
    while every:  # gather() and shield() stand in each other
        each = every.popleft()
        if _is_a(each, Task) and not each.done():
            return cast("Task[Any]", each)
        if _is_a(each, Future) and id(each) not in seen:
            seen.add(id(each))
            every += _behind(each)
    return None


def _held_by(frame: FrameType, awaitable: object) -> Iterator[Any]:
    """What wait(), task groups and, before CPython 3.12, wait_for() hold in their coroutine."""
    # Not by the frame's f_locals, which up to CPython 3.12 stay.
    for held in gc.get_referents(awaitable):
        tasks = held if _is_a(held, set, frozenset) else inspect.getattr_static(held, "_tasks", ())
        if _is_a(tasks, set, frozenset):
            yield from cast("Iterable[Any]", tasks)
        if frame.f_code is asyncio.wait_for.__code__:
            yield held


def _behind(future: Any) -> Iterator[Any]:
    """What makes a future end: the children of gather()'s, and what shield() keeps."""
    yield from getattr(future, "_children", ())
    for callback, *_ in getattr(future, "_callbacks", None) or ():
        if getattr(callback, "__code__", None) in _SHIELD_CALLBACKS:
            yield from (cell.cell_contents for cell in callback.__closure__)


def _is_a(thing: object, *kinds: type) -> bool:
    return issubclass(type(thing), kinds)
