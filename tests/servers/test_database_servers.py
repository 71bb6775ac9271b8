"""A deadline on real servers with a real PostgreSQL: the answer, the query, and the pool afterwards."""

import json
import re
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import KW_ONLY, dataclass, replace

import asgi_kinds
import psycopg
import pytest
import server_kind
import wsgi_kinds
from launch import until

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]

LIMIT = 1.0
#: How late the answer and the end of the query may be; some 10 ms where the machine is quiet.
BOUND = 1.0
#: Of the many requests, which nobody would wait for otherwise.
SHORT_LIMIT = 0.1
#: What answers is not what is tried here: it has time on a busy machine.
UNHURRIED = ",".join(f"{path}=30s" for path in ("/good", "/async/good", "/pool", "/async/pool", "/ready"))

CLIENTS = 8
POOL = 4


def _serving(kind, app, **options):
    command = tuple(app if part in (wsgi_kinds.APP, asgi_kinds.APP) else part for part in kind.command)
    return replace(kind, name=f"{kind.name}, {app}", command=command, **options)


FLASK = _serving(wsgi_kinds.GUNICORN_GTHREAD, "database_flask:app", requires=("flask", "sqlalchemy"))
FLASK_SYNC = _serving(wsgi_kinds.GUNICORN_SYNC, "database_flask:app", requires=("flask", "sqlalchemy"))
FLASK_GEVENT = _serving(
    wsgi_kinds.GUNICORN_GEVENT, "database_flask:app", requires=("flask", "gevent", "sqlalchemy")
)
DJANGO = _serving(wsgi_kinds.GUNICORN_SYNC, "database_django:app", requires=("django",))
FASTAPI = _serving(
    asgi_kinds.UVICORN, "database_fastapi:app", requires=("asyncpg", "fastapi", "httpx", "sqlalchemy")
)


@dataclass(frozen=True)
class Site:
    """An app with its driver, on its server."""

    name: str
    kind: server_kind.Kind
    driver: str
    _: KW_ONLY
    prefix: str = ""
    pool: int = POOL
    backends: int = POOL  # all that the process may keep

    def __str__(self):
        return self.name

    @property
    def kind_here(self):
        return replace(self.kind, requires=(*self.kind.requires, self.driver))


SITES = (
    Site("gunicorn gthread, Flask, SQLAlchemy, psycopg", FLASK, "psycopg"),
    Site("gunicorn gthread, Flask, SQLAlchemy, psycopg2", FLASK, "psycopg2"),
    Site("gunicorn sync, Flask, SQLAlchemy, psycopg", FLASK_SYNC, "psycopg"),
    Site("gunicorn sync, Django, psycopg", DJANGO, "psycopg", pool=1, backends=1),
    Site("uvicorn, FastAPI (def), SQLAlchemy, psycopg", FASTAPI, "psycopg", backends=2 * POOL),
    Site(
        "uvicorn, FastAPI (async def), SQLAlchemy, asyncpg",
        FASTAPI,
        "psycopg",
        prefix="/async",
        backends=2 * POOL,
    ),
    # Under gevent psycopg lets others run while it waits, and psycopg2 nobody.
    Site("gunicorn gevent, Flask, SQLAlchemy, psycopg", FLASK_GEVENT, "psycopg"),
    Site("gunicorn gevent, Flask, SQLAlchemy, psycopg2", FLASK_GEVENT, "psycopg2"),
)


def _database(folder, kind, driver):
    """What tells the app where the database is, and the name by which the database knows the app."""
    application = re.sub(r"\W+", "-", f"{kind.name}-{driver}-{uuid.uuid4().hex[:6]}")
    url = f"postgresql+{driver}://hostline@/postgres?host={folder}&application_name={application}"
    return {"DATABASE_URL": url, "DATABASE_HOST": str(folder), "DATABASE_APPLICATION": application}


@pytest.fixture(params=SITES, ids=str)
def site(request):
    return request.param


@pytest.fixture
def serve(start, postgresql):
    """Start a site of its own, with its view of what the database does for it."""

    def serve(site, limit, **environment):
        database = _database(postgresql.folder, site.kind, site.driver)
        server = start(
            site.kind_here,
            HOSTLINE_SERVICE_TIMEOUT=str(limit),
            HOSTLINE_TIMEOUT_FOR=UNHURRIED,
            **database,
            **environment,
        )
        return server, Backends(connection, database["DATABASE_APPLICATION"])

    with psycopg.connect(postgresql.address, autocommit=True) as connection:
        yield serve


class Backends:
    """PostgreSQL's processes that serve one app."""

    def __init__(self, connection, application):
        self._connection = connection
        self._application = application

    def count(self, condition="true"):
        return self._connection.execute(
            f"SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND {condition}",
            [self._application[:63]],
        ).fetchone()[0]

    def running(self):
        return self.count("state = 'active' AND query LIKE '%%pg_sleep%%'")

    def in_a_transaction(self):
        return self.count("state LIKE 'idle in transaction%%'")


def _answered(answer, number):
    """Whether this is the answer to the request with that number."""
    return (answer.status, answer.body) == (200, json.dumps(number).encode())


def test_a_query_at_the_deadline(serve, site):
    server, backends = serve(site, LIMIT)
    with ThreadPoolExecutor() as clients:
        began = time.monotonic()
        slow = clients.submit(server.get, f"{site.prefix}/slow/30.0/7")
        assert until(backends.running)
        assert until(lambda: not backends.running())
        gone = time.monotonic() - began - LIMIT
    answer = slow.result()
    print(f"{site}: waited {answer.seconds:.3f} s, query gone {gone * 1000:.0f} ms after the deadline")
    assert answer.status == 504
    assert LIMIT <= answer.seconds < LIMIT + BOUND
    assert 0 <= gone < BOUND
    assert until(lambda: not backends.in_a_transaction())
    assert until(lambda: _pool(server, site)["checked_out"] == 0)
    assert all(_answered(server.get(f"{site.prefix}/good/{number}"), number) for number in range(POOL + 1))


def _pool(server, site):
    return json.loads(server.get(f"{site.prefix}/pool").body)


@pytest.mark.parametrize(
    "count",
    (
        60,
        pytest.param(1000, marks=[pytest.mark.slow, pytest.mark.timeout(400)]),
    ),
)
def test_a_pool_after_many_deadlines(serve, site, count):
    """Of ten requests seven are good, two far too slow, and one comes to its end about at the deadline."""
    server, backends = serve(site, SHORT_LIMIT)

    def ask(number):
        if number % 10 < 7:
            path = f"good/{number}"
        elif number % 10 < 9:
            path = f"slow/2.0/{number}"
        else:
            path = f"slow/{SHORT_LIMIT + (number // 10 % 9 - 6) / 200:.3f}/{number}"
        return server.get(f"{site.prefix}/{path}")

    with ThreadPoolExecutor(CLIENTS) as clients:
        answers = list(clients.map(ask, range(count)))
    late = [answer for answer in answers if answer.status == 504]
    wrong = [
        (number, answer)
        for number, answer in enumerate(answers)
        if not _answered(answer, number) and (number % 10 < 7 or answer.status != 504)
    ]
    assert wrong == []
    assert len(late) >= count // 5
    assert until(lambda: not backends.running())
    assert until(lambda: not backends.in_a_transaction())
    assert until(lambda: _pool(server, site)["checked_out"] == 0)
    # Every connection of the pool at once, and each is of use.
    with ThreadPoolExecutor(CLIENTS) as clients:
        good = list(clients.map(lambda number: server.get(f"{site.prefix}/good/{number}"), range(40)))
    assert all(_answered(answer, number) for number, answer in enumerate(good))
    assert until(lambda: backends.count() <= site.backends)
    status = _pool(server, site)["status"]
    print(f"{site}: {count} requests, {len(late)} answered 504; {backends.count()} backends; {status}")


@pytest.mark.parametrize("prefix", ("", "/async"), ids=("def", "async def"))
def test_a_deadline_that_goes_with_a_call(serve, prefix):
    """The second service may take half a minute, and stops when the first one's caller has its answer."""
    first, second = SITES[4], SITES[0]
    called, backends = serve(second, 30, HOSTLINE_TIMEOUT_TRUST_TIMEOUT_HEADER="hostline-timeout")
    calling, _ = serve(first, LIMIT, NEXT_PORT=str(called.port))
    request_id = uuid.uuid4().hex
    with ThreadPoolExecutor() as clients:
        began = time.monotonic()
        asked = clients.submit(calling.get, f"{prefix}/through", {"X-Request-ID": request_id})
        assert until(backends.running)
        assert until(lambda: not backends.running())
        gone = time.monotonic() - began - LIMIT
    answer = asked.result()
    assert answer.status == 504
    assert LIMIT <= answer.seconds < LIMIT + BOUND
    assert gone < BOUND
    assert called.logs(f"id={request_id}")
    [(timeout, service)] = re.findall(
        rf"id={request_id} .*timeout=(\d+)ms service=(\d+)ms state=timed_out", called.log
    )
    print(
        f"caller waited {answer.seconds:.3f} s; the second service had {timeout} ms, stopped after "
        f"{service} ms, its query gone {gone * 1000:.0f} ms after the first one's deadline"
    )
    assert int(timeout) <= LIMIT * 1000
    assert int(service) < (LIMIT + BOUND) * 1000
    assert _answered(called.get("/good/3"), 3)
