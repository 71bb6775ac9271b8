"""Wake a thread that sits in a C call, so that it sees the exception that is pending for it.

An asynchronous exception is raised between bytecodes; a thread that waits in C for a peer
or for another thread does not get there. What it waits for is told by its innermost frame:
the instruction that it stands at is a call, and what is called on what can be read off
the instructions before. Only what is really being waited for is touched:

- a socket is shut down (never closed: closing wakes nobody and frees its number for
  somebody else), in the direction that is waited for: if it is the client's own, the
  answer must still get through;
- a ``Condition`` (and so an ``Event``, ``Queue``, ``Future``) is left through the waiter's
  own lock, which wakes this one waiter and no other;
- a SQLite statement is interrupted.

A child process that is waited for is left alone: it is not ours to end. A bare lock, a
``SimpleQueue`` and ``time.sleep`` have nothing that could be woken.

Where the call ends well, the exception must be pending before, and is raised as it returns. Where
it fails, none must be, if clean-up comes first. Imports: ``_calls``, ``_frames``.
"""

import select
import socket
import sqlite3
import threading
from _thread import LockType
from types import FrameType, ModuleType
from typing import cast

from hostline import _frames
from hostline._calls import call_at, receiver_of

_CONDITION_WAIT = threading.Condition.wait.__code__
_POLLERS = (
    type(select.poll()),
    *(getattr(select, name) for name in ("epoll", "kqueue") if hasattr(select, name)),
)
#: Whose methods end as they should: locks, what selectors wait with, and modules, whose are functions.
_NEVER_FAILING = (LockType, type(threading.RLock()), ModuleType, *_POLLERS)
_KNOWN = (socket.socket, sqlite3.Connection, sqlite3.Cursor)


def unblock(frame: FrameType) -> bool:
    """Wake what this innermost frame waits for; False where nothing could be done."""
    if frame.f_code is _CONDITION_WAIT:
        return _leave_condition(frame)
    receiver = waited_on(frame)
    # Not isinstance(), which asks a proxy for its __class__, and so runs the app's code.
    if issubclass(type(receiver), socket.socket):
        call = call_at(frame)
        return _shut_down(cast("socket.socket", receiver), "" if call is None else call.method)
    return _interrupt(receiver)


def may_fail(frame: FrameType) -> bool:
    """Whether what this innermost frame waits for may raise an error, woken or not.

    Methods of objects, as a driver's are, as far as one does not know better: a socket that is
    shut down while it is read tells of its end. Functions, `sleep` and the like, hardly ever do.
    """
    if frame.f_code is _CONDITION_WAIT:
        return False
    call = call_at(frame)
    if call is None:
        return True
    receiver = waited_on(frame)
    if not call.method or type(receiver) in _NEVER_FAILING:
        return False
    return not (issubclass(type(receiver), socket.socket) and call.method.startswith(("recv", "read")))


def can_wake(frame: FrameType) -> bool:
    """Whether it is something that one knows to wake."""
    return frame.f_code is _CONDITION_WAIT or issubclass(type(waited_on(frame)), _KNOWN)


def interrupt_sqlite(frame: FrameType) -> bool:
    """End the SQLite statement that this innermost frame is executing, if it is."""
    return _interrupt(waited_on(frame))


def _interrupt(receiver: object) -> bool:
    if issubclass(type(receiver), sqlite3.Cursor):
        receiver = cast("sqlite3.Cursor", receiver).connection
    if issubclass(type(receiver), sqlite3.Connection):
        cast("sqlite3.Connection", receiver).interrupt()
        return True
    return False


def waited_on(frame: FrameType) -> object:
    """The object whose method this frame is calling just now; None where that is not plain."""
    call = call_at(frame)
    if call is None:
        return None
    receiver: object = receiver_of(call, frame)
    if type(receiver).__module__ == "_ssl":
        return _frames.local(frame, "self")  # ssl.py calls its C object on behalf of the socket
    return receiver


def _leave_condition(frame: FrameType) -> bool:
    # The waiter's lock is its own; releasing it is what notify does. wait() then takes the
    # condition's lock again and leaves the queue of waiters, on any exception.
    waiter = cast("LockType | None", _frames.local(frame, "waiter"))
    if waiter is None or not waiter.locked():
        return False
    waiter.release()
    return True


def _shut_down(connection: socket.socket, method: str) -> bool:
    direction = socket.SHUT_RD
    if method.startswith(("send", "write")):
        direction = socket.SHUT_WR
    elif method in {"connect", "connect_ex", "do_handshake"}:
        direction = socket.SHUT_RDWR
    try:
        # Not SSLSocket's, which would forget the TLS layer under the reader's feet.
        socket.socket.shutdown(connection, direction)
    except OSError:
        return False  # not connected any more, or not yet
    return True
