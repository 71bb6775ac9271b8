"""The directive ``measured``: tables of benchmark runs, read from the files that they have written.

``measured:: bars`` compares the runs with the bars of the design; ``measured:: TITLE`` is the table
whose title contains that text, of the first run. So no figure on a page is typed by hand.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.results import shown
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

_RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


class Measured(SphinxDirective):
    """``measured:: bars`` or ``measured:: part of a table's title``."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Write the table in Markdown and have it parsed."""
        files = sorted(_RESULTS.glob("*.json"))
        for each in files:
            self.env.note_dependency(str(each))
        runs = [json.loads(each.read_text()) for each in files]
        text = _bars(runs) if self.arguments[0] == "bars" else _table(runs[0], self.arguments[0])
        return self.parse_text_to_nodes(text)


def _python(run: Any) -> str:
    return str(run["versions"]["python"].split()[0])


def _bars(runs: Sequence[Any]) -> str:
    head = ["what", *(f"CPython {_python(run)}" for run in runs), "must", "moonshot"]
    by_name = [{goal["what"]: goal for goal in run["goals"]} for run in runs]
    rows = []
    for name, goal in by_name[0].items():
        found = [goals.get(name) for goals in by_name]
        cells = ["-" if each is None else _verdict(each) for each in found]
        bars = [shown(goal[bar], goal["unit"]) for bar in ("must", "moonshot")]
        rows.append([name, *cells, *bars])
    return _markdown(head, rows)


def _verdict(goal: Any) -> str:
    figure = shown(goal["measured"], goal["unit"])
    return f"{figure} missed" if goal["verdict"] == "missed" else f"**{figure}**"


def _table(run: Any, part_of_title: str) -> str:
    table = next(each for each in run["tables"] if part_of_title in each["title"])
    units = [unit for _, unit in table["columns"]]
    rows = [[shown(cell, unit) for cell, unit in zip(row, units, strict=True)] for row in table["rows"]]
    return _markdown([heading for heading, _ in table["columns"]], rows)


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def setup(app: Sphinx) -> ExtensionMetadata:
    """Tell Sphinx of the directive."""
    app.add_directive("measured", Measured)
    return {"parallel_read_safe": True}
