"""Threads and locks of the system's own, whatever gevent or eventlet has put in their place.

The watchdog must be a real thread: a green one would not run while a request keeps the
hub busy, which is when it is needed. What it shares with greenlets must be real locks.

Imports nothing of hostline.
"""

import _thread
import os
import sys
from _queue import SimpleQueue
from collections.abc import Callable
from typing import Any, cast

__all__ = [
    "SimpleQueue",
    "after_fork_in_child",
    "native_get_ident",
    "native_lock",
    "native_rlock",
    "start_native_thread",
]


def native_lock() -> _thread.LockType:
    """A new lock, not taken."""
    return cast(_thread.LockType, _original("allocate_lock")())


def native_rlock() -> "_thread.RLock":
    """A new lock, not taken, that its holder may take again: also in a signal handler."""
    return cast("_thread.RLock", _original("RLock")())


def start_native_thread(run: Callable[..., object], args: tuple[object, ...]) -> None:
    """Start a thread that the interpreter does not wait for at its end."""
    _original("start_new_thread")(run, args)


def native_get_ident() -> int:
    """The identity of the system's thread that this runs in."""
    return cast(int, _original("get_ident")())


def after_fork_in_child(reset: Callable[[], object]) -> None:
    """Have ``reset`` called in every forked child. uWSGI's own forks call nothing."""
    if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
        os.register_at_fork(after_in_child=reset)


def _original(name: str) -> Callable[..., Any]:
    module: object = _thread
    if "gevent.monkey" in sys.modules:
        return cast(Callable[..., Any], sys.modules["gevent.monkey"].get_original("_thread", name))
    if "eventlet.patcher" in sys.modules:
        module = sys.modules["eventlet.patcher"].original("_thread")
    return cast(Callable[..., Any], getattr(module, name))
