"""The request timeout around Starlette, FastAPI, sse-starlette and Django, as they get to an answer."""

import asyncio
import gzip
import time
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import pytest
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpResponse
from django.test import override_settings
from django.urls import path
from django.utils.decorators import async_only_middleware
from fastapi import BackgroundTasks, Depends, FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import FileResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route

import exchanges  # noqa: F401 - configures Django
from hostline import RequestTimeoutError
from hostline._requests import State
from hostline.asgi import RequestTimeoutMiddleware
from timeouts import LONG, SHORT, Client, Recorder, in_lower_case, scope

pytestmark = [pytest.mark.anyio, pytest.mark.timed]

_sse_library: Any = pytest.importorskip(
    "sse_starlette", reason="not installed: sse-starlette (extra servers)"
)
EventSourceResponse = _sse_library.EventSourceResponse

#: A limit that is met on a busy machine too, by what does not wait,
ENOUGH = 0.15
#: and what is longer than that.
LATE = 0.2


@pytest.fixture
def seen():
    return Recorder()


@pytest.fixture
def short(seen):
    return partial(RequestTimeoutMiddleware, service_timeout=SHORT, observers=[seen])


@pytest.fixture
def enough(seen):
    return partial(RequestTimeoutMiddleware, service_timeout=ENOUGH, observers=[seen])


async def _ask(app: Any, **asked: Any) -> Client:
    return await asyncio.wait_for(Client().ask(app, scope(**asked)), 30)


def _route(endpoint: Callable[..., Any], *middleware: Middleware) -> Starlette:
    return Starlette(routes=[Route("/", endpoint)], middleware=middleware)


# Streams

_GZIP = [(b"accept-encoding", b"gzip")]


def _sse(events: Any) -> StreamingResponse:
    return StreamingResponse(
        (f"data: {event}\r\n\r\n" async for event in events), media_type="text/event-stream"
    )


def _sse_starlette(events: Any) -> Any:
    return EventSourceResponse({"data": event} async for event in events)


_EACH_SSE = pytest.mark.parametrize("respond", (_sse, _sse_starlette))


@_EACH_SSE
async def test_server_sent_events_outlive_the_service_timeout(enough, seen, respond):
    async def endpoint(request):
        async def events():
            for number in range(4):
                await asyncio.sleep(number and LATE / 2)
                yield str(number)

        return respond(events())

    client = await _ask(enough(_route(endpoint)))
    assert client.body == b"".join(b"data: %d\r\n\r\n" % number for number in range(4))
    assert (client.is_complete, client.error) == (True, None)
    assert seen.states == [State.READY, State.COMPLETED]


@_EACH_SSE
async def test_server_sent_events_that_stall_are_cut(seen, respond):
    left = []

    async def endpoint(request):
        async def events():
            try:
                yield "one"
                await asyncio.sleep(20)
            finally:
                left.append("events")

        return respond(events())

    guard = partial(RequestTimeoutMiddleware, service_timeout=LONG, stream_timeout=SHORT, observers=[seen])
    client = await _ask(guard(_route(endpoint)))
    assert isinstance(client.error, RequestTimeoutError)
    assert (client.body, client.is_complete) == (b"data: one\r\n\r\n", False)
    assert left == ["events"]
    assert seen.states == [State.READY, State.TIMED_OUT]


async def test_a_ping_of_sse_starlette_s_keeps_its_stream_alive(seen):
    async def endpoint(request):
        async def events():
            await asyncio.sleep(LATE)
            yield {"data": "late"}

        return EventSourceResponse(events(), ping=SHORT)

    guard = partial(RequestTimeoutMiddleware, service_timeout=LONG, stream_timeout=ENOUGH, observers=[seen])
    client = await _ask(guard(_route(endpoint)))
    assert client.error is None
    assert client.body.endswith(b"data: late\r\n\r\n")


async def test_gzip_of_a_stream(enough, seen):
    async def endpoint(request):
        async def chunks():
            yield b"one" * 1000
            await asyncio.sleep(LATE)
            yield b"two" * 1000

        return StreamingResponse(chunks())

    client = await _ask(enough(_route(endpoint, Middleware(GZipMiddleware))), headers=_GZIP)
    assert gzip.decompress(client.body) == b"one" * 1000 + b"two" * 1000
    assert seen.states == [State.READY, State.COMPLETED]


async def test_gzip_does_not_touch_the_answer(short):
    async def endpoint(request):
        await asyncio.sleep(20)

    client = await _ask(short(_route(endpoint, Middleware(GZipMiddleware, minimum_size=1))), headers=_GZIP)
    assert client.status == 504
    assert "content-encoding" not in client.headers
    assert len(client.body) == int(client.headers["content-length"])


async def test_gzip_around_the_guard(short):
    async def endpoint(request):
        await asyncio.sleep(20)

    client = await _ask(GZipMiddleware(short(_route(endpoint)), minimum_size=1), headers=_GZIP)
    assert client.status == 504
    assert gzip.decompress(client.body).startswith(b"504 ")


async def test_a_file_by_pathsend(enough, seen):
    client = await _ask(enough(FileResponse(__file__)), extensions={"http.response.pathsend": {}})
    assert [message["type"] for message in client.messages] == [
        "http.response.start",
        "http.response.pathsend",
    ]
    assert seen.states == [State.READY, State.COMPLETED]


@pytest.mark.parametrize("kind", ("http.response.debug", "http.response.early_hint", "http.response.push"))
async def test_what_comes_before_a_response_is_no_start_of_it(short, seen, kind):
    sent = []

    async def send(message):
        sent.append((message["type"], message.get("status")))

    async def app(scope, receive, send):
        await send({"type": kind, "links": [], "info": {}})
        await asyncio.sleep(20)

    await short(app)(scope(), None, send)
    assert sent == [(kind, None), ("http.response.start", 504), ("http.response.body", None)]


async def test_trailers_come_through(enough, seen):
    sent = []

    async def send(message):
        sent.append(message["type"].removeprefix("http.response."))

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
        await send({"type": "http.response.body", "body": b""})
        await send({"type": "http.response.trailers", "headers": [(b"digest", b"x")]})

    await enough(app)(scope(), None, send)
    assert sent == ["start", "body", "trailers"]
    assert seen.states == [State.READY, State.COMPLETED]


# Middlewares


async def _pass_on(request, call_next):
    return await call_next(request)


_BASE = Middleware(BaseHTTPMiddleware, dispatch=_pass_on)


@pytest.mark.parametrize("where", ("inside", "outside", "both"))
async def test_base_http_middleware(short, seen, where):
    left = []

    async def endpoint(request):
        try:
            await asyncio.sleep(20)
        finally:
            left.append("endpoint")

    app = short(_route(endpoint, *([_BASE] if where != "outside" else [])))
    if where != "inside":
        app = BaseHTTPMiddleware(app, dispatch=_pass_on)
    client = await _ask(app)
    assert (client.status, client.is_complete, client.error) == (504, True, None)
    assert left == ["endpoint"]
    assert sorted(seen.states) == sorted([State.READY, State.TIMED_OUT])


@pytest.mark.parametrize("where", ("inside", "outside"))
async def test_base_http_middleware_and_a_stream_that_stalls(seen, where):
    async def endpoint(request):
        async def chunks():
            yield b"one"
            await asyncio.sleep(20)

        return StreamingResponse(chunks())

    guard = partial(RequestTimeoutMiddleware, service_timeout=LONG, stream_timeout=SHORT, observers=[seen])
    app = guard(_route(endpoint, *([_BASE] if where == "inside" else [])))
    if where == "outside":
        app = BaseHTTPMiddleware(app, dispatch=_pass_on)
    client = await _ask(app)
    assert isinstance(client.error, RequestTimeoutError)
    assert client.body == b"one"
    # Outside it ends the body before it raises the error, as it does with any error in mid-stream.
    assert client.is_complete == (where == "outside")
    assert seen.states == [State.READY, State.TIMED_OUT]


async def test_base_http_middleware_and_a_background_task(enough, seen):
    done = []

    async def work():
        await asyncio.sleep(LATE)
        done.append("work")

    async def endpoint(request):
        tasks = BackgroundTasks()
        tasks.add_task(work)
        return PlainTextResponse("ok", background=tasks)

    client = await _ask(enough(_route(endpoint, _BASE)))
    assert (client.status, client.error, done) == (200, None, ["work"])


# FastAPI


async def _async_resource(left: list[str]) -> Any:
    try:
        yield "resource"
    finally:
        await asyncio.sleep(0)  # such as giving a connection back
        left.append("async")


def _sync_resource(left: list[str]) -> Any:
    try:
        yield "resource"
    finally:
        left.append("sync")


def _fastapi(left: list[str], endpoint: str) -> FastAPI:
    app = FastAPI()
    an_async = Annotated[str, Depends(partial(_async_resource, left))]
    a_sync = Annotated[str, Depends(partial(_sync_resource, left))]

    @app.get("/async")
    async def waits(one: an_async, other: a_sync) -> str:
        await asyncio.sleep(20)
        return "too late"

    @app.get("/sync")
    def lingers(one: an_async, other: a_sync) -> str:
        end = time.monotonic() + 1
        while time.monotonic() < end:
            time.sleep(0.001)
        left.append("not stopped")
        return "too late"

    return app


@pytest.mark.parametrize("endpoint", ("async", "sync"))
async def test_fastapi_s_dependencies_clean_up(short, seen, endpoint):
    left: list[str] = []
    client = await _ask(short(_fastapi(left, endpoint)), path=f"/{endpoint}")
    assert (client.status, client.is_complete, client.error) == (504, True, None)
    assert sorted(left) == ["async", "sync"]
    assert seen.states == [State.READY, State.TIMED_OUT]


async def test_fastapi_s_background_tasks_are_run_to_their_end(enough, seen):
    app, done = FastAPI(), []

    def work() -> None:
        time.sleep(LATE)
        done.append("work")

    @app.get("/")
    def endpoint(tasks: BackgroundTasks) -> str:
        tasks.add_task(work)
        return "ok"

    client = await _ask(enough(app))
    assert (client.status, client.error, done) == (200, None, ["work"])
    assert seen.states == [State.READY, State.COMPLETED]


# Django

left_by: list[str] = []


async def _async_view(request):
    try:
        await asyncio.sleep(20)
    except BaseException as error:
        left_by.append(type(error).__name__)
        raise


def _sync_view(request):
    end = time.monotonic() + 1
    try:
        while time.monotonic() < end:
            time.sleep(0.001)
        left_by.append("not stopped")
    except BaseException as error:
        left_by.append(type(error).__name__)
        raise
    return HttpResponse("too late")


def _quick_view(request):
    return HttpResponse("ok")


@async_only_middleware
def _async_middleware(get_response):
    async def middleware(request):
        response = await get_response(request)
        response["x-middleware"] = "async"
        return response

    return middleware


def _sync_middleware(get_response):
    def middleware(request):
        return get_response(request)

    return middleware


class Urls:
    urlpatterns = (path("async", _async_view), path("sync", _sync_view), path("quick", _quick_view))


_MIDDLEWARES = {
    "none": [],
    "async": [f"{__name__}._async_middleware"],
    "sync between async": [f"{__name__}._async_middleware", f"{__name__}._sync_middleware"],
}


@pytest.fixture(params=_MIDDLEWARES)
def django(request):
    left_by.clear()
    with override_settings(ROOT_URLCONF=Urls, MIDDLEWARE=_MIDDLEWARES[request.param]):
        yield in_lower_case(ASGIHandler())


async def test_django_in_time(short, seen, django):
    client = await _ask(RequestTimeoutMiddleware(django, service_timeout=LONG), path="/quick")
    assert (client.status, client.body, client.error) == (200, b"ok", None)


@pytest.mark.parametrize(
    ("view", "error"), (("async", "CancelledError"), ("sync", "RequestTimeoutException"))
)
async def test_django_s_view_is_stopped(short, seen, django, view, error):
    guard = short(django, service_timeout=0.2)  # it is to have begun by then
    client = await _ask(guard, path=f"/{view}")
    assert (client.status, client.is_complete, client.error) == (504, True, None)
    assert left_by == [error]
    assert seen.states == [State.READY, State.TIMED_OUT]
