"""The request timeout as an entry of Django's MIDDLEWARE, in sync stacks and in async ones."""

import asyncio
import contextvars
import logging
import threading
import time
from datetime import timedelta
from functools import partial

import pytest
from asgiref.sync import iscoroutinefunction
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_finished
from django.http import FileResponse, HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, RequestFactory, override_settings
from django.urls import path
from django.utils.decorators import async_only_middleware, sync_only_middleware

import hostline
from exchanges import django  # noqa: F401 - configures Django
from hostline import RequestTimeoutError, RequestTimeoutException, SettingsError
from hostline._requests import State
from hostline.django import RequestTimeoutMiddleware
from hostline.django.async_stack import AsyncCall
from timeouts import (
    LONG,
    SHORT,
    Client,
    Recorder,
    environ,
    eventually,
    in_lower_case,
    in_thread,
    linger,
    scope,
    serve,
)

pytestmark = pytest.mark.timed

ENTRY = "hostline.django.RequestTimeoutMiddleware"
READY_AND_TIMED_OUT = [State.READY, State.TIMED_OUT]
READY_AND_COMPLETED = [State.READY, State.COMPLETED]


@pytest.fixture
def seen():
    return Recorder()


@pytest.fixture(params=("main", "thread"))
def road(request):
    """Where the request runs decides how it is broken."""
    return {"main": lambda call: call(), "thread": in_thread}[request.param]


def _urls(view):
    """One view at every path. Its resolver is kept by Django, as any module's."""
    return type("Urls", (), {"urlpatterns": (path("<path:path>", view), path("", view))})


class _Project:
    """A Django project with one view at every path, and the entry."""

    def __init__(self, view, *, middleware=(ENTRY,), **settings):
        self._settings = override_settings(
            ROOT_URLCONF=_urls(view),
            MIDDLEWARE=list(middleware),
            ALLOWED_HOSTS=["*"],
            **settings,
        )

    def wsgi(self, **more):
        with self._settings:
            return serve(WSGIHandler(), environ(**more))

    async def asgi(self, client=None, **asked):
        with self._settings:
            app = in_lower_case(ASGIHandler())
            client = client or Client()
            return await asyncio.wait_for(client.ask(app, scope(**asked)), 30)


def _ok(request, **_):
    return HttpResponse(b"ok")


def _slow(request, **_):
    hostline.set_timeout(SHORT)  # and not before it has begun
    linger()


async def _async_ok(request, **_):
    return HttpResponse(b"ok")


async def _async_slow(request, **_):
    hostline.set_timeout(SHORT)
    await asyncio.sleep(30)


def slow_entry(get_response):
    return _slow


# In a sync stack


def test_in_time(road, seen):
    project = _Project(_ok, HOSTLINE_SERVICE_TIMEOUT=LONG, HOSTLINE_TIMEOUT_OBSERVERS=[seen])
    served = road(project.wsgi)
    assert (served.status, served.body) == (200, b"ok")
    assert seen.states == READY_AND_COMPLETED


def test_a_slow_view_is_stopped_and_answered_for(road, seen):
    left = []

    def view(request, **_):
        try:
            _slow(request)
        except BaseException as error:
            left.append(type(error))
            raise

    project = _Project(view, HOSTLINE_TIMEOUT_OBSERVERS=[seen])
    served = road(lambda: project.wsgi(HTTP_ACCEPT="text/html"))
    assert (served.status, served.headers["content-type"]) == (504, "text/html; charset=utf-8")
    assert left == [RequestTimeoutException]
    assert seen.states == READY_AND_TIMED_OUT
    assert "linger" in seen.events[-1].stack


def test_a_slow_entry_below_is_stopped_too():
    project = _Project(_ok, middleware=(ENTRY, f"{__name__}.slow_entry"))
    assert project.wsgi().status == 504


def test_a_request_that_waited_too_long(seen):
    called = []
    project = _Project(called.append, HOSTLINE_TIMEOUT_OBSERVERS=[seen])
    served = project.wsgi(HTTP_X_REQUEST_START=f"{time.time() - 40:.3f}")
    assert (served.status, served.headers["retry-after"]) == (503, "10")
    assert (called, seen.states) == ([], [State.EXPIRED])


def test_django_s_own_errors_are_its_own():
    def view(request, **_):
        raise ValueError

    project = _Project(view)
    assert project.wsgi().status == 500


def test_raised_errors_are_answered_by_django(road):
    project = _Project(_slow, HOSTLINE_SERVICE_TIMEOUT=SHORT, HOSTLINE_TIMEOUT_MODE="raise")
    assert road(project.wsgi).status == 500


def test_a_status_of_one_s_own():
    settings = {"HOSTLINE_SERVICE_TIMEOUT": SHORT, "HOSTLINE_TIMEOUT_STATUS": 598}
    assert _Project(_slow, **settings, HOSTLINE_TIMEOUT_BODY="late").wsgi().body == b"late"


def test_request_finished_is_sent_once():
    finished = []

    def note(**_):
        finished.append(threading.get_ident())

    request_finished.connect(note)
    try:
        assert _Project(_slow, HOSTLINE_SERVICE_TIMEOUT=SHORT).wsgi().status == 504
    finally:
        request_finished.disconnect(note)
    assert finished == [threading.get_ident()]


def test_the_deadline_is_known_to_the_view():
    told = {}

    def view(request, **_):
        told.update(remaining=hostline.remaining(), path=hostline.current().path)
        told["same"] = request.META["hostline.request"] is hostline.current()
        return HttpResponse(b"ok")

    _Project(view, HOSTLINE_SERVICE_TIMEOUT=LONG).wsgi(path="/caf\xc3\xa9", SCRIPT_NAME="/app")
    assert 0 < told["remaining"] <= LONG
    assert (told["path"], told["same"]) == ("/app/café", True)


def test_exempt_paths_are_those_that_the_client_asked_for(seen):
    project = _Project(_slow_if_short, HOSTLINE_SERVICE_TIMEOUT=SHORT, HOSTLINE_TIMEOUT_EXEMPT_PATHS="/café")
    assert project.wsgi(path="/caf\xc3\xa9/1").body == b"ok"
    assert project.wsgi(path="/cafe").status == 504


def _slow_if_short(request, **_):
    if hostline.remaining() is not None:
        linger()
    return HttpResponse(b"ok")


def test_timeout_for_gets_django_s_request():
    def timeout_for(request):
        return SHORT if request.path_info == "/slow" else None

    project = _Project(_slow_if_short, HOSTLINE_TIMEOUT_FOR=timeout_for)
    assert project.wsgi(path="/slow").status == 504
    assert project.wsgi(path="/").body == b"ok"


def test_limits_by_path():
    project = _Project(_slow_if_short, HOSTLINE_TIMEOUT_FOR={"/slow": SHORT, "/": timedelta(0)})
    assert project.wsgi(path="/slow/1").status == 504
    assert project.wsgi(path="/").body == b"ok"


# Streams


def _streamed(*chunks):
    """A view whose response is made by calling each of these."""

    def view(request, **_):
        return StreamingHttpResponse(chunk() for chunk in chunks)

    return view


def _hello():
    return b"hello"


def test_a_stream_may_last_when_it_has_begun(seen):
    project = _Project(_streamed(_hello, lambda: " ".join(seen.states)), HOSTLINE_TIMEOUT_OBSERVERS=[seen])
    assert project.wsgi().body == b"helloready completed"


def test_the_first_chunk_is_made_in_time():
    project = _Project(_streamed(linger), HOSTLINE_SERVICE_TIMEOUT=SHORT)
    assert project.wsgi().status == 504


def test_a_gap_in_a_stream_has_a_limit_of_its_own(seen):
    project = _Project(
        _streamed(_hello, linger), HOSTLINE_STREAM_TIMEOUT=SHORT, HOSTLINE_TIMEOUT_OBSERVERS=[seen]
    )
    served = project.wsgi()
    assert (served.body, type(served.error)) == (b"hello", RequestTimeoutError)
    assert seen.states == READY_AND_TIMED_OUT


def test_a_stream_is_closed():
    closed = []

    def view(request, **_):
        def chunks():
            try:
                yield b"a"
                yield b"b"
            finally:
                closed.append(True)

        return StreamingHttpResponse(chunks())

    assert _Project(view, HOSTLINE_STREAM_TIMEOUT=LONG).wsgi().body == b"ab"
    assert closed == [True]


def test_a_file_goes_to_the_server_as_it_is(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"content")
    with file.open("rb") as opened:
        assert _Project(lambda request, **_: FileResponse(opened)).wsgi().body == b"content"


def test_an_async_stream_is_django_s_to_read():
    async def chunks():
        yield b"a"
        yield b"b"

    with pytest.warns(Warning, match="synchronous"):
        assert _Project(lambda request, **_: StreamingHttpResponse(chunks())).wsgi().body == b"ab"


# In an async stack


run = asyncio.run


def test_async_in_time(seen):
    project = _Project(_async_ok, HOSTLINE_SERVICE_TIMEOUT=LONG, HOSTLINE_TIMEOUT_OBSERVERS=[seen])
    client = run(project.asgi())
    assert (client.status, client.body) == (200, b"ok")
    assert seen.states == READY_AND_COMPLETED


@pytest.mark.parametrize(
    ("view", "error"), ((_async_slow, asyncio.CancelledError), (_slow, RequestTimeoutException))
)
def test_async_stack_stops_a_view(view, error, seen):
    left = []

    if view is _async_slow:

        async def noting(request, **_):
            try:
                await view(request)
            except BaseException as caught:
                left.append(type(caught))
                raise

    else:

        def noting(request, **_):
            try:
                view(request)
            except BaseException as caught:
                left.append(type(caught))
                raise

    project = _Project(noting, HOSTLINE_TIMEOUT_OBSERVERS=[seen])
    client = run(project.asgi(headers=[(b"accept", b"application/json")]))
    assert (client.status, client.headers["content-type"]) == (504, "application/problem+json")
    assert left == [error]
    assert seen.states == READY_AND_TIMED_OUT


def test_async_client_is_answered_while_the_view_unwinds():
    async def scenario():
        let_go = asyncio.Event()
        unwound = asyncio.Event()

        async def view(request, **_):
            try:
                await _async_slow(request)
            finally:
                await let_go.wait()
                unwound.set()

        client = await _Project(view).asgi()
        assert (client.status, client.is_complete, unwound.is_set()) == (504, True, False)
        let_go.set()
        await asyncio.wait_for(unwound.wait(), 20)

    run(scenario())


def test_async_client_is_answered_while_a_thread_goes_on():
    release = threading.Event()
    left = []

    def view(request, **_):
        with hostline.shield():
            hostline.set_timeout(SHORT)
            left.append(release.wait(20))
        return HttpResponse(b"late")

    async def scenario():
        project = _Project(view, HOSTLINE_TIMEOUT_SHIELD_LIMIT=20)
        client = Client()
        asked = asyncio.create_task(project.asgi(client=client))
        await asyncio.wait_for(client.complete.wait(), 15)
        assert (client.status, left) == (504, [])
        release.set()
        await asked
        assert left == [True]

    run(scenario())


def test_async_request_that_waited_too_long():
    stamp = f"{time.time() - 40:.3f}".encode()
    client = run(_Project(_async_ok).asgi(headers=[(b"x-request-start", stamp)]))
    assert (client.status, client.headers["retry-after"]) == (503, "10")


def test_async_raised_errors_are_answered_by_django():
    project = _Project(_async_slow, HOSTLINE_SERVICE_TIMEOUT=SHORT, HOSTLINE_TIMEOUT_MODE="raise")
    assert run(project.asgi()).status == 500


def test_async_client_that_goes_away_ends_the_view():
    left = []

    async def scenario():
        begun = asyncio.Event()

        async def view(request, **_):
            begun.set()
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                left.append(True)
                raise

        async def leave():
            await begun.wait()
            return {"type": "http.disconnect"}

        return await _Project(view).asgi(client=Client([{"type": "http.request", "body": b""}, leave]))

    assert (run(scenario()).messages, left) == ([], [True])


def test_async_view_may_answer_a_cancellation():
    async def scenario():
        begun = asyncio.Event()

        async def view(request):
            begun.set()
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                return HttpResponse(b"gone")

        with override_settings(HOSTLINE_SERVICE_TIMEOUT=LONG):
            entry = RequestTimeoutMiddleware(view)
        request = RequestFactory().get("/")
        request.scope = scope()
        task = asyncio.create_task(entry(request))
        await begun.wait()
        task.cancel()
        assert (await task).content == b"gone"

    run(scenario())


@pytest.mark.parametrize("limit", (SHORT, LONG))
def test_async_cancellation_in_the_same_round_as_the_outcome(monkeypatch, limit):
    """Be that the guard's answer or the view's: whoever asked for it would wait for ever."""
    watched = []

    async def view(request):
        if limit == SHORT:
            await _async_slow(request)
        return HttpResponse(b"ok")

    async def scenario():
        with override_settings(HOSTLINE_SERVICE_TIMEOUT=limit):
            entry = RequestTimeoutMiddleware(view)
        request = RequestFactory().get("/")
        request.scope = scope()
        task = asyncio.create_task(entry(request))

        def cancel_too(method):
            def and_cancel(call, *arguments):
                if not watched:
                    watched.append(call)
                    call.outcome.add_done_callback(lambda _: task.cancel())
                return method(call, *arguments)

            return and_cancel

        for name in ("send", "settle"):
            monkeypatch.setattr(AsyncCall, name, cancel_too(getattr(AsyncCall, name)))
        await asyncio.wait((task,))
        return task.cancelled(), task.cancelling()

    assert run(scenario()) == (True, 1)


variable = contextvars.ContextVar("variable", default="unset")


def test_async_context_of_the_view_is_seen_above():
    async def view(request, **_):
        variable.set("set by the view")
        return HttpResponse(b"ok")

    async def scenario():
        with override_settings(HOSTLINE_SERVICE_TIMEOUT=LONG):
            entry = RequestTimeoutMiddleware(view)
        request = RequestFactory().get("/")
        request.scope = scope()
        await entry(request)
        return variable.get(), hostline.current()

    assert run(scenario()) == ("set by the view", None)


def test_async_stream_is_not_timed(seen):
    async def chunks():
        yield " ".join(seen.states)

    async def view(request, **_):
        return StreamingHttpResponse(chunks())

    assert run(_Project(view, HOSTLINE_TIMEOUT_OBSERVERS=[seen]).asgi()).body == b"ready completed"


def test_async_deadline_is_known_to_the_view():
    told = {}

    async def view(request, **_):
        told["same"] = request.scope["hostline.request"] is hostline.current()
        return HttpResponse(b"ok")

    run(_Project(view, HOSTLINE_TIMEOUT_FOR=lambda request: LONG if request.path == "/" else 0).asgi())
    assert told == {"same": True}


def test_async_test_client():
    async def scenario():
        settings = override_settings(
            ROOT_URLCONF=_urls(_async_slow),
            MIDDLEWARE=[ENTRY],
            HOSTLINE_SERVICE_TIMEOUT=SHORT,
        )
        with settings:
            return await AsyncClient().get("/", headers={"host": "localhost"})

    assert run(scenario()).status_code == 504


class OddError(BaseException):
    pass


def test_async_error_behind_the_answer_is_logged(caplog):
    async def scenario():
        let_go = asyncio.Event()

        async def view(request, **_):
            try:
                await _async_slow(request)
            finally:
                await let_go.wait()
                raise OddError

        client = await _Project(view).asgi()
        let_go.set()
        unwinding = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*unwinding, return_exceptions=True)
        await asyncio.sleep(0)
        return client

    assert run(scenario()).status == 504
    assert "had been answered" in caplog.text


def test_async_answer_to_a_call_that_was_cancelled():
    async def scenario():
        call = AsyncCall(RequestFactory().get("/"), asyncio.get_running_loop())
        call.outcome.cancel()
        await call.send({"type": "http.response.start", "status": 504, "headers": []})
        await call.send({"type": "http.response.body", "body": b"late"})
        return call.outcome.cancelled()

    assert run(scenario())


# In a sync stack under ASGI


@sync_only_middleware
def sync_only(get_response):
    return partial(get_response)


def test_under_a_sync_stack_in_asgi_requests_are_only_reported(seen, caplog):
    settings = {"HOSTLINE_SERVICE_TIMEOUT": SHORT, "HOSTLINE_TIMEOUT_OBSERVERS": [seen]}
    left = []

    async def view(request, **_):
        left.append(eventually(lambda: State.TIMED_OUT in seen.states))
        return HttpResponse(b"late")

    project = _Project(view, middleware=(ENTRY, f"{__name__}.sync_only"), **settings)
    client = run(project.asgi())
    assert (client.body, left) == (b"late", [True])
    assert seen.states == READY_AND_TIMED_OUT
    assert caplog.text.count("sync-only") == 1


def test_under_a_sync_stack_in_asgi_expired_requests_are_dropped(caplog):
    project = _Project(_ok, middleware=(ENTRY, f"{__name__}.sync_only"))
    stamp = f"{time.time() - 40:.3f}".encode()
    assert run(project.asgi(headers=[(b"x-request-start", stamp)])).status == 503


def test_a_sync_stack_under_asgi_that_is_only_to_report(seen, caplog):
    settings = {"HOSTLINE_TIMEOUT_MODE": "report", "HOSTLINE_TIMEOUT_OBSERVERS": [seen]}
    project = _Project(_ok, middleware=(ENTRY, f"{__name__}.sync_only"), **settings)
    assert run(project.asgi()).body == b"ok"
    assert seen.states == READY_AND_COMPLETED
    assert "sync-only" not in caplog.text


# In an async stack under WSGI


@async_only_middleware
def async_only(get_response):
    return get_response


def test_an_async_stack_under_wsgi(road, seen):
    async def view(request, **_):
        assert request.META["hostline.request"] is hostline.current()
        return await _async_slow(request)

    project = _Project(view, middleware=(ENTRY, f"{__name__}.async_only"), HOSTLINE_TIMEOUT_OBSERVERS=[seen])
    assert road(lambda: project.wsgi(path="/caf\xc3\xa9")).status == 504
    assert seen.states == READY_AND_TIMED_OUT
    assert seen.events[0].path == "/café"


# Configuration


def test_sync_and_async():
    assert not iscoroutinefunction(RequestTimeoutMiddleware(_ok))
    assert iscoroutinefunction(RequestTimeoutMiddleware(_async_ok))


def test_settings_beat_the_environment(monkeypatch):
    monkeypatch.setenv("HOSTLINE_SERVICE_TIMEOUT", str(SHORT))
    assert _Project(_slow).wsgi().status == 504
    assert _Project(_slow_if_short, HOSTLINE_SERVICE_TIMEOUT=None).wsgi().body == b"ok"


def test_a_name_that_does_not_exist():
    with override_settings(HOSTLINE_SERVICE_TIMOUT=15), pytest.raises(SettingsError, match="SERVICE_TIMEOUT"):
        RequestTimeoutMiddleware(_ok)


def test_all_problems_at_once():
    wrong = {"HOSTLINE_SERVICE_TIMEOUT": "15", "HOSTLINE_SERVICE_TIMOUT": 15, "HOSTLINE_WAIT_TIMEOUT": -1}
    with override_settings(**wrong), pytest.raises(SettingsError) as caught:
        RequestTimeoutMiddleware(_ok)
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize("is_async", (False, True))
def test_guarded_twice_is_told_once(is_async, caplog):
    caplog.set_level(logging.WARNING)
    with override_settings(HOSTLINE_SERVICE_TIMEOUT=LONG):
        entry = RequestTimeoutMiddleware(_async_ok if is_async else _ok)
    for _ in range(2):
        request = RequestFactory().get("/")
        if is_async:
            request.scope = scope(**{"hostline.request": "of the wrapper"})
            assert run(entry(request)).content == b"ok"
        else:
            request.META["hostline.request"] = "of the wrapper"
            assert entry(request).content == b"ok"
    assert caplog.text.count("timed twice") == 1


@pytest.mark.parametrize("is_async", (False, True))
def test_the_same_entry_twice_is_told_as_that(is_async, caplog):
    entry = "hostline.django.RequestTimeoutMiddleware"
    with override_settings(HOSTLINE_SERVICE_TIMEOUT=LONG):
        stack = RequestTimeoutMiddleware(RequestTimeoutMiddleware(_async_ok if is_async else _ok))
    request = RequestFactory().get("/")
    if is_async:
        request.scope = scope()
        assert run(stack(request)).content == b"ok"
    else:
        assert stack(request).content == b"ok"
    assert f"{entry} in MIDDLEWARE, and by another around it: the same entry once more" in caplog.text
