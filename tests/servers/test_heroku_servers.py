"""examples/heroku as a dyno runs it: the commands of its Procfile, by honcho, with a real PostgreSQL."""

import os
import re
import shlex
import shutil
import subprocess
import uuid
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from launch import SOURCE, Server
from test_examples_servers import PROGRAMS

from instructions import EXAMPLES

for module in ("dj_database_url", "honcho"):
    pytest.importorskip(module)

pytestmark = [pytest.mark.server, pytest.mark.once, pytest.mark.timeout(120)]

APP = EXAMPLES / "heroku"
WEB = next(
    line.removeprefix("web: ")
    for line in (APP / "Procfile").read_text().splitlines()
    if line.startswith("web: ")
)

THREADS = 4  # of gunicorn.conf.py


class Database:
    """One of its own, as Heroku names it."""

    def __init__(self, postgresql):
        self._postgresql = postgresql
        self.name = f"guestbook_{uuid.uuid4().hex[:12]}"
        self._maintain(f"CREATE DATABASE {self.name}")
        folder = str(postgresql.folder).replace("/", "%2F")
        self.url = f"postgres://hostline@{folder}/{self.name}"

    def ask(self, query):
        address = f"{self._postgresql.address} dbname={self.name}"
        with psycopg.connect(address) as connection:
            return connection.execute(query).fetchall()

    @property
    def tables(self):
        return {name for (name,) in self.ask("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}

    def drop(self):
        self._maintain(f"DROP DATABASE {self.name} WITH (FORCE)")

    def _maintain(self, command):
        with psycopg.connect(self._postgresql.address, autocommit=True) as connection:
            connection.execute(command)


@pytest.fixture
def database(postgresql):
    database = Database(postgresql)
    yield database
    database.drop()


@pytest.fixture
def environment(database, tmp_path):
    """A dyno's, as far as there is no dyno: DYNO would have the app listen to the world."""
    return {
        "PATH": PROGRAMS,
        "PYTHONPATH": str(SOURCE),
        "HOME": str(tmp_path),  # of gunicorn's control socket
        "DATABASE_URL": database.url,
        "SECRET_KEY": "only for this test",
        "WEB_CONCURRENCY": "1",
    }


@pytest.fixture
def release(environment):
    """Run the release phase."""

    def release(**more):
        return subprocess.run(
            ["honcho", "--env", os.devnull, "start", "release"],
            cwd=APP,
            env=environment | more,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return release


@pytest.fixture
def serve(request, environment):
    """Start a command in the app's folder."""

    def serve(command, **more):
        in_folder = f"cd {shlex.quote(str(APP))}\n{command}"
        server = Server(["bash", "-c", in_folder], environment | more, ready="/healthz")
        request.addfinalizer(lambda: (print(server.log), server.stop()))
        return server

    return serve


def test_the_release_phase_migrates(release, database):
    first = release()
    assert first.returncode == 0, first.stdout
    assert "guestbook_entry" in database.tables
    applied = database.ask("SELECT name FROM django_migrations WHERE app = 'guestbook' ORDER BY name")
    assert applied == [("0001_initial",), ("0002_entry_author",)]
    again = release()
    assert again.returncode == 0
    assert "No migrations to apply." in again.stdout


def test_a_wrong_setting_fails_the_release(release, database):
    """And so never reaches the dynos: `heroku config:set` makes a release of its own."""
    run = release(HOSTLINE_SERVICE_TIMEOUT="15m")
    assert run.returncode != 0
    assert "HOSTLINE_SERVICE_TIMEOUT='15m' is no number of seconds" in run.stdout
    assert database.tables == set()


@pytest.mark.parametrize(
    ("name", "host", "status"),
    (("staging", "staging.example.com", 302), ("production", "www.example.com", 301)),
)
def test_an_environment(release, serve, name, host, status):
    assert release().returncode == 0
    server = serve(f"exec honcho --env config/{name}.env start --port {{port}} web")
    https = {"X-Forwarded-Proto": "https"}  # from the router, which gunicorn trusts on loopback
    own = server.get("/", {"Host": host, **https})
    assert (own.status, own.headers["content-type"]) == (200, "text/html; charset=utf-8")
    # Scheme and host in one step, and by Heroku's name for it too.
    for headers in ({"Host": host}, {"Host": "guestbook.herokuapp.com", **https}):
        moved = server.get("/?page=2", headers)
        assert (moved.status, moved.headers["location"]) == (status, f"https://{host}/?page=2")
    assert server.get("/healthz", {"Host": "10.1.2.3"}).status == 200


def test_a_review_app(release, serve):
    """It goes by whatever name Heroku has given it."""
    assert release().returncode == 0
    server = serve("exec honcho --env /dev/null start --port {port} web", HOSTLINE_CANONICAL_HOST="off")
    assert server.get("/", {"Host": "guestbook-pr-7.herokuapp.com"}).status == 200


def test_the_app_s_own_tests(environment):
    run = subprocess.run(
        ["python", "-W", "error", "manage.py", "test"],
        cwd=APP,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    assert "Ran 2 tests" in run.stderr


def test_on_your_own_machine(environment, tmp_path, request):
    """The two commands of its README, in a copy of it, on SQLite."""
    [migrate, web] = re.findall(
        r"^(?:\w+=\S+ )?honcho start \w+", (APP / "README.md").read_text(), re.MULTILINE
    )
    copy = shutil.copytree(APP, tmp_path / "guestbook", ignore=shutil.ignore_patterns("db.sqlite3"))
    own = {name: environment[name] for name in ("PATH", "PYTHONPATH", "HOME")}
    typed = f"cd {shlex.quote(str(copy))} && {migrate} && export PORT={{port}} && {web}"
    server = Server(["bash", "-c", typed], own, ready="/")
    request.addfinalizer(lambda: (print(server.log), server.stop()))
    late = server.get("/report")
    assert late.status == 504
    assert late.seconds > 1.9
    assert server.logs("in report")
    assert (copy / "db.sqlite3").exists()


def _ask_for_reports(server, patience):
    """As many as it has threads, at once."""
    with ThreadPoolExecutor(THREADS) as clients:
        return list(clients.map(lambda _: server.get("/report", patience=patience).status, range(THREADS)))


def test_h12_before_and_after(serve):
    """A few slow requests take the app down, or cost their own clients a 504."""
    # Without honcho, which does not outlive 5 s of patience with what it has to end.
    before = serve(f"PORT={{port}} exec {WEB}", HOSTLINE_SERVICE_TIMEOUT="off")
    assert _ask_for_reports(before, patience=2) == [None] * THREADS
    assert before.get("/healthz", patience=2).status is None

    after = serve(f"PORT={{port}} exec {WEB}", HOSTLINE_SERVICE_TIMEOUT="2")
    assert _ask_for_reports(after, patience=30) == [504] * THREADS
    assert after.get("/healthz", patience=30).status == 200
    assert after.logs("in report")
