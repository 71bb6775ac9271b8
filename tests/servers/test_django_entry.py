"""Django's entry on real servers: as the wrapper is, in the main thread, in pools and on event loops."""

import pytest
from server_kind import Kind, module

pytestmark = pytest.mark.server

LIMIT = "0.3"
#: A view that nobody stops takes five.
SOON = 3.0


def _gunicorn(*options):
    return module("gunicorn", "--bind", "127.0.0.1:{port}", *options, "django_site:wsgi")


SYNC = Kind("gunicorn sync, Django's entry", "gunicorn", _gunicorn())
GTHREAD = Kind("gunicorn gthread, Django's entry", "gunicorn", _gunicorn("--threads=2"))
UVICORN = Kind(
    "uvicorn, Django's entry",
    "uvicorn",
    module("uvicorn", "--port={port}", "--lifespan=off", "django_site:asgi"),
)


@pytest.mark.parametrize(
    ("kind", "view"),
    (
        (SYNC, "busy"),
        (GTHREAD, "busy"),
        (UVICORN, "busy"),
        (UVICORN, "waiting"),
        (UVICORN, "blocking"),
    ),
    ids=str,
)
def test_a_slow_view_is_stopped(share, kind, view):
    server = share(kind, HOSTLINE_SERVICE_TIMEOUT=LIMIT)
    answers = [server.get(f"/{view}") for _ in range(2)]
    assert [answer.status for answer in answers] == [504, 504]
    assert min(answer.seconds for answer in answers) < SOON
    assert b"too long" in answers[0].body
    assert server.logs(f"in {view}")
    assert server.logs("state=timed_out", times=2)
    assert server.get("/ready").body == b"ready"
