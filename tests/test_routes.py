"""The route's template in what observers are told, from the frameworks themselves."""

import asyncio

import flask
import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

import hostline.asgi
import hostline.wsgi
from hostline._routes import route_of
from timeouts import Client, Recorder, environ, scope, serve


def flask_app():
    app = flask.Flask(__name__)

    @app.get("/users/<int:number>")
    def user(number):
        return str(number)

    @app.get("/broken/<name>")
    def broken(name):
        raise ValueError(name)

    return app


@pytest.mark.parametrize(
    ("path", "route"),
    (("/users/7", "/users/<int:number>"), ("/broken/x", "/broken/<name>"), ("/nowhere", None)),
)
def test_flask(path, route):
    told = Recorder()
    serve(hostline.wsgi.RequestTimeoutMiddleware(flask_app(), observers=told), environ(path))
    assert told.states == ["ready", "completed"]
    assert [event.route for event in told.events] == [None, route]


def handler(request):
    return PlainTextResponse("x")


def starlette_app():
    inner = Starlette(routes=[Route("/items/{item}", handler)])
    return Starlette(
        routes=[
            Route("/users/{number:int}", handler),
            Mount("/of/{tenant}", routes=[Mount("/deep", inner), Route("/own", handler)]),
            Mount("/plain", PlainTextResponse("x")),
        ]
    )


def fastapi_app():
    router = APIRouter(prefix="/items")

    @router.get("/{item}")
    def item(item: str):
        return item

    outer = APIRouter(prefix="/outer")
    outer.include_router(router, prefix="/inner")
    inner = FastAPI()
    inner.include_router(outer)
    app = FastAPI()
    app.include_router(outer, prefix="/of/{tenant}")
    app.mount("/mounted/{name}", inner)

    @app.get("/users/{number}")
    async def user(number: int):
        return number

    return app


def told_by(app, path, **more):
    told = Recorder()
    guarded = hostline.asgi.RequestTimeoutMiddleware(app, observers=told)
    asyncio.run(Client().ask(guarded, scope(path, **more)))
    assert told.states == ["ready", "completed"]
    assert told.events[0].route is None
    return told.events[1].route


@pytest.mark.parametrize(
    ("path", "route"),
    (
        ("/users/7", "/users/{number:int}"),
        ("/of/acme/deep/items/3", "/of/{tenant}/deep/items/{item}"),
        ("/of/acme/own", "/of/{tenant}/own"),
        ("/plain/any/thing", "/plain"),
        ("/nowhere", None),
    ),
)
def test_starlette(path, route):
    assert told_by(starlette_app(), path) == route
    assert told_by(starlette_app(), f"/prefix{path}", root_path="/prefix") == route


@pytest.mark.parametrize(
    ("path", "route"),
    (
        ("/users/7", "/users/{number}"),
        ("/of/acme/outer/inner/items/3", "/of/{tenant}/outer/inner/items/{item}"),
        ("/mounted/x/outer/inner/items/3", "/mounted/{name}/outer/inner/items/{item}"),
        ("/nowhere", None),
    ),
)
def test_fastapi(path, route):
    assert told_by(fastapi_app(), path) == route
    assert told_by(fastapi_app(), f"/prefix{path}", root_path="/prefix") == route


def test_starlette_before_1_0_tells_the_endpoint_alone():
    app = starlette_app()
    assert route_of({"router": app.router, "endpoint": handler}) == "/users/{number:int}"
    assert route_of({"router": app.router, "endpoint": print}) is None


def test_an_app_may_name_its_route_itself():
    assert route_of({"hostline.route": "/mine", "route": Route("/other", handler)}) == "/mine"


class Hostile:
    def __getattr__(self, name):
        raise ValueError(name)


@pytest.mark.parametrize(
    "source", ({}, {"route": Hostile()}, {"werkzeug.request": Hostile()}, {"hostline.route": 1})
)
def test_what_cannot_be_read_is_no_route(source):
    assert route_of(source) is None
