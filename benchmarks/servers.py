"""What both middlewares cost behind real servers: throughput and latency.

Three servers are up at once, two with the bare app and one with the guarded one, and take
turns in being asked: the ratio is that of neighbouring bursts. The second bare one shows
what noise alone does. Throughput depends on what else runs on the machine; *capacity* is
what the processor time that the server has used for each request would allow.
"""

import asyncio
import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks import load
from benchmarks.results import Cell, Report, Table
from benchmarks.scale import Scale
from benchmarks.traffic import HEROKU, stamped

_ROOT = Path(__file__).parents[1]
_ADDRESS = "127.0.0.1"
_START_WITHIN = 20.0

_BARE, _BOTH = "bare", "both"
_APPS = {_BARE: "bare", "bare again": "bare", _BOTH: "both"}

# What is put before the app and the port.
_COMMANDS: dict[str, tuple[str, list[str]]] = {
    "uvicorn (uvloop)": ("asgi", ["uvicorn", "--log-level=warning", "--no-access-log", "--loop=uvloop"]),
    "uvicorn (asyncio)": ("asgi", ["uvicorn", "--log-level=warning", "--no-access-log", "--loop=asyncio"]),
    "granian (asgi)": ("asgi", ["granian", "--interface=asginl", "--log-level=warning"]),
    "gunicorn gthread": (
        "wsgi",
        ["gunicorn", "--log-level=warning", "--worker-class=gthread", "--threads=4"],
    ),
    "gunicorn sync": ("wsgi", ["gunicorn", "--log-level=warning", "--worker-class=sync"]),
}


def run(scale: Scale, report: Report, show: Callable[[str, float], object]) -> None:
    """Each server that is installed."""
    rows: list[list[Cell]] = []
    missing = []
    for done, (name, (protocol, command)) in enumerate(_COMMANDS.items()):
        needed = [command[0], *(["uvloop"] if "--loop=uvloop" in command else [])]
        if not all(map(importlib.util.find_spec, needed)):
            missing.append(name)
            continue
        show(name, done / len(_COMMANDS))
        measured = _measure(protocol, command, scale)
        bare = measured[_BARE]
        for app, taken in measured.items():
            rows.append([f"{name}, {app}", *taken.figures(), *taken.compared_with(bare)])
        throughput, capacity = measured[_BOTH].compared_with(bare)
        what, figure = ("throughput", throughput) if capacity is None else ("capacity", capacity)
        report.expect(f"{what} of the bare app's: {name}", figure, "%", (0.98, 0.995), is_floor=True)
    columns = [("server", ""), ("requests", "/s"), ("p50", "ms"), ("p99", "ms"), ("processor", "us")]
    columns += [("throughput", "%"), ("capacity", "%")]
    note = f"{scale.bursts} bursts each, by {load.generator()}; capacity by the server's processor time."
    if missing:
        note += f" Not installed and left out: {', '.join(missing)}."
    report.add(Table("Behind servers, one process each, Heroku's 9 headers", columns, rows, note))


@dataclass
class Taken:
    """What one server has done, burst by burst."""

    port: int
    pid: int
    loads: list[load.Load] = field(default_factory=list)
    processor: list[float | None] = field(default_factory=list)  #: seconds a request

    def burst(self, seconds: float) -> None:
        """Have it serve requests for this long."""
        before = processor_time(self.pid)
        found = load.burst(self.port, stamped(HEROKU), seconds)
        after = processor_time(self.pid)
        self.loads.append(found)
        self.processor.append(None if before is None or after is None else (after - before) / found.requests)

    def figures(self) -> list[Cell]:
        """Requests per second, latencies, and processor time for each request."""
        rates = [median(getattr(each, name) for each in self.loads) for name in ("per_second", "p50", "p99")]
        return [*rates, _quiet(self.processor)]

    def compared_with(self, other: "Taken") -> tuple[float, float | None]:
        """Throughput and capacity as shares of the other's."""
        rates = [mine.per_second / its.per_second for mine, its in zip(self.loads, other.loads, strict=True)]
        mine, its = _quiet(self.processor), _quiet(other.processor)
        return median(rates), None if mine is None or its is None else its / mine


def _quiet(costs: list[float | None]) -> float | None:
    """The median of the quietest bursts: what else runs on the machine makes them dearer, never cheaper."""
    known = sorted(cost for cost in costs if cost is not None)
    return median(known[: max(1, len(known) // 3)]) if known else None


def _measure(protocol: str, command: list[str], scale: Scale) -> dict[str, Taken]:
    with ExitStack() as stack:
        started = {
            name: stack.enter_context(serving(command, f"benchmarks.served:{protocol}_{app}"))
            for name, app in _APPS.items()
        }
        for port, process in started.values():
            _await_readiness(process, port)
        servers = {name: Taken(port, process.pid) for name, (port, process) in started.items()}
        turns = list(servers.values())
        for server in turns:
            asyncio.run(load.built_in(server.port, stamped(HEROKU), scale.burst / 2))  # to warm up
        for _ in range(scale.bursts):
            for server in turns:
                server.burst(scale.burst)
            turns.reverse()
    return servers


def processor_time(pid: int) -> float | None:
    """What a process and its children have used, in seconds; None where nobody says (not Linux)."""
    tasks = Path(f"/proc/{pid}/task")
    try:
        # schedstat counts nanoseconds; the times of /proc/PID/stat, hundredths of a second.
        own = sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()) / 1e9
        children = [
            int(child) for task in tasks.iterdir() for child in (task / "children").read_text().split()
        ]
    except OSError:
        return None
    return own + sum(processor_time(child) or 0.0 for child in children)


@contextmanager
def serving(command: list[str], app: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A server of the app on a free port of the loopback interface, started but perhaps not ready."""
    port = _free_port()
    address = {
        "gunicorn": ["--bind", f"{_ADDRESS}:{port}"],
        "granian": ["--host", _ADDRESS, "--port", str(port)],
        "uvicorn": ["--port", str(port)],
    }[command[0]]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(_ROOT), *filter(None, sys.path)])}
    arguments = [sys.executable, "-m", *command, *address, app]
    server = subprocess.Popen(arguments, cwd=_ROOT, env=environ, stdin=subprocess.DEVNULL)
    try:
        yield port, server
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_ADDRESS, 0))
        return probe.getsockname()[1]


def _await_readiness(server: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + _START_WITHIN
    while time.monotonic() < end:
        if server.poll() is not None:
            raise RuntimeError(f"{server.args!r} ended with {server.returncode} before it was ready")
        try:
            socket.create_connection((_ADDRESS, port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"{server.args!r} is not ready after {_START_WITHIN:.0f} s")
