"""The request timeout around ASGI apps, on asyncio and uvloop."""

import asyncio
import contextvars
import gc
import logging
import threading
import time
import weakref
from functools import partial

import anyio
import pytest
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse, StreamingResponse

import hostline
from hostline import RequestExpiryError, RequestTimeoutError, SettingsError, _asyncio_request
from hostline._loop_deadlines import LoopLanes
from hostline._requests import State, reporter
from hostline.asgi import CanonicalHostMiddleware, RequestTimeoutMiddleware, from_env
from loops import LOOPS
from timeouts import LONG, SHORT, Client, Recorder, answer, hello_asgi, scope, slow_asgi

pytestmark = pytest.mark.timed

READY_AND_TIMED_OUT = [State.READY, State.TIMED_OUT]
READY_AND_COMPLETED = [State.READY, State.COMPLETED]
CUT_START = {"type": "http.response.start", "status": 200, "headers": []}


@pytest.fixture
def seen():
    return Recorder()


@pytest.fixture
def short(seen):
    return partial(RequestTimeoutMiddleware, service_timeout=SHORT, observers=[seen])


@pytest.fixture
def long(seen):
    return partial(RequestTimeoutMiddleware, service_timeout=LONG, observers=[seen])


def _stamped(seconds_ago, **more):
    stamp = f"{time.time() - seconds_ago:.3f}".encode()
    return scope(headers=[(b"x-request-start", stamp)], **more)


async def _passes(seconds):
    """Let that much time pass, however little the loop's timers think of it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:  # noqa: ASYNC110 - no event tells the time
        await asyncio.sleep(0.001)


# In time


def test_in_time(run, long, seen):
    asked = scope()
    client = run(Client().ask(long(hello_asgi), asked))
    assert (client.status, client.body, client.error) == (200, b"hello", None)
    assert seen.states == READY_AND_COMPLETED
    request = asked["hostline.request"]
    assert (request.state, request.timeout, request.wait) == (State.COMPLETED, LONG, None)
    assert 0 < request.service < LONG
    assert request.stack is None


def test_without_observers_nobody_is_told(run):
    asked = scope()
    run(Client().ask(RequestTimeoutMiddleware(hello_asgi, observers=()), asked))
    assert asked["hostline.request"].state is State.COMPLETED


def test_the_request_is_found_in_the_scope(run, long):
    async def app(scope, receive, send):
        request = scope["hostline.request"]
        assert request.state is State.READY
        assert (request.method, request.path) == ("PUT", "/caf\xe9")
        assert request.id == "ab,c"
        assert request.deadline == request.started + LONG
        await answer(send, b"")

    headers = [(b"x-request-id", b"a b"), (b"x-request-id", b"c")]
    client = run(Client().ask(long(app), scope("/caf\xe9", "PUT", headers, raw_path=b"/caf%c3%a9")))
    assert client.error is None
    assert client.status == 200


def test_behind_its_end_the_client_has_gone(run, long):
    """What the app has left running may still ask."""
    asked = []

    async def app(scope, receive, send):
        asked.append(receive)
        await answer(send, b"hello")

    async def ask():
        await Client().ask(long(app))
        return await asked[0](), await asked[0]()

    assert run(ask()) == ({"type": "http.disconnect"}, {"type": "http.disconnect"})


# Too late


def test_respond(run, short, seen):
    asked = scope()
    client = run(Client().ask(short(slow_asgi), asked))
    assert (client.status, client.error, client.is_complete) == (504, None, True)
    assert client.body == b"504 Gateway Timeout\n\nThe server took too long to answer this request.\n"
    assert client.headers == {
        "content-type": "text/plain; charset=utf-8",
        "content-length": str(len(client.body)),
        "cache-control": "no-store",
    }
    assert seen.states == READY_AND_TIMED_OUT
    assert SHORT <= asked["hostline.request"].service < 10


def test_raise(run, short, seen):
    client = run(Client().ask(short(slow_asgi, mode="raise")))
    assert type(client.error) is RequestTimeoutError
    assert client.error.timeout == SHORT
    assert client.error.service >= SHORT
    assert not client.messages
    assert seen.states == READY_AND_TIMED_OUT


def test_report(run, short, seen):
    async def app(scope, receive, send):
        await _passes(2 * SHORT)
        await answer(send, b"hel", b"lo")

    client = run(Client().ask(short(app, mode="report")))
    assert (client.status, client.body, client.error) == (200, b"hello", None)
    assert seen.states == READY_AND_TIMED_OUT


def test_report_where_the_app_fails_late(run, short, seen):
    async def app(scope, receive, send):
        await _passes(2 * SHORT)
        raise ValueError

    assert type(run(Client().ask(short(app, mode="report"))).error) is ValueError
    assert seen.states == READY_AND_TIMED_OUT


def test_the_answer_comes_at_the_deadline_whatever_the_app_does(run, short, seen):
    async def app(scope, receive, send):
        try:
            await asyncio.sleep(20)
        finally:
            await client.complete.wait()

    client = Client()
    run(client.ask(short(app)))
    assert client.status == 504
    assert client.error is None


def test_the_stack_is_the_slow_code_s(run, short, seen):
    async def the_slow_part():
        await asyncio.sleep(20)

    async def app(scope, receive, send):
        await the_slow_part()

    asked = scope()

    async def server():
        return await Client().ask(short(app), asked)

    run(server())
    assert seen.states
    stack = asked["hostline.request"].stack
    assert stack == seen.events[-1].stack
    assert "await the_slow_part()" in stack
    assert "await asyncio.sleep(20)" in stack
    assert "in __call__" not in stack, "our own frames are of no interest"
    assert "in server" not in stack, "nor are the server's"


def test_head_gets_no_body(run, short):
    client = run(Client().ask(short(slow_asgi), scope(method="HEAD")))
    assert (client.status, client.body, client.is_complete) == (504, b"", True)
    assert int(client.headers["content-length"]) > 0


@pytest.mark.parametrize(
    ("accept", "content_type"),
    (
        (b"text/html,*/*;q=0.8", "text/html; charset=utf-8"),
        (b"application/json", "application/problem+json"),
        (b"application/problem+json", "application/problem+json"),
        (b"image/png", "text/plain; charset=utf-8"),
        (b"\xff\xfe", "text/plain; charset=utf-8"),
    ),
)
def test_negotiation(run, short, accept, content_type):
    client = run(Client().ask(short(slow_asgi), scope(headers=[(b"accept", accept)])))
    assert client.headers["content-type"] == content_type
    stale = [(b"accept", accept), (b"x-request-start", f"{time.time() - 31:.3f}".encode())]
    client = run(Client().ask(short(slow_asgi), scope(headers=stale)))
    assert (client.status, client.headers["content-type"]) == (503, content_type)


def test_configured_answer(run, short):
    guard = short(
        slow_asgi,
        status=503,
        body=lambda request: f"{request.id}: {request.state}",
        content_type="text/x-own",
    )
    client = run(Client().ask(guard, scope(headers=[(b"x-request-id", b"abc")])))
    assert (client.status, client.body) == (503, b"abc: timed_out")
    assert client.headers["content-type"] == "text/x-own"


def test_many_at_once(run, short, seen):
    async def main():
        guard = short(slow_asgi)
        return await asyncio.gather(
            *(Client().ask(guard, scope(headers=[(b"x-request-id", b"%d" % n)])) for n in range(500))
        )

    clients = run(main())
    assert {client.status for client in clients} == {504}
    assert all(client.is_complete and client.error is None for client in clients)
    assert set(seen.endings().values()) == {1}
    assert len(seen.endings()) == 500


# What the app does with the abort


def test_an_app_that_fails_while_it_is_aborted(run, short, seen, caplog):
    async def app(scope, receive, send):
        try:
            await asyncio.sleep(20)
        finally:
            raise ValueError("in the clean-up")

    with caplog.at_level(logging.WARNING):
        client = run(Client().ask(short(app)))
    assert (client.status, client.error) == (504, None)
    assert any(record.exc_info and record.exc_info[0] is ValueError for record in caplog.records)
    client = run(Client().ask(short(app, mode="raise")))
    assert type(client.error) is RequestTimeoutError
    assert sorted(seen.states) == sorted(READY_AND_TIMED_OUT * 2)


def test_an_app_that_swallows_the_cancellation_and_answers(run, short, seen):
    async def app(scope, receive, send):
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            await answer(send, b"too", b"late")

    client = run(Client().ask(short(app)))
    assert (client.status, client.error, len(client.messages)) == (504, None, 2)
    client = run(Client().ask(short(app, mode="raise")))
    assert type(client.error) is RequestTimeoutError
    assert not client.messages


@pytest.mark.parametrize("error", (KeyboardInterrupt, SystemExit))
def test_the_end_of_the_process_is_nobody_s_to_swallow(short, seen, error):
    async def app(scope, receive, send):
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            raise error from None

    assert type(asyncio.run(Client().ask(short(app))).error) is error
    assert seen.states == READY_AND_TIMED_OUT


# The app's own errors, timeouts and cancellations


@pytest.mark.parametrize(
    "error",
    (ValueError("the app's"), TimeoutError("a database's"), RequestTimeoutError(service=1, timeout=1)),
)
def test_an_error_of_the_app_s_passes_untouched(run, long, seen, error):
    async def app(scope, receive, send):
        raise error

    assert run(Client().ask(long(app))).error is error
    assert seen.states == READY_AND_COMPLETED


def test_a_timeout_within_the_app_is_the_app_s(run, long, seen):
    async def app(scope, receive, send):
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(20)
        except TimeoutError:
            await answer(send, b"in good time")

    client = run(Client().ask(long(app)))
    assert (client.status, client.error) == (200, None)
    assert seen.states == READY_AND_COMPLETED


def test_a_timeout_within_the_app_at_the_very_deadline(run, short, seen):
    async def app(scope, receive, send):
        deadline = scope["hostline.request"].deadline
        async with asyncio.timeout(SHORT):
            while time.monotonic() < deadline:  # both are due at once, when the loop comes to look
                pass
            await asyncio.sleep(20)

    client = run(Client().ask(short(app)))
    if client.error is None:
        assert client.status == 504
        assert seen.states == READY_AND_TIMED_OUT
    else:  # the app's was first, and the app was done with it before ours came
        assert type(client.error) is TimeoutError
        assert seen.states == READY_AND_COMPLETED


def test_a_timeout_around_the_guard_is_its_own(run, long, seen):
    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await long(slow_asgi)(scope(), Client().receive, Client().send)
        assert asyncio.current_task().cancelling() == 0

    run(main())
    assert seen.states == READY_AND_COMPLETED


def test_the_task_goes_on_as_if_nothing_had_been(run, short):
    async def main():
        before = asyncio.current_task().cancelling()
        for _ in range(3):
            assert (await Client().ask(short(slow_asgi))).status == 504
            assert asyncio.current_task().cancelling() == before
        async with asyncio.timeout(LONG):
            await asyncio.sleep(0.001)

    run(main())


def test_a_task_that_had_been_cancelled_before(run, short):
    async def main():
        asyncio.current_task().cancel()
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            pass
        client = await Client().ask(short(slow_asgi))
        assert (client.status, client.error) == (504, None)
        assert asyncio.current_task().uncancel() == 0

    run(main())


def test_a_cancellation_from_outside(run, long, seen):
    async def main():
        client = Client()
        task = asyncio.create_task(client.ask(long(slow_asgi)))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        assert not client.messages

    run(main())
    assert seen.states == READY_AND_COMPLETED


def test_a_cancellation_from_outside_right_after_the_deadline(run, short, seen):
    """Both have asked for it before the app hears of either."""

    async def main():
        loop = asyncio.get_running_loop()
        asked, client = scope(), Client()
        task = asyncio.create_task(client.ask(short(slow_asgi), asked))

        def watch():
            request = asked.get("hostline.request")
            if request is not None and request.state is State.TIMED_OUT:
                task.cancel()
            elif not task.done():
                loop.call_soon(watch)

        loop.call_soon(watch)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelling() == 1
        await asyncio.sleep(0.05)

    run(main())
    assert seen.states == READY_AND_TIMED_OUT


def test_a_cancellation_from_outside_and_the_deadline_while_the_app_unwinds(run, short, seen):
    async def app(scope, receive, send):
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            try:
                await asyncio.sleep(20)
            finally:
                unwound.append(1)

    unwound = []

    async def main():
        task = asyncio.create_task(Client().ask(short(app)))
        await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelling() == 1
        await asyncio.sleep(0.05)

    run(main())
    assert unwound == [1]
    assert seen.states == READY_AND_TIMED_OUT


def test_a_cancellation_from_outside_while_the_answer_is_sent(run, short, seen):
    """The client gets the whole answer all the same."""

    async def main():
        class Slow(Client):
            async def send(self, message):
                begun.set()
                await go_on.wait()
                await super().send(message)

        begun, go_on, client = asyncio.Event(), asyncio.Event(), Slow()
        task = asyncio.create_task(client.ask(short(slow_asgi)))
        await begun.wait()
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()
        await client.complete.wait()
        return client

    assert run(main()).status == 504
    assert not _asyncio_request._answering


def test_an_answer_that_cannot_be_sent(run, short):
    class Gone(Client):
        async def send(self, message):
            raise OSError("the client is gone")

    assert type(run(Gone().ask(short(slow_asgi))).error) is OSError


def test_a_task_group_within_the_app(run, short, seen):
    async def app(scope, receive, send):
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(20))
            group.create_task(asyncio.sleep(20))

    assert run(Client().ask(short(app))).status == 504
    assert seen.states == READY_AND_TIMED_OUT


def test_anyio_within_the_app(run, short, long, seen):
    async def app(scope, receive, send):
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 20)
            with anyio.move_on_after(0.01):
                await anyio.sleep(20)
            await anyio.sleep(20)

    client = run(Client().ask(short(app)))
    assert (client.status, client.error) == (504, None)
    assert seen.states == READY_AND_TIMED_OUT

    async def quick(scope, receive, send):
        with anyio.move_on_after(0.01):
            await anyio.sleep(20)
        await answer(send, b"ok")

    assert run(Client().ask(long(quick))).status == 200


def test_anyio_around_the_guard(run, short, long):
    async def main():
        with anyio.move_on_after(0.01) as cancel_scope:
            await long(slow_asgi)(scope(), Client().receive, Client().send)
        assert cancel_scope.cancelled_caught
        with anyio.move_on_after(LONG) as cancel_scope:
            assert (await Client().ask(short(slow_asgi))).status == 504
        assert not cancel_scope.cancelled_caught

    run(main())


# The wait


def test_expired(run, long, seen):
    async def app(scope, receive, send):
        pytest.fail("called")

    asked = _stamped(31)
    client = run(Client().ask(long(app), asked))
    assert (client.status, client.error) == (503, None)
    assert client.headers["retry-after"] == "10"
    assert client.headers["cache-control"] == "no-store"
    assert seen.states == [State.EXPIRED]
    request = asked["hostline.request"]
    assert (request.state, request.timeout) == (State.EXPIRED, 30)
    assert 30.9 < request.wait < 41
    head = run(Client().ask(long(app), _stamped(31, method="HEAD")))
    assert (head.status, head.body) == (503, b"")


def test_expired_and_raise(run, long):
    client = run(Client().ask(long(hello_asgi, mode="raise"), _stamped(31)))
    assert type(client.error) is RequestExpiryError
    assert client.error.timeout == 30
    assert client.error.wait > 30.9
    assert not client.messages


def test_expired_and_report(run, long, seen):
    assert run(Client().ask(long(hello_asgi, mode="report"), _stamped(31))).status == 200
    assert seen.states == [State.EXPIRED]


@pytest.mark.parametrize("header", ((b"content-length", b"5"), (b"transfer-encoding", b"chunked")))
def test_a_body_gives_more_time(run, long, header):
    asked = _stamped(31)
    asked["headers"].append(header)
    assert run(Client().ask(long(hello_asgi), asked)).status == 200


@pytest.mark.parametrize(("method", "status"), (("POST", 200), ("DELETE", 200), ("GET", 503)))
def test_a_body_that_http_2_does_not_announce_gives_more_time(run, long, method, status):
    asked = {**_stamped(31), "http_version": "2", "method": method}
    assert run(Client().ask(long(hello_asgi), asked)).status == status


def test_what_is_left_of_the_wait_is_what_there_is(run, long, seen):
    asked = _stamped(0.5)
    assert run(Client().ask(long(slow_asgi, wait_timeout=0.6), asked)).status == 504
    assert asked["hostline.request"].timeout < 0.11
    assert seen.states == READY_AND_TIMED_OUT


def test_an_unlimited_service(run, seen):
    asked = _stamped(1)
    client = run(
        Client().ask(RequestTimeoutMiddleware(hello_asgi, service_timeout=0, observers=[seen]), asked)
    )
    assert client.status == 200
    assert asked["hostline.request"].timeout is None
    assert seen.states == READY_AND_COMPLETED


@pytest.mark.parametrize("headers", ([], [(b"x-request-start", None)]), ids=("plain", "stamped"))
def test_no_timer_for_each_request(headers):
    """On Heroku each request says how long it has waited; its deadline is no odd one for that."""

    class Counting(asyncio.SelectorEventLoop):
        timers = 0

        def call_at(self, *args, **kwargs):
            self.timers += 1
            return super().call_at(*args, **kwargs)

    async def main():
        loop = asyncio.get_running_loop()
        guard = RequestTimeoutMiddleware(hello_asgi, observers=())
        before = loop.timers
        for _ in range(100):
            await Client().ask(guard, _stamped(0.1) if headers else scope())
        return loop.timers - before

    with asyncio.Runner(loop_factory=Counting) as runner:
        assert runner.run(main()) <= 2


# Exempt paths and timeouts by request


def test_exempt_paths(run, long, seen):
    guard = long(hello_asgi, exempt_paths=["/health", "/acme/"])
    for path in ("/health", "/health/deep", "/acme/x"):
        asked = _stamped(31, path=path, raw_path=path.encode())
        assert run(Client().ask(guard, asked)).status == 200
    assert seen.states == []
    for path in ("/healthy", "/", "/acme"):
        asked = _stamped(31, path=path, raw_path=path.encode())
        assert run(Client().ask(guard, asked)).status == 503
    assert run(Client().ask(guard, scope())).status == 200
    assert seen.states == [State.EXPIRED] * 3 + READY_AND_COMPLETED


def test_timeout_for(run, long, seen):
    guard = long(slow_asgi, timeout_for=lambda scope: SHORT if scope["path"] == "/slow" else ...)
    assert run(Client().ask(guard, scope("/slow"))).status == 504
    asked = scope()
    run(Client().ask(long(hello_asgi, timeout_for=lambda scope: ...), asked))
    assert asked["hostline.request"].timeout == LONG
    asked = scope()
    run(Client().ask(long(hello_asgi, timeout_for=lambda scope: None), asked))
    assert asked["hostline.request"].timeout is None
    assert type(run(Client().ask(long(hello_asgi, timeout_for=lambda scope: "15"))).error) is SettingsError


# The order of messages, and what comes after the end


def test_a_background_task_is_never_killed(run, short, seen):
    done = []

    async def app(scope, receive, send):
        await answer(send, b"ok")
        await _passes(3 * SHORT)
        done.append(1)

    client = run(Client().ask(short(app)))
    assert (client.status, client.error, done) == (200, None, [1])
    assert seen.states == READY_AND_COMPLETED


def test_an_error_in_a_background_task_is_the_app_s(run, long, seen):
    async def app(scope, receive, send):
        await answer(send, b"ok")
        raise ValueError

    assert type(run(Client().ask(long(app))).error) is ValueError
    assert seen.states == READY_AND_COMPLETED


def test_starlette_s_background_task(run, short):
    done = []

    async def work():
        await _passes(3 * SHORT)
        done.append(1)

    assert run(Client().ask(short(PlainTextResponse("ok", background=BackgroundTask(work))))).status == 200
    assert done == [1]


def test_starlette_s_stream_in_a_task_group(run, short, seen):
    async def chunks():
        yield b"one"
        await _passes(2 * SHORT)
        yield b"two"

    client = run(Client().ask(short(StreamingResponse(chunks()))))
    assert (client.body, client.error) == (b"onetwo", None)
    assert seen.states == READY_AND_COMPLETED


def test_starlette_s_middleware_with_a_task_group(run, short, seen):
    async def dispatch(request, call_next):
        return await call_next(request)

    for _ in range(3):
        client = run(Client().ask(short(BaseHTTPMiddleware(slow_asgi, dispatch=dispatch))))
        assert (client.status, client.error) == (504, None)
    assert sorted(seen.states) == sorted(READY_AND_TIMED_OUT * 3)


def test_an_app_that_answers_nothing(run, long, seen):
    async def app(scope, receive, send):
        pass

    client = run(Client().ask(long(app)))
    assert (client.messages, client.error) == ([], None)
    assert seen.states == READY_AND_COMPLETED


@pytest.mark.parametrize("mode", ("respond", "raise"))
def test_a_response_that_has_begun_is_cut(run, short, seen, mode):
    async def app(scope, receive, send):
        await send(CUT_START)
        await asyncio.sleep(20)

    client = run(Client().ask(short(app, mode=mode)))
    assert [message["type"] for message in client.messages] == ["http.response.start"]
    assert type(client.error) is RequestTimeoutError
    assert client.error.timeout == SHORT
    assert seen.states == READY_AND_TIMED_OUT


def test_a_response_that_has_begun_and_is_finished_too_late(run, short, seen):
    async def app(scope, receive, send):
        await send(CUT_START)
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            await send({"type": "http.response.body", "body": b"late"})

    client = run(Client().ask(short(app)))
    assert len(client.messages) == 1
    assert type(client.error) is RequestTimeoutError


def test_a_deadline_while_the_server_sends_the_last_of_it(run, short, seen):
    """A slow client is no fault of the app's: the response is complete."""

    class Slow(Client):
        async def send(self, message):
            await super().send(message)
            if self.is_complete:
                await _passes(2 * SHORT)

    client = run(Slow().ask(short(hello_asgi)))
    assert (client.status, client.body, client.error) == (200, b"hello", None)
    assert seen.states == READY_AND_COMPLETED


def test_pathsend_is_a_whole_body(run, short, seen):
    async def app(scope, receive, send):
        await send(CUT_START)
        await send({"type": "http.response.pathsend", "path": "/file"})
        await _passes(2 * SHORT)

    client = run(Client().ask(short(app)))
    assert (len(client.messages), client.error) == (2, None)
    assert seen.states == READY_AND_COMPLETED


def test_other_messages_pass(run, long):
    async def app(scope, receive, send):
        await send({**CUT_START, "trailers": True})
        await send({"type": "http.response.body", "body": b"x"})

    class Lenient(Client):
        async def send(self, message):
            self.messages.append(message)

    async def pushing(scope, receive, send):
        await send({"type": "http.response.push", "path": "/x", "headers": []})
        await answer(send, b"x")

    client = run(Lenient().ask(long(pushing)))
    assert [message["type"].rpartition(".")[2] for message in client.messages] == ["push", "start", "body"]
    assert run(Client().ask(long(app))).is_complete


# Streams


def test_a_stream_outlives_the_service_timeout(run, short, seen):
    async def app(scope, receive, send):
        await send(CUT_START)
        for number in range(3):
            await send({"type": "http.response.body", "body": b"x", "more_body": number < 2})
            await _passes(SHORT)

    client = run(Client().ask(short(app)))
    assert (client.body, client.error) == (b"xxx", None)
    assert seen.states == READY_AND_COMPLETED


def test_a_stream_that_never_says_that_it_is_over(run, long, seen):
    async def app(scope, receive, send):
        await send(CUT_START)
        await send({"type": "http.response.body", "body": b"x", "more_body": True})

    client = run(Client().ask(long(app, stream_timeout=LONG)))
    assert (client.is_complete, client.error) == (False, None)
    assert seen.states == READY_AND_COMPLETED


@pytest.mark.parametrize("mode", ("respond", "raise"))
def test_a_gap_too_long(run, long, seen, mode):
    async def app(scope, receive, send):
        await send(CUT_START)
        for _ in range(3):
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await asyncio.sleep(20)

    client = run(Client().ask(long(app, stream_timeout=SHORT, mode=mode)))
    assert client.body == b"xxx"
    assert type(client.error) is RequestTimeoutError
    assert seen.states == READY_AND_TIMED_OUT


def test_gaps_that_are_short_enough(run, long, seen):
    """Together they take longer than any limit."""

    async def app(scope, receive, send):
        await send(CUT_START)
        for _ in range(5):
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            await _passes(0.08)
        await send({"type": "http.response.body", "body": b""})

    guard = RequestTimeoutMiddleware(app, service_timeout=0.3, stream_timeout=0.3, observers=[seen])
    client = run(Client().ask(guard))
    assert (client.body, client.error) == (b"xxxxx", None)
    assert seen.states == READY_AND_COMPLETED


def test_a_background_task_after_a_stream_is_never_killed(run, long, seen):
    async def app(scope, receive, send):
        await answer(send, b"x", b"y")
        await _passes(3 * SHORT)

    assert run(Client().ask(long(app, stream_timeout=SHORT))).error is None
    assert seen.states == READY_AND_COMPLETED


def test_what_is_only_reported_is_reported_once(run, short, seen):
    """The service timeout first, and then a gap of the stream."""

    async def app(scope, receive, send):
        await _passes(2 * SHORT)
        await send(CUT_START)
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await _passes(3 * SHORT)
        await send({"type": "http.response.body", "body": b""})

    client = run(Client().ask(short(app, stream_timeout=SHORT, mode="report")))
    assert (client.body, client.error) == (b"x", None)
    assert seen.states == READY_AND_TIMED_OUT


def test_a_swallowed_cancellation_gets_one_more(run, short, seen, monkeypatch, caplog):
    monkeypatch.setattr(_asyncio_request, "GRACE", 2 * SHORT)
    swallowed = []

    async def app(scope, receive, send):
        for _ in range(2):
            try:
                await asyncio.sleep(20)
            except asyncio.CancelledError:
                swallowed.append(asyncio.current_task().cancelling())
        while "has not taken effect" not in caplog.text:  # noqa: ASYNC110 - the log tells nobody
            await asyncio.sleep(0.001)
        assert reporter.flush(20)

    async def asked():
        client = await Client().ask(short(app), scope())
        return client, asyncio.current_task().cancelling()

    client, cancelling = run(asked())
    assert (client.status, client.error, cancelling) == (504, None, 0)
    assert swallowed == [1, 2]
    assert caplog.text.count("has not taken effect") == 1
    assert "in app" in caplog.text
    assert seen.states == READY_AND_TIMED_OUT


def test_a_clean_up_that_takes_its_time_ends_in_peace(run, short, seen):
    told = []

    async def app(scope, receive, send):
        try:
            await asyncio.sleep(20)
        finally:
            await asyncio.sleep(3 * SHORT)
            told.append("clean")

    assert run(Client().ask(short(app), scope())).status == 504
    assert told == ["clean"]


def test_a_shielded_clean_up_is_not_cancelled_again(run, short, monkeypatch):
    monkeypatch.setattr(_asyncio_request, "GRACE", SHORT)
    told = []

    async def app(scope, receive, send):
        try:
            await asyncio.sleep(20)
        finally:
            async with hostline.shield():
                await asyncio.sleep(4 * SHORT)
                told.append("clean")

    assert run(Client().ask(short(app, shield_limit=10), scope())).status == 504
    assert told == ["clean"]


def test_somebody_else_s_cancellation_of_a_listener(run, long):
    """While another task of the app's asks too, as Starlette's is_disconnected() does."""
    told = []

    async def app(scope, receive, send):
        await receive()

        async def listen():
            try:
                async with asyncio.timeout(2 * SHORT):
                    told.append(await receive())
            except TimeoutError:
                told.append("own timeout")

        async def poll():
            with anyio.CancelScope() as cancelled:
                cancelled.cancel()
                await receive()

        async with asyncio.TaskGroup() as group:
            group.create_task(listen())
            group.create_task(poll())
        await answer(send, b"hello")

    client = run(Client().ask(long(app), scope()))
    assert (client.body, client.error, told) == (b"hello", None, ["own timeout"])


def test_what_is_cancelled_by_a_cancellation_harms_nobody_else(run, short, seen):
    """The callable of an interruptible block raises what is no Exception."""

    async def app(scope, receive, send):
        def cancel():
            raise asyncio.CancelledError

        with hostline.interruptible(cancel):
            await asyncio.sleep(20)

    async def asked():
        guard = short(app)
        return [(await Client().ask(guard, scope())).status for _ in range(3)]

    assert run(asked()) == [504, 504, 504]
    assert seen.count(State.TIMED_OUT) == 3


# Slow uploads


def _chunks(*pauses):
    """A client that sends one piece of its body after each pause."""

    def piece(number, pause):
        async def message():
            await _passes(pause)
            return {"type": "http.request", "body": b"x", "more_body": number < len(pauses)}

        return message

    return [piece(number, pause) for number, pause in enumerate(pauses, 1)]


async def _read(receive):
    size = 0
    while True:
        message = await receive()
        size += len(message["body"])
        if not message.get("more_body", False):
            return b"%d" % size


async def _upload(scope, receive, send):
    await answer(send, await _read(receive))


UPLOADING = [(b"content-length", b"4")]


@pytest.mark.parametrize("overtime", (0, LONG))
def test_the_client_s_time_does_not_count(run, seen, overtime):
    guard = RequestTimeoutMiddleware(_upload, service_timeout=0.1, wait_overtime=overtime, observers=[seen])
    client = run(Client(_chunks(0.06, 0.06, 0.06, 0.06)).ask(guard, scope(headers=UPLOADING)))
    assert (client.status, client.body, client.error) == (200, b"4", None)
    assert seen.states == READY_AND_COMPLETED


@pytest.mark.parametrize("method", ("POST", "DELETE"))
def test_an_upload_of_no_announced_length(run, seen, method):
    """HTTP/2 needs no header that says that a body comes."""
    guard = RequestTimeoutMiddleware(_upload, service_timeout=0.1, observers=[seen])
    client = run(Client(_chunks(0.06, 0.06, 0.06)).ask(guard, scope(method=method)))
    assert (client.status, client.body) == (200, b"3")
    assert seen.states == READY_AND_COMPLETED


def test_two_tasks_that_ask_for_the_body_at_once(run, short, seen):
    async def app(scope, receive, send):
        await asyncio.gather(receive(), receive())
        await asyncio.sleep(20)

    client = run(Client(_chunks(SHORT, SHORT, SHORT)).ask(short(app), scope(headers=UPLOADING)))
    assert client.status == 504
    assert seen.states == READY_AND_TIMED_OUT


def test_the_app_s_time_counts_before_and_after(run, short, seen):
    async def before(scope, receive, send):
        await asyncio.sleep(20)

    async def after(scope, receive, send):
        assert await _read(receive) == b"3"
        await asyncio.sleep(20)

    async def between(scope, receive, send):
        await receive()
        await asyncio.sleep(20)

    for app in (before, after, between):
        client = run(Client(_chunks(SHORT, SHORT, SHORT)).ask(short(app), scope(headers=UPLOADING)))
        assert client.status == 504
    assert sorted(seen.states) == sorted(READY_AND_TIMED_OUT * 3)


def test_an_upload_has_a_limit_of_its_own(run, long, seen):
    guard = long(_upload, wait_overtime=SHORT)
    client = run(Client(_chunks(0, 20)).ask(guard, scope(headers=UPLOADING)))
    assert client.status == 504
    assert seen.states == READY_AND_TIMED_OUT


def test_an_upload_s_limit_is_for_all_of_it(run, long, seen):
    guard = long(_upload, wait_overtime=0.1)
    client = run(Client(_chunks(*[0.04] * 50)).ask(guard, scope(headers=UPLOADING)))
    assert client.status == 504
    assert seen.states == READY_AND_TIMED_OUT


def test_an_upload_that_is_cancelled_from_outside(run, long, seen):
    async def main():
        task = asyncio.create_task(Client(_chunks(20)).ask(long(_upload), scope(headers=UPLOADING)))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())
    assert seen.states == READY_AND_COMPLETED


def test_waiting_for_a_client_without_a_body_counts(run, short, seen):
    async def app(scope, receive, send):
        await receive()
        await receive()  # a disconnect that does not come

    assert run(Client().ask(short(app))).status == 504
    assert seen.states == READY_AND_TIMED_OUT


def test_waiting_after_the_body_counts(run, short, seen):
    async def app(scope, receive, send):
        await _read(receive)
        await receive()

    assert run(Client(_chunks(0)).ask(short(app), scope(headers=UPLOADING))).status == 504


def test_reading_on_after_the_response_has_begun_to_stream(run, long, seen):
    async def app(scope, receive, send):
        await receive()
        await send(CUT_START)
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await receive()
        await send({"type": "http.response.body", "body": b""})
        await receive()

    client = run(Client(_chunks(0, 0, 0)).ask(long(app), scope(headers=UPLOADING)))
    assert (client.body, client.error) == (b"x", None)


def test_a_response_that_begins_to_stream_while_the_body_is_awaited(run, seen):
    """An echo: one task reads, another writes; what is streamed is under no service timeout."""

    async def app(scope, receive, send):
        async def read():
            await _read(receive)

        reading = asyncio.create_task(read())
        await asyncio.sleep(0)
        await send(CUT_START)
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await reading
        await _passes(2 * SHORT)
        await send({"type": "http.response.body", "body": b""})

    guard = RequestTimeoutMiddleware(app, service_timeout=SHORT, observers=[seen])
    client = run(Client(_chunks(0.01, 0.01)).ask(guard, scope(headers=UPLOADING)))
    assert (client.body, client.error) == (b"x", None)
    assert seen.states == READY_AND_COMPLETED


def test_an_upload_without_a_service_timeout(run, seen):
    guard = RequestTimeoutMiddleware(_upload, service_timeout=0, observers=[seen])
    assert run(Client(_chunks(0.01, 0.01)).ask(guard, scope(headers=UPLOADING))).body == b"2"


# Other scopes, other loops


@pytest.mark.parametrize("kind", ("lifespan", "websocket", "unheard of"))
def test_other_scopes_pass_untouched(run, short, seen, kind):
    got = []

    async def app(scope, receive, send):
        got.append((scope, receive, send))
        await _passes(2 * SHORT)

    asked = {"type": kind}

    async def receive():
        return {}

    async def send(message):
        pass

    run(short(app)(asked, receive, send))
    assert got == [(asked, receive, send)]
    assert asked == {"type": kind}
    assert seen.states == []


def test_on_another_loop_it_runs_unguarded_and_says_so(short, seen, caplog):
    class Suspends:
        def __await__(self):
            return (yield "a loop of somebody's own")

    async def app(scope, receive, send):
        await Suspends()
        told.append("called")

    told = []
    guard = short(app)
    for _ in range(2):
        call = guard(scope(), None, None)
        assert call.send(None) == "a loop of somebody's own"
        with pytest.raises(StopIteration):
            call.send(None)
    assert told == ["called"] * 2
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_outside_of_a_task_it_says_so(short):
    async def app(scope, receive, send):
        pytest.fail("called")

    loop = asyncio.new_event_loop()
    caught = []

    def step():
        try:
            short(app)(scope(), Client().receive, Client().send).send(None)
        except RuntimeError as error:
            caught.append(str(error))
        loop.stop()

    loop.call_soon(step)
    loop.run_forever()
    loop.close()
    assert "task" in caught[0]


def test_one_guard_on_loop_after_loop(short, seen):
    guard = short(slow_asgi)
    for make_loop in (*LOOPS.values(), *LOOPS.values()):
        with asyncio.Runner(loop_factory=make_loop) as runner:
            assert runner.run(Client().ask(guard)).status == 504
    assert seen.count(State.TIMED_OUT) == 2 * len(LOOPS)


def test_one_guard_on_two_loops_at_once(short, seen):
    guard = short(slow_asgi)
    clients = []

    async def main():
        for _ in range(5):
            clients.extend(await asyncio.gather(*(Client().ask(guard) for _ in range(20))))

    threads = [threading.Thread(target=lambda: asyncio.run(main())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(clients) == 200
    assert {client.status for client in clients} == {504}
    assert all(client.error is None for client in clients)
    assert seen.count(State.TIMED_OUT) == 200


# Nested, mounted, configured by the environment


def test_nested_the_inner_one_is_first(run, short, seen):
    outer_seen = Recorder()
    outer = RequestTimeoutMiddleware(short(slow_asgi), service_timeout=LONG, observers=[outer_seen])
    client = run(Client().ask(outer))
    assert (client.status, client.error) == (504, None)
    assert seen.states == READY_AND_TIMED_OUT
    assert outer_seen.states == READY_AND_COMPLETED


def test_nested_the_outer_one_is_first(run, long, seen):
    outer_seen = Recorder()
    outer = RequestTimeoutMiddleware(long(slow_asgi), service_timeout=SHORT, observers=[outer_seen])
    client = run(Client().ask(outer))
    assert (client.status, client.error) == (504, None)
    assert outer_seen.states == READY_AND_TIMED_OUT
    assert seen.states == READY_AND_COMPLETED


def test_nested_at_the_same_time(run, short, seen):
    outer_seen = Recorder()
    outer = RequestTimeoutMiddleware(short(slow_asgi), service_timeout=SHORT, observers=[outer_seen])
    for _ in range(5):
        client = run(Client().ask(outer))
        assert (client.status, client.error) == (504, None)
    assert outer_seen.count(State.TIMED_OUT) == 5
    assert len(seen.states) == 10


def test_both_guards_under_a_mount_prefix(run, short, seen):
    """Starlette's Mount: the path is whole, and root_path says how much of it is the prefix."""
    host = [(b"host", b"www.example.com")]

    def ask(app, path, headers=host):
        guard = CanonicalHostMiddleware(short(app, exempt_paths=["/mount/free"]), "www.example.com")
        asked = scope(f"/mount{path}", headers=headers, root_path="/mount")
        return run(Client().ask(guard, asked))

    assert ask(slow_asgi, "/slow").status == 504
    assert seen.states == READY_AND_TIMED_OUT
    assert seen.events[-1].path == "/mount/slow"
    assert ask(hello_asgi, "/free").body == b"hello"
    assert len(seen.states) == 2
    redirect = ask(slow_asgi, "/slow", [(b"host", b"other.example.com")])
    assert redirect.headers["location"] == "http://www.example.com/mount/slow"
    assert len(seen.states) == 2


def test_from_env(run, monkeypatch, caplog):
    monkeypatch.setenv("HOSTLINE_SERVICE_TIMEOUT", "30ms")
    monkeypatch.setenv("HOSTLINE_CANONICAL_HOST", "www.example.com")
    app = from_env(slow_asgi)
    assert run(Client().ask(app, scope(headers=[(b"host", b"example.com")]))).status == 301
    assert run(Client().ask(app, scope(headers=[(b"host", b"www.example.com")]))).status == 504


def test_options_that_are_wrong():
    with pytest.raises(SettingsError, match="service_timeout"):
        RequestTimeoutMiddleware(hello_asgi, service_timeout=-1)


# What is left behind


class Witness:
    """Something of the app's that must be gone as soon as its request is."""


@pytest.mark.parametrize(
    "kind",
    (
        "in time",
        "late",
        "late stream",
        "raise",
        "expired",
        "stamped",
        "stream",
        "upload",
        "error",
        "cancelled",
    ),
)
def test_no_request_is_left_to_the_garbage_collector(kind):
    witnesses = []

    async def app(scope, receive, send):
        witness = scope["app.witness"] = Witness()
        witnesses.append(weakref.ref(witness))
        if kind == "upload":
            await _read(receive)
        if kind == "error":
            raise ValueError
        if kind in ("late", "raise", "cancelled"):
            await asyncio.sleep(20)
        await send(CUT_START)
        if "stream" in kind:
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        if kind == "late stream":
            await asyncio.sleep(20)
        await send({"type": "http.response.body", "body": b"x"})

    options = {"service_timeout": SHORT if kind in ("late", "raise", "late stream") else LONG}
    if "stream" in kind:
        options["stream_timeout"] = SHORT if kind == "late stream" else LONG
    if kind == "raise":
        options["mode"] = "raise"
    guard = RequestTimeoutMiddleware(app, observers=(), **options)

    async def once():
        asked = {"expired": partial(_stamped, 31), "stamped": partial(_stamped, 1)}.get(kind, scope)()
        if kind == "upload":
            asked["headers"].append((b"content-length", b"1"))
        client = Client()
        task = asyncio.create_task(guard(asked, client.receive, client.send))
        if kind == "cancelled":
            await asyncio.sleep(0.005)
            task.cancel()
        await asyncio.wait({task})  # awaited, its error would hold this frame, and this frame holds the task
        assert task.cancelled() or type(task.exception()) in (type(None), RequestTimeoutError, ValueError)
        witnesses.append(weakref.ref(asked["hostline.request"]))

    async def main():
        await once()
        await asyncio.sleep(0.01)
        assert reporter.flush(20)  # its thread may hold the last one
        gc.collect()
        gc.disable()
        try:
            witnesses.clear()
            await once()
            await asyncio.sleep(0.01)
            assert reporter.flush(20)
            assert [ref() for ref in witnesses] == [None] * len(witnesses)
            assert gc.collect() == 0
        finally:
            gc.enable()

    asyncio.run(main())


def test_a_lane_s_timer_keeps_no_context_of_a_request(long):
    """Its timer is started by whoever finds none, and goes on for all."""
    variable = contextvars.ContextVar("variable")
    guard = RequestTimeoutMiddleware(hello_asgi, service_timeout=LONG, observers=())

    async def first():
        witness = Witness()
        variable.set(witness)
        await Client().ask(guard)
        return weakref.ref(witness)

    async def main():
        ref = await asyncio.create_task(first())
        await asyncio.sleep(0)  # the step that the task's end woke us in keeps its context
        gc.collect()
        return ref()

    assert asyncio.run(main()) is None


def test_a_loop_s_timers_go_on_whatever_another_thread_s_are_at(long):
    """A context that one thread is in cannot be entered by another: each loop has its own."""
    is_in, go_on, clients = threading.Event(), threading.Event(), []

    async def stuck(scope, receive, send):
        with hostline.interruptible(lambda: (is_in.set(), go_on.wait(20))):  # within the timer
            await asyncio.sleep(20)

    def serve_in(app):
        guard = RequestTimeoutMiddleware(app, service_timeout=SHORT, observers=())
        clients.append(asyncio.run(Client().ask(guard)))

    other = threading.Thread(target=serve_in, args=(stuck,))
    other.start()
    assert is_in.wait(20)
    began = time.monotonic()
    serve_in(slow_asgi)
    assert time.monotonic() - began < 5
    go_on.set()
    other.join(20)
    assert [client.status for client in clients] == [504, 504]


def test_a_lane_outlives_what_fails_in_its_timer(run, monkeypatch):
    guard = RequestTimeoutMiddleware(slow_asgi, service_timeout=SHORT, observers=())
    failures = [ZeroDivisionError()]

    def revive(self, revive=LoopLanes.revive):
        if failures:
            raise failures.pop()
        return revive(self)

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        first = asyncio.create_task(Client().ask(guard))
        while failures:  # noqa: ASYNC110 - the timer itself is what is waited for
            await asyncio.sleep(0.001)
        second = await Client().ask(guard)
        return second, await first

    with monkeypatch.context() as patch:
        patch.setattr(LoopLanes, "revive", revive)
        assert [client.status for client in run(main())] == [504, 504]


def test_the_answer_is_sent_in_the_request_s_context(run):
    """What is around the guard may look there, and nobody finds there what is another's."""
    variable = contextvars.ContextVar("variable", default=None)
    bodies = []

    async def app(scope, receive, send):
        if scope["path"] == "/sets":
            with hostline.interruptible(lambda: variable.set("left by an interruptible block")):
                await asyncio.sleep(20)
        await asyncio.sleep(20)

    def body(request):
        bodies.append(variable.get())
        return ""

    guard = RequestTimeoutMiddleware(app, service_timeout=SHORT, observers=(), body=body)

    async def around(scope, receive, send):
        variable.set(scope["path"])

        async def send_marked(message):
            if message["type"] == "http.response.start":
                message["headers"].append((b"x-path", variable.get().encode()))
            await send(message)

        await guard(scope, receive, send_marked)

    async def main():
        return [await asyncio.create_task(Client().ask(around, scope(path))) for path in ("/sets", "/a")]

    for client, path in zip(run(main()), ("/sets", "/a"), strict=True):
        assert (b"x-path", path.encode()) in client.messages[0]["headers"]
    assert bodies == ["/sets", "/a"]
