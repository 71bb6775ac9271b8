"""Runs Django's own tests, bare or with both guards.

    cd django-5.2/tests && python -m guard_django bare handlers asgi

``guarded``: around its handlers. Its tests are unittest's, and make these themselves; so the
guards are put around where they are called. Its test client goes past them. ``entries``: as
entries on top of every handler's MIDDLEWARE, where the test client goes through them.
"""

import runpy
import sys
import unittest
from functools import partial, wraps

import outcomes
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.base import BaseHandler
from django.core.handlers.exception import convert_exception_to_response
from django.core.handlers.wsgi import WSGIHandler
from django.test import override_settings

from hostline import asgi, wsgi
from hostline.django import CanonicalHostMiddleware, RequestTimeoutMiddleware

TIMEOUT = 30
NOTED = {
    "addSuccess": "passed",
    "addSkip": "skipped",
    "addExpectedFailure": "xfailed",
    "addUnexpectedSuccess": "xpassed",
    "addFailure": "failed",
    "addError": "error",
}


def guarded(app, adapter):
    guard = adapter.RequestTimeoutMiddleware(app, service_timeout=TIMEOUT)
    return adapter.CanonicalHostMiddleware(guard, host="testserver", only=["testserver"])


def guard_handlers():
    call_wsgi, call_asgi = WSGIHandler.__call__, ASGIHandler.__call__

    @wraps(call_wsgi)
    def call_wsgi_guarded(self, environ, start_response):
        return guarded(partial(call_wsgi, self), wsgi)(environ, start_response)

    @wraps(call_asgi)
    async def call_asgi_guarded(self, scope, receive, send):
        await guarded(partial(call_asgi, self), asgi)(scope, receive, send)

    WSGIHandler.__call__ = call_wsgi_guarded
    ASGIHandler.__call__ = call_asgi_guarded


def put_entries_on_top():
    load_middleware = BaseHandler.load_middleware

    @wraps(load_middleware)
    def load_middleware_and_entries(self, is_async=False):
        load_middleware(self, is_async)
        chain = self._middleware_chain
        # Not in the settings: many tests have their own, and count what is in them.
        with override_settings(
            HOSTLINE_CANONICAL_HOST="testserver",
            HOSTLINE_CANONICAL_ONLY=["testserver"],
            HOSTLINE_SERVICE_TIMEOUT=TIMEOUT,
        ):
            for entry in (RequestTimeoutMiddleware, CanonicalHostMiddleware):
                chain = convert_exception_to_response(entry(chain))
        self._middleware_chain = chain

    BaseHandler.load_middleware = load_middleware_and_entries


def noting(add, outcome):
    @wraps(add)
    def add_noted(self, test, *details):
        outcomes.note(test.id(), outcome)
        return add(self, test, *details)

    return add_noted


def note_outcomes():
    for name, outcome in NOTED.items():
        setattr(unittest.TestResult, name, noting(getattr(unittest.TestResult, name), outcome))

    add_sub_test = unittest.TestResult.addSubTest

    def add_sub(self, test, subtest, error):
        if error is not None:
            outcomes.note(test.id(), "failed")
        return add_sub_test(self, test, subtest, error)

    unittest.TestResult.addSubTest = add_sub


if __name__ == "__main__":
    _, mode, *labels = sys.argv
    note_outcomes()
    if mode == "guarded":
        guard_handlers()
    elif mode == "entries":
        put_entries_on_top()
    sys.argv = ["runtests.py", "--parallel=1", *labels]
    sys.path.insert(0, "")
    try:
        runpy.run_path("runtests.py", run_name="__main__")
    finally:
        outcomes.pytest_sessionfinish()
