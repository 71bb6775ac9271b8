"""The request timeout around ASGI apps, on trio."""

import time
from functools import partial

import anyio.to_thread
import pytest
import trio
import trio.lowlevel

import hostline
from hostline import RequestTimeoutError, RequestTimeoutException
from hostline._requests import State, current_request, reporter
from hostline.asgi import RequestTimeoutMiddleware
from timeouts import LONG, SHORT, Recorder, eventually, in_thread, linger, scope

pytestmark = pytest.mark.timed

READY_AND_TIMED_OUT = [State.READY, State.TIMED_OUT]
READY_AND_COMPLETED = [State.READY, State.COMPLETED]


@pytest.fixture
def seen():
    return Recorder()


@pytest.fixture
def short(seen):
    return partial(RequestTimeoutMiddleware, service_timeout=SHORT, observers=[seen])


@pytest.fixture
def long(seen):
    return partial(RequestTimeoutMiddleware, service_timeout=LONG, observers=[seen])


class Client:
    """The server's side of one ASGI call on trio."""

    def __init__(self, *incoming):
        self.messages = []
        self.error = None
        self.complete_at = None
        self._incoming = list(incoming)

    async def send(self, message):
        assert self.complete_at is None, "a message after the end"
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()  # a cancellation in here would leave half a message
        self.messages.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.complete_at = time.monotonic()

    async def receive(self):
        if not self._incoming:
            await trio.sleep_forever()
        pause, message = self._incoming.pop(0)
        await trio.sleep(pause)
        return message

    def ask(self, app, scope_=None):
        trio.run(self._ask, app, scope() if scope_ is None else scope_)
        return self

    async def _ask(self, app, scope_):
        with trio.fail_after(30):
            try:
                await app(scope_, self.receive, self.send)
            except Exception as error:
                self.error = error

    @property
    def status(self):
        return self.messages[0]["status"] if self.messages else 0

    @property
    def body(self):
        return b"".join(message.get("body", b"") for message in self.messages)


async def answer(send, *chunks):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for number, chunk in enumerate(chunks, 1):
        await send({"type": "http.response.body", "body": chunk, "more_body": number < len(chunks)})


async def hello(scope, receive, send):
    await answer(send, b"hello")


async def slow(scope, receive, send):
    await trio.sleep(20)


def test_in_time(long, seen):
    client = Client().ask(long(hello))
    assert (client.status, client.body, client.error) == (200, b"hello", None)
    assert seen.states == READY_AND_COMPLETED


def test_without_a_limit(seen):
    client = Client().ask(RequestTimeoutMiddleware(hello, service_timeout=0, observers=[seen]))
    assert client.body == b"hello"
    assert seen.states == READY_AND_COMPLETED


def test_an_error_passes_untouched(long, seen):
    async def app(scope, receive, send):
        raise KeyError("x")

    error = Client().ask(long(app)).error
    assert type(error) is KeyError
    assert error.__context__ is None
    assert seen.states == READY_AND_COMPLETED


def test_too_late(short, seen):
    client = Client().ask(short(slow))
    assert (client.status, client.error) == (504, None)
    assert seen.states == READY_AND_TIMED_OUT
    assert "in slow" in seen.events[-1].stack


def test_the_request_is_current(long):
    async def app(scope, receive, send):
        assert current_request.get() is scope["hostline.request"]
        await answer(send, b"")

    assert Client().ask(long(app)).error is None


def test_the_answer_does_not_wait_for_the_clean_up(short, seen):
    told = []

    async def app(scope, receive, send):
        try:
            await trio.sleep(20)
        finally:
            with trio.CancelScope(shield=True):
                while client.complete_at is None:  # noqa: ASYNC110 - the answer is what is waited for
                    await trio.sleep(0.001)
            told.append("clean")

    client = Client()
    client.ask(short(app))
    assert (client.status, client.error) == (504, None)
    assert told == ["clean"]


def test_what_comes_too_late_is_dropped(short, seen):
    async def app(scope, receive, send):
        try:
            await trio.sleep(20)
        finally:
            with trio.CancelScope(shield=True):
                await answer(send, b"late")

    client = Client().ask(short(app))
    assert (client.status, len(client.messages)) == (504, 2)
    assert seen.states == READY_AND_TIMED_OUT


def test_mode_raise(short):
    client = Client().ask(short(slow, mode="raise"))
    assert (client.messages, type(client.error)) == ([], RequestTimeoutError)


def test_mode_report(seen):
    async def app(scope, receive, send):
        await trio.sleep(3 * SHORT)
        await answer(send, b"hello")

    guard = RequestTimeoutMiddleware(app, service_timeout=SHORT, mode="report", observers=[seen])
    assert Client().ask(guard).body == b"hello"
    assert seen.states == READY_AND_TIMED_OUT


def test_expired(long, seen):
    late = f"{time.time() - 40:.3f}".encode()
    client = Client().ask(long(hello), scope(headers=[(b"x-request-start", late)]))
    assert client.status == 503
    assert seen.states == [State.EXPIRED]


def test_a_nursery_of_the_app_s(short, seen):
    async def app(scope, receive, send):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 20)
            nursery.start_soon(trio.sleep, 20)

    client = Client().ask(short(app))
    assert (client.status, client.error) == (504, None)


def test_an_error_while_unwinding(short, seen, caplog):
    async def app(scope, receive, send):
        try:
            await trio.sleep(20)
        finally:
            raise KeyError("x")

    client = Client().ask(short(app))
    assert (client.status, client.error) == (504, None)
    assert "while it was being aborted" in caplog.text


def test_somebody_else_s_cancellation(long, seen):
    told = []

    async def main():
        client = Client()
        with trio.move_on_after(SHORT) as scope_:
            await long(slow)(scope(), client.receive, client.send)
            told.append("came back")
        return client.messages, scope_.cancelled_caught

    assert trio.run(main) == ([], True)
    assert not told
    assert seen.states == READY_AND_COMPLETED


@pytest.mark.parametrize("error", (None, KeyError("x")), ids=("an answer", "an error"))
def test_somebody_else_s_cancellation_waits_for_the_server(long, error):
    """What the app has come back with is not replaced by a cancellation that it has not met."""

    async def app(scope, receive, send):
        await answer(send, b"hello")
        outside.cancel()
        if error is not None:
            raise error

    outside = trio.CancelScope()
    client = Client()
    raised = []

    async def serve():
        with outside:
            try:
                await long(app)(scope(), client.receive, client.send)
            except KeyError as found:
                raised.append(found)
            assert outside.cancel_called

    trio.run(serve)
    assert not outside.cancelled_caught
    assert raised == ([] if error is None else [error])


def test_somebody_else_s_timeout_within(long, seen):
    async def app(scope, receive, send):
        with trio.move_on_after(SHORT):
            await trio.sleep(20)
        await answer(send, b"mine")

    assert Client().ask(long(app)).body == b"mine"


def test_a_stream_outlives_the_service_timeout(short, seen):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(4):
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            await trio.sleep(SHORT)
        await send({"type": "http.response.body"})

    client = Client().ask(short(app))
    assert (client.body, client.error) == (b"xxxx", None)
    assert seen.states == READY_AND_COMPLETED


def test_a_gap_too_long(long, seen):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await trio.sleep(20)

    client = Client().ask(long(app, stream_timeout=SHORT))
    assert (client.body, type(client.error)) == (b"x", RequestTimeoutError)
    assert client.complete_at is None
    assert seen.states == READY_AND_TIMED_OUT


def test_the_client_s_time_does_not_count(short, seen):
    async def app(scope, receive, send):
        while (await receive())["more_body"]:
            pass
        await answer(send, b"read")

    chunks = [
        (SHORT, {"type": "http.request", "body": b"x", "more_body": more}) for more in (True, True, False)
    ]
    client = Client(*chunks).ask(
        short(app, service_timeout=2 * SHORT), scope(headers=[(b"content-length", b"3")])
    )
    assert (client.body, client.error) == (b"read", None)
    assert seen.states == READY_AND_COMPLETED


def test_a_send_is_not_torn(seen):
    """The deadline comes while the server sends."""
    guard = RequestTimeoutMiddleware(hello, service_timeout=0.0005, observers=[seen])
    for _ in range(200):
        client = Client().ask(guard)
        kinds = [message["type"] for message in client.messages]
        whole = ["http.response.start", "http.response.body"]
        cut = (whole[:1], RequestTimeoutError)
        assert (kinds, type(client.error)) in ((whole, type(None)), cut)
    assert set(seen.endings().values()) == {1}


def test_a_pool_thread_is_broken(short, seen):
    ended_by = []

    def work():
        try:
            linger()
        except BaseException as error:
            ended_by.append(type(error))
            raise

    async def app(scope, receive, send):
        await anyio.to_thread.run_sync(work)

    client = Client().ask(short(app))
    assert (client.status, client.error) == (504, None)
    assert ended_by == [RequestTimeoutException]
    assert seen.states == READY_AND_TIMED_OUT
    assert "linger" in seen.events[-1].stack


# A blocked loop


def spin(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(100))


@pytest.mark.parametrize("block", (time.sleep, spin))
@pytest.mark.parametrize("mode", ("respond", "raise"))
def test_a_blocked_loop_is_broken(seen, caplog, block, mode):
    async def app(scope, receive, send):
        block(20)

    guard = RequestTimeoutMiddleware(app, service_timeout=0.1, mode=mode, observers=[seen])
    client = Client().ask(guard)
    assert (client.status, type(client.error)) == {
        "respond": (504, type(None)),
        "raise": (0, RequestTimeoutError),
    }[mode]
    assert seen.states == READY_AND_TIMED_OUT
    assert "in app" in seen.events[-1].stack
    assert caplog.text.count("blocks the event loop") == 1


def test_a_loop_is_looked_after_again(seen):
    """Behind a time in which nothing was in flight."""

    async def app(scope, receive, send):
        if scope["path"] == "/slow":
            time.sleep(20)
        await answer(send, b"hello")

    async def main():
        for client, path in zip(clients, ("/", "/slow"), strict=True):
            await client._ask(guard, scope(path))
            await trio.sleep(0.15)

    guard = RequestTimeoutMiddleware(app, service_timeout=0.1, observers=[seen])
    clients = [Client(), Client()]
    trio.run(main)
    assert [client.status for client in clients] == [200, 504]


def test_who_waits_behind_it_is_not_harmed(seen, caplog):
    async def app(scope, receive, send):
        if scope["path"] == "/slow":
            time.sleep(20)
        await trio.sleep(0.25)
        await answer(send, b"hello")

    async def main():
        async with trio.open_nursery() as nursery:
            for client, path in zip(clients, ("/", "/slow", "/"), strict=True):
                nursery.start_soon(client._ask, guard, scope(path))

    guard = RequestTimeoutMiddleware(app, service_timeout=0.4, observers=[seen])
    clients = [Client(), Client(), Client()]
    trio.run(main)
    assert [client.status for client in clients] == [200, 504, 200]
    assert all(client.complete_at for client in clients)
    assert seen.count(State.TIMED_OUT) == 1


def test_warn_after(long, seen, caplog):
    async def app(scope, receive, send):
        while "is slow" not in caplog.text:  # noqa: ASYNC110 - the log tells nobody
            await trio.sleep(0.001)
        await answer(send, b"hello")

    assert Client().ask(long(app, warn_after=SHORT)).body == b"hello"
    assert reporter.flush(20)
    assert "in app" in caplog.text


def test_an_answer_that_cannot_be_sent(short):
    class Gone(Client):
        async def send(self, message):
            raise OSError("the client has gone")

    assert type(Gone().ask(short(slow)).error) is OSError


# The deadline inside the app (its tests on other loops are in test_deadline_api)


def asking(function, **options):
    """What an endpoint answers, and the client."""
    answers = []

    async def app(scope, receive, send):
        answers.append(await function())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    options = {"service_timeout": LONG, "observers": (), **options}
    client = Client().ask(RequestTimeoutMiddleware(app, **options))
    return answers[0] if answers else None, client


def test_the_deadline_is_read_and_set():
    async def endpoint():
        before = hostline.remaining()
        assert hostline.set_timeout(2 * LONG)
        return 0 < before <= LONG < hostline.remaining()

    assert asking(endpoint)[0] is True


def test_a_deadline_that_is_moved_nearer():
    async def endpoint():
        hostline.set_timeout(SHORT)
        await trio.sleep(20)

    assert asking(endpoint)[1].status == 504


def test_a_pool_thread_moves_it():
    def work():
        assert hostline.set_timeout(2 * LONG)
        return hostline.remaining() > LONG

    async def endpoint():
        return await anyio.to_thread.run_sync(work), hostline.remaining() > LONG

    assert asking(endpoint)[0] == (True, True)


def test_a_thread_that_outlives_its_loop():
    requests = []

    async def endpoint():
        requests.append(hostline.current())

    asking(endpoint)
    requests[0].ended = None  # as if it were still running
    assert in_thread(lambda: requests[0].set_timeout(5)) is False


@pytest.mark.parametrize("is_async", (True, False))
def test_a_shield(is_async):
    steps = []

    async def endpoint():
        if is_async:
            async with hostline.shield():
                await trio.sleep(3 * SHORT)
                steps.append(hostline.current().state)
        else:
            with hostline.shield():
                await trio.sleep(3 * SHORT)
                steps.append(hostline.current().state)
            await trio.sleep(20)
        steps.append("behind")

    _, client = asking(endpoint, service_timeout=SHORT)
    assert (client.status, client.error) == (504, None)
    assert steps == [State.TIMED_OUT]


def test_a_shield_is_not_for_ever():
    async def endpoint():
        async with hostline.shield():
            await trio.sleep(20)

    assert asking(endpoint, service_timeout=SHORT, shield_limit=SHORT)[1].status == 504


def test_a_shield_in_a_pool_thread():
    steps = []

    def work():
        with hostline.shield():
            hostline.set_timeout(0.001)  # now that it has begun
            assert eventually(lambda: hostline.current().state is State.TIMED_OUT)
            steps.append("committed")
        linger()

    async def endpoint():
        await anyio.to_thread.run_sync(work)

    _, client = asking(endpoint)
    assert (client.status, client.error) == (504, None)
    assert steps == ["committed"]


def test_a_coroutine_s_work_is_cancelled():
    cancelled = []

    async def endpoint():
        with hostline.interruptible(lambda: cancelled.append(True)):
            await trio.sleep(20)

    assert asking(endpoint, service_timeout=SHORT)[1].status == 504
    assert cancelled == [True]


@pytest.mark.parametrize("in_a_thread", (False, True))
def test_a_checkpoint(in_a_thread):
    async def endpoint():
        hostline.set_timeout(None)
        hostline.current().deadline = time.monotonic()  # and nobody has noticed
        if in_a_thread:
            await anyio.to_thread.run_sync(hostline.checkpoint)
        hostline.checkpoint()

    _, client = asking(endpoint)
    assert (client.status, client.error) == (504, None)
