"""How long a request may run: the rules, the vectors through the rules and through both guards."""

import asyncio
import json
from datetime import timedelta
from math import inf
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostline import RequestTimeoutSettings, SettingsError, _asgi_timeout, _budget, _wsgi_timeout
from hostline._budget import Expired, Run
from hostline._requests import State
from timeouts import Client, environ, hello, hello_asgi, scope, serve

NOW = 1_700_000_000.0
VECTORS = [
    json.loads(line) for line in (Path(__file__).parent / "vectors" / "budget.jsonl").read_text().splitlines()
]


@pytest.fixture(params=VECTORS, ids=lambda vector: vector["id"])
def vector(request):
    return request.param


def _about(number):
    return None if number is None else pytest.approx(number, abs=1e-6)


def test_vector_by_the_rules(vector):
    settings = RequestTimeoutSettings.load(vector["settings"], {})
    headers, expected = vector["headers"], vector["hostline"]
    wait = None
    if settings.wait_timeout is not None:
        wait = _budget.read_wait(headers.get("x-request-start", ""), vector["now"])
    has_body = _budget.announces_body(headers.get("content-length"), headers.get("transfer-encoding"))
    verdict = _budget.decide(
        settings,
        wait=wait,
        has_body=has_body,
        service_timeout=_budget.ServiceTimeouts(settings).of(None, b""),
    )
    assert type(verdict) is {"run": Run, "expired": Expired}[expected["outcome"]]
    assert verdict.wait == _about(expected["wait"])
    assert verdict.timeout == _about(expected["timeout"])


def _check(request, status, expected):
    if expected["outcome"] == "expired":
        assert (request.state, status) == (State.EXPIRED, 503)
    else:
        assert (request.state, status) == (State.COMPLETED, 200)
    assert request.wait == _about(expected["wait"])
    assert request.timeout == _about(expected["timeout"])


# A budget of a microsecond has run out before the app has returned.
_TOO_SHORT = {"wait-27-tiny-left"}


def test_vector_through_wsgi(vector, monkeypatch):
    monkeypatch.setattr(_wsgi_timeout, "time", SimpleNamespace(time=lambda: vector["now"]))
    names = {"content-length": "CONTENT_LENGTH"}
    headers = {
        names.get(name, "HTTP_" + name.upper().replace("-", "_")): value
        for name, value in vector["headers"].items()
    }
    env = environ(**headers)
    mode = {"mode": "report"} if vector["id"] in _TOO_SHORT else {}
    guard = _wsgi_timeout.RequestTimeoutMiddleware(hello, observers=(), **vector["settings"], **mode)
    served = serve(guard, env, validate=False)  # the validator refuses what some clients send
    if mode:
        assert env["hostline.request"].timeout == _about(vector["hostline"]["timeout"])
    else:
        _check(env["hostline.request"], served.status, vector["hostline"])


def test_vector_through_asgi(vector, monkeypatch):
    monkeypatch.setattr(_asgi_timeout, "time", SimpleNamespace(time=lambda: vector["now"]))
    headers = [(name.encode(), value.encode("latin-1")) for name, value in vector["headers"].items()]
    asked = scope(headers=headers)
    mode = {"mode": "report"} if vector["id"] in _TOO_SHORT else {}
    guard = _asgi_timeout.RequestTimeoutMiddleware(hello_asgi, observers=(), **vector["settings"], **mode)
    client = asyncio.run(Client().ask(guard, asked))
    if mode:
        assert asked["hostline.request"].timeout == _about(vector["hostline"]["timeout"])
    else:
        _check(asked["hostline.request"], client.status, vector["hostline"])


def test_asgi_two_stamps_say_nothing():
    asked = scope(headers=[(b"x-request-start", b"1"), (b"x-request-start", b"2")])
    asyncio.run(Client().ask(_asgi_timeout.RequestTimeoutMiddleware(hello_asgi, observers=()), asked))
    assert asked["hostline.request"].wait is None


@pytest.mark.parametrize(
    ("text", "stamp"),
    (
        ("1700000000", NOW),
        ("t=1700000000", NOW),
        ("1700000000000", NOW),
        ("1700000000000000", NOW),
        ("1700000000000000000", NOW),
        ("1700000000.000", NOW),
        ("t=1700000000.5", NOW + 0.5),
        ("0.5", 0.5),
        ("1700000000.", None),
        (".5", None),
        ("170000000", None),
        ("17000000000", None),
        ("t=", None),
        ("T=1700000000", None),
        ("tt=1700000000", None),
        ("-1700000000", None),
        (" 1700000000", None),
        ("1700000000\n", None),
        ("1700000000,1700000000", None),
        ("١٧٠٠٠٠٠٠٠٠", None),  # noqa: RUF001 - digits, but not a proxy's
        ("nan", None),
        ("inf", None),
        ("1" * 21 + ".5", None),
        ("1" * 10_000, None),
    ),
)
def test_parse_request_start(text, stamp):
    assert _budget.parse_request_start(text) == stamp


@pytest.mark.parametrize(
    ("stamp", "wait"),
    (
        (NOW, 0.0),
        (NOW - 0.25, 0.25),
        (NOW + 5, 0.0),
        (NOW - 86_400, 86_400.0),
        (NOW + 86_400, 0.0),
        (NOW - 86_400.5, None),
        (NOW + 86_400.5, None),
    ),
)
def test_a_stamp_counts_within_a_day(stamp, wait):
    assert _budget.read_wait(f"{stamp:.3f}", NOW) == wait


@given(st.text(), st.floats(0, 4e9))
def test_reading_a_header_is_total(text, now):
    wait = _budget.read_wait(text, now)
    assert wait is None or wait >= 0


_STAMPS = st.from_regex(r"\A(t=)?[0-9]{1,20}(\.[0-9]{1,20})?\Z")


@given(_STAMPS, st.floats(0, 4e9))
def test_reading_a_stamp_is_total_and_a_wait_is_no_more_than_a_day(text, now):
    wait = _budget.read_wait(text, now)
    assert wait is None or 0 <= wait <= 86_400


@given(st.one_of(st.none(), st.text()), st.one_of(st.none(), st.text()))
def test_looking_for_a_body_is_total(content_length, transfer_encoding):
    assert _budget.announces_body(content_length, transfer_encoding) in (True, False)


@pytest.mark.parametrize(
    ("content_length", "transfer_encoding", "expected"),
    (
        (None, None, False),
        ("", "", False),
        ("0", None, False),
        ("000", None, False),
        ("1", None, True),
        (" 12 ", None, True),
        ("+5", None, False),
        ("-5", None, False),
        ("5,5", None, False),
        ("²", None, False),
        ("٣", None, False),
        (None, "chunked", True),
        (None, "Chunked", True),
        (None, "gzip, chunked ", True),
        (None, "chunked, gzip", False),
        ("0", "chunked", True),
        ("5", "identity", True),
    ),
)
def test_announces_body(content_length, transfer_encoding, expected):
    assert _budget.announces_body(content_length, transfer_encoding) is expected


def _settings(**options):
    return RequestTimeoutSettings.load(options, {})


@pytest.mark.parametrize(
    ("answer", "timeout"),
    ((..., 15.0), (3, 3.0), (0.5, 0.5), (timedelta(seconds=2), 2.0), (0, None), (None, None), (False, None)),
)
def test_timeout_for(answer, timeout):
    assert _budget.ServiceTimeouts(_settings(timeout_for=lambda _: answer)).of(None, b"") == timeout


def test_timeout_for_is_given_the_request():
    asked = object()
    assert (
        _budget.ServiceTimeouts(_settings(timeout_for=lambda request: 7 if request is asked else 8)).of(
            asked, b""
        )
        == 7
    )


@pytest.mark.parametrize("answer", ("15", -1, inf, True, [], object()))
def test_timeout_for_that_answers_nonsense(answer):
    with pytest.raises(SettingsError, match="timeout_for"):
        _budget.ServiceTimeouts(_settings(timeout_for=lambda _: answer)).of(None, b"")


def test_without_timeout_for():
    assert _budget.ServiceTimeouts(_settings()).of(None, b"") == 15
    assert _budget.ServiceTimeouts(_settings(service_timeout=0)).of(None, b"") is None


@pytest.mark.parametrize(
    ("options", "wait", "has_body", "verdict"),
    (
        ({}, None, False, Run(None, 15)),
        ({}, 0.0, False, Run(0.0, 15)),
        ({}, 15.0, False, Run(15.0, 15)),
        ({}, 20.0, False, Run(20.0, 10.0)),
        ({}, 29.0, False, Run(29.0, 1.0)),
        ({}, 30.0, False, Expired(30.0, 30)),
        ({}, 30.0, True, Run(30.0, 15)),
        ({}, 80.0, True, Run(80.0, 10.0)),
        ({}, 90.0, True, Expired(90.0, 90)),
        ({"wait_overtime": 0}, 30.0, True, Expired(30.0, 30)),
        ({"wait_timeout": 0}, 100.0, False, Run(100.0, 15)),
        ({"service_past_wait": True}, 29.0, False, Run(29.0, 15)),
        ({"service_timeout": 0}, 29.0, False, Run(29.0, None)),
    ),
)
def test_decide(options, wait, has_body, verdict):
    settings = _settings(**options)
    decided = _budget.decide(
        settings,
        wait=wait,
        has_body=has_body,
        service_timeout=_budget.ServiceTimeouts(settings).of(None, b""),
    )
    assert decided == verdict


@given(
    wait=st.one_of(st.none(), st.floats(0, 86_400)),
    has_body=st.booleans(),
    service=st.one_of(st.none(), st.floats(0.001, 1e6)),
    limit=st.floats(0, 1e6),
    past=st.booleans(),
)
def test_what_may_run_has_a_budget_that_is_positive_and_no_longer_than_its_service_timeout(
    wait, has_body, service, limit, past
):
    settings = _settings(wait_timeout=limit, service_past_wait=past)
    verdict = _budget.decide(settings, wait=wait, has_body=has_body, service_timeout=service)
    if isinstance(verdict, Run):
        assert verdict.timeout is None or 0 < verdict.timeout <= (inf if service is None else service)
    else:
        assert verdict.wait >= verdict.timeout > 0


# Nearly every request is far from any limit, and told so by a short cut


def _reader(settings, kind=str):
    """At NOW on the wall clock, and 0 on the other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_budget, "time", lambda: NOW)
        reader = _budget.WaitReader(settings, kind)
        reader.renew(0.0)
    return reader


def _assert_unhurried_if_told_so(settings, stamp, started):
    reader = _reader(settings)
    octets = _reader(settings, bytes)
    is_unhurried = reader.oldest <= stamp <= reader.newest
    assert is_unhurried == (octets.oldest <= stamp.encode("latin-1") <= octets.newest)
    if is_unhurried:
        wait = reader.since(stamp, started)
        assert wait == octets.since(stamp.encode("latin-1"), started)
        assert wait == (None if settings.wait_timeout is None else _budget.read_wait(stamp, NOW + started))
        timeout = settings.service_timeout
        verdict = _budget.decide(settings, wait=wait, has_body=False, service_timeout=timeout)
        assert verdict == Run(wait, timeout)
    return is_unhurried


_UNITS = (1, 1_000, 1_000_000, 1_000_000_000)
_LIMITS = st.one_of(st.just(0), st.floats(0.001, 200))
_WITHIN_THE_SECOND = st.floats(0, 1, exclude_max=True)


@given(
    offset=st.one_of(st.floats(-1, 100), st.floats(-1e6, 1e6)),
    unit=st.sampled_from(_UNITS),
    limit=_LIMITS,
    service=_LIMITS,
    past=st.booleans(),
    started=_WITHIN_THE_SECOND,
)
def test_who_is_unhurried_has_all_of_the_service_timeout(offset, unit, limit, service, past, started):
    settings = _settings(wait_timeout=limit, service_timeout=service, service_past_wait=past)
    _assert_unhurried_if_told_so(settings, str(int((NOW - offset) * unit)), started)


_OCTETS = st.characters(max_codepoint=255)  # of which an environ's text is made


@given(st.one_of(st.text(_OCTETS), st.text(_OCTETS).map(lambda rest: f"{NOW:.0f}{rest}")), _WITHIN_THE_SECOND)
def test_the_short_cut_is_total(stamp, started):
    _assert_unhurried_if_told_so(_settings(), stamp, started)


@pytest.mark.parametrize("unit", _UNITS)
@pytest.mark.parametrize(
    ("waited", "is_unhurried"), ((0, True), (12, True), (16, False), (-3600, True), (-2 * 86400, False))
)
def test_the_short_cut_takes_what_is_far_from_the_limits(unit, waited, is_unhurried):
    settings = _settings(service_timeout=15, wait_timeout=30)
    assert _assert_unhurried_if_told_so(settings, str((int(NOW) - waited) * unit), 0.5) == is_unhurried


def test_the_short_cut_takes_none_where_the_clock_is_out_of_its_mind():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_budget, "time", lambda: 5.0)
        reader = _budget.WaitReader(_settings(), str)
        reader.renew(0.0)
    assert not reader.oldest <= "1700000000000" <= reader.newest


def test_the_bounds_are_made_anew_each_second():
    reader = _budget.WaitReader(_settings(), str)
    assert reader.until < 0  # never yet
    reader.renew(7.0)
    assert reader.until == 8.0
    assert _budget.WaitReader(_settings(wait_timeout=0), str).until == inf  # there are none


# Design, section 5: such a stamp is ignored, and logged once.


def _warnings(caplog):
    return [record for record in caplog.records if record.levelname == "WARNING"]


def test_wsgi_logs_once_that_a_stamp_is_a_day_off(caplog):
    guard = _wsgi_timeout.RequestTimeoutMiddleware(hello, observers=())
    for stamp in ("1000000000", "1000000001.5", "9999999999"):
        assert serve(guard, environ(HTTP_X_REQUEST_START=stamp)).status == 200
    assert len(_warnings(caplog)) == 1


def test_asgi_logs_once_that_a_stamp_is_a_day_off(caplog):
    guard = _asgi_timeout.RequestTimeoutMiddleware(hello_asgi, observers=())
    for stamp in (b"1000000000", b"1000000001.5", b"9999999999"):
        assert asyncio.run(Client().ask(guard, scope(headers=[(b"x-request-start", stamp)]))).status == 200
    assert len(_warnings(caplog)) == 1


@pytest.mark.parametrize(
    ("path", "timeout"),
    (
        (b"/", 15),
        (b"/reports", 60),
        (b"/reports/7", 60),
        (b"/reportsx", 15),
        (b"/r%65ports/7", 60),
        (b"/reports/big", None),
        (b"/reports/big/7", None),
        (b"/export", 15),
        (b"/export/7", 0.5),
    ),
)
def test_the_longest_path_counts(path, timeout):
    table = {"/export/": 0.5, "/reports": 60, "/reports/big": 0}
    assert _budget.ServiceTimeouts(_settings(timeout_for=table)).of(None, path) == timeout


@pytest.mark.parametrize(
    ("name", "text", "timeout"),
    (
        ("hostline-timeout", "1500", 1.5),
        ("x-envoy-expected-rq-timeout-ms", "20000", 15),  # never longer
        ("hostline-timeout", "0", 15),
        ("hostline-timeout", "", 15),
        ("hostline-timeout", "-5", 15),
        ("hostline-timeout", "1.5", 15),
        ("hostline-timeout", "5,6", 15),
        ("hostline-timeout", "99999999999", 15),
        ("grpc-timeout", "2S", 2),
        ("grpc-timeout", "500m", 0.5),
        ("grpc-timeout", "5000u", 0.005),
        ("grpc-timeout", "1H", 15),
        ("grpc-timeout", "0n", 15),
        ("grpc-timeout", "500", 15),
        ("grpc-timeout", "123456789m", 15),
    ),
)
def test_a_caller_s_time_lowers_the_limit(name, text, timeout):
    assert _budget.lowered(15, (name,), {name: text}.__getitem__, None) == pytest.approx(timeout)


def test_a_caller_s_clock_runs_in_the_queue():
    assert _budget.lowered(None, ("a", "b"), {"a": "5000", "b": "3000"}.__getitem__, 1.0) == 2
    assert _budget.lowered(None, ("a",), {"a": "500"}.__getitem__, 1.0) == _budget._LEAST
    assert _budget.lowered(None, (), {}.__getitem__, 1.0) is None


@pytest.mark.parametrize("ahead", (0, 5, 20, 600))
def test_where_even_no_wait_is_too_long_each_request_is_judged(ahead):
    """The wait limit is below the service timeout; a stamp that is ahead counts as no wait."""
    settings = _settings(wait_timeout=5, service_timeout=15)
    stamp = f"{(NOW + ahead) * 1000:.0f}"
    assert not _assert_unhurried_if_told_so(settings, stamp, 0.0)
