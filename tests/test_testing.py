"""What an app's own test-suite does with hostline: switch it off, have a request time out."""

import asyncio
import importlib
import sys
import threading
import time

import flask
import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse
from django.test import override_settings
from django.urls import re_path
from fastapi import FastAPI
from starlette.testclient import TestClient

import hostline
import hostline.asgi
import hostline.testing
import hostline.wsgi
from exchanges import SENDERS, Request
from hostline.testing import aadvance, advance, atime_out, disabled, time_out
from timeouts import LONG, SHORT, Client, NotStoppedError, Recorder, environ, hello, linger, scope, serve

STALE = {"HTTP_X_REQUEST_START": "t=1"}


# Without the guards


@pytest.mark.parametrize("adapter", SENDERS)
def test_where_they_are_disabled_no_host_is_redirected(adapter):
    send = SENDERS[adapter]
    told = Recorder()
    with disabled():
        assert send(Request(), host="example.com", observers=told).reached
        assert send(Request(host="<x>"), host="example.com", observers=told).reached
    assert told.events == []
    assert send(Request(), host="example.com").status == 301


def test_where_they_are_disabled_a_thread_s_request_takes_its_time():
    currents = []

    def app(environ, start_response):
        currents.append(hostline.current())
        with pytest.raises(NotStoppedError):
            linger(3 * SHORT)
        return hello(environ, start_response)

    told = Recorder()
    guard = hostline.wsgi.RequestTimeoutMiddleware(app, service_timeout=SHORT, observers=told)
    with disabled():
        assert serve(guard).status == 200
    assert currents == [None]
    assert told.events == []


def fastapi_app(wait):
    app = FastAPI()

    @app.get("/async")
    async def in_the_loop():
        await wait()
        return hostline.current() is None

    app.add_middleware(hostline.asgi.RequestTimeoutMiddleware, service_timeout=SHORT, observers=())
    return app


def test_where_they_are_disabled_a_task_takes_its_time():
    pauses = [3 * SHORT, LONG]
    app = fastapi_app(lambda: asyncio.sleep(pauses.pop(0)))
    with disabled():
        assert TestClient(app).get("/async").json() is True
    assert TestClient(app).get("/async").status_code == 504


def _late_view(request):
    time.sleep(3 * SHORT)
    return HttpResponse(b"x", content_type="text/plain")


class Urls:
    urlpatterns = (re_path("", _late_view),)


def test_where_they_are_disabled_django_s_requests_take_their_time():
    told = Recorder()
    entry = {"MIDDLEWARE": ["hostline.django.RequestTimeoutMiddleware"], "ROOT_URLCONF": Urls}
    with (
        override_settings(**entry, HOSTLINE_SERVICE_TIMEOUT=SHORT, HOSTLINE_TIMEOUT_OBSERVERS=told),
        disabled(),
    ):
        assert serve(WSGIHandler(), environ()).status == 200
    assert told.events == []


def test_they_may_be_disabled_within_each_other_and_by_a_decorator():
    guard = hostline.wsgi.CanonicalHostMiddleware(hello, "example.com")

    @disabled()
    def status():
        with disabled():
            pass
        return serve(guard, environ(HTTP_HOST="a.test")).status

    assert status() == 200
    assert serve(guard, environ(HTTP_HOST="a.test")).status == 301


def test_a_test_that_is_a_coroutine_function_is_decorated_too():
    guard = hostline.asgi.CanonicalHostMiddleware(hostline.asgi.RequestTimeoutMiddleware(_say_ok), "a.test")

    @disabled()
    async def status(*, expected):
        """Kept."""
        await asyncio.sleep(0)
        return (await Client().ask(guard, elsewhere)).status == expected

    elsewhere = scope(headers=[(b"host", b"b.test")])
    assert asyncio.run(status(expected=200))
    assert status.__doc__ == "Kept."
    assert asyncio.run(Client().ask(guard, elsewhere)).status == 301


async def _say_ok(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


def _generator():
    yield


async def _async_generator():
    yield


@pytest.mark.parametrize("test", (_generator, _async_generator, type("Tests", (), {})))
def test_what_would_run_outside_of_the_block_is_not_decorated(test):
    with pytest.raises(
        TypeError, match=r"is no plain function\. Write `with hostline\.testing\.disabled\(\):`"
    ):
        disabled()(test)


def test_what_is_not_installed_need_not_be_disabled(monkeypatch):
    for name in ("hostline.django", "hostline.asgi"):
        monkeypatch.setitem(sys.modules, name, None)  # as an import that fails
    with disabled():
        assert serve(hostline.wsgi.CanonicalHostMiddleware(hello, "example.com")).status == 200
    importlib.import_module("hostline.wsgi")


# A timeout at a chosen point


def test_a_view_of_flask_s_times_out_where_it_is_to():
    released = []
    app = flask.Flask(__name__)

    def query(sql, *, limit):
        raise NotImplementedError

    @app.get("/report")
    def report():
        try:
            return queries["report"]("select", limit=1)
        finally:
            released.append(threading.get_ident())

    queries = {"report": time_out}
    app.wsgi_app = hostline.wsgi.RequestTimeoutMiddleware(app.wsgi_app, service_timeout=LONG)
    response = app.test_client().get("/report")
    assert response.status_code == 504
    assert released == [threading.get_ident()]


@pytest.mark.parametrize("path", ("/async", "/def"))
def test_an_endpoint_of_fastapi_s_times_out_where_it_is_to(path):
    told = Recorder()
    app = FastAPI()

    @app.get("/async")
    async def in_the_loop():
        return await atime_out("select", limit=1)

    @app.get("/def")
    def in_a_thread():
        return time_out()

    app.add_middleware(hostline.asgi.RequestTimeoutMiddleware, service_timeout=LONG, observers=told)
    assert TestClient(app).get(path).status_code == 504
    assert told.states == ["ready", "timed_out"]


# Its clock


def test_a_view_s_clock_is_turned():
    left = []
    told = Recorder()

    def app(environ, start_response):
        for seconds in (9, 0, 20):
            left.append(round(hostline.remaining()))
            advance(seconds)
        raise NotStoppedError

    guard = hostline.wsgi.RequestTimeoutMiddleware(app, service_timeout=LONG - 2, observers=told)
    assert serve(guard).status == 504
    assert left == [28, 19, 19]
    assert told.states == ["ready", "timed_out"]
    assert (told.events[-1].timeout, round(told.events[-1].service)) == (28, 29)


@pytest.mark.parametrize("path", ("/async", "/def"))
def test_an_endpoint_s_clock_is_turned(path):
    left = []
    told = Recorder()
    app = FastAPI()

    @app.get("/async")
    async def in_the_loop():
        await aadvance(9)
        left.append(round(hostline.remaining()))
        await aadvance(20)

    @app.get("/def")
    def in_a_thread():
        advance(9)
        left.append(round(hostline.remaining()))
        advance(20)

    app.add_middleware(hostline.asgi.RequestTimeoutMiddleware, service_timeout=28, observers=told)
    assert TestClient(app).get(path).status_code == 504
    assert left == [19]
    assert told.states == ["ready", "timed_out"]
    assert round(told.events[-1].service) == 29


@pytest.mark.parametrize("options", ({"mode": "report"}, {"service_timeout": None}))
def test_a_clock_that_aborts_nothing_can_be_turned_too(options):
    services = []

    def app(environ, start_response):
        advance(100)
        services.append(round(hostline.current().service))
        return hello(environ, start_response)

    guard = hostline.wsgi.RequestTimeoutMiddleware(app, observers=(), **options)
    assert serve(guard).status == 200
    assert services == [100]


def test_a_clock_is_turned_by_seconds_alone():
    def app(environ, start_response):
        with pytest.raises(hostline.SettingsError, match="seconds=-1"):
            advance(-1)
        return hello(environ, start_response)

    assert serve(hostline.wsgi.RequestTimeoutMiddleware(app, observers=())).status == 200


def test_no_request_has_no_clock():
    with pytest.raises(RuntimeError, match=r"^advance\(\) was called outside of a request"):
        advance(1)
    with pytest.raises(RuntimeError, match=r"^aadvance\(\) was called outside of a request"):
        asyncio.run(aadvance(1))


def test_it_is_a_mistake_outside_of_a_request():
    with pytest.raises(
        RuntimeError, match=r"^time_out\(\) was called outside of a request that hostline times"
    ):
        time_out()
    with pytest.raises(RuntimeError, match=r"^atime_out\(\) was called outside"):
        asyncio.run(atime_out())


def _error_of(call, **options):
    errors = []

    def app(environ, start_response):
        with pytest.raises((RuntimeError, AssertionError)) as error:
            call()
        errors.append(str(error.value))
        return hello(environ, start_response)

    serve(hostline.wsgi.RequestTimeoutMiddleware(app, observers=(), **options))
    return errors[0]


def test_it_is_a_mistake_where_nothing_is_aborted():
    assert _error_of(time_out, mode="report").endswith(
        "where hostline only reports requests that run too long."
    )


def test_what_is_not_aborted_in_the_end_is_said(monkeypatch):
    monkeypatch.setattr(hostline.testing, "_PATIENCE", 0.01)

    def app(environ, start_response):
        with (
            hostline.shield(),
            pytest.raises(AssertionError, match="The request was not aborted: is a debugger"),
        ):
            time_out()

    guard = hostline.wsgi.RequestTimeoutMiddleware(app, observers=())
    assert serve(guard).status == 504, "at the end of its shield"


def test_a_task_that_is_not_aborted_in_the_end_is_said(monkeypatch):
    monkeypatch.setattr(hostline.testing, "_PATIENCE", 0.01)
    errors = []

    async def app(scope, receive, send):
        async with hostline.shield():
            try:
                await atime_out()
            except AssertionError as error:
                errors.append(str(error))

    guard = hostline.asgi.RequestTimeoutMiddleware(app, observers=())
    assert asyncio.run(Client().ask(guard)).status == 504
    assert errors[0].startswith("The request was not aborted: is a debugger")


def test_in_a_loop_it_is_another_function():
    app = FastAPI()
    errors = []

    @app.get("/")
    async def view():
        try:
            time_out()
        except RuntimeError as error:
            errors.append(str(error))
        await atime_out()

    app.add_middleware(hostline.asgi.RequestTimeoutMiddleware, service_timeout=LONG, observers=())
    assert TestClient(app).get("/").status_code == 504
    assert errors[0].endswith("Use atime_out().")
