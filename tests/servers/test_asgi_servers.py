"""The request timeout on real ASGI servers: every event loop, every thing that an app can be stuck in."""

import json
import re
import ssl
import uuid
from collections.abc import Callable, Container, Iterator
from concurrent.futures import ThreadPoolExecutor
from time import sleep, time
from typing import Any

import asgi_kinds as kinds
import pytest
from asgi_kinds import Kind
from client import Answer, Connection
from client_http2 import Http2Connection
from launch import Server, free_port, until

pytestmark = pytest.mark.server

LIMIT = 0.2
#: What cannot be broken comes back by itself after so long,
LASTS = 0.8
#: and what can be, after so long; code that ended before ``SOON`` has not waited for that.
ENDLESS = 5
SOON = 3.0
#: How late an answer may be, in the best of a few tries on a machine that does other things too.
BOUND = 0.1
#: The same where a thread has to find out first that the loop is blocked.
BOUND_OF_BLOCKED = 0.15

# What does not depend on the server is tried on these in every run, on the others where there is time.
_ONE_OF_EACH_SORT = {
    kinds.UVICORN_UVLOOP,
    kinds.HYPERCORN_TRIO,
    kinds.HYPERCORN_HTTP2,
    kinds.GRANIAN,
    kinds.DAPHNE,
}
_WHOLE_BODY, _FIRST_CHUNK = b"chunk;" * 4, b"chunk;"


def _each(*each: Kind, quick: Container[Kind] = kinds.ALL) -> pytest.MarkDecorator:
    params = [
        pytest.param(kind, id=_name(kind), marks=() if kind in quick else pytest.mark.slow) for kind in each
    ]
    return pytest.mark.parametrize("kind", params)


def _each_with(name: str, *values: str, quick: Container[str] = ()) -> pytest.MarkDecorator:
    """Every server with every value; the quick ones on one server of each sort."""
    params = [
        pytest.param(
            kind,
            value,
            id=f"{_name(kind)}-{value}",
            marks=() if kind in _ONE_OF_EACH_SORT and value in quick else pytest.mark.slow,
        )
        for kind in kinds.ALL
        for value in values
    ]
    return pytest.mark.parametrize(("kind", name), params)


def _name(kind: object) -> str:
    return re.sub(r"\W+", "-", kind.name).strip("-") if isinstance(kind, Kind) else ""


@pytest.fixture
def serve(share, peers):
    """Have a shared server whose requests may run for ``LIMIT``, and whose streams may pause for as long."""
    limits = {"HOSTLINE_SERVICE_TIMEOUT": str(LIMIT), "HOSTLINE_STREAM_TIMEOUT": str(LIMIT)}
    return lambda kind, **environment: share(kind, **limits, **peers.environment, **environment)


@pytest.fixture
def request_id() -> str:
    return uuid.uuid4().hex


@pytest.fixture
def connect() -> Iterator[Callable[[Kind, Server], Any]]:
    """Have a connection by the protocol that is this kind's."""
    opened: list[Any] = []

    def connect(kind: Kind, server: Server) -> Any:
        opened.append((Http2Connection if kind.is_http2 else Connection)(server.port))
        return opened[-1]

    yield connect
    for connection in opened:
        connection.close()


def _journal(server: Server, request_id: str) -> dict[str, Any]:
    """What has become of a request's code, once that has come to its end."""
    path = server.folder / f"journal-{request_id}"
    assert until(lambda: path.exists() and "left_by" in json.loads(path.read_text()))
    journal: dict[str, Any] = json.loads(path.read_text())
    return journal


def _timed_out(server: Server, request_id: str) -> int:
    """How often it has been logged that a request timed out."""
    told = rf"id={request_id} timeout={LIMIT * 1000:.0f}ms service=\d+ms state=timed_out"
    return len(re.findall(told, server.log))


def _assert_504(answer: Answer) -> None:
    assert (answer.status, answer.is_cut, answer.error) == (504, False, "")
    assert len(answer.body) == int(answer.headers["content-length"]) > 0
    assert answer.repeated == frozenset()  # nothing of the app's head is left


def _time_out(connection: Any, server: Server, path: str, bound: float = BOUND) -> dict[str, Any]:
    """Have it time out, and answered in time in one of three tries: a machine that does other things too
    may once have been busy with those. The answer is one, and the connection serves on."""
    for _ in range(3):
        request_id = uuid.uuid4().hex
        answer = connection.get(path, {"X-Request-ID": request_id})
        _assert_504(answer)
        assert answer.seconds > LIMIT
        assert connection.get("/ok").status == 200
        assert connection.was_kept
        journal = _journal(server, request_id)
        assert journal["calls"] == 1
        assert until(lambda: _timed_out(server, request_id) == 1)  # noqa: B023 - within the loop
        if answer.seconds < LIMIT + bound:
            return journal
    raise AssertionError(f"answered after {answer.seconds:.3f} s")


# What blocks.


@_each_with("path", "wait", "read_socket", quick={"read_socket"})
def test_what_waits_is_stopped_at_the_deadline(serve, connect, kind, path):
    server = serve(kind)
    journal = _time_out(connect(kind, server), server, f"/{path}?seconds={ENDLESS}")
    assert journal["left_by"] in {"CancelledError", "Cancelled"}
    assert journal["left_after"] < SOON


@_each(*kinds.ALL, quick=_ONE_OF_EACH_SORT)
def test_an_app_that_swallows_the_cancellation_has_no_say(serve, connect, kind):
    server = serve(kind)
    _time_out(connect(kind, server), server, f"/swallow?seconds={LASTS}")


@_each_with("call", "busy", "socket_read", "tls_read", "queue_get", quick={"busy", "socket_read"})
def test_a_sync_endpoint_is_stopped_at_the_deadline(serve, connect, kind, call):
    server = serve(kind)
    journal = _time_out(connect(kind, server), server, f"/sync?call={call}&seconds={ENDLESS}")
    assert journal["thread"] != journal["pid"]
    assert journal["left_by"] == "RequestTimeoutException"
    assert journal["left_after"] < SOON


@_each_with("call", "sleep", "lock", "run_process", quick={"sleep"})
def test_a_sync_endpoint_that_cannot_be_broken_is_answered_for(serve, connect, kind, call):
    server = serve(kind)
    journal = _time_out(connect(kind, server), server, f"/sync?call={call}&seconds={LASTS}")
    # As soon as the call had returned; but where a lock would stay taken it is put off, here to the end.
    assert journal["left_by"] == ("a return" if call == "lock" else "RequestTimeoutException")


@pytest.mark.slow
@_each(*kinds.ALL)
def test_a_sync_endpoint_s_query_of_postgresql_is_answered_for(serve, postgresql, connect, kind):
    server = serve(kind, POSTGRESQL=postgresql.address)
    _time_out(connect(kind, server), server, f"/sync?call=postgresql&seconds={LASTS}")


@pytest.mark.slow
@_each(*kinds.ALL)
def test_a_query_of_postgresql_is_stopped_where_psycopg_waits_in_python(serve, postgresql, connect, kind):
    server = serve(kind, POSTGRESQL=postgresql.address, PSYCOPG_WAIT_FUNC="wait_poll")
    journal = _time_out(connect(kind, server), server, f"/sync?call=postgresql&seconds={ENDLESS}")
    assert journal["left_after"] < SOON


@_each_with("call", "sleep", "busy", quick={"sleep", "busy"})
def test_a_blocked_loop_is_broken(serve, connect, kind, call):
    server = serve(kind)
    path = f"/block_loop?call={call}&seconds={ENDLESS}"
    journal = _time_out(connect(kind, server), server, path, BOUND_OF_BLOCKED)
    assert journal["thread"] == journal["pid"]  # the main one
    assert journal["left_by"] == "RequestTimeoutException"
    assert journal["left_after"] < SOON


@_each(*(kind for kind in kinds.ALL if kind.workers == 1), quick=_ONE_OF_EACH_SORT)
def test_who_waits_behind_a_blocked_loop_is_not_harmed(serve, kind, request_id):
    server = serve(kind)
    blocking_id = uuid.uuid4().hex
    path = f"/block_loop?call=sleep&seconds={ENDLESS}"
    with ThreadPoolExecutor(2) as pool:
        blocking = pool.submit(server.get, path, {"X-Request-ID": blocking_id})
        assert until((server.folder / f"journal-{blocking_id}").exists)
        waiting = pool.submit(server.get, f"/wait?seconds={LIMIT / 10}", {"X-Request-ID": request_id})
        _assert_504(blocking.result())
        assert waiting.result().status == 200
    assert _timed_out(server, request_id) == 0


@_each(*kinds.ALL)
def test_only_the_slow_ones_of_many_at_once_are_stopped(serve, kind):
    server = serve(kind)
    paths = [f"/wait?seconds={ENDLESS}", f"/wait?seconds={LIMIT / 5}"] * 8
    with ThreadPoolExecutor(len(paths)) as pool:
        statuses = [answer.status for answer in pool.map(server.get, paths)]
    assert statuses == [504, 200] * 8


@pytest.mark.slow
@_each(*kinds.ALL)
def test_the_end_of_one_request_never_reaches_the_next_of_its_connection(serve, connect, kind):
    # Each slow request would end by itself at about its deadline.
    server = serve(kind)
    before = len(server.log)

    def alternate(number: int) -> list[int | None]:
        connection = connect(kind, server)
        near = LIMIT + (number - 4) / 1000
        return [connection.get(path).status for _ in range(20) for path in (f"/wait?seconds={near}", "/ok")]

    with ThreadPoolExecutor(4) as pool:
        for statuses in pool.map(alternate, range(8)):
            assert set(statuses[::2]) <= {200, 504}
            assert statuses[1::2] == [200] * 20
    assert "Traceback" not in server.log[before:]


# What is none of the guard's business, and what it answers itself.


@_each(*kinds.ALL)
def test_an_error_of_the_app_ends_as_it_does_without_the_guard(serve, kind, request_id):
    server = serve(kind)
    guarded, bare = server.get("/boom", {"X-Request-ID": request_id}), server.get("/bare/boom")
    assert (guarded.status, guarded.body, guarded.error) == (bare.status, bare.body, bare.error)
    assert guarded.status == 500
    assert _journal(server, request_id)["left_by"] == "ValueError"


@_each(*kinds.ALL)
def test_a_request_that_has_waited_too_long_is_dropped(serve, connect, kind, request_id):
    server = serve(kind)
    stamp = str(int((time() - 100) * 1000))
    answer = connect(kind, server).get("/ok", {"X-Request-ID": request_id, "X-Request-Start": stamp})
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) > 0
    assert not (server.folder / f"journal-{request_id}").exists()


@_each(*kinds.ALL, quick=_ONE_OF_EACH_SORT)
def test_both_guards_work_under_a_mount_prefix(serve, kind):
    server = serve(kind)
    redirect = server.get("/mounted/ok?x=1")
    assert (redirect.status, redirect.headers["location"]) == (
        301,
        "http://canonical.test:8080/mounted/ok?x=1",
    )
    headers = {"Host": "canonical.test:8080"}
    assert server.get("/mounted/ok", headers).status == 200
    _assert_504(server.get(f"/mounted/wait?seconds={ENDLESS}", headers))


@_each(*kinds.ALL, quick=_ONE_OF_EACH_SORT)
def test_a_client_that_has_gone_is_no_business_of_the_app_s(serve, kind, request_id):
    # No server cancels the app for that: it is stopped at its deadline, as if somebody waited.
    server = serve(kind)
    gone = server.get(f"/wait?seconds={ENDLESS}", {"X-Request-ID": request_id}, patience=LIMIT / 2)
    assert gone.error == "TimeoutError"
    assert _journal(server, request_id)["left_after"] < SOON
    assert until(lambda: _timed_out(server, request_id) == 1)
    assert server.get("/ok").status == 200


@_each(*kinds.ALL, quick=_ONE_OF_EACH_SORT)
def test_a_background_task_is_run_to_its_end(serve, connect, kind, request_id):
    server = serve(kind)
    path = f"/work_on?seconds={2 * LIMIT}"
    answer = connect(kind, server).get(path, {"X-Request-ID": request_id})
    assert answer.status == 200
    journal = _journal(server, request_id)
    assert journal["left_by"] == "a return"
    assert journal["left_after"] > LIMIT  # a loop's clock is coarse: 2 * LIMIT may be a little less
    assert _timed_out(server, request_id) == 0


@_each(*kinds.ALL)
def test_a_websocket_is_not_timed(serve, kind):
    client = pytest.importorskip("client_websocket", reason="not installed: wsproto (extra servers)")
    with client.WebSocket(serve(kind).port, "/") as websocket:
        assert websocket.say("one") == "one"
        sleep(2 * LIMIT)  # a client that takes its time
        assert websocket.say("two") == "two"


@_each(*(kind for kind in kinds.ALL if kind.has_lifespan), quick=_ONE_OF_EACH_SORT)
def test_the_lifespan_is_the_app_s(start, kind):
    server = start(kind, HOSTLINE_SERVICE_TIMEOUT=str(LIMIT))
    assert (server.folder / "lifespan.startup").exists()
    assert not (server.folder / "lifespan.shutdown").exists()
    server.ask_to_stop()
    assert until((server.folder / "lifespan.shutdown").exists)


@_each(*(kind for kind in kinds.ALL if kind.has_lifespan), quick=_ONE_OF_EACH_SORT)
def test_a_wrong_variable_ends_the_start(kind):
    """Of a framework that makes its middlewares in that call, and so where nobody hears of an error."""
    command = [part.replace(kinds.APP, "misconfigured_app:app") for part in kind.command]
    wrong = {"HOSTLINE_SERVICE_TIMEOUT": "abc", "HOSTLINE_CANONICAL_HOST": "a b"}
    with pytest.raises(AssertionError, match="does not serve") as failure:
        Server(command, {**kind.environment, **wrong}).stop()
    for name, value in wrong.items():
        assert f"{name}={value!r} is no" in str(failure.value)


# Bodies.


def _slowly(pieces: int, pause: float) -> Iterator[bytes]:
    """A client that sends its body in pieces, and takes its time."""
    for _ in range(pieces):
        yield b"piece;"
        sleep(pause)


@_each(*kinds.ALL)
def test_a_slow_upload_has_its_time(serve, connect, kind):
    server = serve(kind)
    answer = connect(kind, server).get("/upload", body=_slowly(4, LIMIT / 2))
    assert (answer.status, answer.body) == (200, b"24")
    assert answer.seconds > 2 * LIMIT


@_each(*kinds.ALL, quick=_ONE_OF_EACH_SORT)
def test_a_stream_outlives_the_service_timeout(serve, connect, kind, request_id):
    server = serve(kind)
    answer = connect(kind, server).get("/chunks?delays=0,0.1,0.1,0.1", {"X-Request-ID": request_id})
    assert (answer.status, answer.body, answer.is_cut) == (200, _WHOLE_BODY, False)
    assert _journal(server, request_id)["left_after"] > LIMIT
    assert _timed_out(server, request_id) == 0


_LENGTHS = pytest.mark.parametrize("length", ("", "&length=12"), ids=("no-length", "length"))


@_each(*kinds.ALL)
@_LENGTHS
def test_a_stream_that_stalls_is_cut(serve, connect, kind, length, request_id):
    server = serve(kind)
    connection = connect(kind, server)
    answer = connection.get(f"/chunks?delays=0,{ENDLESS}{length}", {"X-Request-ID": request_id})
    assert (answer.status, answer.body, answer.is_cut) == (200, _FIRST_CHUNK, True)
    assert answer.seconds < SOON
    assert _journal(server, request_id)["left_after"] < SOON
    assert until(lambda: _timed_out(server, request_id) == 1)
    assert server.get("/ok").status == 200


@_each(*kinds.ALL)
def test_a_response_whose_first_chunk_is_late_is_ended(serve, connect, kind):
    # ASGI lets a server keep the head back until then: some have sent it, the others may still answer 500.
    server = serve(kind)
    answer = connect(kind, server).get(f"/chunks?delays={ENDLESS}&length=6")
    assert answer.is_cut if answer.status == 200 else answer.status in {None, 500}
    assert answer.error not in {"TimeoutError", "ReadTimeout"}
    assert answer.seconds < SOON
    assert server.get("/ok").status == 200


@_each(*kinds.ALL, quick=_ONE_OF_EACH_SORT)
def test_a_stream_is_cut_behind_another_middleware_s_send(serve, connect, kind):
    server = serve(kind)
    answer = connect(kind, server).get(f"/wrapped/chunks?delays=0,{ENDLESS}")
    assert (answer.status, answer.body, answer.is_cut) == (200, _FIRST_CHUNK, True)
    assert answer.seconds < SOON


@_each(*(kind for kind in kinds.ALL if kind.is_http2))
def test_other_streams_of_its_connection_outlive_a_cut_one(serve, connect, kind):
    server = serve(kind)
    connection = connect(kind, server)
    path = "/chunks?delays=" + ",".join(["0.1"] * 4)
    with ThreadPoolExecutor(2) as pool:
        flowing, stalled = pool.map(connection.get, (path, f"/chunks?delays=0,{ENDLESS}"))
    assert stalled.is_cut
    assert (flowing.status, flowing.body, flowing.is_cut) == (200, _WHOLE_BODY, False)
    assert connection.get("/ok").status == 200
    assert connection.was_kept


def test_daphne_looks_after_its_apps_beyond_a_cut(serve, request_id):
    # Its own answer to an error is sent by a look at all apps each second, which an error in a response
    # that has begun would be the end of.
    server = serve(kinds.DAPHNE)
    assert server.get(f"/chunks?delays=0,{ENDLESS}").is_cut
    assert server.logs("Exception inside application")
    assert server.get("/boom", patience=5).status == 500


def test_daphne_s_stream_of_http2_is_reset(start, tmp_path):
    # Which daphne speaks by TLS alone, on a port beside that for HTTP/1.1.
    trustme = pytest.importorskip("trustme", reason="not installed: trustme (extra servers)")
    authority, key, certificate = trustme.CA(), tmp_path / "key", tmp_path / "certificate"
    issued = authority.issue_cert("localhost")
    issued.private_key_pem.write_to_path(key)
    issued.cert_chain_pems[0].write_to_path(certificate)
    tls = ssl.create_default_context()
    authority.configure_trust(tls)
    port = free_port()
    endpoint = f"ssl:{port}:interface=127.0.0.1:privateKey={key}:certKey={certificate}"
    limits = {"HOSTLINE_SERVICE_TIMEOUT": str(LIMIT), "HOSTLINE_STREAM_TIMEOUT": str(LIMIT)}
    start(kinds.DAPHNE, f"--endpoint={endpoint}", **limits)
    with Http2Connection(port, tls=tls) as connection:
        _assert_504(connection.get(f"/wait?seconds={ENDLESS}"))
        answer = connection.get(f"/chunks?delays=0,{ENDLESS}")
        assert (answer.status, answer.body, answer.is_cut) == (200, _FIRST_CHUNK, True)
        assert connection.get("/ok").status == 200
        assert connection.was_kept


# The end of the server.


@_each(*kinds.ALL, quick=_ONE_OF_EACH_SORT)
def test_the_server_ends_when_it_is_asked_to(start, kind):
    server = start(kind, HOSTLINE_SERVICE_TIMEOUT=str(LIMIT))
    _assert_504(server.get(f"/wait?seconds={ENDLESS}"))
    assert server.get(f"/chunks?delays=0,{LIMIT}").status == 200
    server.ask_to_stop()
    assert until(lambda: not server.is_running)
