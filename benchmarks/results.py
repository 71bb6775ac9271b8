"""Figures, and how they are shown and kept."""

import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

METHOD = (
    "In process: variants take turns in one process, in an order that changes each round; processor time "
    "of the process; of the quietest quarter of the rounds, the median of the difference from the baseline "
    "of the same round. "
    "Servers: bursts that alternate between servers that are up at once; the median of the ratios of "
    "neighbouring bursts; capacity by the servers' processor time in the quietest of "
    "them. Deadlines and lateness: the monotonic clock."
)
_PACKAGES = (
    *("anyio", "django", "django-enforce-host", "fastapi-timeout", "granian", "gunicorn", "hostline"),
    *("httptools", "starlette", "uvicorn", "uvloop", "werkzeug"),
)

_FORMATS: Mapping[str, Callable[[float], str]] = {
    "ns": lambda seconds: f"{seconds * 1e9:,.0f} ns",
    "us": lambda seconds: f"{seconds * 1e6:,.1f} us",
    "ms": lambda seconds: f"{seconds * 1e3:,.2f} ms",
    "x": lambda ratio: f"{ratio:.2f} x",
    "B": lambda size: f"{size:,.0f} B",
    "%": lambda ratio: f"{ratio:.1%}",
    "/s": lambda rate: f"{rate:,.0f} /s",
}

Cell = str | float | None


def shown(value: Cell, unit: str) -> str:
    """A figure as it is read."""
    if value is None:
        return "-"
    return value if isinstance(value, str) else _FORMATS[unit](value)


@dataclass(frozen=True)
class Table:
    """``columns`` give each column's heading and its unit; that of text is empty."""

    title: str
    columns: Sequence[tuple[str, str]]
    rows: Sequence[Sequence[Cell]]
    note: str = ""

    def __str__(self) -> str:
        heads = [heading for heading, _ in self.columns]
        body = [
            [shown(cell, unit) for cell, (_, unit) in zip(row, self.columns, strict=True)]
            for row in self.rows
        ]
        widths = [max(map(len, column)) for column in zip(heads, *body, strict=True)]
        lines = [_line(heads, widths), "  ".join("-" * width for width in widths)]
        lines += [_line(row, widths) for row in body]
        return "\n".join([self.title, *lines, *([self.note] if self.note else [])])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = (
        cell.rjust(width) if index else cell.ljust(width)
        for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join([first, *rest]).rstrip()


@dataclass(frozen=True)
class Goal:
    """A figure that the design sets a bar for."""

    what: str
    measured: float
    unit: str
    must: float
    moonshot: float
    is_floor: bool = False  #: more is better

    @property
    def verdict(self) -> str:
        """How it compares, in a word."""
        for bar, word in ((self.moonshot, "moonshot"), (self.must, "reached")):
            if self.measured >= bar if self.is_floor else self.measured <= bar:
                return word
        return "missed"

    def row(self) -> list[Cell]:
        """Its line in the table."""
        figures = [shown(each, self.unit) for each in (self.measured, self.must, self.moonshot)]
        return [self.what, *figures, self.verdict]


@dataclass
class Report:
    """All that one run has found. ``say`` writes to where a person looks."""

    say: Callable[[str], object]
    tables: list[Table] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)

    def add(self, table: Table) -> None:
        """Keep a table, and show it."""
        self.tables.append(table)
        self.say(f"\n{table}\n")

    def expect(
        self, what: str, measured: float, unit: str, bars: tuple[float, float], *, is_floor: bool = False
    ) -> None:
        """Keep a figure that has a bar to reach, and a moonshot."""
        self.goals.append(Goal(what, measured, unit, *bars, is_floor))

    def summary(self) -> Table:
        """The bars of the design, and what was measured."""
        columns = [("what", ""), ("measured", ""), ("must", ""), ("moonshot", ""), ("", "")]
        return Table("Against the bars of the design", columns, [goal.row() for goal in self.goals])

    def save(self, path: Path, **about: object) -> None:
        """Write all of it as JSON, with when, where and how it was measured."""
        document = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "versions": versions(),
            "method": METHOD,
            **about,
            "tables": [asdict(table) for table in self.tables],
            "goals": [{**asdict(goal), "verdict": goal.verdict} for goal in self.goals],
        }
        path.write_text(json.dumps(document, indent=1) + "\n")


def machine() -> dict[str, object]:
    """What this runs on, and how busy that is with other things."""
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "processor": _processor(),
        "processors": os.cpu_count(),
        "load": os.getloadavg(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def versions() -> dict[str, str]:
    """The interpreter's and those of whatever takes part."""
    found = {"python": sys.version}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = ""
    return found
