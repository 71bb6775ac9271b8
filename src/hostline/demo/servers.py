"""The demo's servers: processes of its own, on free ports of loopback."""

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from subprocess import DEVNULL, PIPE, STDOUT, Popen, TimeoutExpired

from hostline.demo.client import get
from hostline.demo.logs import Log
from hostline.demo.surprise import expect

GUNICORN = (
    "gunicorn",
    "--config=python:hostline.demo.gunicorn_conf",
    "--worker-class=gthread",
    "--threads=4",
    "--workers=1",  # the app counts its calls, and each process would count its own
    "--bind=127.0.0.1:0",  # 0: the system chooses a free port
)
UVICORN = ("uvicorn", "--host=127.0.0.1", "--port=0", "--workers=1", "--no-access-log")

_LONGEST_STOP = 5.0  # seconds

# What the developer's shell may say to its own servers is not meant for these.
_FOREIGN_PREFIXES = ("HOSTLINE_", "RACK_TIMEOUT_", "GUNICORN_", "UVICORN_")
_FOREIGN = {"CANONICAL_HOST", "DYNO", "WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS"}


class Server:
    """One server, from its start to :meth:`stop`."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.name = command[0]
        self.command = " ".join(command)
        self.port = 0
        # A process group of its own: Ctrl-C in the terminal is for the demo alone, which
        # then ends its servers.
        self._process = Popen(
            [sys.executable, "-m", *command],
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            env={**_own_environment(), **environment},
            process_group=0,
        )
        assert self._process.stdout is not None
        self._output = self._process.stdout
        self.log = Log(self.name, self._output.fileno())

    def await_ready(self) -> None:
        """Wait until it answers; from then on ``port`` is its port."""
        self.port = self.log.await_port()
        # gunicorn listens before it has a worker; only an answer tells.
        expect(f"{self.name}'s first answer", 200, get(self.url("localhost", "/counts")).status)

    def url(self, host: str, path: str) -> str:
        """The address of something on this server."""
        return f"http://{host}:{self.port}{path}"

    def ask_to_stop(self) -> None:
        """Have it end what it is doing, and then itself."""
        self._process.terminate()

    def stop(self, patience: float = _LONGEST_STOP) -> None:
        """End it, and wait until it has ended."""
        self.ask_to_stop()
        try:
            self._process.wait(patience)
        except TimeoutExpired:
            # With its workers. It has not been waited for, so the number is still its own.
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self.log.await_end(_LONGEST_STOP)
        self._output.close()


def _own_environment() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_FOREIGN_PREFIXES) and name not in _FOREIGN
    }
