"""Queries that run at the deadline, on a real PostgreSQL: gone from the server, and no connection lost."""

import asyncio
import gc
import logging
import random
import threading
import time
import unittest
import weakref
from contextlib import nullcontext
from functools import partial
from importlib.util import find_spec

import psycopg
import pytest
import sqlalchemy
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_started
from django.db import DataError, InternalError, OperationalError, connections, transaction
from django.db.backends.signals import connection_created
from django.http import HttpResponse
from django.test import Client as DjangoClient
from django.test import TestCase, override_settings
from django.urls import path as django_path
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import create_async_engine

import django_connections
import hostline
from hostline._requests import State
from hostline.asgi import RequestTimeoutMiddleware as AsgiMiddleware
from hostline.integrations import _drivers, django_db
from hostline.integrations import sqlalchemy as integration
from hostline.wsgi import RequestTimeoutMiddleware
from loops import run  # noqa: F401 - a fixture
from timeouts import (
    LONG,
    Client,
    Recorder,
    environ,
    eventually,
    hello,
    in_thread,
    late,
    linger,
    scope,
    serve,
)

pytestmark = pytest.mark.server

LIMIT = 0.3
GONE_WITHIN = 1.0  # of the deadline; some 10 ms where the machine is quiet, as `pytest -rP` shows
SYNC = [name for name in ("psycopg", "psycopg2") if find_spec(name)]
ASYNC = [name for name in ("asyncpg", "psycopg") if find_spec(name)]


@pytest.fixture
def server(postgresql):
    return postgresql


@pytest.fixture
def watch(server):
    with psycopg.connect(server.address, autocommit=True) as connection:
        yield Watch(connection)


class Watch:
    """Sees what the server is doing."""

    def __init__(self, connection):
        self._connection = connection

    def active(self):
        return self._connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(30%'"
            " AND pid <> pg_backend_pid()"
        ).fetchone()[0]

    def in_a_transaction(self):
        return self._connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
        ).fetchone()[0]

    def set_limit(self, milliseconds):
        self._connection.execute(f"SET statement_timeout = {milliseconds}")

    def limit(self):
        return self._connection.execute("SHOW statement_timeout").fetchone()[0]

    def when_gone(self):
        assert eventually(lambda: self.active() == 0)
        return time.monotonic()


def url(server, driver):
    folder = str(server.folder)
    return f"postgresql+{driver}://hostline@/postgres?host={folder}"


@pytest.fixture(params=SYNC)
def engine(request, server):
    engine = sqlalchemy.create_engine(url(server, request.param), pool_size=4, max_overflow=0)
    integration.attach(engine)
    yield engine
    engine.dispose()


def milliseconds(setting):
    """As PostgreSQL shows a duration: `29990ms`, or `30s`."""
    return int(setting[:-2]) if setting.endswith("ms") else 1000 * int(setting[:-1])


def tell(gone, answered):
    """For `pytest -rP`: behind the deadline."""
    print(f"gone after {gone * 1000:.0f} ms, answered after {answered * 1000:.0f} ms")


def sleeping(engine, seconds=30):
    with engine.begin() as connection:
        return connection.execute(sqlalchemy.text(f"SELECT pg_sleep({seconds}), 7")).all()


@pytest.fixture(params=("main", "thread"))
def road(request):
    return {"main": lambda call: call(), "thread": in_thread}[request.param]


def wsgi(function, limit=LIMIT, **options):
    def app(environ, start_response):
        app.request = hostline.current()
        app.answer = function()
        return hello(environ, start_response)

    seen = Recorder()
    guarded = RequestTimeoutMiddleware(app, service_timeout=limit, observers=[seen], **options)
    guarded.inner, guarded.seen = app, seen
    return guarded


def test_a_query_is_cancelled_on_the_server(road, engine, watch):
    """By a watcher that does not wait for the client's answer, and lets time run out once the query runs."""
    seen = []
    sleeping(engine, 0)  # its first connection, of which SQLAlchemy learns about the server

    def see_it_go():
        assert eventually(watch.active)
        request = app.inner.request
        request.set_timeout(request.service)
        began = time.monotonic()
        seen.append((began, watch.when_gone() - began))

    app = wsgi(partial(sleeping, engine), LONG)
    watcher = threading.Thread(target=see_it_go)
    watcher.start()
    served = road(lambda: serve(app))
    answered = time.monotonic()
    watcher.join()
    [(deadline, gone)] = seen
    answered -= deadline
    assert served.status == 504
    assert app.seen.states == [State.READY, State.TIMED_OUT]
    tell(gone, answered)
    assert gone < GONE_WITHIN
    assert answered < GONE_WITHIN
    assert eventually(
        lambda: watch.in_a_transaction() == 0
    )  # the server hears of a closed one a little later
    assert engine.pool.checkedout() == 0
    assert sleeping(engine, 0) == [("", 7)]


def test_a_query_in_time(road, engine):
    app = wsgi(partial(sleeping, engine, 0), LONG)
    assert road(lambda: serve(app)).status == 200
    assert app.inner.answer == [("", 7)]


def test_many_statements_and_none_without_parameters(road, engine):
    def work():
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TEMPORARY TABLE numbers (n int) ON COMMIT DROP")
            rows = [{"n": n} for n in range(3)]
            connection.execute(sqlalchemy.text("INSERT INTO numbers VALUES (:n)"), rows)
            return (
                connection.execution_options(no_parameters=True)
                .exec_driver_sql("SELECT sum(n) FROM numbers")
                .scalar()
            )

    app = wsgi(work, LONG)
    assert road(lambda: serve(app)).status == 200
    assert app.inner.answer == 3


def test_a_commit_in_a_shield(road, engine, watch):
    """The deadline falls into the transaction, and what was begun is committed whole."""
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("DROP TABLE IF EXISTS kept"))
        connection.execute(sqlalchemy.text("CREATE TABLE kept (n int)"))

    def work():
        with hostline.shield(), engine.begin() as connection:
            connection.execute(sqlalchemy.text("INSERT INTO kept VALUES (1)"))
            connection.execute(sqlalchemy.text("SELECT pg_sleep(0.5)"))

    assert road(lambda: serve(wsgi(work))).status == 504
    with engine.begin() as connection:
        assert connection.execute(sqlalchemy.text("SELECT count(*) FROM kept")).scalar() == 1


@pytest.fixture
def slow_to_commit(server):
    """A table; who has inserted into it waits in its COMMIT."""
    with psycopg.connect(server.address, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS slow_to_commit")
        connection.execute("CREATE TABLE slow_to_commit (n int)")
        connection.execute(
            "CREATE OR REPLACE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql"
            " AS 'BEGIN PERFORM pg_sleep(0.8); RETURN NULL; END'"
        )
        connection.execute(
            "CREATE CONSTRAINT TRIGGER linger AFTER INSERT ON slow_to_commit"
            " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION linger()"
        )


@pytest.mark.usefixtures("slow_to_commit")
def test_a_commit_that_is_cut_off(road, engine, watch):
    """In the main thread psycopg leaves it halfway; elsewhere it comes to its end first."""

    def work():
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("INSERT INTO slow_to_commit VALUES (1)"))

    assert road(lambda: serve(wsgi(work))).status == 504
    assert engine.pool.checkedout() == 0
    assert road(lambda: sleeping(engine, 0)) == [("", 7)]
    assert eventually(lambda: watch.in_a_transaction() == 0)


@pytest.mark.parametrize("driver", SYNC)
def test_the_server_s_own_limit_follows(server, driver):
    engine = sqlalchemy.create_engine(url(server, driver))
    integration.attach(engine, statement_timeout=True)
    show = sqlalchemy.text("SELECT current_setting('statement_timeout')")

    def work():
        with engine.begin() as connection:
            limited = connection.execute(show).scalar()
            hostline.set_timeout(None)
            unlimited = connection.execute(show).scalar(), connection.execute(show).scalar()
        return limited, unlimited

    app = wsgi(work, LONG)
    assert in_thread(lambda: serve(app)).status == 200
    limited, unlimited = app.inner.answer
    assert 0 < milliseconds(limited) <= LONG * 1000
    assert unlimited == ("0", "0")
    with engine.begin() as connection:
        assert connection.execute(show).scalar() == "0"
    engine.dispose()


@pytest.fixture(params=SYNC)
def limited(request, server):
    """An engine whose server follows the deadline."""
    engine = sqlalchemy.create_engine(url(server, request.param))
    integration.attach(engine, statement_timeout=True)
    yield engine
    engine.dispose()


def in_time(work):
    """What this answers in a request that has time enough."""

    def keep():
        try:
            answers.append(work())
        except Exception as error:  # as the app's own, which the guard would hand to the server
            answers.append(error)

    answers = []
    assert in_thread(lambda: serve(wsgi(keep, LONG))).status == 200
    return answers[0]


SHOW = "SELECT current_setting('statement_timeout')"
TWICE = "SELECT 1 / (count(*) - 1) FROM (VALUES (1)) AS one"


def test_a_savepoint_is_returned_to(limited):
    """PostgreSQL takes nothing else in a transaction that has failed."""

    def work():
        with limited.begin() as connection:
            with pytest.raises(sqlalchemy.exc.DataError), connection.begin_nested():
                connection.exec_driver_sql(TWICE)
            return connection.exec_driver_sql(SHOW).scalar()

    assert 0 < milliseconds(in_time(work)) <= LONG * 1000


def test_a_transaction_that_has_failed_is_ended_by_hand(limited):
    """And says what it says without us meanwhile."""

    def work():
        with limited.connect() as connection:
            for statement in (TWICE, "SELECT 1"):
                with pytest.raises(sqlalchemy.exc.DBAPIError) as caught:
                    connection.exec_driver_sql(statement)
            connection.exec_driver_sql("/* as some tools do */ ROLLBACK")
            return caught.value.statement, connection.exec_driver_sql("SELECT 7").scalar()

    assert in_time(work) == ("SELECT 1", 7)


def test_no_limit_comes_back_with_a_savepoint(limited):
    """It was there when the savepoint was made."""

    def work():
        with limited.begin() as connection:
            connection.exec_driver_sql("SELECT 1")
            savepoint = connection.begin_nested()
            hostline.set_timeout(None)
            connection.exec_driver_sql("SELECT 1")
            savepoint.rollback()
            return connection.exec_driver_sql(SHOW).scalar()

    assert in_time(work) == "0"


def test_a_stricter_limit_stays(limited):
    """The session's own, as a role's is: with a deadline, and when that has been taken back."""

    @sqlalchemy.event.listens_for(limited, "connect")
    def be_strict(connection, _):
        connection.cursor().execute("SET statement_timeout = '5s'")
        connection.commit()

    def work():
        with limited.begin() as connection:
            seen = [connection.exec_driver_sql(SHOW).scalar() for _ in range(2)]
            hostline.set_timeout(3)
            seen.append(connection.exec_driver_sql(SHOW).scalar())
            hostline.set_timeout(None)
            return *seen, connection.exec_driver_sql(SHOW).scalar()

    first, second, shorter, last = in_time(work)
    assert (first, second, last) == ("5s", "5s", "5s")
    assert 0 < milliseconds(shorter) <= 3000


def test_a_transaction_is_still_the_app_s_to_set_up(limited):
    """Nothing of ours has taken its snapshot."""

    def work():
        with limited.begin() as connection:
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
            return connection.exec_driver_sql("SHOW transaction_isolation").scalar()

    assert in_time(work) == "serializable"


def test_nothing_is_said_where_there_is_no_transaction(limited, caplog):
    """Else the server would warn of each: SQLAlchemy logs what it says."""
    caplog.set_level(logging.INFO, "sqlalchemy.dialects.postgresql")

    def work():
        with limited.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            return connection.exec_driver_sql(SHOW).scalar()

    assert in_time(work) == "0"
    assert caplog.messages == []


def test_a_connection_that_is_gone(limited, server):
    """SQLAlchemy hears of it as if the app's statement had found it out."""

    def work():
        with limited.connect() as connection:
            process = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
            with psycopg.connect(server.address) as other:
                other.execute("SELECT pg_terminate_backend(%s, 10000)", [process])
            connection.exec_driver_sql("SELECT 1")

    error = in_time(work)
    assert isinstance(error, sqlalchemy.exc.OperationalError)
    assert error.connection_invalidated
    assert limited.pool.checkedout() == 0


def test_rows_that_come_one_by_one(limited):
    """By a cursor on the server, which is not the one that sets the limit."""

    def work():
        with limited.connect().execution_options(yield_per=2) as connection:
            return connection.execute(sqlalchemy.text("SELECT * FROM generate_series(1, 5)")).scalars().all()

    assert in_time(work) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("is_limited", (False, True))
@pytest.mark.parametrize("driver", SYNC)
def test_slow_rows_that_come_one_by_one(road, server, watch, driver, is_limited):
    """The query goes on where nothing of ours is run: by the server's limit, or by the app's own block."""
    engine = sqlalchemy.create_engine(url(server, driver))
    integration.attach(engine, statement_timeout=is_limited)
    query = sqlalchemy.text(
        "SELECT n, CASE WHEN n = 3 THEN pg_sleep(30)::text END FROM generate_series(1, 5) AS n"
    )

    def work():
        with engine.connect().execution_options(yield_per=2) as connection:
            driver_s = connection.connection.driver_connection
            block = nullcontext() if is_limited else hostline.interruptible(driver_s.cancel)
            with block, connection.execute(query) as rows:
                seen.extend(n for n, _ in rows)

    seen = []
    sleeping(engine, 0)
    began = time.monotonic()
    served = road(lambda: serve(wsgi(work)))
    answered = time.monotonic() - began - LIMIT
    gone = watch.when_gone() - began - LIMIT
    tell(gone, answered)
    # The server's error comes at the deadline too, and whichever is first.
    assert served.status == 504 or (is_limited and isinstance(served.error, sqlalchemy.exc.OperationalError))
    assert 3 not in seen
    assert max(answered, gone) < GONE_WITHIN
    assert engine.pool.checkedout() == 0
    engine.dispose()


def test_fastapi_s_pool_threads(run, engine, watch):  # noqa: F811
    app = FastAPI()

    @app.get("/")
    def view():
        return len(sleeping(engine))

    guarded = AsgiMiddleware(app, service_timeout=LIMIT, observers=())
    client = run(Client().ask(guarded, scope()))
    assert (client.status, client.error) == (504, None)
    assert watch.when_gone() > 0
    assert engine.pool.checkedout() == 0
    assert sleeping(engine, 0) == [("", 7)]


@pytest.mark.parametrize("driver", ASYNC)
@pytest.mark.parametrize("limits", (False, True))
def test_async_engines(run, server, watch, driver, limits):  # noqa: F811
    async def main():
        engine = create_async_engine(url(server, driver), pool_size=2, max_overflow=0)
        integration.attach(engine, statement_timeout=limits)

        async def ask(seconds):
            async with engine.begin() as connection:
                result = await connection.execute(sqlalchemy.text(f"SELECT pg_sleep({seconds})::text, 7"))
                return result.all()

        async def app(scope, receive, send):
            await ask(30)

        guarded = AsgiMiddleware(app, service_timeout=LIMIT, observers=())
        await ask(0)
        began = time.monotonic()
        client = await Client().ask(guarded)
        answered = time.monotonic() - began
        gone = await asyncio.to_thread(watch.when_gone) - began
        good = await ask(0)
        checked_out = engine.pool.checkedout()
        await engine.dispose()
        return client, answered, gone, good, checked_out

    client, answered, gone, good, checked_out = run(main())
    assert (client.status, client.error) == (504, None)
    tell(gone - LIMIT, answered - LIMIT)
    assert answered < LIMIT + GONE_WITHIN
    assert gone < LIMIT + GONE_WITHIN
    assert (good, checked_out) == ([("", 7)], 0)


@pytest.mark.parametrize("driver", ASYNC)
def test_async_savepoints_are_returned_to(run, server, driver):  # noqa: F811
    seen = []

    async def main():
        engine = create_async_engine(url(server, driver))
        integration.attach(engine, statement_timeout=True)

        async def app(scope, receive, send):
            async with engine.begin() as connection:
                with pytest.raises(sqlalchemy.exc.DBAPIError):
                    async with connection.begin_nested():
                        await connection.exec_driver_sql(TWICE)
                seen.append((await connection.exec_driver_sql(SHOW)).scalar())
            async with engine.connect() as plain:
                connection = await plain.execution_options(isolation_level="AUTOCOMMIT")
                seen.append((await connection.exec_driver_sql(SHOW)).scalar())

        try:
            await Client().ask(AsgiMiddleware(app, service_timeout=LONG, observers=()))
        finally:
            await engine.dispose()

    run(main())
    limit, without_transaction = seen
    assert 0 < milliseconds(limit) <= LONG * 1000
    assert without_transaction == "0"


def test_every_limit_is_understood(watch):
    """As the server shows it."""
    settings = (0, 1, 999, 1000, 29990, 90_000, 60_000, 3_600_000, 86_400_000, 2**31 - 1)
    for setting in settings:
        watch.set_limit(setting)
        assert _drivers.in_milliseconds(watch.limit()) == setting


# Django


@pytest.fixture
def django(server):
    """Django's connections of each thread to this server."""
    database = {"ENGINE": "django.db.backends.postgresql", "USER": "hostline", "NAME": "postgres"}
    with django_connections.attached({**database, "HOST": str(server.folder)}):
        yield connections


def ask_django(sql):
    with connections["default"].cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


@pytest.mark.usefixtures("django")
@pytest.mark.parametrize("is_atomic", (False, True))
def test_a_django_query_is_cancelled(road, watch, is_atomic):
    connected = []

    def view():
        ask_django("SELECT 1")
        try:
            with transaction.atomic() if is_atomic else nullcontext():
                ask_django("SELECT pg_sleep(30)")
        finally:
            connected.append(connections["default"].connection is not None)
            connections.close_all()

    began = time.monotonic()
    app = wsgi(view)
    assert road(lambda: serve(app)).status == 504
    answered = time.monotonic() - began - LIMIT
    gone = watch.when_gone() - began - LIMIT
    tell(gone, answered)
    assert connected == [False]
    assert gone < GONE_WITHIN
    assert eventually(
        lambda: watch.in_a_transaction() == 0
    )  # the server hears of a closed one a little later


@pytest.mark.usefixtures("django")
def test_a_django_connection_is_opened_anew(road):
    """In the very request, by its clean-up."""
    answers = []

    def view():
        try:
            ask_django("SELECT pg_sleep(30)")
        finally:
            answers.append(ask_django("SELECT 7"))
            connections.close_all()

    assert road(lambda: serve(wsgi(view))).status == 504
    assert answers == [[(7,)]]


@pytest.mark.usefixtures("django")
def test_a_django_transaction_in_a_shield(road):
    ask_django("SELECT 1")
    with connections["default"].cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS kept")
        cursor.execute("CREATE TABLE kept (n int)")

    def view():
        try:
            with hostline.shield(), transaction.atomic(), connections["default"].cursor() as cursor:
                cursor.execute("INSERT INTO kept VALUES (1)")
                cursor.execute("SELECT pg_sleep(0.5)")
        finally:
            connections.close_all()

    assert road(lambda: serve(wsgi(view))).status == 504
    assert ask_django("SELECT count(*) FROM kept") == [(1,)]


@pytest.mark.usefixtures("slow_to_commit")
def test_a_django_commit_that_is_cut_off(road, django):
    """On a connection that outlives its requests."""
    django.settings["default"]["CONN_MAX_AGE"] = None

    def ask(sql):
        request_started.send(sender=None)
        with transaction.atomic(), connections["default"].cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall() if cursor.description else None

    def requests():
        for connection in connections.all(initialized_only=True):
            del connections[connection.alias]  # another test's
        first, late, second = (
            wsgi(partial(ask, "SELECT 1"), LONG),
            wsgi(partial(ask, "INSERT INTO slow_to_commit VALUES (1)")),
            wsgi(partial(ask, "SELECT 2"), LONG),
        )
        try:
            return [serve(app).status for app in (first, late, second)], second.inner.answer
        finally:
            connections.close_all()

    assert road(requests) == ([200, 504, 200], [(2,)])


def test_django_s_server_side_limit(django):
    connection_created.disconnect(dispatch_uid="hostline")
    django_db.attach(statement_timeout=True)
    show = "SELECT current_setting('statement_timeout')"

    def view():
        outside = ask_django(show)
        with transaction.atomic():
            limited = ask_django(show)
            hostline.set_timeout(None)
            unlimited = [ask_django(show), ask_django(show)]
        django.close_all()
        return outside, limited, unlimited

    app = wsgi(view, LONG)
    assert in_thread(lambda: serve(app)).status == 200
    outside, [(limited,)], unlimited = app.inner.answer
    assert outside == [("0",)]
    assert 0 < milliseconds(limited) <= LONG * 1000
    assert unlimited == [[("0",)], [("0",)]]


@pytest.fixture
def limited_django(django):
    connection_created.disconnect(dispatch_uid="hostline")
    django_db.attach(statement_timeout=True)
    yield django["default"]
    django.close_all()


def in_django(work):
    """What this answers in a request that has time enough, on a connection of its thread."""

    def work_and_close():
        try:
            return work()
        finally:
            connections.close_all()

    return in_time(work_and_close)


@pytest.mark.usefixtures("limited_django")
def test_a_django_savepoint_is_returned_to():
    def work():
        with transaction.atomic():
            with pytest.raises(DataError), transaction.atomic():
                ask_django(TWICE)
            return ask_django(SHOW)

    [(limit,)] = in_django(work)
    assert 0 < milliseconds(limit) <= LONG * 1000


@pytest.mark.usefixtures("limited_django")
def test_a_django_transaction_that_has_failed():
    """Its errors are Django's."""

    def work():
        with transaction.atomic():
            with pytest.raises(DataError):
                ask_django(TWICE)
            ask_django("SELECT 1")

    error = in_django(work)
    assert isinstance(error, InternalError)
    assert isinstance(error.__cause__, psycopg.errors.InFailedSqlTransaction)


@pytest.mark.usefixtures("limited_django")
def test_a_django_connection_that_is_gone(server):
    """Found out by ours: its error is Django's all the same."""

    def work():
        with transaction.atomic():
            [(process,)] = ask_django("SELECT pg_backend_pid()")
            with psycopg.connect(server.address) as other:
                other.execute("SELECT pg_terminate_backend(%s, 10000)", [process])
            ask_django("SELECT 1")

    assert isinstance(in_django(work), OperationalError)


@pytest.mark.usefixtures("limited_django")
@pytest.mark.parametrize("is_atomic", (False, True))
def test_django_rows_that_come_one_by_one(is_atomic):
    """As those of ``QuerySet.iterator()`` do, by a cursor on the server."""

    def work():
        connection = connections["default"]
        with transaction.atomic() if is_atomic else nullcontext(), connection.chunked_cursor() as cursor:
            cursor.execute("SELECT generate_series(1, 5)")
            return [number for (number,) in cursor.fetchall()]

    assert in_django(work) == [1, 2, 3, 4, 5]


def test_a_stricter_limit_of_django_s_stays(limited_django):
    """Found out anew for each connection that is opened."""
    options = limited_django.settings_dict["OPTIONS"]

    def ask():
        with transaction.atomic():
            return ask_django(SHOW)

    def work():
        connections["default"].settings_dict["OPTIONS"] = {"options": "-c statement_timeout=5s"}
        strict = ask()
        connections.close_all()
        connections["default"].settings_dict["OPTIONS"] = options
        return strict, ask()

    strict, [(limit,)] = in_django(work)
    assert strict == [("5s",)]
    assert 5000 < milliseconds(limit) <= LONG * 1000


# The entry of MIDDLEWARE


class Site:
    """A Django project that is guarded by its own entry, and keeps its connections."""

    def __init__(self, limit=LONG):
        self.urlpatterns = [django_path("<str:name>", self.view)]
        self.settings = override_settings(
            ROOT_URLCONF=self,
            MIDDLEWARE=["hostline.django.RequestTimeoutMiddleware"],
            ALLOWED_HOSTS=["*"],
            HOSTLINE_SERVICE_TIMEOUT=limit,
            HOSTLINE_TIMEOUT_OBSERVERS=(),
        )
        self.torn = []

    def view(self, _, name):
        with transaction.atomic(durable=True):  # an error in any other block
            [(process,)] = ask_django("SELECT pg_backend_pid()")
        if name == "torn":
            late(self.tear)
        return HttpResponse(str(process))

    def tear(self):
        """Be aborted where nobody rolls back."""
        transaction.atomic().__enter__()
        self.torn.append(connections["default"].in_atomic_block)
        linger()

    def ask(self, name):
        served = serve(self.handler, environ(f"/{name}"))
        return served.status, served.body.decode() if served.status == 200 else ""

    def __enter__(self):
        self.settings.enable()
        self.handler = WSGIHandler()
        return self

    def __exit__(self, *_):
        self.settings.disable()


def test_no_torn_django_connection_is_used_again_behind_the_entry(road, django):
    """Django tells of a request before it enters MIDDLEWARE; not only the connection's first is seen."""
    django.settings["default"]["CONN_MAX_AGE"] = None

    def requests():
        for connection in connections.all(initialized_only=True):
            del connections[connection.alias]
        try:
            return [site.ask(name) for name in ("good", "good", "torn", "good", "torn", "good", "good")]
        finally:
            connections.close_all()

    with Site() as site:
        first, second, torn, third, torn_again, fourth, fifth = road(requests)
    assert first == second
    assert torn == torn_again == (504, "")
    assert site.torn == [True, True]
    assert fourth == fifth
    assert [status for status, _ in (first, third, fourth)] == [200, 200, 200]
    assert len({first, third, fourth}) == 3


@pytest.mark.usefixtures("django")
def test_a_django_test_case_keeps_its_transaction():
    """And what it has put there, through any request of its client's."""
    seen = []

    class Tests(TestCase):
        @classmethod
        def setUpTestData(cls):
            ask_django("SELECT 1")
            with connections["default"].cursor() as cursor:
                cursor.execute("CREATE TEMPORARY TABLE put_there AS SELECT 7 AS n")

        def test_requests(self):
            for name in ("good", "slow", "good"):
                seen.append(self.client.get(f"/{name}").status_code)
                seen.append(ask_django("SELECT n FROM put_there"))

        def test_more(self):
            seen.append(self.client.get("/good").status_code)

    with Site() as site:
        site.urlpatterns.insert(0, django_path("slow", lambda _: late()))
        tests = unittest.defaultTestLoader.loadTestsFromTestCase(Tests)
        result = unittest.TestResult()
        tests.run(result)
    assert (result.errors, result.failures, result.testsRun) == ([], [], 2)
    assert sorted(map(str, seen)) == sorted(map(str, [200, 200, 200, 504, *[[(7,)]] * 3]))


@pytest.mark.usefixtures("django")
def test_a_block_behind_a_timed_out_request_keeps_its_connection():
    """It was not there for that request to tear."""
    ask_django("SELECT 1")
    with Site() as site:
        site.urlpatterns.insert(0, django_path("slow", lambda _: late()))
        site.urlpatterns.insert(0, django_path("good", lambda _: HttpResponse(b"good")))
        client = DjangoClient()
        assert client.get("/slow").status_code == 504
        with transaction.atomic():
            ask_django("SELECT 1")
            opened = connections["default"].connection
            assert client.get("/good").status_code == 200
            assert connections["default"].connection is opened
            assert ask_django("SELECT 7") == [(7,)]


@pytest.mark.usefixtures("django")
def test_no_request_s_environ_is_kept():
    ask_django("SELECT 1")
    asked = environ("/good")
    body = weakref.ref(asked["wsgi.input"])
    with Site() as site:
        assert serve(site.handler, asked).status == 200
    del asked
    gc.collect()
    assert body() is None


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_pool_after_many_aborts(engine, watch):
    """Good requests and bad ones by turns, four at a time, the deadline at every moment of a query."""
    wrong, statuses = [], []

    def work(number):
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("SELECT 1"))
            slow = number % 3 == 0
            seconds = 0.04 + random.random() / 50 if slow else 0
            row = connection.execute(sqlalchemy.text(f"SELECT pg_sleep({seconds})::text, {number}")).one()
            if row[1] != number:
                wrong.append((row, number))

    def requests(first):
        for number in range(first, 1000, 4):
            app = RequestTimeoutMiddleware(
                lambda environ, start_response, n=number: (work(n), hello(environ, start_response))[1],
                service_timeout=0.05,
                observers=(),
            )
            statuses.append(serve(app).status)

    threads = [threading.Thread(target=requests, args=(first,)) for first in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert wrong == []
    assert set(statuses) == {200, 504}
    assert len(statuses) == 1000
    assert engine.pool.checkedout() == 0
    assert eventually(lambda: watch.active() == 0)
    assert eventually(lambda: watch.in_a_transaction() == 0)
    assert sleeping(engine, 0) == [("", 7)]
