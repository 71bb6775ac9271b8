"""The request timeout on real WSGI servers: every way to run an app, every thing that it can be stuck in."""

import json
import re
import uuid
from collections.abc import Container
from concurrent.futures import ThreadPoolExecutor
from time import time
from typing import Any

import pytest
import wsgi_kinds as kinds
from blocking import CALLS, NOT_BREAKABLE_IN_THREADS
from client import Answer, Connection
from launch import Server, until
from wsgi_kinds import Kind

pytestmark = pytest.mark.server

LIMIT = 0.2
#: What cannot be broken comes back by itself after so long,
LASTS = 0.6
#: and what can be, after so long; an answer before ``SOON`` has not waited for that.
ENDLESS = 5
SOON = 3.0
#: How late an answer may be, in the best of a few tries on a machine that does other things too.
BOUND = 0.5

# What does not depend on the thread is tried on these in every run, on the others where there is time.
_ONE_OF_EACH_SORT = {kinds.GUNICORN_SYNC, kinds.GUNICORN_GEVENT, kinds.UWSGI, kinds.WAITRESS, kinds.GRANIAN}


def _each(*each: Kind, quick: Container[Kind] = kinds.ALL) -> pytest.MarkDecorator:
    params = [
        pytest.param(kind, id=_name(kind), marks=() if kind in quick else pytest.mark.slow) for kind in each
    ]
    return pytest.mark.parametrize("kind", params)


def _calls() -> pytest.MarkDecorator:
    """Every server with every call, but for PostgreSQL's, which needs more."""
    quick = {"busy", "tls_read"}, {"busy", "sleep", "tls_read", "queue_get"}
    params = [
        pytest.param(
            kind,
            call,
            id=f"{_name(kind)}-{call}",
            marks=() if call in quick[kind in _ONE_OF_EACH_SORT] else pytest.mark.slow,
        )
        for kind in kinds.ALL
        for call in CALLS
        if call != "postgresql"
    ]
    return pytest.mark.parametrize(("kind", "call"), params)


def _name(kind: object) -> str:
    return kind.name.replace(" ", "-") if isinstance(kind, Kind) else ""


@pytest.fixture
def serve(share, peers):
    """Have a shared server whose requests may run for ``LIMIT``, and whose streams may pause for as long."""
    limits = {"HOSTLINE_SERVICE_TIMEOUT": str(LIMIT), "HOSTLINE_STREAM_TIMEOUT": str(LIMIT)}
    return lambda kind, **environment: share(kind, **limits, **peers.environment, **environment)


@pytest.fixture
def request_id() -> str:
    return uuid.uuid4().hex


def _ask(server: Server, path: str, request_id: str) -> Answer:
    return server.get(path, {"X-Request-ID": request_id})


def _journal(server: Server, request_id: str) -> dict[str, Any]:
    journal: dict[str, Any] = json.loads(server.get(f"/journal/{request_id}").body)
    return journal


def _closes(server: Server, request_id: str) -> int:
    """How often the app's body has been closed: servers do so after the client has got all of it."""
    until(lambda: _journal(server, request_id)["closes"])
    closes: int = _journal(server, request_id)["closes"]
    return closes


def _whereabouts(server: Server) -> dict[str, Any]:
    whereabouts: dict[str, Any] = json.loads(server.get("/ready").body)
    return whereabouts


def _pid(server: Server) -> int | None:
    """Which process serves; None while none does."""
    answer = server.get("/ready")
    return json.loads(answer.body)["pid"] if answer.status == 200 else None


def _is_replaced(server: Server, worker: int | None) -> bool:
    """Whether another process comes to serve in a worker's place."""
    return until(lambda: _pid(server) not in {None, worker})


def _timed_out(server: Server, request_id: str) -> int:
    """How often it has been logged that a request timed out."""
    return server.log.count(f"id={request_id} timeout={LIMIT * 1000:.0f}ms service=")


def _assert_504(answer: Answer) -> None:
    assert (answer.status, answer.is_cut, answer.error) == (504, False, "")
    assert len(answer.body) == int(answer.headers["content-length"]) > 0
    assert answer.repeated == frozenset()  # nothing of the app's head is left


# What blocks.


def _assert_stopped(server: Server, kind: Kind, call: str, *, not_in_threads: bool) -> None:
    """Three tries: a machine that does other things too may once have been busy with those."""
    assert any(_is_in_time(server, kind, call, not_in_threads=not_in_threads) for _ in range(3))


def _is_in_time(server: Server, kind: Kind, call: str, *, not_in_threads: bool) -> bool:
    request_id = uuid.uuid4().hex
    seconds = LASTS if not_in_threads else ENDLESS
    answer = _ask(server, f"/block?call={call}&seconds={seconds}", request_id)
    _assert_504(answer)
    journal = _journal(server, request_id)
    assert journal["calls"] == 1
    assert server.get("/ok").status == 200
    assert server.logs(f"id={request_id} ")
    assert _timed_out(server, request_id) == 1
    # A CPython that can break them in threads too is free to.
    waits = not_in_threads and kind.runs_in != "greenlet" and not journal["in_main_thread"]
    assert answer.seconds > LIMIT
    return answer.seconds < (LASTS if waits else LIMIT) + BOUND


@_calls()
def test_what_blocks_is_stopped_at_the_deadline(serve, kind, call):
    _assert_stopped(serve(kind), kind, call, not_in_threads=call in NOT_BREAKABLE_IN_THREADS)


@pytest.mark.slow
@_each(*kinds.ALL)
def test_a_query_of_postgresql_is_stopped(serve, postgresql, kind):
    # In threads psycopg's own C code waits, and looks for nothing but the database's answer.
    server = serve(kind, POSTGRESQL=postgresql.address)
    _assert_stopped(server, kind, "postgresql", not_in_threads=True)


@pytest.mark.slow
@_each(*kinds.ALL)
def test_a_query_of_postgresql_is_stopped_where_psycopg_waits_in_python(serve, postgresql, kind):
    server = serve(kind, POSTGRESQL=postgresql.address, PSYCOPG_WAIT_FUNC="wait_poll")
    _assert_stopped(server, kind, "postgresql", not_in_threads=False)


@_each(kinds.GUNICORN_GTHREAD, kinds.GUNICORN_GEVENT, kinds.WAITRESS, kinds.GRANIAN)
def test_only_the_slow_ones_of_many_at_once_are_stopped(serve, kind):
    server = serve(kind)
    paths = [f"/block?call=queue_get&seconds={ENDLESS}", f"/block?call=sleep&seconds={LIMIT / 5}"] * 8
    with ThreadPoolExecutor(len(paths)) as pool:
        statuses = [answer.status for answer in pool.map(server.get, paths)]
    assert statuses == [504, 200] * 8


@_each(*(kind for kind in kinds.ALL if kind.keeps_alive))
def test_the_connection_serves_on_after_a_504(serve, kind):
    with Connection(serve(kind).port) as connection:
        for _ in range(2):
            _assert_504(connection.get(f"/block?call=busy&seconds={ENDLESS}"))
            assert connection.get("/ok").status == 200
        assert connection.was_kept


@pytest.mark.slow
@_each(kinds.GUNICORN_GTHREAD, kinds.GUNICORN_GEVENT, kinds.WAITRESS, kinds.GRANIAN, kinds.CHEROOT)
def test_no_abort_reaches_the_next_request_of_a_connection(serve, kind):
    # Each slow request would end by itself at about its deadline: the abort is late, or not sent.
    def alternate(number: int) -> list[int | None]:
        with Connection(server.port) as connection:
            near = LIMIT + (number - 4) / 1000
            return [
                answer.status
                for _ in range(20)
                for answer in (connection.get(f"/block?call=busy&seconds={near}"), connection.get("/ok"))
            ]

    server = serve(kind)
    before = len(server.log)
    with ThreadPoolExecutor(4) as pool:
        for statuses in pool.map(alternate, range(8)):
            assert set(statuses[::2]) <= {200, 504}
            assert statuses[1::2] == [200] * 20
    assert "Traceback" not in server.log[before:]


# What is none of the guard's business, and what it answers itself.


@_each(*kinds.ALL)
def test_an_error_of_the_app_ends_as_it_does_without_the_guard(serve, kind, request_id):
    server = serve(kind)
    guarded, bare = _ask(server, "/boom", request_id), server.get("/bare/boom")
    assert (guarded.status, guarded.body, guarded.error) == (bare.status, bare.body, bare.error)
    assert guarded.status == (None if kind.package == "uWSGI" else 500)
    assert _journal(server, request_id)["left_by"] == "ValueError"


@_each(*kinds.ALL)
def test_a_request_that_has_waited_too_long_is_dropped(serve, kind, request_id):
    server = serve(kind)
    stamp = str(int((time() - 100) * 1000))
    answer = server.get("/ok", {"X-Request-ID": request_id, "X-Request-Start": stamp})
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) > 0
    assert _journal(server, request_id)["calls"] == 0


@_each(*kinds.ALL, quick=_ONE_OF_EACH_SORT)
def test_a_request_that_has_waited_gets_what_is_left(serve, kind, request_id):
    server = serve(kind)
    stamp = str(int((time() - 29.9) * 1000))  # of 30 s
    headers = {"X-Request-ID": request_id, "X-Request-Start": stamp}
    answer = server.get(f"/block?call=busy&seconds={ENDLESS}", headers)
    _assert_504(answer)
    assert answer.seconds < SOON
    assert server.logs(f"id={request_id} ")
    told = re.search(rf"id={request_id} wait=(\d+)ms timeout=(\d+)ms ", server.log)
    assert told is not None
    wait, timeout = map(int, told.groups())
    assert timeout < LIMIT * 1000
    assert wait + timeout in {29_999, 30_000, 30_001}  # each rounded


@_each(*kinds.ALL, quick=_ONE_OF_EACH_SORT)
def test_both_guards_work_under_a_mount_prefix(serve, kind, request_id):
    server = serve(kind)
    redirect = server.get("/mounted/ok?x=1")
    assert (redirect.status, redirect.headers["location"]) == (
        301,
        "http://canonical.test:8080/mounted/ok?x=1",
    )
    headers = {"Host": "canonical.test:8080", "X-Request-ID": request_id}
    assert server.get("/mounted/ok", headers).status == 200
    assert _journal(server, request_id)["path"] == "/mounted/ok"
    _assert_504(server.get(f"/mounted/block?call=busy&seconds={ENDLESS}", headers))


# Bodies.

_LENGTHS = pytest.mark.parametrize("length", (False, True), ids=("no-length", "length"))


@_each(*kinds.ALL, quick=_ONE_OF_EACH_SORT)
def test_a_body_is_whole_and_closed_once(serve, kind, request_id):
    server = serve(kind)
    answer = _ask(server, "/chunks?delays=0,0.1,0.1,0.1", request_id)  # longer than LIMIT, in small steps
    assert (answer.status, answer.body, answer.is_cut) == (200, b"chunk;" * 4, False)
    assert _closes(server, request_id) == 1


@_each(*kinds.ALL, quick=_ONE_OF_EACH_SORT)
@_LENGTHS
def test_a_body_whose_first_chunk_is_late_is_a_504(serve, kind, length, request_id):
    server = serve(kind)
    answer = _ask(server, f"/chunks?delays=5,0{'&length=12' if length else ''}", request_id)
    _assert_504(answer)
    assert answer.seconds < SOON
    assert _closes(server, request_id) == 1


@_each(*kinds.ALL, quick=_ONE_OF_EACH_SORT)
@_LENGTHS
def test_a_body_whose_later_chunk_is_late_is_cut(serve, kind, length, request_id):
    server = serve(kind)
    answer = _ask(server, f"/chunks?delays=0,5{'&length=12' if length else ''}", request_id)
    assert (answer.status, answer.body) == (200, b"chunk;")
    assert answer.is_cut == (kind.shows_cut or length)
    assert answer.seconds < SOON
    assert _closes(server, request_id) == 1
    assert server.logs(f"id={request_id} ")
    assert server.get("/ok").status == 200


def test_without_a_stream_timeout_a_body_may_pause(share, request_id):
    server = share(kinds.GUNICORN_GTHREAD, HOSTLINE_SERVICE_TIMEOUT=str(LIMIT))
    answer = _ask(server, f"/chunks?delays=0,{2 * LIMIT}", request_id)
    assert (answer.status, answer.body, answer.is_cut) == (200, b"chunk;chunk;", False)
    assert answer.seconds > LIMIT
    assert _closes(server, request_id) == 1


@_each(*kinds.ALL)
def test_lists_and_files_are_handed_over_as_they_are(serve, kind, request_id):
    server = serve(kind)
    guarded, bare = _ask(server, "/file", request_id), server.get("/bare/file")
    assert guarded.body == bare.body
    assert guarded.headers.keys() == bare.headers.keys()
    assert _journal(server, request_id)["is_untouched"]
    _ask(server, "/ok", request_id)
    assert _journal(server, request_id)["is_untouched"]


@_each(*(kind for kind in kinds.ALL if kind.has_write))
def test_write_works(serve, kind, request_id):
    server = serve(kind)
    answer = _ask(server, "/write?delays=0,0", request_id)
    assert (answer.status, answer.body, answer.is_cut) == (200, b"chunk;" * 3, False)
    assert _closes(server, request_id) == 1


@_each(*(kind for kind in kinds.ALL if kind.has_write), quick=_ONE_OF_EACH_SORT)
@_LENGTHS
def test_a_response_begun_by_write_is_cut(serve, kind, length, request_id):
    server = serve(kind)
    answer = _ask(server, f"/write?delays=0,5{'&length=18' if length else ''}", request_id)
    assert (answer.status, answer.body) == (200, b"chunk;")
    assert answer.is_cut == (kind.shows_cut or length)
    assert answer.seconds < SOON
    assert _journal(server, request_id)["left_by"] == "RequestTimeoutException"
    assert server.get("/ok").status == 200


# The signal of the main thread.


def test_a_signal_that_the_app_uses_is_left_to_it(start):
    server = start(kinds.GUNICORN_SYNC, HOSTLINE_SERVICE_TIMEOUT=str(LIMIT), TAKE_SIGNAL="SIGURG")
    busy = server.get(f"/block?call=busy&seconds={ENDLESS}")
    _assert_504(busy)
    assert busy.seconds < SOON
    asleep = server.get(f"/block?call=sleep&seconds={LASTS}")
    _assert_504(asleep)
    assert asleep.seconds > LASTS
    assert _whereabouts(server)["knocks"] == 0
    assert server.log.count("SIGURG is taken by ") == 1


@pytest.mark.slow
def test_another_signal_can_be_chosen(start):
    server = start(
        kinds.GUNICORN_SYNC,
        HOSTLINE_SERVICE_TIMEOUT=str(LIMIT),
        HOSTLINE_TIMEOUT_SIGNAL="SIGIO",
        TAKE_SIGNAL="SIGURG",
    )
    asleep = server.get(f"/block?call=sleep&seconds={ENDLESS}")
    _assert_504(asleep)
    assert asleep.seconds < SOON
    assert _whereabouts(server)["knocks"] == 0
    assert "is taken" not in server.log


# Forks.


@_each(kinds.GUNICORN_SYNC, kinds.GUNICORN_GTHREAD, quick={kinds.GUNICORN_SYNC})
def test_each_preloaded_worker_has_its_deadlines_met_once(start, kind):
    # WARM_UP: the guard is at work in the master before that forks.
    server = start(kind, "--preload", "--workers=2", HOSTLINE_SERVICE_TIMEOUT=str(LIMIT), WARM_UP="1")
    assert "warmed up: 504 Gateway Timeout" in server.log
    asked: list[str] = []

    def ask(_: int) -> int | None:
        asked.append(uuid.uuid4().hex)
        return _ask(server, f"/block?call=busy&seconds={ENDLESS}", asked[-1]).status

    def workers_that_timed_out() -> set[str]:
        lines = [line for line in server.log.splitlines() if "state=timed_out" in line]
        return {line.split(":")[2] for line in lines if any(f"id={each} " in line for each in asked)}

    with ThreadPoolExecutor(4) as pool:
        while len(workers_that_timed_out()) < 2 and len(asked) < 40:
            assert list(pool.map(ask, range(4))) == [504] * 4
    assert len(workers_that_timed_out()) == 2
    assert until(lambda: all(_timed_out(server, each) for each in asked))
    assert [_timed_out(server, each) for each in asked] == [1] * len(asked)


# gunicorn's gevent worker is a greenlet that a fork copies: in the child it ends the process as soon as it
# runs. So there a child can serve while it does not wait, and no more.
_FORKING = (kinds.GUNICORN_SYNC, kinds.GUNICORN_GTHREAD, kinds.WAITRESS)


@_each(*_FORKING, kinds.GUNICORN_GEVENT)
def test_a_child_that_serves_has_deadlines_of_its_own(serve, kind, tmp_path):
    server = serve(kind)
    answered = tmp_path / "answered"
    assert server.get(f"/unhurried/fork_and_serve?into={answered}").status == 200
    assert until(answered.exists)
    assert answered.read_text() == "504 Gateway Timeout"
    _assert_504(server.get(f"/block?call=busy&seconds={ENDLESS}"))  # and the parent still has its own


@_each(*_FORKING, quick={kinds.GUNICORN_SYNC, kinds.GUNICORN_GTHREAD})
def test_a_child_outlives_the_deadline_of_its_parent(serve, kind, tmp_path, request_id):
    server = serve(kind)
    finished = tmp_path / "finished"
    answer = _ask(server, f"/fork_and_block?into={finished}", request_id)
    _assert_504(answer)
    assert answer.seconds < SOON
    assert until(finished.exists)
    assert _timed_out(server, request_id) == 1


@_each(*_FORKING, quick={kinds.GUNICORN_GTHREAD})
def test_worker_processes_of_a_request_are_left_alone(serve, kind):
    server = serve(kind)
    with ThreadPoolExecutor(2) as pool:
        working = pool.submit(server.get, "/unhurried/work_in_pool")
        _assert_504(server.get(f"/block?call=busy&seconds={ENDLESS}"))
        assert json.loads(working.result().body) == [0, 1, 4, 9]


# The end of a worker that times out too often.

_ASKS = "hostline asks this process"
_LIMITS = {"HOSTLINE_SERVICE_TIMEOUT": str(LIMIT), "HOSTLINE_TERM_ON_TIMEOUT": "2"}


def _time_out_twice(server: Server) -> None:
    for _ in range(2):
        _assert_504(server.get(f"/block?call=busy&seconds={ENDLESS}"))


@pytest.mark.parametrize(
    ("kind", "options"),
    (
        (kinds.GUNICORN_SYNC, ()),
        (kinds.UWSGI, ("--master",)),
        (kinds.GRANIAN, ("--respawn-failed-workers",)),
    ),
    ids=_name,
)
def test_a_worker_that_times_out_too_often_is_replaced(start, kind, options):
    server = start(kind, *options, **_LIMITS)
    before = _pid(server)
    _time_out_twice(server)
    assert server.logs(_ASKS)
    assert _is_replaced(server, before)
    assert server.log.count(_ASKS) == 1


@_each(
    kinds.GUNICORN_GTHREAD,
    kinds.UWSGI_THREADS,
    kinds.GUNICORN_GEVENT,
    quick={kinds.GUNICORN_GTHREAD, kinds.UWSGI_THREADS},
)
def test_a_request_in_flight_is_not_lost_with_its_worker(start, kind):
    server = start(kind, **_LIMITS)
    before = _pid(server)
    held, release = server.folder / "held", server.folder / "release"
    with ThreadPoolExecutor(1) as pool:
        in_flight = pool.submit(server.get, f"/unhurried/hold?here={held}&until={release}")
        assert until(held.exists)
        _time_out_twice(server)
        assert server.logs(_ASKS)
        release.touch()
        answer = in_flight.result()
    assert answer.status == 200
    assert json.loads(answer.body)["pid"] == before
    assert _is_replaced(server, before)
    assert server.log.count(_ASKS) == 1


@pytest.mark.parametrize(
    ("kind", "name"),
    (
        (kinds.GRANIAN, "granian"),
        (kinds.WAITRESS, "this server"),
        (kinds.UWSGI, "uWSGI"),
        pytest.param(kinds.CHEROOT, "this server", marks=pytest.mark.slow),
        pytest.param(kinds.FLASK, "this server", marks=pytest.mark.slow),
        pytest.param(kinds.DJANGO_NO_THREADS, "this server", marks=pytest.mark.slow),
    ),
    ids=_name,
)
def test_a_process_that_nobody_would_replace_is_kept(start, kind, name):
    server = start(kind, **_LIMITS)
    before = _pid(server)
    assert server.get("/ok").status == 200
    assert server.logs(f"term_on_timeout is set, but {name} would not replace a process")
    _time_out_twice(server)
    assert server.logs(f"{name} would not replace it")
    _time_out_twice(server)
    assert _pid(server) == before
    assert server.log.count("would not replace it") == server.log.count("would not replace a process") == 1
    assert _ASKS not in server.log


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_worker_that_cannot_end_is_killed(start):
    options = ("--timeout=300", "--graceful-timeout=300")
    server = start(kinds.GUNICORN_GTHREAD, *options, **{**_LIMITS, "HOSTLINE_TERM_ON_TIMEOUT": "1"})
    before = _pid(server)
    with ThreadPoolExecutor(1) as pool:
        stuck = pool.submit(server.get, "/block?call=sleep&seconds=100", patience=110)
        assert server.logs(_ASKS)
        assert server.logs("unstoppable")
        assert until(lambda: "it is killed" in server.log, within=45)
        assert stuck.result().status is None
    assert _is_replaced(server, before)
