"""The log line: what an operator greps, and what no client can forge."""

import asyncio
import json
import logging
import re
from functools import partial

import flask
import pytest
from fastapi import FastAPI

from hostline import observers
from hostline._requests import RequestEvent, State, clean_request_id, reporter
from hostline.asgi import RequestTimeoutMiddleware as AsgiGuard
from hostline.observers.logging import LEVELS, extra_fields, format_line, log
from hostline.wsgi import RequestTimeoutMiddleware
from timeouts import LONG, SHORT, Client, environ, hello, in_thread, late, linger, scope, serve


def event(state=State.COMPLETED, **more):
    fields = {
        "state": state,
        "id": "abc",
        "method": "GET",
        "path": "/",
        "wait": None,
        "service": None,
        "timeout": None,
        "term": False,
        "stack": None,
    }
    return RequestEvent(**{**fields, **more})


@pytest.mark.parametrize(
    ("made", "line"),
    (
        (
            event(wait=0.369, timeout=10.0, service=0.015),
            "source=hostline id=abc wait=369ms timeout=10000ms service=15ms state=completed",
        ),
        (event(State.READY, timeout=15), "source=hostline id=abc timeout=15000ms state=ready"),
        (event(State.ACTIVE), "source=hostline id=abc state=active"),
        (
            event(State.EXPIRED, wait=31.0, timeout=30),
            "source=hostline id=abc wait=31000ms timeout=30000ms state=expired",
        ),
        (event(wait=0.0, service=0.0004), "source=hostline id=abc wait=0ms service=0ms state=completed"),
        (event(State.TIMED_OUT, term=True), "source=hostline id=abc state=timed_out term=true"),
    ),
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_the_line(made, line):
    assert format_line(made) == line


@pytest.mark.parametrize(
    ("state", "level"),
    (
        (State.READY, logging.INFO),
        (State.ACTIVE, logging.DEBUG),
        (State.COMPLETED, logging.INFO),
        (State.EXPIRED, logging.ERROR),
        (State.TIMED_OUT, logging.ERROR),
    ),
)
def test_levels(state, level, caplog):
    with caplog.at_level(logging.DEBUG, "hostline"):
        log(event(state))
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("hostline", level)
    assert LEVELS[state] == level


@pytest.mark.parametrize(
    "level", (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)
)
def test_it_wants_what_would_be_written(level, caplog):
    with caplog.at_level(level, "hostline"):
        for state in State:
            assert log.wants(state) is (LEVELS[state] >= level)
        assert log.is_attentive() is (level <= logging.INFO)


@pytest.mark.parametrize(
    "given_id",
    (
        "%s%d%(x)s",
        "abc\r\nsource=hostline id=forged state=expired",
        "a b\tstate=expired",
        "\x1b[2J",
        "\u2028x",
    ),
)
def test_an_id_forges_nothing(given_id, caplog):
    with caplog.at_level(logging.INFO, "hostline"):
        log(event(id=clean_request_id(given_id)))
    (record,) = caplog.records
    message = record.getMessage()
    assert message.isascii()
    assert message.isprintable()
    assert message.count(" ") == 2
    assert message.endswith(" state=completed")
    assert message == f"source=hostline id={clean_request_id(given_id)} state=completed"


def test_the_fields_of_a_record(caplog):
    made = event(
        State.TIMED_OUT,
        wait=0.5,
        timeout=15.0,
        service=15.001,
        method="PUT",
        path="/\n/x",
        stack="  File ...",
    )
    with caplog.at_level(logging.INFO, "hostline"):
        log(made)
    (record,) = caplog.records
    expected = {
        "request_id": "abc",
        "method": "PUT",
        "path": "/\n/x",
        "wait": 0.5,
        "timeout": 15.0,
        "service": 15.001,
        "state": "timed_out",
        "stack": "  File ...",
        "route": None,
    }
    assert extra_fields(made) == expected
    assert {name: getattr(record, name) for name in expected} == expected
    assert type(record.state) is str
    assert json.loads(json.dumps(expected)) == expected
    assert "/\n/x" not in record.getMessage(), "the path is a client's, and stays out of the line"
    assert record.getMessage().endswith(" state=timed_out\n  File ...")


def test_named():
    def own(event):
        pass

    assert not observers.named(())
    both = observers.named(["log", own])
    assert [each.observer for each in both._observers] == [log, own]
    assert observers.named(["log"]).are_attentive == log.is_attentive


def _about_requests(caplog):
    """The guard may have had something to say at its start."""
    return [record for record in caplog.records if record.getMessage().startswith("source=hostline")]


def test_the_line_of_the_slow_code_is_in_the_log(caplog):
    def app(environ, start_response):
        linger()  # the slow line

    with caplog.at_level(logging.INFO, "hostline"):
        served = serve(
            RequestTimeoutMiddleware(app, service_timeout=SHORT), environ(HTTP_X_REQUEST_ID="a\r\nb%s")
        )
        assert reporter.flush(20)
    assert served.status == 504
    ready, timed_out = _about_requests(caplog)
    assert ready.getMessage() == "source=hostline id=ab%s timeout=30ms state=ready"
    message = timed_out.getMessage()
    assert message.startswith("source=hostline id=ab%s timeout=30ms service=")
    assert "state=timed_out\n  File " in message
    assert f'File "{__file__}", line ' in message
    assert "linger()  # the slow line" in message
    assert timed_out.stack in message


def _slow_flask():
    app = flask.Flask(__name__)

    @app.get("/")
    def view():
        late()  # the slow line

    return app


def _lines(caplog):
    """The line of the timeout, and its stack's."""
    (record,) = [record for record in caplog.records if getattr(record, "state", "") == "timed_out"]
    line, *stack = record.getMessage().split("\n")
    assert line.endswith("state=timed_out")
    return stack


@pytest.mark.parametrize("road", (in_thread, lambda call: call()), ids=("thread", "main thread"))
def test_the_log_of_a_flask_app(road, caplog):
    guard = RequestTimeoutMiddleware(_slow_flask(), service_timeout=LONG)
    assert road(lambda: serve(guard)).status == 504
    assert reporter.flush(20)
    stack = _lines(caplog)
    assert re.fullmatch(r"  \.\.\. \d+ frames of flask \.\.\.", stack[0])
    assert f'File "{__file__}"' in stack[1]
    assert stack[2] == "    late()  # the slow line"
    assert "site-packages" not in "".join(stack)


def _slow_fastapi():
    app = FastAPI()

    @app.get("/async")
    async def in_the_loop():
        await late(partial(asyncio.sleep, 20))  # the slow line of a task

    @app.get("/def")
    def in_a_thread():
        late()  # the slow line of a thread

    @app.get("/gathered")
    async def gathered():
        await late(lambda: asyncio.gather(asyncio.sleep(20)))  # the slow line behind others

    return app


@pytest.mark.parametrize(
    ("path", "slow_line", "libraries"),
    (
        ("/async", "await late(partial(asyncio.sleep, 20))  # the slow line of a task", "fastapi, starlette"),
        (
            "/gathered",
            "await late(lambda: asyncio.gather(asyncio.sleep(20)))  # the slow line behind others",
            "fastapi, starlette",
        ),
        ("/def", "late()  # the slow line of a thread", "fastapi, starlette, anyio"),
    ),
)
def test_the_log_of_a_fastapi_app(path, slow_line, libraries, run, caplog):
    guard = AsgiGuard(_slow_fastapi(), service_timeout=LONG)
    assert run(Client().ask(guard, scope(path))).status == 504
    assert reporter.flush(20)
    stack = _lines(caplog)
    assert f"    {slow_line}" in stack
    assert stack[0].startswith("  ... ")
    for library in libraries.split(", "):
        assert library in stack[0]
    assert len(stack) < 12, "what the frameworks have in between is left out"


def test_whole_stacks_are_to_be_had(caplog):
    guard = RequestTimeoutMiddleware(_slow_flask(), service_timeout=LONG)
    with caplog.at_level(logging.DEBUG, "hostline.stack"):
        assert serve(guard).status == 504
        assert reporter.flush(20)
    stack = "\n".join(_lines(caplog))
    assert "in dispatch_request" in stack
    assert "... " not in stack


def test_without_info_nothing_but_errors_is_written(caplog):
    with caplog.at_level(logging.WARNING, "hostline"):
        assert serve(RequestTimeoutMiddleware(hello)).status == 200
    assert _about_requests(caplog) == []


def test_in_good_time_two_lines(caplog):
    with caplog.at_level(logging.INFO, "hostline"):
        serve(RequestTimeoutMiddleware(hello), environ(HTTP_X_REQUEST_ID="abc"))
    ready, completed = (record.getMessage() for record in _about_requests(caplog))
    assert ready == "source=hostline id=abc timeout=15000ms state=ready"
    assert completed.startswith("source=hostline id=abc timeout=15000ms service=")
    assert completed.endswith("ms state=completed")
