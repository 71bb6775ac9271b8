"""A pytest plugin: puts both guards around every app that Werkzeug's test client runs.

Flask's is a subclass, and asks its app for more than a guard has; so the guards are put
around the app at the place where the client calls it.
"""

from functools import wraps

from werkzeug import test

from hostline.wsgi import CanonicalHostMiddleware, RequestTimeoutMiddleware

TIMEOUT = 30

run_bare = test.run_wsgi_app


def guarded(app):
    """Asked for as ``localhost``, by the shortest way; by every other name, after a decision."""
    guard = RequestTimeoutMiddleware(app, service_timeout=TIMEOUT)
    return CanonicalHostMiddleware(guard, host="localhost", only=["localhost"])


@wraps(run_bare)
def run_guarded(app, *arguments, **options):
    return run_bare(guarded(app), *arguments, **options)


test.run_wsgi_app = run_guarded
