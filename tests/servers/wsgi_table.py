"""What an abort does on each WSGI server, as a Markdown table.

`python tests/servers/wsgi_table.py`, or with `--short` in a minute and a half.

Ends with status 1 if a request was not answered by 504, or a thread was lost.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import postgresql
from blocking import CALLS
from client import Connection
from launch import Server, until
from peers import SilentPeers
from wsgi_kinds import ALL, Kind

LIMIT = 0.3
_SERVES_ON, _LOST = "serves on", "**lost**"
#: So near to the call's end, and it was that which ended it.
_NEAR = 0.1

# psycopg waits in C of its own, or, told so by the environment, in Python.
_QUERY_IN_C, _QUERY_IN_PYTHON = "postgresql", "postgresql_in_python"
_HEADINGS = {
    "busy": "busy loop",
    "sleep": "`time.sleep`",
    "socket_read": "socket read",
    "tls_read": "TLS read",
    "lock": "`Lock.acquire`",
    "queue_get": "`Queue.get`",
    "run_process": "`subprocess.run`",
    _QUERY_IN_C: "PostgreSQL (1)",
    _QUERY_IN_PYTHON: "PostgreSQL (2)",
}
_PACKAGES = (
    "gunicorn",
    "gevent",
    "uWSGI",
    "waitress",
    "granian",
    "cheroot",
    "Flask",
    "Werkzeug",
    "Django",
    "psycopg",
)


@dataclass(frozen=True)
class Cell:
    """What came of one request."""

    status: int | None
    late: float  # seconds past the deadline
    has_returned: bool  # it took as long as the call
    connection: str  # what became of it
    thread: str

    def __str__(self) -> str:
        if self.status != 504:
            return f"**{self.status or 'closed'}**"
        return f"_{self.late * 1000:.0f} ms_" if self.has_returned else f"{self.late * 1000:.0f} ms"


@dataclass(frozen=True)
class Plan:
    """How thoroughly to measure."""

    seconds: float  # that a call lasts
    tries: int


THOROUGH, SHORT = Plan(2.0, 5), Plan(1.0, 1)


def measure(server: Server, call: str, seconds: float) -> Cell:
    """Have one request stuck, and see what becomes of it."""
    request_id = uuid.uuid4().hex
    with Connection(server.port) as connection:
        answer = connection.get(f"/block?call={call}&seconds={seconds}", {"X-Request-ID": request_id})
        told = connection.get(f"/journal/{request_id}")
        is_kept = told.status == 200 and connection.was_kept
    journal = json.loads(told.body if told.status == 200 else server.get(f"/journal/{request_id}").body)
    return Cell(
        answer.status,
        answer.seconds - LIMIT,
        has_returned=seconds - answer.seconds < _NEAR,
        connection="kept" if is_kept else "closed",
        thread=_fate_of_thread(server, request_id, journal),
    )


def _fate_of_thread(server: Server, request_id: str, journal: Mapping[str, Any]) -> str:
    thread = journal["thread"]
    if journal["asked_in"]["thread"] == thread:
        return _SERVES_ON

    def is_settled() -> bool:
        nonlocal journal
        journal = json.loads(server.get(f"/journal/{request_id}").body)
        return journal["asked_in"]["thread"] == thread or not journal["is_alive"]

    if not until(is_settled, within=5):
        return _LOST
    return _SERVES_ON if journal["is_alive"] else "ended with its connection"


def median(server: Server, call: str, plan: Plan) -> Cell:
    """The median of some tries; of what cannot be broken, one tells as much."""
    cells: list[Cell] = []
    while len(cells) < plan.tries and not (cells and (cells[-1].has_returned or cells[-1].status != 504)):
        cells.append(measure(server, call, plan.seconds))
    if cells[-1].has_returned or cells[-1].status != 504:
        return cells[-1]
    late = statistics.median(cell.late for cell in cells)
    return replace(next((cell for cell in cells if cell.thread == _LOST), cells[-1]), late=late)


@contextmanager
def surroundings() -> Iterator[dict[str, str]]:
    """What the requests get stuck in, as environment variables."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        peers = SilentPeers(Path(folder))
        stack.callback(peers.close)
        environment = {"HOSTLINE_SERVICE_TIMEOUT": str(LIMIT), **peers.environment}
        if not postgresql.missing():
            database = postgresql.PostgreSQL()
            stack.callback(database.stop)
            environment["POSTGRESQL"] = database.address
        yield environment


def row(kind: Kind, environment: Mapping[str, str], plan: Plan) -> dict[str, Cell]:
    """One server with every call."""
    cells: dict[str, Cell] = {}
    server = kind.start(**environment)
    try:
        for call in CALLS:
            if call != _QUERY_IN_C or "POSTGRESQL" in environment:
                cells[call] = median(server, call, plan)
    finally:
        server.stop()
    if "POSTGRESQL" in environment:
        server = kind.start(**environment, PSYCOPG_WAIT_FUNC="wait_poll")
        try:
            cells[_QUERY_IN_PYTHON] = median(server, _QUERY_IN_C, plan)
        finally:
            server.stop()
    return cells


def _render(kind: Kind, cells: Mapping[str, Cell]) -> str:
    told = [str(cells[call]) if call in cells else "" for call in _HEADINGS]
    connections = {cell.connection for cell in cells.values()}
    threads = {cell.thread for cell in cells.values()}
    return _line(kind.name, *told, " or ".join(sorted(connections)), " or ".join(sorted(threads)))


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _versions() -> Iterator[str]:
    yield f"CPython {platform.python_version()}"
    for package in _PACKAGES:
        try:
            yield f"{package} {version(package)}"
        except PackageNotFoundError:
            pass
    if not postgresql.missing():
        told = subprocess.run(
            ["psql", "--version"], capture_output=True, text=True, check=False
        ).stdout.split()
        yield f"PostgreSQL {told[2]}" if len(told) > 2 else "PostgreSQL"


def main(arguments: list[str]) -> int:
    """Print the table, a line as soon as it is measured."""
    plan = SHORT if "--short" in arguments else THOROUGH
    print(
        f"{time.strftime('%Y-%m-%d')}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores, ",
        end="",
    )
    print(f"load {os.getloadavg()[0]:.1f}. {', '.join(_versions())}.")
    print(f"Limit {LIMIT * 1000:.0f} ms; each call lasts {plan.seconds:g} s; median of {plan.tries}.\n")
    print(_line("server", *_HEADINGS.values(), "connection", "thread"))
    print(_line(*["---"] * (len(_HEADINGS) + 3)), flush=True)
    seen: list[Cell] = []
    with surroundings() as environment:
        for kind in ALL:
            if kind.missing:
                print(_line(kind.name, kind.missing, *[""] * (len(_HEADINGS) + 1)), flush=True)
                continue
            cells = row(kind, environment, plan)
            seen += cells.values()
            print(_render(kind, cells), flush=True)
    return int(any(cell.status != 504 or cell.thread == _LOST for cell in seen))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
