"""Start a real server on a free loopback port, know when it serves, read its log, end it by its id."""

import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from subprocess import DEVNULL, STDOUT, Popen, TimeoutExpired

from client import Answer, get

HERE = Path(__file__).parent
SOURCE = HERE.parent.parent / "src"

_LONGEST_START = 30.0
_LONGEST_STOP = 5.0

# What a developer's shell says to its own servers is not meant for these.
_FOREIGN_PREFIXES = (
    "HOSTLINE_",
    "RACK_TIMEOUT_",
    "GUNICORN_",
    "GRANIAN_",
    "UWSGI_",
    "FLASK_",
    "DJANGO_",
    "PG",
)
_FOREIGN = {"CANONICAL_HOST", "DYNO", "WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS"}


def until(holds: Callable[[], object], within: float = 20.0) -> bool:
    """Whether a condition comes to hold; generous, for that costs nothing where it does."""
    end = time.monotonic() + within
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def program(name: str) -> str | None:
    """Where a program is: in this Python's environment, else anywhere on the PATH."""
    return shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)


class Server:
    """A running server.

    ``command`` has ``{port}`` where the port belongs. It is started in an empty folder of
    its own, so that it finds no configuration file there, with the apps of this folder and
    the sources of hostline on its path. Answers ``GET /ready``, or another path that is given,
    when it is ready.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], *, ready: str = "/ready"
    ) -> None:
        self._ready = ready
        self.folder = Path(tempfile.mkdtemp(prefix="hostline-server-"))
        self._log = self.folder / "log"
        try:
            # Nobody holds the port that was free a moment ago: it may be taken by now.
            while not self._start(command, environment):
                pass
        except BaseException:
            self.stop()
            raise

    def _start(self, command: Sequence[str], environment: Mapping[str, str]) -> bool:
        self.port = free_port()
        with self._log.open("ab") as log:
            self.process = Popen(
                [part.replace("{port}", str(self.port)) for part in command],
                cwd=self.folder,
                stdin=DEVNULL,
                stdout=log,
                stderr=STDOUT,
                env={
                    **_own_environment(),
                    "PYTHONPATH": os.pathsep.join((str(HERE), str(SOURCE))),
                    "PYTHONUNBUFFERED": "1",
                    **environment,
                },
                process_group=0,  # to be ended with its workers
            )
        until(lambda: self._is_ready() or self.process.poll() is not None, _LONGEST_START)
        if self._is_ready():
            return True
        if "already in use" in self.log.lower():
            self._end()
            return False
        raise AssertionError(f"{' '.join(command)} does not serve:\n{self.log}")

    def _is_ready(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        # gunicorn listens before it has a worker: only an answer tells.
        return get(self.port, self._ready, patience=_LONGEST_START).status == 200

    @property
    def is_running(self) -> bool:
        """Whether its first process is still there."""
        return self.process.poll() is None

    @property
    def log(self) -> str:
        """All that it has written so far."""
        return self._log.read_text(errors="replace")

    def logs(self, text: str, times: int = 1) -> bool:
        """Whether it comes to have logged a text so many times."""
        return until(lambda: self.log.count(text) >= times)

    def get(self, path: str, headers: Mapping[str, str] | None = None, *, patience: float = 20.0) -> Answer:
        """Ask for something, on a connection of its own."""
        return get(self.port, path, headers, patience=patience)

    def ask_to_stop(self) -> None:
        """Have it end, without waiting for that."""
        self.process.terminate()

    def stop(self) -> None:
        """End it with its workers, and remove what it has written."""
        if hasattr(self, "process"):
            self._end()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self) -> None:
        self.ask_to_stop()
        try:
            self.process.wait(_LONGEST_STOP)
        except TimeoutExpired:
            pass
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # the whole group is gone
        self.process.wait()


def free_port() -> int:
    """A port of loopback that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _own_environment() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_FOREIGN_PREFIXES) and name not in _FOREIGN
    }
