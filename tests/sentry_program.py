"""A program for `test_observers_sentry`: apps with Sentry's own integrations, and what they send.

Those patch Flask, Starlette and logging for good, which is why this is a process of its own.
Prints one JSON object: for each case the statuses of three requests (in good time, too slow,
failing) and the events that Sentry got.
"""

import asyncio
import json
import sys
from contextlib import suppress
from functools import partial

import sentry_sdk
from sentry_sdk.transport import Transport

from hostline import _requests, asgi, wsgi
from hostline.observers.sentry import SentryObserver
from sinks import be_late, hurry, shop
from timeouts import eventually, in_thread

events = []


class Kept(Transport):
    """Keeps the events that would be sent."""

    def capture_envelope(self, envelope):
        events.extend(item.payload.json for item in envelope.items if item.type == "event")


sentry_sdk.init("http://key@127.0.0.1:9/1", transport=Kept, traces_sample_rate=1.0)

# After `init`, which imports what it instruments.
from fastapi import FastAPI  # noqa: E402
from starlette.testclient import TestClient  # noqa: E402
from werkzeug.test import Client  # noqa: E402

PATHS = ("/orders/1", "/reports/2026", "/broken")


def flask_inside(**options):
    app = shop(SentryObserver(), "log", **options)

    @app.get("/broken")
    def broken():
        raise ValueError("of the app's")

    return app.test_client()


def flask_outside(**options):
    client = flask_inside()
    app = client.application
    app.wsgi_app = app.wsgi_app._app.app  # without the guards
    return Client(wsgi.RequestTimeoutMiddleware(app, observers=[SentryObserver(), "log"], **options))


def _fastapi(is_async, is_outside, **options):
    app = FastAPI()
    limits = {"observers": [SentryObserver(), "log"], **options}

    @app.get("/orders/{number}")
    def order(number: int):
        return number

    if is_async:

        @app.get("/reports/{year}")
        async def report(year: int):
            hurry()
            await asyncio.sleep(60)  # the slow line

    else:

        @app.get("/reports/{year}")
        def report(year: int):
            be_late()  # the slow line

    @app.get("/broken")
    def broken():
        raise ValueError("of the app's")

    if is_outside:
        app = asgi.RequestTimeoutMiddleware(app, **limits)
    else:
        app.add_middleware(asgi.RequestTimeoutMiddleware, **limits)
    return TestClient(app, raise_server_exceptions=False)


CASES = {
    "Flask": flask_inside,
    "Flask, hostline outside": flask_outside,
    "FastAPI": partial(_fastapi, True, False),
    "FastAPI, hostline outside": partial(_fastapi, True, True),
    "FastAPI, def": partial(_fastapi, False, False),
    "FastAPI, def, hostline outside": partial(_fastapi, False, True),
}


def run(make, **options):
    events.clear()
    client = make(**options)
    statuses = []
    for path in PATHS:
        status = None
        with suppress(Exception):  # with mode="raise" Flask's test client hands it on
            status = client.get(path, headers={"Host": "www.example.com"}).status_code
        statuses.append(status)
    told = eventually(lambda: any(event["logger"] == "hostline" for event in events if "logger" in event))
    assert told, events
    assert _requests.reporter.flush(20)
    return {"statuses": statuses, "events": list(events)}


found = {}
for case, make in CASES.items():
    for mode in ("respond", "raise"):
        found[f"{case}, {mode}"] = in_thread(partial(run, make, mode=mode))
json.dump(found, sys.stdout)
