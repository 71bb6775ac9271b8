"""Clients that mean harm, or know no better: nothing leaks, nothing is forged, the server serves on."""

import json
import re
import uuid
from concurrent.futures import ThreadPoolExecutor
from time import time

import asgi_kinds
import pytest
import wsgi_kinds
from launch import until
from proving_kinds import HOST, faults_of_ours, proving, told, vitals
from wire import Wire, exchange, head, header, one_by_one, statuses

# Marked slow as a whole, but for two servers.
pytestmark = [pytest.mark.server, pytest.mark.once, pytest.mark.timeout(180)]

LIMIT = 0.4
LIMITS = {"HOSTLINE_SERVICE_TIMEOUT": str(LIMIT), "HOSTLINE_STREAM_TIMEOUT": str(LIMIT)}
HOST_LINE, CLOSE = f"Host: {HOST}", "Connection: close"

WSGI = [
    proving(kind)
    for kind in (
        *(wsgi_kinds.GUNICORN_GTHREAD, wsgi_kinds.GUNICORN_SYNC, wsgi_kinds.GUNICORN_GEVENT),
        *(wsgi_kinds.WAITRESS, wsgi_kinds.UWSGI, wsgi_kinds.UWSGI_THREADS),
        *(wsgi_kinds.GRANIAN, wsgi_kinds.CHEROOT),
    )
]
ASGI = [
    proving(kind)
    for kind in (
        *(asgi_kinds.UVICORN_UVLOOP, asgi_kinds.UVICORN, asgi_kinds.HYPERCORN, asgi_kinds.HYPERCORN_TRIO),
        *(asgi_kinds.GRANIAN, asgi_kinds.DAPHNE, asgi_kinds.GUNICORN),
    )
]
QUICK = (WSGI[0], ASGI[0])


def _each(*each):
    params = [
        pytest.param(
            kind,
            id=re.sub(r"\W+", "-", kind.name.partition(",")[0]).strip("-"),
            marks=() if kind in QUICK else pytest.mark.slow,
        )
        for kind in each
    ]
    return pytest.mark.parametrize("kind", params)


@pytest.fixture
def serve(share):
    """Have a shared server; afterwards it has logged no defect of ours, told no ending twice, and serves."""
    served = []

    def serve(kind):
        server = share(kind, **LIMITS)
        served.append((server, len(server.log)))
        return server

    yield serve
    for server, before in served:
        assert statuses(exchange(server.port, head("/ok", HOST_LINE, CLOSE))) == [200]
        assert faults_of_ours(server.log[before:]) == []
        endings = {
            each: [state for state in states if state != "ready"] for each, states in told(server).items()
        }
        assert [each for each, states in endings.items() if len(states) > 1] == []


def _identified(request_id=None):
    return f"X-Request-ID: {request_id or uuid.uuid4().hex}"


def _ask(server, *lines, target="/ok", method="GET", version="HTTP/1.1"):
    """One request on a connection of its own, with these lines and no others."""
    return exchange(server.port, head(target, *lines, CLOSE, method=method, version=version))


# Slowness.


@_each(*WSGI, *ASGI)
def test_a_slow_head_is_the_server_s_affair(serve, kind):
    # The clock starts when the guard is called.
    request = head("/ok", HOST_LINE, CLOSE)
    with Wire(serve(kind).port) as wire:
        assert wire.send(*one_by_one(request), pause=2 * LIMIT / len(request))
        assert statuses(wire.receive()) == [200]


@_each(*ASGI)
def test_a_slow_body_has_its_time_on_asgi(serve, kind):
    with Wire(serve(kind).port) as wire:
        wire.send(head("/upload", HOST_LINE, CLOSE, "Content-Length: 24", method="POST"))
        assert wire.send(*[b"piece;"] * 4, pause=LIMIT / 2)
        answer = wire.receive()
    assert statuses(answer) == [200]
    assert answer.endswith(b"24")


@_each(*WSGI)
def test_a_body_that_never_comes_holds_no_worker_for_ever(serve, kind):
    # Some servers take all of it before they call the app, and wait themselves; the others' apps are aborted
    # in the middle of reading, and the answer gets through.
    server = serve(kind)
    with Wire(server.port) as wire:
        wire.send(head("/upload", HOST_LINE, CLOSE, "Content-Length: 24", method="POST"), b"piece;")
        if kind.package in {"uWSGI", "waitress", "granian"}:
            return  # it waits in C, where nothing breaks it; or in its own code, before it calls the app
        assert statuses(wire.receive()) == [504]


# Clients that go away.

_STAGES = {
    "before-the-head": ((), 0.0),
    "in-the-head": ((b"GET /ok HTTP/1.1\r\nHo",), 0.0),
    "in-the-body": ((head("/upload", HOST_LINE, "Content-Length: 24", method="POST"), b"piece;"), 0.02),
    "while-it-waits": ((head("/slow", HOST_LINE),), 0.05),
    "while-it-computes": ((head("/busy", HOST_LINE),), 0.05),
    "in-mid-response": ((head("/stream?chunks=200", HOST_LINE),), 0.05),
    "before-a-504": ((head("/slow", HOST_LINE),), LIMIT),
}


@_each(*WSGI, *ASGI)
def test_a_client_that_goes_away_leaves_nothing_behind(serve, kind):
    server = serve(kind)

    def leave_at_each_stage(times):
        for _ in range(times):
            for pieces, pause in _STAGES.values():
                for abruptly in (False, True):
                    wire = Wire(server.port)
                    wire.send(*pieces, pause=pause)
                    wire.leave(abruptly=abruptly)

    # What fills the pools of threads, which are kept.
    with ThreadPoolExecutor(8) as pool:
        assert set(
            pool.map(lambda _: tuple(statuses(_ask(server, HOST_LINE, target="/busy"))), range(8))
        ) == {(504,)}
    leave_at_each_stage(1)
    assert until(lambda: vitals(server)["entries"] <= 1, 30)
    before = vitals(server)
    leave_at_each_stage(3)
    for sign in ("threads", "descriptors"):
        # uWSGI and gunicorn have few workers, granian closes late: all of it has its time to end.
        assert until(lambda: vitals(server)[sign] <= before[sign] + 1, 30), (sign, before, vitals(server))  # noqa: B023
    assert until(lambda: vitals(server)["entries"] <= 1, 30), vitals(server)


@_each(*WSGI, *ASGI)
def test_each_request_of_a_client_that_goes_away_ends_once(serve, kind):
    server = serve(kind)
    request_ids = [uuid.uuid4().hex for _ in range(8)]
    for number, request_id in enumerate(request_ids):
        wire = Wire(server.port)
        wire.send(head("/slow" if number % 2 else "/stream?chunks=50", HOST_LINE, _identified(request_id)))
        assert wire.receive(b"chunk;") if number % 2 == 0 else True
        # So that it is there: what is thrown away with a reset may never have been seen.
        assert until(lambda: "ready" in told(server).get(request_id, ()))  # noqa: B023
        wire.leave(abruptly=number % 4 < 2)
    assert until(lambda: all(len(told(server)[each]) == 2 for each in request_ids), 30)
    endings = {told(server)[each][-1] for each in request_ids}
    assert endings <= {"completed", "timed_out"}


# Several requests in one go.


@_each(*WSGI, *ASGI)
def test_pipelined_requests_are_answered_in_their_order(serve, kind):
    server = serve(kind)
    targets = {"/ok": 200, "/slow": 504, "/stream?chunks=3": 200, "/busy": 504, "/wait?seconds=0": 200}
    requests = [head(each, HOST_LINE) for each in targets]
    answer = exchange(server.port, b"".join(requests) + head("/ok", HOST_LINE, CLOSE))
    expected = [*targets.values(), 200]
    # A server may close behind any of them (RFC 9112, section 9.3.2).
    assert statuses(answer) == expected[: len(statuses(answer))]
    assert statuses(answer)


# What a client writes into its head.

_STAMPS = (
    "t=1",
    "-1700000000000",
    "1" * 10_000,
    "9" * 13,
    "9" * 19,
    "9999999999999",
    "0000000000000",
    "1_700_000_000",
    " 170000000000",
    "1700000000000.5e300",
    "nan",
    "inf",
    "t=",
    "\N{ARABIC-INDIC DIGIT ONE}" * 13,
    "1700000000000, 1",
    "%s%s%s%n",
    "${jndi:ldap://127.0.0.1/}",
)


@_each(*WSGI, *ASGI)
def test_a_forged_x_request_start_changes_nothing(serve, kind):
    server = serve(kind)
    before = len(server.log)
    future = str(int((time() + 3600) * 1000))
    for stamp in (*_STAMPS, future, str(int(time() * 1000) - 90_000_000)):
        answer = _ask(server, HOST_LINE, f"X-Request-Start: {stamp}")
        # Some servers refuse what is no ASCII, or so long.
        assert statuses(answer) == [200] or (
            statuses(answer) in ([400], [431], []) and (not stamp.isascii() or len(stamp) > 1_000)
        )
    expired = str(int((time() - 100) * 1000))
    assert statuses(_ask(server, HOST_LINE, f"X-Request-Start: {expired}")) == [503]
    two = (f"X-Request-Start: {expired}", f"X-Request-Start: {future}")
    assert statuses(_ask(server, HOST_LINE, *two))[0] in {200, 400, 503}  # cheroot hands on the last one
    assert len(server.log) - before < 20_000
    assert server.log[before:].count("more than a day off") <= 1


_FORGED = (
    b"x state=completed",
    b"x\tsource=hostline id=forged state=timed_out",
    b"x\x1b[2J\x1b]0;forged\x07",
    b"%s%d%n%(request_id)s{0}",
    b"\xe2\x80\xa8source=hostline id=forged",
    b"\xff\xfe\x85source=hostline",
    b"x\x0b\x0csource=hostline id=forged",
    b"y" * 5_000,
    b"x\r\n source=hostline id=forged",  # a folded line (RFC 9112, section 5.2)
    b"x\rsource=hostline id=forged",
    b"x\x00source=hostline",
)


@_each(*WSGI, *ASGI)
def test_nothing_that_a_client_writes_forges_a_line_of_the_log(serve, kind):
    server = serve(kind)
    before = len(server.log)
    ended = 0
    for number, forged in enumerate(_FORGED):
        target = "/slow?%0d%0asource=hostline%20id=forged"
        answer = _ask(server, HOST_LINE, b"X-Request-ID: %d-%s" % (number, forged), target=target)
        assert statuses(answer) in ([504], [400], [])
        ended += statuses(answer) == [504]
    assert ended >= 3
    beginning = r"(?m)^ERROR:hostline:\d+:source=hostline id=[!-~]{1,128}"
    lines = rf"{beginning} timeout=\d+ms service=\d+ms state=timed_out$"
    assert until(lambda: len(re.findall(lines, server.log[before:])) >= ended)
    written = server.log[before:]
    assert len(re.findall(lines, written)) == ended
    assert len(re.findall(r"(?m)^.*hostline:\d+:", written)) == ended
    # None of it at the beginning of a line, nor as a field of its own.
    assert not re.search(r"(?m)^source=|[ \t]id=forged|\x1b", written)


# Which host was meant.

_ELSEWHERE = "elsewhere.test"


def _leads_home(answer):
    """Whether it is an answer of the app's, a refusal, or a redirect to the canonical host."""
    location = header(answer, b"location")
    if statuses(answer)[:1] in ([301], [308]):
        return location.startswith(b"http://%s/" % HOST.encode())
    return statuses(answer)[:1] in ([200], [400], []) and not location


@_each(*WSGI, *ASGI)
def test_forwarded_headers_move_no_redirect(serve, kind):
    server = serve(kind)
    forged = [f"X-Forwarded-Host: {_ELSEWHERE}", "X-Forwarded-Server: x", f"Forwarded: host={_ELSEWHERE}"]
    forged += [
        "X-Forwarded-Port: 81",
        "X-Forwarded-Prefix: //x",
        "X-Original-URL: /x",
        f"X-Host: {_ELSEWHERE}",
    ]
    answer = _ask(server, HOST_LINE, *forged)
    assert statuses(answer) == [200]
    answer = _ask(server, f"Host: {_ELSEWHERE}", f"X-Forwarded-Host: {HOST}")
    assert statuses(answer) == [301]
    assert header(answer, b"location") == f"http://{HOST}/ok".encode()
    answer = _ask(server, f"Host: {_ELSEWHERE}", *forged)
    assert _leads_home(answer)
    answer = _ask(server, f"Host: {_ELSEWHERE}", "X-Forwarded-Proto: javascript", "X-Forwarded-Proto: https")
    told = header(answer, b"location")
    # gunicorn, which trusts its own host, refuses two that differ.
    assert statuses(answer) == [400] or told in {
        f"{scheme}://{HOST}/ok".encode() for scheme in ("http", "https")
    }


@_each(*WSGI, *ASGI)
def test_an_absolute_target_leads_nowhere_else(serve, kind):
    server = serve(kind)
    for target in (
        f"http://{_ELSEWHERE}/ok",
        f"http://{_ELSEWHERE}@{HOST}/ok",
        f"//{_ELSEWHERE}/ok",
        f"/\\{_ELSEWHERE}/ok",
        f"http://{HOST}@{_ELSEWHERE}/ok",
        "http:///ok",
        f"ftp://{_ELSEWHERE}/ok",
        f"/%0d%0aLocation:%20http://{_ELSEWHERE}/",
    ):
        for host in (HOST, _ELSEWHERE):
            answer = _ask(server, f"Host: {host}", target=target)
            assert _leads_home(answer), (target, host, answer)
            assert header(answer, b"location").count(b"\r") == 0


@_each(*WSGI, *ASGI)
def test_two_hosts_lead_nowhere_else(serve, kind):
    server = serve(kind)
    for hosts in ((HOST, _ELSEWHERE), (_ELSEWHERE, HOST), (HOST, HOST)):
        assert _leads_home(_ask(server, *(f"Host: {host}" for host in hosts)))


@_each(*WSGI, *ASGI)
def test_hosts_that_are_none_are_refused(serve, kind):
    server = serve(kind)
    for host in (
        *(f"{HOST}@{_ELSEWHERE}", f"{_ELSEWHERE}#{HOST}", f"{_ELSEWHERE}/{HOST}", f"{HOST}:80:80"),
        *(f"{HOST}:99999", f"{HOST} {_ELSEWHERE}", "${jndi:ldap://127.0.0.1/}", "[::1", "a" * 300),
    ):
        assert statuses(_ask(server, f"Host: {host}")) in ([400], [])
    answer = _ask(server, "Host: caf\N{LATIN SMALL LETTER E WITH ACUTE}.test")
    assert _leads_home(answer)


@_each(*WSGI, *ASGI)
def test_http_1_0_without_a_host_passes(serve, kind):
    answer = exchange(serve(kind).port, head("/ok", version="HTTP/1.0"))
    assert statuses(answer) == [200]


@_each(*WSGI, *ASGI)
def test_a_huge_head_does_no_harm(serve, kind):
    server = serve(kind)
    before = len(server.log)
    many = [f"X-Filling-{number}: {'z' * 7_000}" for number in range(100)]
    for lines in (many, [f"X-{'n' * 60_000}: 1"], [f"Cookie: {'c' * 60_000}"], [f"Host: {'h' * 60_000}"]):
        answer = _ask(server, *(() if lines[0].startswith("Host") else (HOST_LINE,)), *lines)
        assert statuses(answer)[:1] in ([200], [400], [413], [414], [431], [500], [])
    assert len(server.log) - before < 400_000
    assert json.dumps(vitals(server))


# HTTP/2.


@_each(*map(proving, (asgi_kinds.HYPERCORN_HTTP2, asgi_kinds.HYPERCORN_TRIO_HTTP2, asgi_kinds.GRANIAN_HTTP2)))
@pytest.mark.slow
def test_streams_that_are_reset_at_once_leave_nothing_behind(serve, kind):
    h2 = pytest.importorskip("h2.connection", reason="not installed: h2 (extra servers)")
    server = serve(kind)
    request_ids = [uuid.uuid4().hex for _ in range(200)]
    for first in range(0, len(request_ids), 50):
        connection = h2.H2Connection()
        connection.initiate_connection()
        with Wire(server.port) as wire:
            for number, request_id in enumerate(request_ids[first : first + 50]):
                stream = 2 * number + 1
                names = {":method": "GET", ":path": "/slow", ":scheme": "http", ":authority": HOST}
                connection.send_headers(
                    stream, [*names.items(), ("x-request-id", request_id)], end_stream=True
                )
                if number % 2:
                    wire.send(connection.data_to_send())
                connection.reset_stream(stream)
            wire.send(connection.data_to_send(), pause=0.02)
    assert until(lambda: vitals(server)["entries"] <= 1, 30), vitals(server)
    begun = [states for each, states in told(server).items() if each in request_ids]
    assert begun
    assert until(
        lambda: all(len(states) == 2 for each, states in told(server).items() if each in request_ids), 30
    )
