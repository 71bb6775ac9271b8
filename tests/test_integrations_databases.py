"""SQLAlchemy's and Django's databases with SQLite; PostgreSQL's are in ``servers/test_databases.py``."""

import sqlite3
import time

import pytest
import sqlalchemy
from django.core.signals import request_finished, request_started
from django.db import close_old_connections, connections, transaction
from django.db.backends.signals import connection_created
from django.db.backends.sqlite3.base import DatabaseWrapper

import django_connections
from hostline.integrations import _drivers, django_db
from hostline.integrations import sqlalchemy as integration
from hostline.wsgi import RequestTimeoutMiddleware
from timeouts import LONG, hello, in_thread, late, serve

pytestmark = pytest.mark.timed

COUNTING = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n WHERE i < 0"
)


@pytest.fixture(params=("main", "thread"))
def road(request):
    return {"main": lambda call: call(), "thread": in_thread}[request.param]


@pytest.fixture
def engine(tmp_path):
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/database")
    integration.attach(engine)
    yield engine
    engine.dispose()


def ask(function, **options):
    """What a function answers as a request, and the status that its client gets."""
    answers = []

    def app(environ, start_response):
        answers.append(function())
        return hello(environ, start_response)

    served = serve(RequestTimeoutMiddleware(app, observers=(), **options))
    return answers[0] if answers else None, served.status


def execute(engine, statement, *parameters):
    with engine.begin() as connection:
        result = connection.execute(sqlalchemy.text(statement), *parameters)
        return result.all() if result.returns_rows else None


def test_a_query_is_cancelled(engine, road):
    assert road(lambda: ask(lambda: execute(engine, COUNTING), service_timeout=0.05)) == (None, 504)
    assert execute(engine, "SELECT 7") == [(7,)]


def test_queries_in_time(engine, road):
    def work():
        execute(engine, "CREATE TABLE numbers (n int)")
        execute(engine, "INSERT INTO numbers VALUES (:n)", [{"n": 1}, {"n": 2}])
        with engine.begin() as connection:
            unparametrised = connection.execution_options(no_parameters=True)
            return unparametrised.exec_driver_sql("SELECT sum(n) FROM numbers").scalar()

    assert road(lambda: ask(work, service_timeout=LONG)) == (3, 200)


def test_no_limit_where_the_server_knows_none():
    engine = sqlalchemy.create_engine("sqlite://")
    integration.attach(engine, statement_timeout=True)
    assert ask(lambda: execute(engine, "SELECT 7"), service_timeout=LONG) == ([(7,)], 200)
    engine.dispose()


class _Connection:
    """A driver's that has what it is given."""

    def __init__(self, **methods):
        self.__dict__.update(methods)


def test_each_driver_has_its_own_way():
    called = []
    safe = _Connection(cancel_safe=lambda **options: called.append(options), cancel=pytest.fail)
    _drivers.cancel_of(safe)()
    assert called == [{"timeout": _drivers._CANCEL_TIMEOUT}]
    assert _drivers.cancel_of(_Connection(cancel=len)) is len
    assert _drivers.cancel_of(_Connection(interrupt=len)) is len
    assert _drivers.cancel_of(_Connection()) is None
    with _drivers.cancelled_at_the_deadline(_Connection()):
        pass


class _Server:
    """The cursor of one with a limit of its own."""

    def __init__(self, own):
        self.told = []
        self._own = own

    def execute(self, statement):
        self.told.append(statement)

    def fetchone(self):
        return (self._own,)

    def followed(self, **options):
        """What it is told in a request."""
        limit, self.told = _drivers.StatementTimeout(), []
        ask(lambda: limit.follow(self), **options)
        return self.told


def test_the_limit_is_what_is_left():
    asked, told = _Server("0").followed(service_timeout=LONG)
    assert asked == "SHOW statement_timeout"
    assert 0 < int(told.removeprefix("SET LOCAL statement_timeout = ")) <= LONG * 1000


def test_the_server_s_limit_is_not_loosened():
    assert _Server("5s").followed(service_timeout=LONG)[1:] == ["SET LOCAL statement_timeout = 5000"]


def test_without_a_limit_the_server_is_told_nothing():
    assert _Server("0").followed(service_timeout=0) == []


# Django


@pytest.fixture
def database(tmp_path):
    """Django's connections of each thread to a database of SQLite's."""
    settings = {"ENGINE": "django.db.backends.sqlite3", "NAME": tmp_path / "database"}
    with django_connections.attached(settings, statement_timeout=True):
        yield connections


def ask_django(sql):
    with connections["default"].cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


@pytest.mark.usefixtures("database")
def test_a_django_query_is_cancelled(road):
    """Its connection is closed, and the clean-up has another."""
    answers = []

    def view():
        try:
            with transaction.atomic():
                ask_django(COUNTING)
        finally:
            answers.append(ask_django("SELECT 7"))
            connections.close_all()  # this thread's

    assert road(lambda: ask(view, service_timeout=0.05)) == (None, 504)
    assert answers == [[(7,)]]


@pytest.mark.usefixtures("database")
def test_django_queries_in_time(road):
    def view():
        with transaction.atomic():
            answer = ask_django("SELECT 7")
        connections.close_all()
        return answer

    assert road(lambda: ask(view, service_timeout=LONG)) == ([(7,)], 200)
    assert ask_django("SELECT 8") == [(8,)]


@pytest.mark.usefixtures("database")
def test_a_django_connection_is_wrapped_once():
    connection = connections["default"]
    ask_django("SELECT 1")
    connection_created.send(sender=type(connection), connection=connection)
    assert len(connection.execute_wrappers) == 1


@pytest.mark.usefixtures("database")
def test_a_wrapper_of_the_app_s_is_taken_off_again():
    """And no other, though the connection is opened while it is there."""
    seen = []

    def watching(execute, *args):
        seen.append(args[0])
        return execute(*args)

    connection = connections["default"]
    with connection.execute_wrapper(watching):
        ask_django("SELECT 1")
    ask_django("SELECT 2")
    assert seen == ["SELECT 1"]
    assert [type(each) for each in connection.execute_wrappers] == [django_db._Wrapper]


def test_sqlite_s_interrupt_is_found():
    connection = sqlite3.connect(":memory:")
    assert _drivers.cancel_of(connection) == connection.interrupt
    connection.close()


@pytest.fixture
def lasting(database):
    """Connections that outlive their requests."""
    database.settings["default"]["CONN_MAX_AGE"] = None
    return database


def begin():
    """What Django does first in each request; what connection it has."""
    request_started.send(sender=None)
    ask_django("SELECT 1")
    return connections["default"].connection


def linger():
    while True:
        time.sleep(0.001)


@pytest.mark.usefixtures("lasting")
def test_a_django_connection_outlives_requests_in_time(road):
    def requests():
        used = {ask(begin, service_timeout=LONG)[0] for _ in range(3)}
        connections.close_all()
        return len(used)

    assert road(requests) == 1


@pytest.mark.usefixtures("lasting")
@pytest.mark.parametrize("is_open_before", (False, True))
def test_a_torn_django_transaction_is_not_for_the_next_request(road, is_open_before):
    """An abort has fallen halfway into an ``atomic`` block, which is never left."""

    def torn():
        request_started.send(sender=None)
        transaction.atomic().__enter__()
        ask_django("SELECT 1")
        linger()

    def requests():
        if is_open_before:
            connections["default"].ensure_connection()
        try:
            status = ask(torn, service_timeout=0.05)[1]
            was_torn = connections["default"].in_atomic_block
            answer = ask(lambda: (begin(), connections["default"].in_atomic_block)[1], service_timeout=LONG)
        finally:
            connections.close_all()
        return status, was_torn, answer

    assert road(requests) == (504, True, (False, 200))


@pytest.mark.usefixtures("lasting")
@pytest.mark.parametrize("is_first", (False, True))
def test_a_half_opened_django_connection_is_not_for_the_next_request(road, monkeypatch, is_first):
    """The abort has fallen where Django sets up what it has just opened."""

    def requests():
        if not is_first:
            ask(begin, service_timeout=LONG)
            connections.close_all()
        with monkeypatch.context() as patch:
            patch.setattr(DatabaseWrapper, "init_connection_state", lambda _: linger())
            status = ask(begin, service_timeout=0.05, deferral_limit=0.05)[1]
        half_opened = connections["default"].connection
        try:
            return status, half_opened, ask(begin, service_timeout=LONG)[0]
        finally:
            connections.close_all()

    status, half_opened, opened = road(requests)
    assert status == 504
    assert None is not half_opened is not opened is not None


@pytest.mark.usefixtures("lasting")
def test_a_connection_that_a_django_test_has_opened_stays():
    """In the transaction that is to be rolled back at the test's end."""
    connection_created.disconnect(dispatch_uid="hostline")
    request_started.disconnect(close_old_connections)  # as Django's test client does
    try:
        with transaction.atomic():
            opened = connections["default"].connection
            assert ask(begin, service_timeout=LONG) == (opened, 200)
    finally:
        request_started.connect(close_old_connections)


@pytest.mark.usefixtures("lasting")
def test_a_request_may_be_aborted_behind_its_response(road):
    """By a guard around Django, which tells that the response is closed before that is over."""

    def torn():
        request_started.send(sender=None)
        ask_django("SELECT 1")
        request_finished.send(sender=None)
        transaction.atomic().__enter__()
        late()

    def requests():
        try:
            return [ask(each, service_timeout=LONG)[1] for each in (begin, torn, begin)], connections[
                "default"
            ].in_atomic_block
        finally:
            connections.close_all()

    assert road(requests) == ([200, 504, 200], False)


@pytest.mark.usefixtures("lasting")
def test_a_connection_that_hostline_does_not_know_is_left_alone():
    """One that was in a block before ``attach``, when a response is closed."""
    connection_created.disconnect(dispatch_uid="hostline")
    with transaction.atomic():
        opened = connections["default"].connection
        request_finished.send(sender=None)
        assert connections["default"].connection is opened


@pytest.mark.usefixtures("lasting")
def test_a_request_that_is_only_reported_keeps_its_django_connection():
    def late():
        connection = begin()
        time.sleep(0.1)
        return connection

    first, status = ask(late, service_timeout=0.03, mode="report")
    second, _ = ask(begin, service_timeout=LONG)
    assert status == 200
    assert first is second
