"""The deadline as the app sees and bends it, under both protocols and in their pools of threads."""

import asyncio
import contextvars
import inspect
import math
import threading
import time
from datetime import timedelta

import anyio.to_thread
import pytest
from asgiref.sync import sync_to_async
from fastapi import Depends, FastAPI
from flask import Flask

import hostline
from hostline import RequestTimeoutError, RequestTimeoutException, SettingsError, _abortable
from hostline._deadlines import watchdog
from hostline._requests import State, current_request
from hostline.asgi import RequestTimeoutMiddleware as AsgiMiddleware
from hostline.wsgi import RequestTimeoutMiddleware
from loops import run  # noqa: F401 - a fixture
from timeouts import (
    LONG,
    SHORT,
    Client,
    NotStoppedError,
    Recorder,
    answer,
    entries_left,
    environ,
    eventually,
    hello,
    in_thread,
    linger,
    scope,
    serve,
    switch_interval,
)

pytestmark = pytest.mark.timed

MISSED = 20.0  # longer than any test waits for what should come at once


@pytest.fixture(params=("main", "thread"))
def road(request):
    """Where a WSGI request runs decides how it is broken."""
    return {"main": lambda call: call(), "thread": in_thread}[request.param]


@pytest.fixture
def seen():
    return Recorder()


class View:
    """A WSGI app around a function, with what that has answered."""

    def __init__(self, function):
        self.function = function
        self.result = None

    def __call__(self, environ_, start_response):
        self.result = self.function()
        return hello(environ_, start_response)


def _observers(seen):
    return () if seen is None else [seen]


def ask(road, function, seen=None, *, timeout=LONG, **options):
    """Run a function as a WSGI request; what it answers, and what the client gets."""
    view = View(function)
    served = road(
        lambda: serve(
            RequestTimeoutMiddleware(view, service_timeout=timeout, observers=_observers(seen), **options)
        )
    )
    return view.result, served


async def ask_async(function, seen=None, *, limit=LONG, client=None, scope_=None, **options):
    """The same for a coroutine function and ASGI."""
    results = []

    async def app(scope, receive, send):
        results.append(await function())
        await answer(send, b"hello")

    guarded = AsgiMiddleware(app, service_timeout=limit, observers=_observers(seen), **options)
    client = await (client or Client()).ask(guarded, scope_)
    return (results[0] if results else None), client


def until(holds):
    assert eventually(holds)


def wait_for_the_deadline():
    """Spin, so that nothing but an abort of ours can come in between."""
    while hostline.remaining() != 0:
        time.sleep(0)


def let_the_deadline_pass_unnoticed():
    """The clock has come to it, and what watches it has not been told."""
    hostline.set_timeout(None)
    hostline.current().deadline = time.monotonic()


# Outside


def test_outside_of_a_request_there_is_no_limit():
    assert hostline.current() is None
    assert hostline.remaining() is None
    assert hostline.deadline() is None
    assert hostline.set_timeout(5) is False
    hostline.checkpoint()
    with hostline.shield(), hostline.interruptible(lambda: pytest.fail("there is no deadline")):
        pass

    @hostline.timeout(5)
    @hostline.no_timeout
    def view():
        return "answer"

    assert view() == "answer"


def test_outside_in_a_coroutine(run):  # noqa: F811
    @hostline.timeout(5)
    @hostline.no_timeout
    async def endpoint():
        async with hostline.shield():
            with hostline.interruptible(lambda: pytest.fail("there is no deadline")):
                await asyncio.sleep(0)
        return "answer"

    assert run(endpoint()) == "answer"


@pytest.mark.parametrize("value", (-1, math.nan, math.inf, True, "5", 5j))
def test_what_is_no_timeout_is_refused_everywhere(value):
    with pytest.raises(SettingsError, match="timeout="):
        hostline.set_timeout(value)
    with pytest.raises(SettingsError, match="timeout="):
        hostline.timeout(value)


# Reading


def test_what_is_left(road):
    def view():
        request = hostline.current()
        before = time.monotonic()
        left = hostline.remaining()
        assert request.started <= before
        return request, hostline.deadline() == request.started + LONG, 0 < left <= LONG

    (request, is_right, is_left), served = ask(road, view)
    assert (served.status, is_right, is_left) == (200, True, True)
    assert request.state is State.COMPLETED
    assert hostline.current() is None


def test_without_a_limit_nothing_is_left_to_count(road):
    result, _ = ask(
        road, lambda: (hostline.remaining(), hostline.deadline(), hostline.current()), timeout=None
    )
    assert result[:2] == (None, None)
    assert result[2] is not None


def test_a_request_that_has_ended_counts_as_none(road):
    """Its context may live on: in a thread that the app has started."""
    contexts = []
    ask(road, lambda: contexts.append(contextvars.copy_context()))
    assert contexts[0].run(current_request.get) is not None
    assert contexts[0].run(hostline.current) is None
    assert contexts[0].run(hostline.remaining) is None
    assert contexts[0].run(hostline.set_timeout, 5) is False


def test_a_request_that_timed_out_counts_until_its_code_has_come_back(road):
    lefts, contexts = [], []

    def view():
        contexts.append(contextvars.copy_context())
        try:
            linger()
        finally:
            lefts.append((hostline.remaining(), hostline.current().state, hostline.set_timeout(5)))

    assert ask(road, view, timeout=SHORT)[1].status == 504
    assert lefts == [(0.0, State.TIMED_OUT, False)]
    assert contexts[0].run(hostline.current) is None


def test_exempt_requests_have_no_deadline(road):
    result, _ = ask(road, hostline.remaining, exempt_paths=["/"])
    assert result is None


def test_asgi_reads_and_ends(run):  # noqa: F811
    contexts = []

    async def endpoint():
        contexts.append(contextvars.copy_context())
        return hostline.remaining(), hostline.deadline() - hostline.current().started

    (left, whole), client = run(ask_async(endpoint))
    assert client.status == 200
    assert 0 < left <= LONG
    assert whole == LONG
    assert contexts[0].run(hostline.current) is None


def test_background_work_has_no_deadline(run):  # noqa: F811
    async def main():
        seen_behind = []

        async def app(scope, receive, send):
            await answer(send, b"hello")
            seen_behind.append(hostline.remaining())

        await Client().ask(AsgiMiddleware(app, observers=()))
        return seen_behind

    assert run(main()) == [None]


# Setting


@pytest.mark.parametrize(
    ("value", "timeout"), ((60, 60), (timedelta(minutes=1), 60), (None, None), (0, None))
)
def test_set_timeout(road, seen, value, timeout):
    def view():
        assert hostline.set_timeout(value) is True
        request = hostline.current()
        return request.timeout, hostline.deadline(), request.started

    (told, deadline, started), served = ask(road, view, seen)
    assert (served.status, told) == (200, timeout)
    assert deadline == (None if timeout is None else started + timeout)
    assert seen.states == [State.READY, State.COMPLETED]
    assert seen.events[-1].timeout == timeout
    assert entries_left() == 0


def test_a_longer_timeout_is_waited_for(road, seen):
    def view():
        hostline.set_timeout(LONG)
        time.sleep(2 * SHORT)
        hostline.set_timeout(2 * LONG)  # once more, now that it is in no lane
        return hostline.remaining() > LONG

    assert ask(road, view, seen, timeout=SHORT)[0] is True
    assert seen.states == [State.READY, State.COMPLETED]
    assert entries_left() == 0


def test_a_shorter_timeout_is_kept(road, seen):
    def view():
        hostline.set_timeout(SHORT)
        linger()

    assert ask(road, view, seen)[1].status == 504
    assert seen.states == [State.READY, State.TIMED_OUT]
    assert seen.events[-1].timeout == SHORT
    assert entries_left() == 0


def test_too_late_in_the_loop(run):  # noqa: F811
    """Asked by a thread before the deadline, heard by the loop behind it."""

    async def endpoint():
        request = hostline.current()
        try:
            await asyncio.sleep(MISSED)
        finally:
            request._set_timeout(LONG)
            assert hostline.set_timeout(LONG) is False
            assert request.timeout == SHORT

    _, client = run(ask_async(endpoint, limit=SHORT))
    assert (client.status, client.error) == (504, None)


def test_a_timeout_that_has_passed_already(road):
    def view():
        time.sleep(0.005)
        hostline.set_timeout(0.001)
        linger()

    assert ask(road, view)[1].status == 504


def test_a_limit_set_where_there_was_none(road):
    def view():
        hostline.set_timeout(SHORT)
        linger()

    assert ask(road, view, timeout=None)[1].status == 504


def test_an_earlier_deadline_that_was_given_up_does_not_count(road):
    """Both are in the watchdog's heap."""

    def view():
        hostline.set_timeout(SHORT)
        hostline.set_timeout(LONG)
        time.sleep(2 * SHORT)
        return hostline.remaining() > 1

    assert ask(road, view)[0] is True


def test_deadlines_that_were_given_up_are_not_kept():
    def view():
        for number in range(5_000):
            hostline.set_timeout(3600 + number)
        return len(watchdog._heap)

    assert ask(in_thread, view)[0] < 2_500


def test_the_error_says_the_timeout_that_was_set(road):
    def view():
        hostline.set_timeout(SHORT)
        linger()

    error = ask(road, view, mode="raise")[1].error
    assert isinstance(error, RequestTimeoutError)
    assert error.timeout == SHORT


def test_from_a_foreign_thread(road):
    def view():
        context = contextvars.copy_context()
        assert in_thread(lambda: context.run(hostline.set_timeout, SHORT)) is True
        linger()

    assert ask(road, view)[1].status == 504


def test_report_sets_it_too(road, seen):
    def view():
        hostline.set_timeout(SHORT)
        until(lambda: hostline.current().state is State.TIMED_OUT)
        hostline.checkpoint()
        with hostline.interruptible(lambda: pytest.fail("nothing is touched")):
            return hostline.set_timeout(LONG)

    assert ask(road, view, seen, mode="report")[0] is False
    assert seen.states == [State.READY, State.TIMED_OUT]


def test_a_stream_has_limits_of_its_own():
    def app(environ_, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"one"
        yield str(hostline.set_timeout(5)).encode()

    served = in_thread(lambda: serve(RequestTimeoutMiddleware(app, stream_timeout=LONG, observers=())))
    assert served.body == b"oneFalse"


@pytest.mark.slow
def test_moved_by_others_while_it_ends_exactly_once():
    """Every interleaving of finishing, firing and moving ends the request once, and leaves nothing."""
    seen = Recorder()
    contexts = []

    def view():
        contexts.append(contextvars.copy_context())
        time.sleep(0.0005)

    stop = threading.Event()

    def meddle(timeout):
        while not stop.is_set():
            for context in contexts[-2:]:
                try:
                    context.run(hostline.set_timeout, timeout)
                except RuntimeError:  # another thread is in this context
                    continue

    meddlers = [threading.Thread(target=meddle, args=(each,)) for each in (LONG, 0.001, 2 * LONG)]
    app = RequestTimeoutMiddleware(View(view), service_timeout=LONG, observers=_observers(seen))
    with switch_interval(1e-5):
        for each in meddlers:
            each.start()
        statuses = {in_thread(lambda: [serve(app).status for _ in range(500)][-1])}
        stop.set()
        for each in meddlers:
            each.join()
    assert statuses <= {200, 504}
    assert set(seen.endings().values()) == {1}
    assert len(seen.endings()) == 500
    assert entries_left() == 0


def test_asgi_set_timeout(run, seen):  # noqa: F811
    async def endpoint():
        assert hostline.set_timeout(2 * LONG) is True
        return hostline.remaining() > LONG

    assert run(ask_async(endpoint, seen))[0] is True
    assert seen.events[-1].timeout == 2 * LONG


@pytest.mark.parametrize("timeout", (LONG, None))
def test_asgi_shorter(run, seen, timeout):  # noqa: F811
    async def endpoint():
        hostline.set_timeout(SHORT)
        await asyncio.sleep(MISSED)

    assert run(ask_async(endpoint, seen, limit=timeout))[1].status == 504


def test_asgi_longer_and_none(run, seen):  # noqa: F811
    async def endpoint():
        hostline.set_timeout(LONG)
        await asyncio.sleep(2 * SHORT)
        hostline.set_timeout(None)
        return hostline.remaining()

    _, client = run(ask_async(endpoint, seen, limit=SHORT))
    assert client.status == 200
    assert seen.states == [State.READY, State.COMPLETED]


def in_anyio_s_pool(work):
    """Looked up when it is called: a guard puts another in its place."""
    return anyio.to_thread.run_sync(work)


POOLS = {
    "anyio": in_anyio_s_pool,
    "asgiref": lambda work: sync_to_async(work)(),
    "asyncio": asyncio.to_thread,
}


@pytest.fixture(params=POOLS)
def pool(request):
    return POOLS[request.param]


def test_in_a_pool_thread(run, pool):  # noqa: F811
    """What it sets counts there at once, and in the loop when that comes to it."""

    def work():
        assert hostline.set_timeout(2 * LONG) is True
        return hostline.remaining() > LONG

    async def endpoint():
        return await pool(work), hostline.remaining() > LONG

    assert run(ask_async(endpoint))[0] == (True, True)


def test_in_a_pool_thread_shorter(run, pool):  # noqa: F811
    def work():
        hostline.set_timeout(SHORT)
        until(lambda: hostline.current() is None or hostline.current().state is State.TIMED_OUT)

    assert run(ask_async(lambda: pool(work)))[1].status == 504


def test_a_thread_that_outlives_its_loop_is_told():
    contexts = []

    async def endpoint():
        contexts.append(contextvars.copy_context())
        hostline.current().ended = None

    async def main():
        await ask_async(endpoint)

    asyncio.run(main())
    request = contexts[0].run(current_request.get)
    request.ended = None  # as if it were still running
    assert in_thread(lambda: contexts[0].run(hostline.set_timeout, 5)) is False


def test_uploads_do_not_count(run):  # noqa: F811
    """60 s from its start are 60 s of its own: waiting for the client is the client's time."""
    lefts = []

    async def body():
        await asyncio.sleep(0.05)
        return {"type": "http.request", "body": b"x", "more_body": False}

    async def main():
        async def app(scope, receive, send):
            task = asyncio.create_task(receive())
            await asyncio.sleep(0)
            hostline.set_timeout(50)  # while the client is waited for
            await task
            lefts.append(hostline.remaining())
            hostline.set_timeout(60)
            lefts.append(hostline.remaining())
            await answer(send, b"hello")

        guarded = AsgiMiddleware(app, service_timeout=LONG, observers=())
        await Client([body]).ask(guarded, scope(method="POST", headers=[(b"content-length", b"1")]))

    started = time.monotonic()
    run(main())
    spent = time.monotonic() - started
    assert 50 - spent + 0.04 <= lefts[0] <= 50
    assert 60 - spent + 0.04 <= lefts[1] <= 60


# Decorators


def test_the_decorators_set_the_limit(road):
    @hostline.timeout(60)
    def limited():
        return hostline.current().timeout

    @hostline.no_timeout
    def unlimited():
        return hostline.current().timeout

    assert ask(road, lambda: (limited(), unlimited(), limited()))[0] == (60, None, 60)


def test_a_decorated_view_is_as_it_was():
    @hostline.timeout(60)
    def view(a: int, *, b: str = "b") -> str:
        """What it does."""

    @hostline.no_timeout
    async def endpoint(a: int) -> None: ...

    assert (view.__name__, view.__doc__) == ("view", "What it does.")
    assert str(inspect.signature(view)) == "(a: int, *, b: str = 'b') -> str"
    assert inspect.iscoroutinefunction(endpoint)
    assert not inspect.iscoroutinefunction(view)


def test_what_cannot_be_decorated_is_refused():
    def generator():
        yield

    async def asynchronous_generator():
        yield

    for wrong in (generator, asynchronous_generator, View):
        with pytest.raises(TypeError, match=r"no plain function.*set_timeout"):
            hostline.no_timeout(wrong)
        with pytest.raises(TypeError, match=r"no plain function.*set_timeout"):
            hostline.timeout(5)(wrong)


def test_flask_sees_through():
    app = Flask("decorated")

    @app.get("/<int:number>")
    @hostline.timeout(60)
    def view(number):
        return str((number, hostline.current().timeout))

    app.wsgi_app = RequestTimeoutMiddleware(app.wsgi_app, observers=())
    assert app.test_client().get("/3").text == "(3, 60.0)"


def test_fastapi_sees_through(run):  # noqa: F811
    app = FastAPI()

    def query(q: int = 1):
        return q

    @app.get("/async/{number}")
    @hostline.timeout(60)
    async def endpoint(number: int, q: int = Depends(query)):  # noqa: FAST002
        return [number, q, hostline.current().timeout]

    @app.get("/sync/{number}")
    @hostline.timeout(timedelta(minutes=1))
    def view(number: int, q: int = Depends(query)):  # noqa: FAST002
        return [number, q, hostline.remaining() > LONG]

    guarded = AsgiMiddleware(app, service_timeout=LONG, observers=())

    async def get(path):
        client = await Client().ask(guarded, {**scope(path), "query_string": b"q=7"})
        return client.body

    assert run(get("/async/3")) == b"[3,7,60.0]"
    assert run(get("/sync/3")) == b"[3,7,true]"


# Checkpoint


def test_a_checkpoint_before_the_deadline(road):
    assert ask(road, hostline.checkpoint)[1].status == 200


def test_a_checkpoint_ends_the_request_before_the_watchdog(road, seen):
    def view():
        let_the_deadline_pass_unnoticed()
        hostline.checkpoint()
        raise NotStoppedError

    _, served = ask(road, view, seen)
    assert served.status == 504
    assert seen.states == [State.READY, State.TIMED_OUT]
    assert "in view" in seen.events[-1].stack
    assert entries_left() == 0


def test_a_checkpoint_behind_the_abort_raises_again(road):
    raised = []

    def view():
        try:
            linger()
        except RequestTimeoutException:
            with hostline.shield():
                hostline.checkpoint()
            try:
                hostline.checkpoint()
            except RequestTimeoutException as error:
                raised.append(error)
                raise

    assert ask(road, view, timeout=SHORT)[1].status == 504
    assert len(raised) == 1


@pytest.mark.slow
def test_a_checkpoint_that_is_swallowed_is_followed_by_a_shot(road, seen):
    def view():
        let_the_deadline_pass_unnoticed()
        with pytest.raises(RequestTimeoutException):
            hostline.checkpoint()
        linger()

    assert ask(road, view, seen)[1].status == 504
    assert seen.states == [State.READY, State.TIMED_OUT]


@pytest.mark.parametrize("is_known", (True, False))
def test_a_checkpoint_in_a_foreign_thread(road, seen, is_known):
    """What it raises comes to the request's thread with the result; the watchdog may know or not."""

    def view():
        context = contextvars.copy_context()
        if is_known:
            hostline.set_timeout(0.001)
            with hostline.shield():
                until(lambda: hostline.current().state is State.TIMED_OUT)
        else:
            let_the_deadline_pass_unnoticed()
        in_thread(lambda: context.run(hostline.checkpoint))
        raise NotStoppedError

    _, served = ask(road, view, seen)
    assert served.status == 504
    assert seen.states == [State.READY, State.TIMED_OUT]


def test_an_app_that_swallows_a_foreign_checkpoint_completes(road, seen):
    def view():
        context = contextvars.copy_context()
        let_the_deadline_pass_unnoticed()
        with pytest.raises(RequestTimeoutException):
            in_thread(lambda: context.run(hostline.checkpoint))

    assert ask(road, view, seen)[1].status == 200
    assert seen.states == [State.READY, State.COMPLETED]


def block_the_loop_until_the_deadline():
    end = hostline.deadline()
    while time.monotonic() < end:
        time.sleep(0.001)


@pytest.mark.parametrize("in_a_task", (False, True))
def test_an_asgi_checkpoint(run, seen, in_a_task):  # noqa: F811
    """No timer of the loop's has come: nothing was awaited."""

    async def work():
        block_the_loop_until_the_deadline()
        hostline.checkpoint()
        raise NotStoppedError

    async def endpoint():
        await (asyncio.create_task(work()) if in_a_task else work())

    _, client = run(ask_async(endpoint, seen, limit=SHORT))
    assert (client.status, client.error) == (504, None)
    assert seen.states == [State.READY, State.TIMED_OUT]


def test_an_asgi_checkpoint_behind_the_abort(run, seen):  # noqa: F811
    async def endpoint():
        try:
            await asyncio.sleep(MISSED)
        finally:
            hostline.checkpoint()

    _, client = run(ask_async(endpoint, seen, limit=SHORT))
    assert (client.status, client.error) == (504, None)
    assert seen.states == [State.READY, State.TIMED_OUT]


def test_a_checkpoint_in_a_pool_thread(run, pool, seen):  # noqa: F811
    def work():
        block_the_loop_until_the_deadline()
        hostline.checkpoint()
        raise NotStoppedError

    async def endpoint():
        await pool(work)

    _, client = run(ask_async(endpoint, seen, limit=SHORT))
    assert (client.status, client.error) == (504, None)
    assert seen.states == [State.READY, State.TIMED_OUT]


def test_a_checkpoint_in_a_pool_thread_before_the_loop_knows(run, pool, seen):  # noqa: F811
    async def endpoint():
        let_the_deadline_pass_unnoticed()
        await pool(hostline.checkpoint)

    _, client = run(ask_async(endpoint, seen))
    assert (client.status, client.error) == (504, None)
    assert seen.states == [State.READY, State.TIMED_OUT]


# Shield


def test_the_abort_falls_at_the_end_of_the_outermost_shield(road, seen):
    steps = []

    def view():
        with hostline.shield():
            with hostline.shield():
                wait_for_the_deadline()
                until(lambda: hostline.current().state is State.TIMED_OUT)
            steps.append("inside")
            for _ in range(1000):
                time.sleep(0)
            steps.append("still inside")
        steps.append("behind")

    _, served = ask(road, view, seen, timeout=SHORT)
    assert served.status == 504
    assert steps == ["inside", "still inside"]
    assert seen.states == [State.READY, State.TIMED_OUT]


def test_a_shield_that_is_left_in_time(road):
    def view():
        guard = hostline.shield()
        with guard, guard:
            pass
        linger()

    assert ask(road, view, timeout=SHORT)[1].status == 504


def test_a_shield_in_a_foreign_thread_holds_for_the_whole_request(road):
    steps = []

    def work():
        with hostline.shield():
            until(lambda: hostline.current().state is State.TIMED_OUT)
            steps.append("done")

    def view():
        context = contextvars.copy_context()
        in_thread(lambda: context.run(work))
        linger()

    assert ask(road, view, timeout=SHORT)[1].status == 504
    assert steps == ["done"]


def test_a_shield_is_not_for_ever(road, seen):
    def view():
        with hostline.shield():
            linger()

    assert ask(road, view, seen, timeout=SHORT, shield_limit=0.05)[1].status == 504
    assert seen.events[-1].service < 5


def test_no_shield_where_there_is_to_be_none(road):
    def view():
        with hostline.shield():
            linger()

    assert ask(road, view, timeout=SHORT, shield_limit=0)[1].status == 504


def test_an_error_inside_a_shield_gives_way_to_the_abort(road):
    def view():
        with hostline.shield():
            until(lambda: hostline.current().state is State.TIMED_OUT)
            until(lambda: hostline.current()._breaker)
            raise ValueError

    assert ask(road, view, timeout=SHORT)[1].status == 504


@pytest.mark.slow
def test_nothing_is_cut_inside_a_shield(road):
    """The deadline falls at every moment of a block, and never inside it."""
    begun, done = [], []

    def view():
        while True:
            begun.append(None)
            with hostline.shield():
                for _ in range(20):
                    pass
                done.append(None)

    for number in range(150):
        entered = len(done)
        status = ask(road, view, timeout=0.002 + number * 1e-5)[1].status
        assert status == 504
        assert len(done) > entered
        # Cut, if at all, before the block was entered.
        assert len(begun) - len(done) <= 1
        begun[:] = done[:]


def test_a_shield_in_a_coroutine_is_left_where_it_ends(run, seen):  # noqa: F811
    steps = []

    async def endpoint():
        async with hostline.shield():
            async with hostline.shield():
                await asyncio.sleep(3 * SHORT)
            steps.append(hostline.current().state)
            await asyncio.sleep(0)
        steps.append("behind")

    _, client = run(ask_async(endpoint, seen, limit=SHORT))
    assert (client.status, client.error) == (504, None)
    assert steps == [State.TIMED_OUT]


def test_the_client_has_its_answer_while_the_shield_holds(run):  # noqa: F811
    client = Client()
    steps = []

    async def endpoint():
        async with hostline.shield():
            await client.complete.wait()
            await asyncio.sleep(SHORT)
            steps.append("committed")
        steps.append("behind")

    run(ask_async(endpoint, limit=SHORT, client=client))
    assert client.status == 504
    assert steps == ["committed"]


def test_a_plain_with_in_a_coroutine_is_followed_by_the_next_await(run):  # noqa: F811
    steps = []

    async def endpoint():
        with hostline.shield():
            await asyncio.sleep(3 * SHORT)
        steps.append("up to the next await")
        await asyncio.sleep(MISSED)
        steps.append("behind")

    _, client = run(ask_async(endpoint, limit=SHORT))
    assert (client.status, client.error) == (504, None)
    assert steps == ["up to the next await"]


def test_an_app_that_ends_with_its_shield(run):  # noqa: F811
    """The cancellation that was put off must not hit the guard."""

    async def endpoint():
        with hostline.shield():
            await asyncio.sleep(3 * SHORT)

    async def main():
        async def app(scope, receive, send):
            await endpoint()

        client = await Client().ask(AsgiMiddleware(app, service_timeout=SHORT, observers=()))
        await asyncio.sleep(0)
        return client

    client = run(main())
    assert (client.status, client.error) == (504, None)


def test_a_shield_in_a_coroutine_is_not_for_ever(run):  # noqa: F811
    async def endpoint():
        async with hostline.shield():
            await asyncio.sleep(MISSED)

    _, client = run(ask_async(endpoint, limit=SHORT, shield_limit=SHORT))
    assert (client.status, client.error) == (504, None)


def test_a_shield_in_a_pool_thread(run, pool):  # noqa: F811
    steps = []

    def work():
        with hostline.shield():
            hostline.set_timeout(0.001)  # now that it has begun
            until(lambda: hostline.current().state is State.TIMED_OUT)
            for _ in range(100):
                time.sleep(0)
            steps.append("committed")
        until(lambda: hostline.remaining() is None)  # asyncio's own pool is not broken

    _, client = run(ask_async(lambda: pool(work)))
    assert (client.status, client.error) == (504, None)
    assert steps == ["committed"]


# Interruptible


@pytest.mark.parametrize("cancel", (None, "cancel"))
def test_interruptible_takes_a_function(cancel):
    with pytest.raises(TypeError, match=rf"^interruptible\(\) takes a function .+, not {cancel!r}\.$"):
        hostline.interruptible(cancel)


class Query:
    """Work that somebody else does, and that can be cancelled from any thread."""

    def __init__(self):
        self.is_running = False
        self.cancelled_by = []
        self._cancelled = threading.Event()

    def run(self, within=MISSED):
        self.is_running = True
        try:
            return self._cancelled.wait(within)
        finally:
            self.is_running = False

    def cancel(self):
        self.cancelled_by.append(threading.get_ident())
        self._cancelled.set()


def test_the_deadline_cancels_what_was_ordered():
    """A bare lock, out of which no thread is shot: the cancelled block ends by the abort all the same."""
    query = Query()

    def view():
        lock = threading.Lock()
        lock.acquire()
        with hostline.interruptible(lambda: (query.cancel(), lock.release())):
            lock.acquire(timeout=MISSED)
        raise NotStoppedError

    began = time.monotonic()
    assert ask(in_thread, view, timeout=SHORT)[1].status == 504
    assert time.monotonic() - began < MISSED
    assert len(query.cancelled_by) == 1


def test_every_block_is_cancelled_once(road):
    outer, inner = Query(), Query()

    def view():
        with hostline.interruptible(outer.cancel), hostline.interruptible(inner.cancel):
            inner.run()
            outer.run()

    assert ask(road, view, timeout=SHORT)[1].status == 504
    assert (len(outer.cancelled_by), len(inner.cancelled_by)) == (1, 1)


def test_a_block_that_was_left_is_not_cancelled(road):
    query = Query()

    def view():
        block = hostline.interruptible(query.cancel)
        with block, block:
            pass
        linger()

    assert ask(road, view, timeout=SHORT)[1].status == 504
    assert query.cancelled_by == []


def test_a_block_that_ends_by_an_error_of_its_own(road):
    query = Query()

    def view():
        with pytest.raises(ValueError, match="own"), hostline.interruptible(query.cancel):
            raise ValueError("own")

    assert ask(road, view)[1].status == 200
    assert query.cancelled_by == []


def test_what_fails_to_cancel_is_logged(road, caplog):
    def view():
        with hostline.interruptible(lambda: 1 / 0):
            linger()

    assert ask(road, view, timeout=SHORT)[1].status == 504
    assert "is to be cancelled by has failed" in caplog.text


def test_where_no_thread_can_be_started_what_was_ordered_is_cancelled_all_the_same(monkeypatch):
    def out_of_threads(call, args):
        raise RuntimeError("can't start new thread")

    query = Query()

    def view():
        with hostline.interruptible(query.cancel):
            query.run()

    with monkeypatch.context() as patch:
        patch.setattr(_abortable, "start_native_thread", out_of_threads)
        assert ask(lambda call: call(), view, timeout=SHORT)[1].status == 504
    assert len(query.cancelled_by) == 1


def test_a_slow_cancel_holds_up_nobody_else():
    """Another request meets its deadline, though the first one's cancelling has not returned."""
    going, go_on = threading.Event(), threading.Event()

    def cancel():
        going.set()
        assert go_on.wait(MISSED)

    def view():
        with hostline.interruptible(cancel):
            linger()

    served = []
    thread = threading.Thread(target=lambda: served.append(ask(lambda call: call(), view, timeout=SHORT)[1]))
    thread.start()
    assert going.wait(MISSED)
    assert ask(in_thread, linger, timeout=SHORT)[1].status == 504
    go_on.set()
    thread.join(MISSED)
    assert served[0].status == 504


@pytest.mark.slow
def test_a_block_is_not_left_while_it_is_being_cancelled(road):
    """Longer than a second shot takes to come."""
    returned = []

    def cancel():
        time.sleep(2.5)
        returned.append(True)

    def view():
        try:
            with hostline.interruptible(cancel):
                linger()
        finally:
            returned.append("left")

    assert ask(road, view, timeout=SHORT, deferral_limit=0.1)[1].status == 504
    assert returned == [True, "left"]


def test_work_that_begins_behind_the_deadline_is_refused(road):
    """The abort was put off, for the code was closing something."""
    query = Query()

    def close():
        assert eventually(lambda: hostline.current().is_cancelling)
        with hostline.interruptible(query.cancel):
            raise NotStoppedError

    assert ask(road, close, timeout=SHORT)[1].status == 504
    assert query.cancelled_by == []


def test_clean_up_is_not_cancelled(road):
    query = Query()

    def view():
        try:
            linger()
        finally:
            with hostline.interruptible(query.cancel):
                query.run(0.01)
            with hostline.shield(), hostline.interruptible(query.cancel):
                query.run(0.01)

    assert ask(road, view, timeout=SHORT)[1].status == 504
    assert query.cancelled_by == []


def test_work_that_a_foreign_thread_begins_too_late(road):
    raised = []

    def view():
        context = contextvars.copy_context()

        def work():
            with hostline.interruptible(lambda: None):
                raise NotStoppedError

        try:
            linger()
        finally:
            try:
                in_thread(lambda: context.run(work))
            except RequestTimeoutException as error:
                raised.append(error)

    assert ask(road, view, timeout=SHORT)[1].status == 504
    assert len(raised) == 1


def test_within_a_shield_it_is_cancelled_when_that_gives_way(road):
    query = Query()

    def view():
        with hostline.shield(), hostline.interruptible(query.cancel):
            until(lambda: hostline.current().state is State.TIMED_OUT)
            assert query.cancelled_by == []
            query.run()
            linger()

    assert ask(road, view, timeout=SHORT, shield_limit=0.05)[1].status == 504
    assert len(query.cancelled_by) == 1


@pytest.mark.slow
def test_no_cancel_comes_behind_its_block():
    """The deadline falls at every moment around blocks' ends: each call finds its own block running."""
    stray, calls = [], []

    def view():
        while True:
            running = [True]

            def cancel(running=running):
                calls.append(None)
                if not running[0]:
                    stray.append("began")
                for _ in range(50):
                    pass
                if not running[0]:
                    stray.append("ended")

            with hostline.interruptible(cancel):
                for _ in range(30):
                    pass
            running[0] = False

    app = RequestTimeoutMiddleware(View(view), service_timeout=0.003, observers=())
    with switch_interval(1e-5):
        for _ in range(300):
            assert in_thread(lambda: serve(app)).status == 504
    assert stray == []
    assert calls


def test_a_block_that_ends_by_its_checkpoint_is_cancelled(road):
    """Nobody else has noticed the deadline."""
    query = Query()

    def work():
        with hostline.interruptible(query.cancel):
            hostline.checkpoint()

    def view():
        context = contextvars.copy_context()
        let_the_deadline_pass_unnoticed()
        in_thread(lambda: context.run(work))

    assert ask(road, view)[1].status == 504
    assert len(query.cancelled_by) == 1


def test_a_sync_query_in_a_coroutine_that_blocks_its_loop():
    """Broken in the main thread, and cancelled where it stood."""
    query = Query()

    async def endpoint():
        with hostline.interruptible(query.cancel):
            linger()

    _, client = asyncio.run(ask_async(endpoint, limit=SHORT))
    assert (client.status, client.error) == (504, None)
    assert query.cancelled_by == [threading.get_ident()]


def test_a_coroutine_is_cancelled_by_its_loop(run):  # noqa: F811
    query = Query()

    async def endpoint():
        with hostline.interruptible(query.cancel):
            await asyncio.sleep(MISSED)

    assert run(ask_async(endpoint, limit=SHORT))[1].status == 504
    assert query.cancelled_by == [threading.get_ident()]


def test_a_coroutine_that_ends_by_its_checkpoint_is_cancelled(run):  # noqa: F811
    query = Query()

    async def endpoint():
        with hostline.interruptible(query.cancel):
            block_the_loop_until_the_deadline()
            hostline.checkpoint()

    assert run(ask_async(endpoint, limit=SHORT))[1].status == 504
    assert query.cancelled_by == [threading.get_ident()]


def test_a_pool_thread_s_work_is_cancelled(run, pool):  # noqa: F811
    query = Query()

    def work():
        lock = threading.Lock()
        lock.acquire()
        with hostline.interruptible(lambda: (query.cancel(), lock.release())):
            hostline.set_timeout(0.001)  # now that it has begun
            lock.acquire(timeout=MISSED)

    began = time.monotonic()
    _, client = run(ask_async(lambda: pool(work)))
    assert (client.status, client.error) == (504, None)
    assert time.monotonic() - began < MISSED
    assert len(query.cancelled_by) == 1
    assert threading.get_ident() not in query.cancelled_by


def test_a_pool_thread_s_work_that_begins_too_late(run, pool):  # noqa: F811
    raised = []

    def work():
        try:
            until(lambda: hostline.current().is_cancelling)
        finally:
            try:
                with hostline.interruptible(lambda: pytest.fail("clean-up is not cancelled")):
                    pass
            except RequestTimeoutException as error:
                raised.append(error)
                raise

    _, client = run(ask_async(lambda: pool(work), limit=SHORT))
    assert (client.status, client.error) == (504, None)
    assert len(raised) <= 1


# A table of paths


@pytest.mark.parametrize(("path", "left"), (("/reports/7", 60), ("/export/7", None), ("/", LONG)))
def test_timeouts_by_path(run, path, left):  # noqa: F811
    table = {"/reports": 60, "/export/": 0}
    app = View(lambda: hostline.current().timeout)
    serve(RequestTimeoutMiddleware(app, service_timeout=LONG, timeout_for=table, observers=()), environ(path))
    assert app.result == left

    async def endpoint():
        return hostline.current().timeout

    assert run(ask_async(endpoint, limit=LONG, timeout_for=table, scope_=scope(path)))[0] == left


# A caller's time


@pytest.mark.parametrize("names", ((), ("hostline-timeout",)))
def test_a_caller_s_time_counts_where_it_is_trusted(run, names):  # noqa: F811
    left = 2.5 if names else LONG
    options = {"trust_timeout_header": names, "observers": (), "service_timeout": LONG}
    app = View(lambda: hostline.current().timeout)
    serve(RequestTimeoutMiddleware(app, **options), environ(HTTP_HOSTLINE_TIMEOUT="2500"))
    assert app.result == left

    async def endpoint():
        return hostline.current().timeout

    asked = scope(headers=[(b"hostline-timeout", b"2500")])
    assert run(ask_async(endpoint, limit=LONG, trust_timeout_header=names, scope_=asked))[0] == left
