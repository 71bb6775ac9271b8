"""Ask the own process to end, gracefully and once, when too many requests have timed out.

rack-timeout's ``term_on_timeout``. A process whose code times out again and again is
often beyond help (a leak, a dead pool), and its server replaces it, if it is the kind of
server that does. Which one it is, is told by what is really there: by the frames at the
bottom of the main thread's stack, not by variables that say what somebody intended.

======================  ==========  ==================================================
server                  signal      why
======================  ==========  ==================================================
gunicorn's workers      SIGTERM     finishes what is in flight; the arbiter replaces it
uvicorn ``--workers``   SIGTERM     the same
mod_wsgi's daemons      SIGTERM     the same
uWSGI with a master     SIGHUP      SIGTERM would cut what is in flight
granian                 SIGTERM     only with ``--respawn-failed-workers``; else it ends
anything else           none        nobody would replace it
======================  ==========  ==================================================

Imports: ``_deadlines``, ``_frames``, ``_native``, ``_requests`` for the log.
"""

import os
import signal
import sys
import threading
import weakref
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import NamedTuple, Protocol

from hostline import _frames
from hostline._deadlines import watchdog
from hostline._native import after_fork_in_child, native_lock
from hostline._requests import logger

#: How long the process may take to end before it is killed, if something in it cannot be stopped.
KILL_AFTER = 30.0


class Server(NamedTuple):
    """What serves this process's requests, and the signal by which it replaces a worker."""

    name: str
    signum: signal.Signals | None
    remedy: str = ""


def server(main_frame: FrameType | None) -> Server:
    """The server at hand, by what its main thread is in, innermost frame first."""
    uwsgi = sys.modules.get("uwsgi")
    if uwsgi is not None:
        if uwsgi.masterpid():
            return Server("uWSGI", signal.SIGHUP)
        return Server("uWSGI", None, "Give it a master process: --master.")
    if "mod_wsgi" in sys.modules:
        return Server("mod_wsgi", signal.SIGTERM)
    for frame in _frames.outwards(main_frame):
        module = str(frame.f_globals.get("__name__"))
        if module == "gunicorn.arbiter":
            return Server("gunicorn", signal.SIGTERM)
        if module == "uvicorn._subprocess":
            if getattr(_frames.local(frame, "config"), "reload", False):
                return Server("uvicorn --reload", None, "It is for development.")
            return Server("uvicorn", signal.SIGTERM)
        if module.startswith("granian."):
            if _granian_respawns():
                return Server("granian", signal.SIGTERM)
            return Server("granian", None, "Give it --respawn-failed-workers.")
    return Server("this server", None, "Run several workers under gunicorn, uWSGI or uvicorn --workers.")


def warn_unless_replaced(main_frame: FrameType | None) -> None:
    """Say at the start that a process that is asked to end would be missed."""
    found = server(main_frame)
    if found.signum is None:
        logger.warning(
            "hostline: term_on_timeout is set, but %s would not replace a process that ends, so none is "
            "asked to. %s",
            found.name,
            found.remedy,
        )


def main_frame() -> FrameType | None:
    """Where the process's main thread stands: at its bottom, the server."""
    return _frames.of_thread(threading.main_thread().ident or 0)


def _granian_respawns() -> bool:
    option = os.environ.get("GRANIAN_RESPAWN_FAILED_WORKERS", "")
    if option.lower() in {"1", "true", "yes", "on"}:
        return True
    try:
        command = Path(f"/proc/{os.getppid()}/cmdline").read_bytes()
    except OSError:
        return False
    return b"--respawn-failed-workers" in command.split(b"\0")


class _Running(Protocol):
    """Code that is to be broken."""

    @property
    def came_back(self) -> bool:
        """Whether it has come to its end."""
        ...


class Terminator:
    """Counts this process's timeouts. ``count`` may be called from any thread."""

    def __init__(self) -> None:
        self.after_fork()

    def after_fork(self) -> None:
        """A child has timed out nothing yet."""
        self._lock = native_lock()
        self._timeouts = 0
        self._unstoppable: list[weakref.ref[_Running]] = []
        self._asked = False

    def count(self, limit: int) -> bool:
        """Count one; whether it is the one at which the process is to be asked to end."""
        return self._add(1, limit)

    def count_unstoppable(self, code: "_Running", limit: int) -> bool:
        """One of those counted has turned out to go on, maybe for ever: it counts double."""
        with self._lock:
            self._unstoppable = [each for each in self._unstoppable if _goes_on(each)]
            self._unstoppable.append(weakref.ref(code))
        return self._add(1, limit)

    def _add(self, timeouts: int, limit: int) -> bool:
        with self._lock:
            self._timeouts += timeouts
            due = bool(limit) and self._timeouts >= limit and not self._asked
            self._asked = self._asked or due
            return due

    def ask(self, main_frame: FrameType | None) -> None:
        """Send the signal, if there is one that leads to a new worker; say so either way."""
        found = server(main_frame)
        if found.signum is None:
            logger.error(
                "hostline would end this process after %d timeouts, but %s would not replace it.",
                self._timeouts,
                found.name,
            )
            return
        logger.error(
            "hostline asks this process (%d) to end, by %s, after %d timeouts: %s will replace it.",
            os.getpid(),
            found.signum.name,
            self._timeouts,
            found.name,
        )
        os.kill(os.getpid(), found.signum)
        kill = _Kill(self)
        watchdog.at(kill, kill.deadline)

    @property
    def has_unstoppable(self) -> bool:
        """Whether some code has not taken notice of its abort to this day."""
        return any(map(_goes_on, self._unstoppable))


def _goes_on(reference: "weakref.ref[_Running]") -> bool:
    code = reference()
    return code is not None and not code.came_back


class _Kill:
    """The end of a process that did not end when it was asked to. An entry of the watchdog's."""

    def __init__(self, terminator: Terminator) -> None:
        self._terminator = terminator
        self.deadline = monotonic() + KILL_AFTER

    def survives_fork(self) -> bool:
        """A child was not asked."""
        return False

    def expire(self) -> None:
        if self._terminator.has_unstoppable:
            logger.critical(
                "This process (%d) has not ended for %.0f s; it is killed.", os.getpid(), KILL_AFTER
            )
            os.kill(os.getpid(), signal.SIGKILL)


terminator = Terminator()
after_fork_in_child(terminator.after_fork)
