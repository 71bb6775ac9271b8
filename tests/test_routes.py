"""The route's template in what observers are told, from the frameworks themselves."""

import asyncio
from functools import partial

import anyio
import flask
import pytest
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse
from django.test import override_settings
from django.urls import include, path
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

import exchanges  # noqa: F401 - which configures Django
import hostline.asgi
import hostline.wsgi
from hostline._requests import State
from hostline._routes import route_of
from test_asgi_trio import Client as TrioClient
from timeouts import LONG, SHORT, Client, Recorder, environ, in_thread, late, scope, serve


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
    ("path_", "route"),
    (("/users/7", "/users/<int:number>"), ("/broken/x", "/broken/<name>"), ("/nowhere", None)),
)
def test_flask(path_, route):
    told = Recorder()
    serve(hostline.wsgi.RequestTimeoutMiddleware(flask_app(), observers=told), environ(path_))
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


def told_by(app, path_, **more):
    told = Recorder()
    guarded = hostline.asgi.RequestTimeoutMiddleware(app, observers=told)
    asyncio.run(Client().ask(guarded, scope(path_, **more)))
    assert told.states == ["ready", "completed"]
    assert told.events[0].route is None
    return told.events[1].route


@pytest.mark.parametrize(
    ("path_", "route"),
    (
        ("/users/7", "/users/{number:int}"),
        ("/of/acme/deep/items/3", "/of/{tenant}/deep/items/{item}"),
        ("/of/acme/own", "/of/{tenant}/own"),
        ("/plain/any/thing", "/plain"),
        ("/nowhere", None),
    ),
)
def test_starlette(path_, route):
    assert told_by(starlette_app(), path_) == route
    assert told_by(starlette_app(), f"/prefix{path_}", root_path="/prefix") == route


@pytest.mark.parametrize(
    ("path_", "route"),
    (
        ("/users/7", "/users/{number}"),
        ("/of/acme/outer/inner/items/3", "/of/{tenant}/outer/inner/items/{item}"),
        ("/mounted/x/outer/inner/items/3", "/mounted/{name}/outer/inner/items/{item}"),
        ("/nowhere", None),
    ),
)
def test_fastapi(path_, route):
    assert told_by(fastapi_app(), path_) == route
    assert told_by(fastapi_app(), f"/prefix{path_}", root_path="/prefix") == route


def _django_view(request, number):
    return HttpResponse(b"x", content_type="text/plain")


async def _async_django_view(request, number):
    return HttpResponse(b"x", content_type="text/plain")


def _slow_django_view(request):
    late()


class Urls:
    urlpatterns = (
        path("users/<int:number>/", _django_view),
        path("of/", include(([path("async/<int:number>", _async_django_view)], "of"))),
        path("slow/", _slow_django_view),
    )


ROUTES = pytest.mark.parametrize(
    ("path_", "route"),
    (("/users/7/", "users/<int:number>/"), ("/of/async/7", "of/async/<int:number>"), ("/nowhere", None)),
)


def _django(middleware="hostline.django.RouteMiddleware"):
    return override_settings(ROOT_URLCONF=Urls, MIDDLEWARE=[middleware] if middleware else [])


@ROUTES
def test_django_wsgi(path_, route):
    told = Recorder()
    with _django():
        serve(hostline.wsgi.RequestTimeoutMiddleware(WSGIHandler(), observers=told), environ(path_))
    assert told.states == ["ready", "completed"]
    assert [event.route for event in told.events] == [None, route]


@ROUTES
def test_django_asgi(path_, route):
    with _django():
        assert told_by(ASGIHandler(), path_) == route


def test_without_its_middleware_django_s_route_is_not_known():
    with _django(middleware=None):
        assert told_by(ASGIHandler(), "/users/7/") is None


def test_a_timeout_in_django():
    told = Recorder()
    with _django():
        guard = hostline.wsgi.RequestTimeoutMiddleware(WSGIHandler(), service_timeout=LONG, observers=told)
        assert serve(guard, environ("/slow/")).status == 504
    assert told.states[-1] == "timed_out"
    assert told.events[-1].route == "slow/"


# When it has timed out, whether anybody has listened from the beginning or not


class Late(Recorder):
    """Wants nothing but timeouts, so that a request in time costs nothing."""

    def wants(self, state):
        return state is State.TIMED_OUT


def slow_flask():
    app = flask.Flask(__name__)

    @app.get("/slow/<name>")
    def slow(name):
        late()

    return app


@pytest.mark.parametrize("observer", (Recorder, Late))
@pytest.mark.parametrize("road", (in_thread, lambda call: call()), ids=("thread", "main thread"))
def test_a_timeout_in_flask(road, observer):
    told = observer()
    guard = hostline.wsgi.RequestTimeoutMiddleware(slow_flask(), service_timeout=LONG, observers=told)
    assert road(lambda: serve(guard, environ("/slow/x"))).status == 504
    assert told.states[-1] is State.TIMED_OUT
    assert told.events[-1].route == "/slow/<name>"


def slow_fastapi():
    inner = FastAPI()

    @inner.get("/def/{name}")
    def in_a_thread(name: str):
        late()

    @inner.get("/async/{name}")
    async def in_the_loop(name: str):
        await late(partial(asyncio.sleep, 20))

    @inner.get("/blocking/{name}")
    async def blocking(name: str):
        late()

    app = FastAPI()
    app.mount("/of/{tenant}", inner)
    return app


@pytest.mark.parametrize("observer", (Recorder, Late))
@pytest.mark.parametrize("kind", ("def", "async", "blocking"))
def test_a_timeout_in_fastapi(kind, observer, run):
    told = observer()
    guard = hostline.asgi.RequestTimeoutMiddleware(slow_fastapi(), service_timeout=LONG, observers=told)
    assert run(Client().ask(guard, scope(f"/of/acme/{kind}/x"))).status == 504
    assert told.states[-1] is State.TIMED_OUT
    assert told.events[-1].route == f"/of/{{tenant}}/{kind}/{{name}}"


@pytest.mark.parametrize("observer", (Recorder, Late))
def test_a_timeout_on_trio(observer):
    async def slow(request):
        await late(partial(anyio.sleep, 20))

    told = observer()
    app = Starlette(routes=[Route("/slow/{name}", slow)])
    guard = hostline.asgi.RequestTimeoutMiddleware(app, service_timeout=LONG, observers=told)
    TrioClient().ask(guard, scope("/slow/x"))
    assert told.states[-1] is State.TIMED_OUT
    assert told.events[-1].route == "/slow/{name}"


def test_the_outer_of_two_guards_knows_it_too():
    requests = []

    async def slow(request):
        requests[0].set_timeout(requests[0].service + SHORT)
        await asyncio.sleep(20)

    async def between(scope, receive, send):
        requests.append(scope["hostline.request"])
        await inner(scope, receive, send)

    told = Late()
    app = Starlette(routes=[Route("/slow/{name}", slow)])
    inner = hostline.asgi.RequestTimeoutMiddleware(app, service_timeout=LONG, observers=())
    guard = hostline.asgi.RequestTimeoutMiddleware(between, service_timeout=LONG, observers=told)
    asyncio.run(Client().ask(guard, scope("/slow/x")))
    assert told.states == [State.TIMED_OUT]
    assert told.events[0].route == "/slow/{name}"


def test_starlette_before_1_0_tells_the_endpoint_alone():
    app = starlette_app()
    assert route_of({"router": app.router, "endpoint": handler}) == "/users/{number:int}"
    assert route_of({"router": app.router, "endpoint": print}) is None


def test_mounts_that_cannot_be_found_are_left_out():
    """As those in FastAPI's included routers."""
    mounted = {"router": starlette_app().router, "root_path": "/odd/x", "app_root_path": "/odd"}
    assert route_of({**mounted, "route": Route("/items/{item}", handler)}) == "/items/{item}"
    assert route_of(mounted) is None


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
