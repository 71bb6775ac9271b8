"""The command line: ``hostline config`` as text and as JSON, and what it warns of."""

import io
import json
import os
import re
import runpy
import sys

import pytest

from hostline import CanonicalHostSettings, RequestTimeoutSettings
from hostline._advice import Situation, advice
from hostline._configuration import NOTE, Configuration
from hostline._kinds import SINKS
from hostline.cli import main

EVERY = [*CanonicalHostSettings.settings(), *RequestTimeoutSettings.settings()]
SET = {
    "HOSTLINE_CANONICAL_HOST": "WWW.example.com:8000",
    "HOSTLINE_CANONICAL_IGNORE": "api.example.com,/^x[0-9]{1,3}[.]/",
    "HOSTLINE_TIMEOUT_FOR": "/reports=60s,/export/=off",
    "RACK_TIMEOUT_SERVICE_TIMEOUT": "10",
    "HOSTLINE_TIMEOUT_SIGNAL": "SIGVTALRM",
    "HOSTLINE_WAIT_TIMEOUT": "off",
    "HOSTLINE_SERVICE_PAST_WAIT": "on",
}


@pytest.fixture
def environment(monkeypatch):
    def set_variables(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_variables


# hostline config


def test_text(environment, capsys):
    environment(**SET)
    assert main(["config"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    for row in (
        "host www.example.com:8000 HOSTLINE_CANONICAL_HOST",
        "ignore api.example.com,/^x[0-9]{1,3}[.]/ HOSTLINE_CANONICAL_IGNORE",
        "only none default",
        "preserve_method on default",
        "service_timeout 10 seconds RACK_TIMEOUT_SERVICE_TIMEOUT",
        "wait_timeout off HOSTLINE_WAIT_TIMEOUT",
        "service_past_wait on HOSTLINE_SERVICE_PAST_WAIT",
        "term_on_timeout off default",
        "timeout_for /reports=60s,/export/=off HOSTLINE_TIMEOUT_FOR",
        "signal SIGVTALRM HOSTLINE_TIMEOUT_SIGNAL",
        "How long a request may run.",  # the row has the variable
        "How much longer a request with a body may have waited. Variable: HOSTLINE_WAIT_OVERTIME.",
    ):
        assert lines.count(row) == 1
    assert " ".join(lines).count(NOTE) == 1
    assert "Warnings" not in lines
    assert "Problems" not in lines


def test_text_fits_a_page_of_documentation(environment, capsys):
    environment(**SET, DYNO="web.1", HOSTLINE_TERM_ON_TIMEOUT="1")
    main(["config"])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 100


def test_json(environment, capsys):
    environment(**SET)
    assert main(["config", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    rows = {(row["guard"], row["name"]): row for row in report["settings"]}
    assert len(rows) == len(EVERY)
    assert rows["request timeout", "service_timeout"] == {
        "guard": "request timeout",
        "name": "service_timeout",
        "value": 10.0,
        "source": "RACK_TIMEOUT_SERVICE_TIMEOUT",
        "is_wrong": False,
        "variable": "HOSTLINE_SERVICE_TIMEOUT",
        "unit": "seconds",
        "meaning": "How long a request may run.",
    }
    assert rows["canonical host", "ignore"]["value"] == ["api.example.com", "/^x[0-9]{1,3}[.]/"]
    assert rows["request timeout", "timeout_for"]["value"] == [["/reports", 60.0], ["/export/", None]]
    assert rows["request timeout", "wait_timeout"]["value"] is None
    assert rows["canonical host", "host_for"]["variable"] is None
    assert (report["note"], report["warnings"], report["problems"]) == (NOTE, [], [])


def test_all_problems_in_one_report(environment, capsys):
    environment(HOSTLINE_SERVICE_TIMEOUT="fast", HOSTLINE_CANONICAL_HOST="a/b", HOSTLINE_SERVCE_TIMEOUT="1")
    assert main(["config", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert len(report["problems"]) == 3
    assert main(["config"]) == 1
    _, problems = " ".join(capsys.readouterr().out.split()).split(" Problems - ")
    assert "The nearest known name is HOSTLINE_SERVICE_TIMEOUT." in problems


def test_what_is_right_is_shown_beside_what_is_wrong(environment, capsys):
    environment(
        HOSTLINE_SERVICE_TIMEOUT="fast",
        RACK_TIMEOUT_SERVICE_TIMEOUT="10",
        RACK_TIMEOUT_WAIT_TIMEOUT="slow",
        HOSTLINE_CANONICAL_HOST="example.com",
        HOSTLINE_TIMEOUT_STATUS="200",
        HOSTLINE_NONSENSE="1",
        HOSTLINE_CANONICAL_SCHEME="https",
    )
    assert main(["config", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report.keys() == {"note", "settings", "warnings", "problems"}
    assert len(report["problems"]) == 4
    assert report["warnings"] == []
    assert [row["name"] for row in report["settings"]] == [each.name for each in EVERY]
    assert [row["source"] for row in report["settings"] if row["is_wrong"]] == [
        "HOSTLINE_SERVICE_TIMEOUT",
        "RACK_TIMEOUT_WAIT_TIMEOUT",
        "HOSTLINE_TIMEOUT_STATUS",
    ]
    assert all(row["value"] is None for row in report["settings"] if row["is_wrong"])
    rows = {(row["guard"], row["name"]): (row["value"], row["source"]) for row in report["settings"]}
    assert rows["canonical host", "host"] == ("example.com", "HOSTLINE_CANONICAL_HOST")
    assert rows["canonical host", "status"] == (301, "default")
    assert main(["config"]) == 1
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "service_timeout wrong HOSTLINE_SERVICE_TIMEOUT" in lines


@pytest.mark.parametrize(
    ("body", "wrong"), (("Sorry", []), (None, ["HOSTLINE_TIMEOUT_CONTENT_TYPE"])), ids=("body", "no body")
)
def test_what_is_wrong_without_another_variable(body, wrong):
    environ = {"HOSTLINE_TIMEOUT_CONTENT_TYPE": "text/html", "HOSTLINE_NONSENSE": "1"}
    environ |= {"HOSTLINE_TIMEOUT_BODY": body} if body else {}
    assert [row.source for row in Configuration.of(environ).settings if row.is_wrong] == wrong


@pytest.mark.parametrize(("signal", "shown"), (("SIGURG", "SIGURG"), ("35", "35")))
def test_signals_have_names(signal, shown):
    rows = {row.name: row.value for row in Configuration.of({"HOSTLINE_TIMEOUT_SIGNAL": signal}).settings}
    assert rows["signal"] == shown


# Warnings

HEROKU = {"DYNO": "web.1"}
HOST = {"HOSTLINE_CANONICAL_HOST": "example.com"}


@pytest.mark.parametrize(
    ("environ", "ids"),
    (
        ({}, []),
        ({**HEROKU, **HOST}, []),
        ({**HEROKU, "HOSTLINE_SERVICE_TIMEOUT": "30"}, ["service-timeout-heroku"]),
        ({**HEROKU, "HOSTLINE_SERVICE_TIMEOUT": "29.5"}, []),
        ({**HEROKU, "CI": "1", "HOSTLINE_SERVICE_TIMEOUT": "30"}, []),
        ({**HEROKU, "HOSTLINE_SERVICE_TIMEOUT": "off"}, ["service-timeout-heroku"]),
        ({**HEROKU, "HOSTLINE_WAIT_TIMEOUT": "off"}, ["wait-timeout-heroku"]),
        ({**HEROKU, "HOSTLINE_WAIT_TIMEOUT": "31"}, ["wait-timeout-heroku"]),
        ({**HEROKU, "HOSTLINE_STREAM_TIMEOUT": "54"}, []),
        ({**HEROKU, "HOSTLINE_STREAM_TIMEOUT": "55"}, ["stream-timeout-heroku"]),
        ({**HEROKU, **HOST, "HOSTLINE_CANONICAL_TRUST_FORWARDED_HOST": "on"}, ["forwarded-host-heroku"]),
        ({**HEROKU, "HOSTLINE_TIMEOUT_TRUST_TIMEOUT_HEADER": "grpc-timeout"}, ["timeout-header-heroku"]),
        ({"HOSTLINE_SERVICE_TIMEOUT": "5", "RACK_TIMEOUT_SERVICE_TIMEOUT": "6"}, ["shadowed-variable"]),
        ({**HOST, "CANONICAL_HOST": "example.org"}, ["shadowed-variable"]),
        ({"HOSTLINE_CANONICAL_SCHEME": "https"}, ["no-host"]),
        ({**HOST, "HOSTLINE_CANONICAL_SCHEME": "https"}, ["https-unseen"]),
        ({**HOST, **HEROKU, "HOSTLINE_CANONICAL_SCHEME": "https"}, []),
        ({**HOST, "FORWARDED_ALLOW_IPS": "*", "HOSTLINE_CANONICAL_SCHEME": "https"}, []),
        ({**HOST, "HOSTLINE_CANONICAL_REPORT_ONLY": "on"}, ["report-only"]),
        ({**HOST, "HOSTLINE_CANONICAL_IGNORE": "*"}, ["pattern"]),
        ({**HOST, "HOSTLINE_CANONICAL_ONLY": "example.com"}, ["only-canonical"]),
        ({**HOST, "HOSTLINE_CANONICAL_ONLY": "example.com,www.example.com"}, []),
        ({"HOSTLINE_TIMEOUT_MODE": "report"}, ["report-mode"]),
        ({"HOSTLINE_SERVICE_TIMEOUT": "31"}, ["service-beyond-wait"]),
        ({"HOSTLINE_SERVICE_TIMEOUT": "31", "HOSTLINE_SERVICE_PAST_WAIT": "on"}, []),
        ({"HOSTLINE_TIMEOUT_FOR": "/a=31,/b=30,/c=off"}, ["service-beyond-wait"]),
        ({"HOSTLINE_TIMEOUT_FOR": "/a=31", "HOSTLINE_SERVICE_PAST_WAIT": "on"}, []),
        ({"HOSTLINE_TIMEOUT_FOR": "/a=31", "HOSTLINE_WAIT_TIMEOUT": "off"}, []),
        ({**HEROKU, "HOSTLINE_TIMEOUT_FOR": "/a=30,/b=29"}, ["service-timeout-heroku"]),
        ({**HEROKU, "HOSTLINE_TIMEOUT_FOR": "/a=off"}, ["service-timeout-heroku"]),
        ({"HOSTLINE_WARN_AFTER": "15"}, ["warn-after"]),
        ({"HOSTLINE_WARN_AFTER": "15", "HOSTLINE_TIMEOUT_FOR": "/a=16"}, []),
        ({"HOSTLINE_WARN_AFTER": "16", "HOSTLINE_TIMEOUT_FOR": "/a=16"}, ["warn-after"]),
        ({"HOSTLINE_WARN_AFTER": "15", "HOSTLINE_TIMEOUT_FOR": "/a=off"}, []),
        ({"HOSTLINE_WARN_AFTER": "15", "HOSTLINE_SERVICE_TIMEOUT": "off"}, []),
        ({"HOSTLINE_WARN_AFTER": "14"}, []),
        ({"HOSTLINE_TERM_ON_TIMEOUT": "1"}, ["term-on-timeout"]),
        ({"HOSTLINE_TIMEOUT_SIGNAL": "USR1"}, ["signal-taken"]),
        ({"GUNICORN_CMD_ARGS": "--workers=2"}, []),
        ({"GUNICORN_CMD_ARGS": "-t 15"}, ["gunicorn-timeout"]),
        ({"GUNICORN_CMD_ARGS": "-t 20", "HOSTLINE_TIMEOUT_FOR": "/a=20,/b=19"}, ["gunicorn-timeout"]),
        ({"GUNICORN_CMD_ARGS": "--timeout=0"}, []),
        ({"GUNICORN_CMD_ARGS": "--timeout 5 --threads 4"}, []),
        ({"GUNICORN_CMD_ARGS": "--timeout 5 -k gevent"}, []),
        ({"GUNICORN_CMD_ARGS": "-w 2", "HOSTLINE_SERVICE_TIMEOUT": "off"}, ["gunicorn-timeout"]),
        ({"GUNICORN_CMD_ARGS": "--timeout soon"}, []),
        ({"GUNICORN_CMD_ARGS": "'"}, []),
        ({"GUNICORN_CMD_ARGS": "-k eventlet"}, ["eventlet"]),
        ({"GUNICORN_CMD_ARGS": "-k eventlet", "HOSTLINE_TIMEOUT_MODE": "report"}, ["report-mode"]),
    ),
    ids=str,
)
def test_warnings(environ, ids):
    configuration = Configuration.of(environ)
    assert configuration.problems == ()
    assert [each.id for each in configuration.warnings] == ids


#: As much as can be wrong at once.
MOST = {
    **HEROKU,
    **HOST,
    "HOSTLINE_CANONICAL_IGNORE": "*",
    "HOSTLINE_CANONICAL_ONLY": "example.com",
    "HOSTLINE_CANONICAL_REPORT_ONLY": "on",
    "HOSTLINE_CANONICAL_SCHEME": "https",
    "HOSTLINE_CANONICAL_TRUST_FORWARDED_HOST": "on",
    "HOSTLINE_CANONICAL_TRUST_FORWARDED_PROTO": "off",
    "HOSTLINE_SERVICE_TIMEOUT": "60",
    "HOSTLINE_STREAM_TIMEOUT": "60",
    "HOSTLINE_TERM_ON_TIMEOUT": "1",
    "HOSTLINE_TIMEOUT_FOR": "/reports=70s",
    "HOSTLINE_TIMEOUT_MODE": "report",
    "HOSTLINE_TIMEOUT_SIGNAL": "TERM",
    "HOSTLINE_TIMEOUT_TRUST_TIMEOUT_HEADER": "grpc-timeout",
    "HOSTLINE_WAIT_TIMEOUT": "40",
    "HOSTLINE_WARN_AFTER": "70",
    "GUNICORN_CMD_ARGS": "-t 30",
}


def test_each_warning_is_a_sentence_and_more():
    warnings = Configuration.of(MOST).warnings
    assert len({each.id for each in warnings}) == 15
    for each in warnings:
        assert each.text.endswith(".")


def test_warnings_call_settings_as_who_reads_them_writes_them():
    """By their variables, which are Django's settings; not as arguments."""
    text = " ".join(each.text for each in Configuration.of(MOST).warnings)
    text += " ".join(each.text for each in Configuration.of({"HOSTLINE_CANONICAL_SCHEME": "https"}).warnings)
    named = set(re.findall(r"HOSTLINE_\w+", text))
    assert named - {each.variable for each in EVERY} == set()
    assert named >= set(MOST) - {*HEROKU, "GUNICORN_CMD_ARGS"}
    assert set(re.findall(r"\w+", text)) & {each.name for each in EVERY if "_" in each.name} == set()


def test_a_path_with_a_limit_of_its_own_is_named():
    told = [each.text for each in Configuration.of(MOST).warnings if "/reports" in each.text]
    assert len(told) == 3
    for text in told:
        assert "/reports in HOSTLINE_TIMEOUT_FOR" in text
        assert "70 s" in text


@pytest.mark.parametrize(("mode", "ended"), (("raise", "aborted"), ("report", "reported")))
def test_what_happens_before_a_warning_would(mode, ended):
    environ = {"HOSTLINE_WARN_AFTER": "20", "HOSTLINE_TIMEOUT_MODE": mode}
    text = Configuration.of(environ).warnings[-1].text
    assert text.endswith(f"because requests are {ended} after 15 s.")


def test_only_a_callable_knows_its_limits():
    timeout = RequestTimeoutSettings.load({"timeout_for": lambda _: 60, "warn_after": 20}, {})
    assert advice(Situation(CanonicalHostSettings.load({}, {}), timeout, {})) == []


@pytest.mark.parametrize(
    ("guard", "sink", "module"),
    (
        ("CANONICAL", "prometheus", "prometheus_client"),
        ("CANONICAL", "opentelemetry", "opentelemetry"),
        ("TIMEOUT", "prometheus", "prometheus_client"),
        ("TIMEOUT", "opentelemetry", "opentelemetry.trace"),
        ("TIMEOUT", "sentry", "sentry_sdk"),
    ),
)
def test_a_sink_without_its_library(guard, sink, module, monkeypatch):
    monkeypatch.delitem(sys.modules, "opentelemetry.trace", raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    variable = f"HOSTLINE_{guard}_OBSERVERS"
    [missing] = Configuration.of({variable: f"log,{sink}"}).warnings
    assert missing.id == "missing-library"
    assert missing.text.startswith(f"{variable} has {sink}, ")
    assert missing.text.endswith(f'pip install "hostline[{sink}]"')


def test_sinks_with_their_libraries():
    for library in ("prometheus_client", "opentelemetry.trace", "sentry_sdk"):
        pytest.importorskip(library, reason=f"not installed: {library}")
    assert Configuration.of({"HOSTLINE_TIMEOUT_OBSERVERS": ",".join(SINKS)}).warnings == ()


def test_a_python_on_which_nothing_can_be_aborted(monkeypatch):
    monkeypatch.setattr(sys.implementation, "name", "pypy")
    situation = Situation(CanonicalHostSettings.load({}, {}), RequestTimeoutSettings.load({}, {}), {})
    assert [each.id for each in advice(situation)] == ["python"]


# The command itself


def test_python_m_hostline(monkeypatch, environment, capsys):
    environment(HOSTLINE_SERVICE_TIMEOUT="x")
    monkeypatch.setattr(sys, "argv", ["hostline", "config", "--json"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("hostline", run_name="__main__")
    assert caught.value.code == 1
    assert len(json.loads(capsys.readouterr().out)["problems"]) == 1


@pytest.mark.parametrize("arguments", ([], ["confg"], ["config", "--jsn"], ["check"], ["check", "ftp://x"]))
def test_a_command_written_wrongly(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "hostline" in capsys.readouterr().err


def test_demo_without_its_packages(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setitem(sys.modules, "hostline.demo", None)
    assert main(["demo", "--scenes"]) == 1
    assert "hostline.demo" in capsys.readouterr().err


def test_no_warning_is_printed_beside_the_report(environment, capsys):
    environment(HOSTLINE_CANONICAL_HOST="example.com", HOSTLINE_CANONICAL_IGNORE="*")
    assert main(["config"]) == 0
    assert capsys.readouterr().err == ""


def test_nobody_reads_to_the_end(monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", pipe)
        assert main(["config"]) == 0
    # And nothing is raised when what is left is flushed.


def test_an_output_that_cannot_hold_every_character(monkeypatch, environment):
    environment(HOSTLINE_CANONICAL_HOST="b\u00fc cher")
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "ascii"))
    assert main(["config"]) == 1
    assert rb"b\xfc cher" in written.getvalue()
