"""A wrong setting ends the start of an app whose framework makes its middlewares late."""

import asyncio

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.testclient import TestClient

import hostline
from hostline.asgi import CanonicalHostMiddleware, RequestTimeoutMiddleware

WRONG = {"service_timeout": "x"}


def guarded(framework=Starlette, **options):
    app = framework()
    app.add_middleware(RequestTimeoutMiddleware, **options)
    app.add_middleware(CanonicalHostMiddleware)
    return app


def start(app):
    """What a server is told at its start, and the error behind it."""
    told = []

    async def receive():
        return {"type": "lifespan.startup"}

    async def send(message):
        told.append(message)

    try:
        asyncio.run(app({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send))
    except hostline.SettingsError as error:
        return told, error
    return told, None


@pytest.mark.parametrize("framework", (Starlette, FastAPI))
def test_a_wrong_argument_fails_the_start(framework):
    [message], error = start(guarded(framework, **WRONG))
    assert message == {"type": "lifespan.startup.failed", "message": str(error)}
    assert "service_timeout='x'" in str(error)


def test_all_that_is_wrong_with_the_environment_is_told_at_once(monkeypatch):
    monkeypatch.setenv("HOSTLINE_SERVICE_TIMEOUT", "abc")
    monkeypatch.setenv("HOSTLINE_CANONICAL_HOST", "a b")
    monkeypatch.setenv("HOSTLINE_NONSENSE", "1")
    [message], error = start(guarded())
    for name in ("HOSTLINE_SERVICE_TIMEOUT", "HOSTLINE_CANONICAL_HOST", "HOSTLINE_NONSENSE"):
        assert message["message"].count(f"{name}=") == 1
    assert len(error.problems) == 3


def test_a_library_that_is_missing_fails_the_start(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "hostline.observers.prometheus", None)
    app = Starlette()
    app.add_middleware(RequestTimeoutMiddleware, observers=["prometheus"])
    with pytest.raises(ImportError, match="prometheus"), TestClient(app):
        pytest.fail("the app has started")


def test_its_requests_fail_too():
    """Where a server goes on all the same, or asks nobody."""
    with pytest.raises(hostline.SettingsError, match="service_timeout"):
        TestClient(guarded(**WRONG)).get("/")


def test_requests_behind_a_failed_start_fail():
    app = guarded(**WRONG)
    assert start(app)[1] is not None
    for _ in range(2):
        with pytest.raises(hostline.SettingsError, match="service_timeout"):
            TestClient(app).get("/")


def test_whoever_makes_a_guard_elsewhere_hears_of_it_at_once():
    async def make(scope):
        with pytest.raises(hostline.SettingsError):
            RequestTimeoutMiddleware(Starlette(), **WRONG)
        with pytest.raises(hostline.SettingsError):
            CanonicalHostMiddleware(Starlette(), host="a b")
        return scope

    for scope in ({"type": "http"}, None, "lifespan"):
        assert asyncio.run(make(scope)) == scope


def test_what_is_right_starts():
    messages, error = start(guarded())
    assert (messages[0], error) == ({"type": "lifespan.startup.complete"}, None)
