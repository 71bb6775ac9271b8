"""What Sentry is sent: by itself, and beside the SDK's own integrations (in a process of its own)."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import sentry_sdk
from sentry_sdk.transport import Transport

from hostline import RequestExpiryError, RequestTimeoutError, RequestTimeoutException, SettingsError
from hostline.observers import RequestEvent, State
from hostline.observers.sentry import SentryObserver
from sinks import WAITED, ask_for_one_of_each, shop
from timeouts import SHORT, eventually

HERE = Path(__file__).parent


class Kept(Transport):
    """Keeps the events that would be sent."""

    def __init__(self, options=None):
        super().__init__(options)
        self.events = []

    def capture_envelope(self, envelope):
        self.events += [item.payload.json for item in envelope.items if item.type == "event"]


@pytest.fixture
def sent():
    """The events sent, of an SDK that patches nothing."""
    transport = Kept({"dsn": "http://key@127.0.0.1:9/1"})
    sentry_sdk.init(
        "http://key@127.0.0.1:9/1",
        transport=transport,
        default_integrations=False,
        auto_enabling_integrations=False,
        project_root=str(HERE),
    )
    yield transport.events
    sentry_sdk.get_global_scope().set_client(None)


@pytest.mark.parametrize("limit", ("most", "most_per_issue"))
@pytest.mark.parametrize("value", ("x", 0, -1, 2.5, True, None))
def test_a_limit_is_a_whole_number(limit, value):
    with pytest.raises(
        SettingsError, match=rf"^{limit}={value!r} is no limit\. Write a whole number from 1 on\.$"
    ):
        SentryObserver(**{limit: value})


def test_no_route_need_be_known():
    SentryObserver(most_routes=0)
    with pytest.raises(
        SettingsError, match=r"^most_routes=-1 is no limit\. Write a whole number from 0 on\.$"
    ):
        SentryObserver(most_routes=-1)


def event(state=State.TIMED_OUT, **fields):
    values = {
        "id": "9e0b71ad",
        "method": "GET",
        "path": "/a/7",
        "wait": None,
        "service": 15.0,
        "timeout": 15.0,
    }
    values |= {"term": False, "stack": None, "route": "/a/{id}", "trace": None}
    return RequestEvent(state=state, **{**values, **fields})


def test_one_of_each(sent):
    ask_for_one_of_each(shop(SentryObserver()))
    assert eventually(lambda: len(sent) >= 2)
    timed_out, expired = sorted(sent, key=lambda each: each["fingerprint"], reverse=True)
    assert len(sent) == 2, "neither the completed one nor the redirect is an error"
    assert timed_out["fingerprint"] == ["hostline", "timed_out", "/reports/<int:year>"]
    [exception] = timed_out["exception"]["values"]
    assert exception["type"] == "RequestTimeoutError"
    assert exception["value"] == "The request ran longer than its timeout."
    assert timed_out["transaction"] == "/reports/<int:year>"
    assert timed_out["level"] == "error"
    assert timed_out["request"] == {"method": "GET", "url": "/reports/2026"}
    assert timed_out["tags"]["hostline.state"] == "timed_out"
    assert timed_out["tags"]["request_id"] == "9e0b71ad"
    assert timed_out["contexts"]["hostline"]["timeout"] >= SHORT
    assert timed_out["contexts"]["hostline"]["service"] >= SHORT
    assert expired["fingerprint"] == ["hostline", "expired", ""]
    assert expired["exception"]["values"][0]["type"] == "RequestExpiryError"
    assert expired["contexts"]["hostline"]["wait"] >= WAITED - 1


def test_the_stack_trace_is_that_of_the_slow_code(sent):
    ask_for_one_of_each(shop(SentryObserver()))
    assert eventually(lambda: len(sent) >= 2)
    [frames] = [
        value["stacktrace"]["frames"]
        for each in sent
        for value in each["exception"]["values"]
        if "stacktrace" in value
    ]
    place = next(number for number, frame in enumerate(frames) if frame["function"] == "report")
    view, called = frames[place : place + 2]
    assert (called["function"], called["module"]) == ("be_late", "sinks")
    assert view["filename"] == "sinks.py"
    assert Path(view["abs_path"]) == HERE / "sinks.py"
    assert view["in_app"] is True
    assert view["context_line"] == "        be_late()  # the slow line"
    assert view["pre_context"][-1] == "    def report(year: int) -> str:"
    assert len(view["post_context"]) == 5
    flask = [frame for frame in frames if frame["module"] == "flask.app"]
    assert flask
    assert all((frame["filename"], frame["in_app"]) == ("flask/app.py", False) for frame in flask)


def test_frames_of_the_standard_library_and_of_what_has_no_source(sent):
    trace = ((os.__file__, 10, "walk"), ("<string>", 1, "<module>"), (__file__, 1, "test"))
    SentryObserver()(event(trace=trace))
    [frames] = [value["stacktrace"]["frames"] for value in sent[0]["exception"]["values"]]
    library, made, own = frames
    assert (library["module"], library["filename"], library["in_app"]) == ("os", "os.py", False)
    assert "context_line" not in made
    assert own["in_app"] is True
    assert own["pre_context"] == []


def test_a_package_s_own_module_is_found_below_it(sent):
    SentryObserver()(event(trace=((json.__file__, 1, "loads"),)))
    [frame] = sent[0]["exception"]["values"][0]["stacktrace"]["frames"]
    assert (frame["module"], frame["filename"]) == ("json", "json/__init__.py")


def test_without_a_route_an_issue_is_a_place(sent):
    trace = ((os.__file__, 10, "walk"), (__file__, 1, "handler"), (os.__file__, 10, "walk"))
    SentryObserver()(event(route=None, trace=trace))
    assert sent[0]["fingerprint"] == ["hostline", "timed_out", "test_observers_sentry.py:handler"]
    assert sent[0]["tags"]["hostline.route"] == ""


def test_source_lines_only_where_the_sdk_sends_them(sent):
    sentry_sdk.get_client().options["include_source_context"] = False
    SentryObserver()(event(trace=((__file__, 1, "test"),)))
    assert "context_line" not in sent[0]["exception"]["values"][0]["stacktrace"]["frames"][0]


def test_an_outage_is_no_flood(sent):
    now = [100.0]
    observer = SentryObserver(most_per_issue=3, clock=lambda: now[0])
    for _ in range(1_000):
        observer(event())
        now[0] += 0.05
    assert len(sent) == 3
    now[0] = 160.0
    observer(event())
    assert [each["contexts"]["hostline"]["left_out"] for each in sent] == [0, 0, 0, 997]


def test_an_outage_of_everything_is_none_either(sent):
    now = [100.0]
    observer = SentryObserver(most=10, clock=lambda: now[0])
    for number in range(100):
        observer(event(route=f"/route/{number}"))
    assert len(sent) == 10
    now[0] = 161.0
    observer(event(route="/route/99"))
    assert sent[-1]["contexts"]["hostline"]["left_out"] == 1


def test_routes_made_up_at_run_time_are_one_issue(sent):
    observer = SentryObserver(most_routes=1)
    for number in range(3):
        observer(event(route=f"/{number}"))
    assert [each["fingerprint"][-1] for each in sent] == ["/0", "other", "other"]


def test_breadcrumbs_of_another_are_not_sent_with_it(sent):
    sentry_sdk.add_breadcrumb(message="of something else")
    SentryObserver()(event())
    assert sent[0].get("breadcrumbs", {}).get("values", []) == []


def _logged(name, **fields):
    record = logging.LogRecord(name, logging.ERROR, __file__, 1, "said", (), None)
    record.__dict__.update(fields)
    return {"log_record": record}


def test_what_it_sends_by_itself_is_dropped(sent):
    SentryObserver()
    for error in (RequestTimeoutError(), RequestExpiryError(), RequestTimeoutException()):
        sentry_sdk.capture_exception(error)
    for state in ("timed_out", "expired"):
        sentry_sdk.capture_event({"message": "said"}, hint=_logged("hostline", state=state))
    assert sent == []


def test_other_errors_pass(sent):
    SentryObserver()
    sentry_sdk.capture_exception(TimeoutError("the app's own"))
    sentry_sdk.capture_message("said by the app")
    sentry_sdk.capture_event({"message": "said"}, hint=_logged("hostline"))
    sentry_sdk.capture_event({"message": "said"}, hint=_logged("the app's", state="expired"))
    assert len(sent) == 4


@pytest.fixture(scope="module")
def beside_integrations():
    run = subprocess.run(
        [sys.executable, str(HERE / "sentry_program.py")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(HERE), os.environ.get("PYTHONPATH", "")))},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.slow
def test_nothing_is_sent_twice(beside_integrations):
    assert len(beside_integrations) == 12
    for case, found in beside_integrations.items():
        if case.endswith("respond"):
            assert found["statuses"] == [200, 504, 500], case
        kinds = sorted(each["exception"]["values"][-1]["type"] for each in found["events"])
        assert kinds == ["RequestTimeoutError", "ValueError"], case


@pytest.mark.slow
def test_beside_integrations_the_issue_is_the_route_s(beside_integrations):
    for case, found in beside_integrations.items():
        [fingerprint] = [each["fingerprint"] for each in found["events"] if "fingerprint" in each]
        route = "/reports/<int:year>" if case.startswith("Flask") else "/reports/{year}"
        assert fingerprint == ["hostline", "timed_out", route], case


@pytest.mark.slow
def test_beside_integrations_the_slow_line_is_in_the_stack_trace(beside_integrations):
    for case, found in beside_integrations.items():
        [frames] = [
            each["exception"]["values"][0]["stacktrace"]["frames"]
            for each in found["events"]
            if "fingerprint" in each
        ]
        slow = [frame for frame in frames if "# the slow line" in frame.get("context_line", "")]
        assert len(slow) == 1, case
