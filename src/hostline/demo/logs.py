"""What a server of the demo's has written so far, and how to wait for a line of it."""

import os
import re
from collections.abc import Callable, Iterable
from threading import Condition, Thread
from typing import TypeVar

from hostline.demo.surprise import Surprise

_T = TypeVar("_T")

_LISTENING = re.compile(r"(?:Listening at:|Uvicorn running on) http://127\.0\.0\.1:(\d+)")

# Seconds, on a busy machine.
_LONGEST_START = 15.0
_LONGEST_WRITE = 5.0


class Log:
    """The lines that come out of a pipe, read by a thread of its own."""

    def __init__(self, name: str, descriptor: int) -> None:
        self._name = name
        self._descriptor = descriptor
        self._changed = Condition()  # guards all below
        self._lines: list[str] = []
        self._has_ended = False
        self._thread = Thread(target=self._read, name=f"log of {name}", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        rest = b""
        # In chunks: a record is written at once, and its lines are to be seen at once.
        while chunk := os.read(self._descriptor, 1 << 16):
            *lines, rest = (rest + chunk).split(b"\n")
            self._add([line.decode(errors="replace") for line in lines])
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()

    def _add(self, lines: list[str]) -> None:
        with self._changed:
            self._lines += lines
            self._changed.notify_all()

    def await_end(self, patience: float) -> None:
        """Wait for the last line of a process that has ended."""
        self._thread.join(patience)

    def tail(self) -> list[str]:
        """The last lines."""
        with self._changed:
            return self._lines[-20:]

    def await_port(self) -> int:
        """The port on which the server says that it listens."""
        match = self._await(lambda: _first(map(_LISTENING.search, self._lines)), _LONGEST_START)
        if match is None:
            raise Surprise(f"{self._name}: expected it to start within {_LONGEST_START:g} s; it has not")
        return int(match[1])

    def await_record(self, request_id: str, state: str) -> list[str]:
        """The line that hostline logged about a request's end, and the stack under it."""
        marks = (f"id={request_id} ", f"state={state}")
        record = self._await(lambda: self._record(marks), _LONGEST_WRITE)
        if record is None:
            raise Surprise(f"{self._name}: expected a line with {' '.join(marks)} in the log; there is none")
        return record

    def _record(self, marks: Iterable[str]) -> list[str] | None:
        numbered = enumerate(self._lines)
        start = _first(i if all(mark in line for mark in marks) else None for i, line in numbered)
        if start is None:
            return None
        end = _first(i if not line.startswith("  ") else None for i, line in numbered)
        return self._lines[start:end]

    def _await(self, find: Callable[[], _T | None], patience: float) -> _T | None:
        with self._changed:
            self._changed.wait_for(lambda: self._has_ended or find() is not None, patience)
            return find()


def _first(candidates: Iterable[_T | None]) -> _T | None:
    return next((each for each in candidates if each is not None), None)
