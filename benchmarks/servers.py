"""What both middlewares cost behind real servers: throughput and latency.

Two servers are up at once, one with the bare app and one with the guarded one, and take
turns in being asked: the ratio is that of neighbouring bursts.
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
from pathlib import Path
from statistics import median

from benchmarks import load
from benchmarks.results import Cell, Report, Table
from benchmarks.scale import Scale
from benchmarks.traffic import HEROKU, stamped

_ROOT = Path(__file__).parents[1]
_ADDRESS = "127.0.0.1"
_START_WITHIN = 20.0

# What is put before the app and the port.
_COMMANDS: dict[str, tuple[str, list[str]]] = {
    "uvicorn (uvloop)": ("asgi", ["uvicorn", "--log-level=warning", "--no-access-log", "--loop=uvloop"]),
    "uvicorn (asyncio)": ("asgi", ["uvicorn", "--log-level=warning", "--no-access-log", "--loop=asyncio"]),
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
        bare, both = _measure(protocol, command, scale)
        ratio = median(after.per_second / before.per_second for before, after in zip(bare, both, strict=True))
        rows += [[f"{name}, bare", *_medians(bare), None], [f"{name}, both", *_medians(both), ratio]]
        report.expect(f"throughput of the bare app's: {name}", ratio, "%", (0.98, 0.995), is_floor=True)
    columns = [("server", ""), ("requests", "/s"), ("p50", "ms"), ("p99", "ms"), ("of bare", "%")]
    note = f"{scale.bursts} bursts each, by {load.generator()}."
    if missing:
        note += f" Not installed and left out: {', '.join(missing)}."
    report.add(Table("Behind servers, one process each, Heroku's 9 headers", columns, rows, note))


def _medians(loads: list[load.Load]) -> list[float]:
    return [median(getattr(each, name) for each in loads) for name in ("per_second", "p50", "p99")]


def _measure(protocol: str, command: list[str], scale: Scale) -> tuple[list[load.Load], list[load.Load]]:
    bare: list[load.Load] = []
    both: list[load.Load] = []
    with ExitStack() as stack:
        turns = []
        for name, loads in (("bare", bare), ("both", both)):
            port = stack.enter_context(serving(command, f"benchmarks.served:{protocol}_{name}"))
            turns.append((port, loads))
        for port, _ in turns:
            asyncio.run(load.built_in(port, stamped(HEROKU), scale.burst / 2))  # to warm up
        for _ in range(scale.bursts):
            for port, loads in turns:
                loads.append(load.burst(port, stamped(HEROKU), scale.burst))
            turns.reverse()
    return bare, both


@contextmanager
def serving(command: list[str], app: str) -> Iterator[int]:
    """A server of the app on a free port of the loopback interface; gives the port."""
    port = _free_port()
    address = ["--bind", f"{_ADDRESS}:{port}"] if command[0] == "gunicorn" else ["--port", str(port)]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(_ROOT), *filter(None, sys.path)])}
    arguments = [sys.executable, "-m", *command, *address, app]
    server = subprocess.Popen(arguments, cwd=_ROOT, env=environ, stdin=subprocess.DEVNULL)
    try:
        _await_readiness(server, port)
        yield port
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
