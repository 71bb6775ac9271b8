"""What an abort does on each WSGI server, as a Markdown table.

`python tests/servers/wsgi_table.py`, or with `--short` in a minute and a half.

Ends with status 1 if a request was not answered by 504, or a thread was lost.
"""

import json
import statistics
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from blocking import CALLS
from client import Connection
from launch import Server, until
from table import LIMIT, Plan, line, plan_of, print_head, surroundings
from wsgi_kinds import ALL, Kind

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
    return line(kind.name, *told, " or ".join(sorted(connections)), " or ".join(sorted(threads)))


def main(arguments: list[str]) -> int:
    """Print the table, a line as soon as it is measured."""
    plan = plan_of(arguments)
    print_head(plan, _PACKAGES, "server", *_HEADINGS.values(), "connection", "thread")
    seen: list[Cell] = []
    with surroundings() as environment:
        for kind in ALL:
            if kind.missing:
                print(line(kind.name, kind.missing, *[""] * (len(_HEADINGS) + 1)), flush=True)
                continue
            cells = row(kind, environment, plan)
            seen += cells.values()
            print(_render(kind, cells), flush=True)
    return int(any(cell.status != 504 or cell.thread == _LOST for cell in seen))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
