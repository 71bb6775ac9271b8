"""What docs/how-to/log-as-json.md says comes out, by the libraries that it names."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from test_docs import ROOT, _blocks

PAGE = ROOT / "docs" / "how-to" / "log-as-json.md"

APP = """
import flask
import hostline.testing
import hostline.wsgi

app = flask.Flask("app")


@app.get("/reports/<name>")
def report(name):
    hostline.testing.time_out()  # the slow line


app.wsgi_app = hostline.wsgi.RequestTimeoutMiddleware(app.wsgi_app)
app.wsgi_app = hostline.wsgi.CanonicalHostMiddleware(app.wsgi_app, "www.example.com", scheme="https")
client = app.test_client()
asked = {"X-Request-ID": "abc", "X-Forwarded-For": "192.0.2.1"}
client.get("/reports/sales", base_url="https://www.example.com", headers=asked)
client.get("/reports/sales", base_url="http://example.com", headers=asked)
"""


def _records(setup: str, directory: Path) -> dict[str, dict[str, object]]:
    program = directory / "app.py"
    program.write_text(setup + APP)
    run = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, timeout=50, check=True, cwd=directory
    )
    records = [json.loads(line) for line in run.stdout.splitlines()]
    return {record["state"]: record for record in records if "state" in record}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("library", "message", "level"),
    (("pythonjsonlogger", "message", ("levelname", "ERROR")), ("structlog", "event", ("level", "error"))),
)
def test_json(library, message, level, tmp_path):
    (setup,) = [block for block in _blocks(PAGE) if f" {library}" in block]
    pytest.importorskip(library)
    records = _records(setup, tmp_path)
    assert set(records) == {"ready", "timed_out", "redirected"}
    timed_out = records["timed_out"]
    assert timed_out[message].startswith("source=hostline id=abc timeout=")
    assert timed_out[level[0]] == level[1]
    assert {name: timed_out[name] for name in ("request_id", "method", "path", "route", "wait")} == {
        "request_id": "abc",
        "method": "GET",
        "path": "/reports/sales",
        "route": "/reports/<name>",
        "wait": None,
    }
    assert "    hostline.testing.time_out()  # the slow line" in timed_out["stack"]
    redirected = records["redirected"]
    assert (redirected["host"], redirected["location"], redirected["status"]) == (
        "example.com",
        "https://www.example.com/reports/sales",
        301,
    )


def test_the_json_that_is_shown_has_the_fields_that_there_are():
    shown = [json.loads(line) for line in PAGE.read_text().splitlines() if line.startswith("{")]
    timed_out, redirected = shown
    assert {"request_id", "route", "stack", "service"} < set(timed_out)
    assert {"host", "location", "status", "reason"} < set(redirected)
