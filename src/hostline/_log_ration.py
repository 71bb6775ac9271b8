"""What an outage may write to the log: so many lines of each kind in a minute, and no more.

A filter of the logger ``hostline``. It counts the records from WARNING on, kind by kind
(by their ``state``, else by their text), lets the first of each minute pass, takes the
stacks and tracebacks off the later ones of them, and says what it has left out when the
minute is over. Whoever has switched INFO on has asked for a line of each request, and gets it.

Records come from any thread. Imports: ``_deadlines``, ``_log``, ``_native``, ``_requests``.
"""

import logging
from collections.abc import Callable
from functools import partial
from time import monotonic

from hostline._deadlines import watchdog
from hostline._log import LINE_AND_STACK, logger
from hostline._native import after_fork_in_child, native_lock
from hostline._requests import reporter

#: How many lines of a kind, and how many stacks among them, there may be in a period.
LINES = 60
STACKS = 10
PERIOD = 60.0

# Kinds are few: nobody but hostline writes to its logger. Should somebody, it passes.
_MOST_KINDS = 100
_LEFT_OUT = "source=hostline left_out=%d stacks_left_out=%d of %s in %ds: the log is kept short"


class _Minute:
    """A period of one kind of records. Guarded by its ration's lock."""

    def __init__(self, ends: float) -> None:
        self.ends = ends
        self.lines = self.stacks = 0
        self.lines_left_out = self.stacks_left_out = 0

    def take_line(self) -> bool:
        """Whether there is one more to be had; else it is counted."""
        self.lines += 1
        self.lines_left_out += self.lines > LINES
        return self.lines <= LINES

    def take_stack(self) -> bool:
        """The same for a stack."""
        self.stacks += 1
        self.stacks_left_out += self.stacks > STACKS
        return self.stacks <= STACKS


class _Summary:
    """Has it told what a period has left out. An entry of the watchdog's."""

    def __init__(self, deadline: float, tell: Callable[[], object]) -> None:
        self.deadline = deadline
        self._tell = tell

    def survives_fork(self) -> bool:
        """What the parent has left out is the parent's to tell."""
        return False

    def expire(self) -> None:
        """In the watchdog's thread, which must not wait for a handler."""
        reporter.submit(self._tell)


class LogRation(logging.Filter):
    """The filter. ``_lock`` guards the periods; nothing is written while it is held."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        super().__init__()
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """Begin anew, as in a forked child."""
        self._lock = native_lock()
        self._minutes: dict[str, _Minute] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write the record."""
        if record.levelno < logging.WARNING or record.msg is _LEFT_OUT:
            return True
        kind = str(getattr(record, "state", record.msg))
        self.tell_left_out(kind)
        has_stack = record.exc_info is not None or record.msg is LINE_AND_STACK
        with self._lock:
            minute = self._minute(kind)
            has_line = minute.take_line()
            is_short = has_line and has_stack and not minute.take_stack()
            is_first = minute.lines_left_out + minute.stacks_left_out == 1 and (is_short or not has_line)
        if is_short:
            _shorten(record)
        if is_first:
            summary = _Summary(monotonic() + PERIOD, partial(self.tell_left_out, kind))
            watchdog.at(summary, summary.deadline)
        return has_line

    def tell_left_out(self, kind: str) -> None:
        """Say what the last period has left out, if it is over."""
        with self._lock:
            minute = self._minutes.get(kind)
            if minute is None or self._clock() < minute.ends:
                return
            del self._minutes[kind]
        if minute.lines_left_out or minute.stacks_left_out:
            logger.warning(_LEFT_OUT, minute.lines_left_out, minute.stacks_left_out, kind, PERIOD)

    def _minute(self, kind: str) -> _Minute:
        """The period that runs, or begins now."""
        minute = self._minutes.get(kind)
        if minute is None:
            minute = _Minute(self._clock() + PERIOD)
            if len(self._minutes) < _MOST_KINDS:
                self._minutes[kind] = minute
        return minute


def _shorten(record: logging.LogRecord) -> None:
    """Take its stack off."""
    record.exc_info = record.exc_text = None
    if record.msg is LINE_AND_STACK:
        line, _ = record.args  # type: ignore[misc]
        record.msg, record.args, record.__dict__["stack"] = "%s", (line,), None


log_ration = LogRation()
logger.addFilter(log_ration)
after_fork_in_child(log_ration.reset)
