"""The arithmetic and the reading of the benchmarks; that they run is `make bench-smoke`'s to show."""

import asyncio
import json
from pathlib import Path

import pytest
from benchmarks import api_cost, load
from benchmarks.results import Goal, Report, Table
from benchmarks.rounds import Cost, Rounds
from benchmarks.scale import SMOKE
from benchmarks.spans import Span

import hostline

_WRK = """Running 1s test @ http://127.0.0.1:8000/
  Latency Distribution
     50%  680.00us
     75%    0.90ms
     90%    1.33ms
     99%    5.92ms
  19854 requests in 1.00s, 2.50MB read
Requests/sec:  19843.21
"""


def test_what_is_added_is_the_median_of_the_differences_within_a_round() -> None:
    # The second round is slow for both.
    assert Cost.of([3.0, 13.0, 3.5], [1.0, 11.0, 1.0]).added == 2.0


def test_every_variant_has_its_turn_in_every_round_and_warming_up_does_not_count() -> None:
    shares: list[float] = []
    rounds = Rounds(["bare", "other"], 4, shares.append)
    turns = list(rounds)
    for number, name in enumerate(turns):
        rounds.record(name, 100.0 if number < 2 else {"bare": 1.0, "other": 3.0}[name])
    assert [sorted(pair) for pair in zip(turns[::2], turns[1::2], strict=True)] == [["bare", "other"]] * 5
    assert shares[-1] == 1.0
    assert rounds.costs("bare")["other"] == Cost(whole=3.0, added=2.0, spread=0.0)


def test_the_quietest_quarter_of_the_rounds_counts() -> None:
    rounds = Rounds(["bare", "other"], 8, lambda _: None)
    for _ in range(1 + 6):
        rounds.record("bare", 10.0)
        rounds.record("other", 20.0)
    for _ in range(2):
        rounds.record("bare", 1.0)
        rounds.record("other", 2.0)
    assert rounds.costs("bare")["other"] == Cost(whole=2.0, added=1.0, spread=0.0)


def test_wrk_is_read() -> None:
    assert load.read_wrk(_WRK) == load.Load(19854, 19843.21, pytest.approx(0.00068), pytest.approx(0.00592))


@pytest.mark.parametrize("text", ("", _WRK + "  Non-2xx or 3xx responses: 7\n"), ids=("empty", "errors"))
def test_what_wrk_did_not_measure_is_no_figure(text: str) -> None:
    with pytest.raises(RuntimeError):
        load.read_wrk(text)


def test_percentiles() -> None:
    assert Span(range(100, 0, -1)).figures() == [1, 51, 100, 100]


@pytest.mark.parametrize(
    ("measured", "is_floor", "verdict"),
    (
        (0.30, False, "moonshot"),
        (0.45, False, "reached"),
        (0.46, False, "missed"),
        (0.46, True, "moonshot"),
        (0.29, True, "missed"),
    ),
)
def test_a_figure_is_compared_with_its_bars(measured: float, is_floor: bool, verdict: str) -> None:
    must, moonshot = (0.30, 0.45) if is_floor else (0.45, 0.30)
    assert Goal("what", measured, "x", must, moonshot, is_floor).verdict == verdict


def test_a_report_is_shown_and_kept(tmp_path: Path) -> None:
    lines: list[str] = []
    report = Report(lines.append)
    report.add(Table("Title", [("name", ""), ("added", "ns")], [["bare", 1e-9], ["none", None]], "Note."))
    assert lines == ["\nTitle\nname  added\n----  -----\nbare   1 ns\nnone      -\nNote.\n"]
    report.expect("what", 0.2, "x", (0.45, 0.30))
    report.save(tmp_path / "report.json", smoke=True)
    kept = json.loads((tmp_path / "report.json").read_text())
    assert kept["tables"][0]["rows"] == [["bare", 1e-9], ["none", None]]
    assert kept["goals"][0]["verdict"] == "moonshot"
    assert kept["date"]
    assert kept["versions"]["python"]


def test_every_call_of_the_deadline_api_is_measured_everywhere() -> None:
    report = Report(lambda _: None)
    api_cost.run(SMOKE, report, lambda *_: None)
    [table] = report.tables
    assert [heading for heading, _ in table.columns[1:]] == [
        "outside of a request",
        "in a WSGI request",
        "in an ASGI request",
    ]
    assert [row[0] for row in table.rows] == [name for name in api_cost.CALLS if name != api_cost.NOTHING]
    assert all(isinstance(figure, float) for row in table.rows for figure in row[1:])


@pytest.mark.parametrize("call", api_cost.CALLS)
def test_the_deadline_api_is_measured_within_a_request(call: str) -> None:
    requests: list[object] = []

    def repeat(count: int) -> None:
        api_cost.CALLS[call](count)
        requests.append(hostline.current())

    repeat(2)
    api_cost.in_wsgi(repeat, 2)
    asyncio.run(api_cost.in_asgi(repeat, 2))
    outside, wsgi, asgi = requests
    assert outside is None
    assert wsgi is not None
    assert asgi is not None
