"""A pytest plugin: puts both guards around every app that an ASGI test client is given.

Starlette's ``TestClient``, which is FastAPI's too, and the transports of httpx and httpx2,
by which tests that are coroutines do without it.
"""

from functools import wraps

import httpx
import httpx2
from starlette import testclient

from hostline.asgi import CanonicalHostMiddleware, RequestTimeoutMiddleware

TIMEOUT = 30


def guarded(app):
    """Asked for as ``testserver``, by the shortest way; by every other name, after a decision."""
    guard = RequestTimeoutMiddleware(app, service_timeout=TIMEOUT)
    return CanonicalHostMiddleware(guard, host="testserver", only=["testserver"])


def guard_apps_of(client):
    """Have a class put the guards around the app that its objects are made with."""
    make = client.__init__

    @wraps(make)
    def make_guarded(self, app, *arguments, **options):
        # An app of ASGI 2 is made one of ASGI 3 before it is guarded, as the client would do it itself.
        if not testclient._is_asgi3(app):
            app = testclient._WrapASGI2(app)
        make(self, guarded(app), *arguments, **options)

    client.__init__ = make_guarded


guard_apps_of(testclient.TestClient)
guard_apps_of(httpx.ASGITransport)
guard_apps_of(httpx2.ASGITransport)
