"""What an abort does on each ASGI server, as a Markdown table.

`python tests/servers/asgi_table.py`, or with `--short` in some minutes less.

Ends with status 1 if a request was not ended as it must be, or a server did not serve on.
"""

import json
import statistics
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from asgi_kinds import ALL, Kind
from client import Connection
from client_http2 import Http2Connection
from launch import Server, until
from table import LIMIT, Plan, line, plan_of, print_head, surroundings

#: Code that ended so soon after its deadline was ended by it.
_AT_ONCE = 0.25
#: So long a code is waited for; longer, and it is said not to end.
_PATIENCE = 10.0


@dataclass(frozen=True)
class Way:
    """What a request gets stuck in."""

    heading: str
    path: str  # with {seconds}
    ends: str = "504"  # as it must: with 504, "cut" or 200
    needs: str = ""  # this variable in the environment


_SYNC = Way("`def`: busy", "/sync?call=busy&seconds={seconds}")
_STREAM = Way("stream stalls", "/chunks?delays=0,{seconds}", ends="cut")
_UPLOAD = Way("slow upload", "/upload", ends="200")
WAYS = (
    Way("`await sleep`", "/wait?seconds={seconds}"),
    Way("`await` socket", "/read_socket?seconds={seconds}"),
    Way("cancellation swallowed", "/swallow?seconds={seconds}"),
    _SYNC,
    Way("`def`: `time.sleep`", "/sync?call=sleep&seconds={seconds}"),
    Way("`def`: socket", "/sync?call=socket_read&seconds={seconds}"),
    Way("`def`: PostgreSQL", "/sync?call=postgresql&seconds={seconds}", needs="POSTGRESQL"),
    Way("loop: busy", "/block_loop?call=busy&seconds={seconds}"),
    Way("loop: `time.sleep`", "/block_loop?call=sleep&seconds={seconds}"),
    _STREAM,
    _UPLOAD,
)
# The first of them, and the first exception that is logged, import what the others find there.
_TO_WARM_UP = (_SYNC, _STREAM)
_PACKAGES = ("uvicorn", "uvloop", "Hypercorn", "trio", "h2", "granian", "daphne", "gunicorn", "fastapi")
_PACKAGES += ("starlette", "anyio", "psycopg")


@dataclass(frozen=True)
class Cell:
    """What came of one request."""

    status: int | None
    is_right: bool
    late: float  # seconds past the deadline, of the answer
    code_late: float | None  # the same, of the code's end; None: it has not come
    connection: str  # what became of it
    serves_on: bool

    def __str__(self) -> str:
        if not self.is_right:
            return f"**{self.status or 'closed'}**"
        if self.code_late is None:
            return f"{self.late * 1000:.0f} ms (**never**)"
        late = f"{self.late * 1000:.0f} ms"
        return late if self.code_late < _AT_ONCE else f"{late} (_{self.code_late * 1000:.0f} ms_)"


@dataclass(frozen=True)
class _Upload(Cell):
    def __str__(self) -> str:
        return str(self.status) if self.is_right else super().__str__()


def _slowly(seconds: float) -> Iterator[bytes]:
    for _ in range(5):
        yield b"piece;"
        time.sleep(seconds / 5)  # this client's network


def measure(kind: Kind, server: Server, way: Way, seconds: float) -> Cell:
    """Have one request stuck, and see what becomes of it and of its code."""
    request_id = uuid.uuid4().hex
    body = _slowly(seconds) if way is _UPLOAD else None
    with (Http2Connection if kind.is_http2 else Connection)(server.port) as connection:
        path = way.path.format(seconds=seconds)
        answer = connection.get(path, {"X-Request-ID": request_id}, body=body)
        is_kept = connection.get("/ok").status == 200 and connection.was_kept
    ended = "cut" if answer.is_cut else str(answer.status)
    code_took = _time_of_code(server, request_id)
    return (_Upload if way is _UPLOAD else Cell)(
        answer.status,
        is_right=ended == way.ends,
        late=answer.seconds - LIMIT,
        code_late=None if code_took is None else code_took - LIMIT,
        connection="kept" if is_kept else "closed",
        serves_on=is_kept or server.get("/ok").status == 200,
    )


def _time_of_code(server: Server, request_id: str) -> float | None:
    """After how many seconds the code came to its end; None if it does not."""
    path = server.folder / f"journal-{request_id}"
    journal: dict[str, Any] = {}

    def has_ended() -> bool:
        nonlocal journal
        journal = json.loads(path.read_text()) if path.exists() else {}
        return "left_after" in journal

    return journal["left_after"] if until(has_ended, _PATIENCE) else None


def median(kind: Kind, server: Server, way: Way, plan: Plan) -> Cell:
    """The median of some tries; of what cannot be ended, one tells as much."""
    cells: list[Cell] = []
    while len(cells) < plan.tries:
        cells.append(measure(kind, server, way, plan.seconds))
        if not cells[-1].is_right or cells[-1].code_late is None or not cells[-1].serves_on:
            return cells[-1]
    late, code_late = (
        statistics.median(figures)
        for figures in zip(*((cell.late, cell.code_late or 0.0) for cell in cells), strict=True)
    )
    return replace(cells[-1], late=late, code_late=code_late)


def row(kind: Kind, environment: Mapping[str, str], plan: Plan) -> dict[Way, Cell]:
    """One server with every way."""
    server = kind.start(**environment, HOSTLINE_STREAM_TIMEOUT=str(LIMIT))
    try:
        for way in _TO_WARM_UP:
            measure(kind, server, way, 2 * LIMIT)
        return {
            way: median(kind, server, way, plan) for way in WAYS if not way.needs or way.needs in environment
        }
    finally:
        server.stop()


def _render(kind: Kind, cells: Mapping[Way, Cell]) -> str:
    told = [str(cells[way]) if way in cells else "" for way in WAYS]
    connections = {cell.connection for way, cell in cells.items() if way.ends == "504"}
    cut = {cell.connection for way, cell in cells.items() if way.ends == "cut"}
    is_lost = not all(cell.serves_on for cell in cells.values())
    return line(
        kind.name,
        *told,
        " or ".join(sorted(connections)),
        " or ".join(sorted(cut)),
        "**lost**" if is_lost else "serves on",
    )


def main(arguments: list[str]) -> int:
    """Print the table, a line as soon as it is measured."""
    plan = plan_of(arguments)
    headings = ("server", *(way.heading for way in WAYS), "connection", "of a cut stream", "server then")
    print_head(plan, _PACKAGES, *headings)
    seen: list[Cell] = []
    with surroundings() as environment:
        for kind in ALL:
            if kind.missing:
                print(line(kind.name, kind.missing, *[""] * (len(headings) - 2)), flush=True)
                continue
            cells = row(kind, environment, plan)
            seen += cells.values()
            print(_render(kind, cells), flush=True)
    return int(not all(cell.is_right and cell.serves_on for cell in seen))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
