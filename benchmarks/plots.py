"""``python -m benchmarks.plots RESULTS.json DIRECTORY``: the figures of a run as SVG, for README and docs."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

_OURS, _OTHERS = "#0b7285", "#adb5bd"
_INK = "#343a40"
_STYLE = {
    "axes.edgecolor": _OTHERS,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "font.family": "sans-serif",
    "font.size": 10,
    "savefig.facecolor": "white",  # read on a dark page, too
    "svg.fonttype": "none",
    "svg.hashsalt": "hostline",  # the same figures make the same file
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
}
# A reference that is a hundred times as dear would leave nothing to be seen of the others.
_LEFT_OUT = ("bare app", "redirecting", "threading.Timer")

Row = Sequence[Any]
Table = Mapping[str, Any]


def cost(tables: list[Table]) -> None:
    """What is added to a request, by us and by others."""
    _, axes = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained")
    kinds = {"WSGI": "What a middleware adds to a WSGI request, Heroku", "ASGI, asyncio": "asyncio, Heroku"}
    for axis, (name, title) in zip(axes, kinds.items(), strict=True):
        rows = [row for row in _table(tables, title)["rows"] if not any(part in row[0] for part in _LEFT_OUT)]
        rows.sort(key=lambda row: -row[2])
        names = [row[0].removeprefix("reference: ") for row in rows]
        colours = [_OTHERS if row[0].startswith(("reference", "do-nothing")) else _OURS for row in rows]
        bars = axis.barh(names, [row[2] * 1e6 for row in rows], color=colours)
        axis.bar_label(bars, fmt="%.2f", padding=3)
        axis.set_title(f"{name}: µs added")
        axis.margins(x=0.12)


def in_flight(tables: list[Table]) -> None:
    """What a request pays for the others that are there."""
    _, axis = plt.subplots(figsize=(6.5, 3.4), layout="constrained")
    for table in _tables(tables, "with others in flight"):
        rows = [row for row in table["rows"] if "in flight" in row[0]]
        numbers = [int(row[0].split()[0].replace(",", "")) for row in rows]
        axis.plot(numbers, [row[2] * 1e6 for row in rows], marker="o", label=table["columns"][0][0])
    axis.set_xscale("log")
    axis.set_ylim(bottom=0)
    axis.set_xlabel("requests in flight")
    axis.set_title("µs that the request timeout adds")
    axis.legend(frameon=False)


def latency(tables: list[Table]) -> None:
    """Behind servers, with both guards and without."""
    rows = _table(tables, "Behind servers")["rows"]
    names = [row[0].removesuffix(", both") for row in rows if row[0].endswith(", both")]
    _, axes = plt.subplots(1, 2, figsize=(11, 3.2), layout="constrained", sharey=True)
    for axis, (title, column) in zip(axes, (("median", 2), ("99th percentile", 3)), strict=True):
        for shift, (app, colour) in enumerate((("bare", _OTHERS), ("both", _OURS))):
            times = [row[column] * 1e3 for row in rows if row[0].endswith(f", {app}")]
            places = [place - 0.2 + 0.4 * shift for place in range(len(names))]
            label = {"bare": "the bare app", "both": "with both guards"}[app]
            bars = axis.barh(places, times, height=0.38, color=colour, label=label)
            axis.bar_label(bars, fmt="%.2f", padding=3)
        axis.set_title(f"Latency, {title}, ms")
        axis.margins(x=0.12)
    axes[0].set_yticks(range(len(names)), names)
    axes[1].legend(frameon=False)


def lateness(tables: list[Table]) -> None:
    """From the deadline to the answer."""
    rows = _table(tables, "How late an abort is")["rows"]
    _, axis = plt.subplots(figsize=(7.5, 3.2), layout="constrained")
    for shift, (name, column, colour) in enumerate((("idle", 1, _OURS), ("two busy threads", 4, _OTHERS))):
        for place, row in enumerate(rows):
            at = place - 0.15 + 0.3 * shift
            median, p99 = (each * 1e3 for each in row[column : column + 2])
            axis.hlines(at, median, p99, color=colour, linewidth=6, label=None if place else name)
            axis.annotate(f"{p99:.1f}", (p99, at), xytext=(6, -3), textcoords="offset points")
    axis.set_yticks(range(len(rows)), [row[0] for row in rows])
    axis.set_xlim(left=0)
    axis.margins(x=0.12)
    axis.set_title("Lateness of aborts, ms: from the median to the 99th percentile")
    axis.legend(frameon=False)


PLOTS: Mapping[str, Callable[[list[Table]], None]] = {
    "cost": cost,
    "in-flight": in_flight,
    "latency": latency,
    "lateness": lateness,
}


def _tables(tables: list[Table], part_of_title: str) -> Iterator[Table]:
    return (table for table in tables if part_of_title in table["title"])


def _table(tables: list[Table], part_of_title: str) -> Table:
    return next(_tables(tables, part_of_title))


def main(results: str, directory: str) -> None:
    """Draw all of them."""
    tables = json.loads(Path(results).read_text())["tables"]
    mpl.use("svg")
    with mpl.rc_context(_STYLE):
        for name, draw in PLOTS.items():
            draw(tables)
            plt.savefig(Path(directory, f"{name}.svg"), metadata={"Date": None})
            plt.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
