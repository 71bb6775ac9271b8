"""A blocked event loop: noticed, told, and broken where the expired request's own code does it."""

import asyncio
import time
from functools import partial

import pytest
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.routing import Route

from hostline import RequestTimeoutException, _breaker
from hostline._loop_deadlines import lanes_of
from hostline._requests import State, reporter
from hostline.asgi import RequestTimeoutMiddleware
from timeouts import LONG, SHORT, Client, Recorder, answer, eventually, in_thread, scope

pytestmark = pytest.mark.timed

LIMIT = 0.1
# Where others are to be in time while something blocks: the machine may be busy too.
ROOMY = 0.4
READY_AND_TIMED_OUT = [State.READY, State.TIMED_OUT]
READY_AND_COMPLETED = [State.READY, State.COMPLETED]


@pytest.fixture
def seen():
    return Recorder()


@pytest.fixture
def short(seen):
    return partial(RequestTimeoutMiddleware, service_timeout=LIMIT, observers=[seen])


@pytest.fixture
def roomy(seen):
    return partial(RequestTimeoutMiddleware, service_timeout=ROOMY, observers=[seen])


@pytest.fixture
def long(seen):
    return partial(RequestTimeoutMiddleware, service_timeout=LONG, observers=[seen])


@pytest.fixture(autouse=True)
def _told_in_its_own_test():
    yield
    assert reporter.flush(20)


def spin(seconds):
    """Compute, as code that could be broken anywhere."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(100))


@pytest.fixture(params=(time.sleep, spin), ids=("sleep", "spin"))
def block(request):
    return request.param


def told(caplog):
    assert reporter.flush(20)
    return [
        record.getMessage() for record in caplog.records if "blocks the event loop" in record.getMessage()
    ]


def test_it_is_broken(run, short, seen, caplog, block):
    ended_by = []

    async def app(scope, receive, send):
        try:
            block(20)
        except BaseException as error:
            ended_by.append(type(error))
            raise

    asked = scope()
    began = time.monotonic()
    client = run(Client().ask(short(app), asked))
    assert time.monotonic() - began < 10
    assert (client.status, client.error) == (504, None)
    assert ended_by == [RequestTimeoutException]
    assert seen.states == READY_AND_TIMED_OUT
    assert "in app" in seen.events[-1].stack
    (message,) = told(caplog)
    assert f"id={asked['hostline.request'].id} blocks" in message
    assert "in app" in message


@pytest.mark.slow
def test_it_is_noticed_within_100_ms(run, short, seen, block):
    """Ten of them, and the best counts: the machine may be busy."""

    async def app(scope, receive, send):
        block(20)

    clients = [
        (time.monotonic(), run(Client().ask(short(app), scope())), time.monotonic()) for _ in range(10)
    ]
    assert {client.status for _, client, _ in clients} == {504}
    assert min(end - began for began, _, end in clients) < LIMIT + 0.1


def test_the_loop_and_the_guard_go_on(run, short, seen, block):
    async def app(scope, receive, send):
        if scope["path"] == "/slow":
            block(20)
        await answer(send, b"hello")

    async def asked():
        guard = short(app)
        return [(await Client().ask(guard, scope(path))).status for path in ("/", "/slow", "/", "/slow", "/")]

    assert run(asked()) == [200, 504, 200, 504, 200]


@pytest.mark.slow
def test_who_waits_behind_it_is_not_harmed(run, roomy, seen, caplog):
    """Two that need as long as they may, less a little; the third takes the loop from them."""

    async def app(scope, receive, send):
        if scope["path"] == "/slow":
            await asyncio.sleep(ROOMY / 4)
            time.sleep(20)
        await asyncio.sleep(ROOMY * 0.6)
        await asyncio.sleep(ROOMY * 0.2)
        await answer(send, b"hello")

    async def asked():
        guard = roomy(app)
        return await asyncio.gather(*(Client().ask(guard, scope(path)) for path in ("/", "/slow", "/")))

    assert [client.status for client in run(asked())] == [200, 504, 200]
    assert seen.count(State.TIMED_OUT) == 1
    assert len(told(caplog)) == 1


@pytest.mark.slow
def test_who_has_time_left_is_not_broken(run, roomy, long, seen, caplog):
    """The one that is due waits; the one that blocks has a limit of its own."""

    async def blocking(scope, receive, send):
        time.sleep(2 * ROOMY)
        await answer(send, b"long")

    async def waiting(scope, receive, send):
        await asyncio.sleep(ROOMY * 0.8)
        await answer(send, b"short")

    async def asked():
        return await asyncio.gather(
            Client().ask(roomy(waiting), scope()), Client().ask(long(blocking), scope())
        )

    assert [(client.status, client.body) for client in run(asked())] == [(200, b"short"), (200, b"long")]
    assert seen.count(State.TIMED_OUT) == 0
    assert len(told(caplog)) == 1


@pytest.mark.slow
def test_it_is_broken_when_its_own_time_has_come(run, roomy, seen):
    async def blocking(scope, receive, send):
        time.sleep(20)

    async def waiting(scope, receive, send):
        await asyncio.sleep(ROOMY * 0.8)
        await answer(send, b"short")

    async def asked():
        later = roomy(blocking, service_timeout=3 * ROOMY)
        return await asyncio.gather(Client().ask(roomy(waiting), scope()), Client().ask(later, scope()))

    assert [client.status for client in run(asked())] == [200, 504]


def test_below_base_http_middleware(run, short, seen, block):
    """The endpoint runs in a task of its own."""

    async def page(request):
        block(20)

    async def dispatch(request, call_next):
        return await call_next(request)

    app = BaseHTTPMiddleware(Starlette(routes=[Route("/", page)]), dispatch)
    client = run(Client().ask(short(app), scope()))
    assert (client.status, client.error) == (504, None)
    assert seen.states == READY_AND_TIMED_OUT


def test_in_a_task_group(run, short, seen, block):
    async def blocking():
        block(20)

    async def app(scope, receive, send):
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(20))
            group.create_task(blocking())

    client = run(Client().ask(short(app), scope()))
    assert (client.status, client.error) == (504, None)


def test_code_that_swallows_it_gets_one_more(run, short, seen, monkeypatch):
    monkeypatch.setattr(_breaker, "GRACE", 0.05)
    swallowed = []

    async def app(scope, receive, send):
        for _ in range(2):
            try:
                time.sleep(20)
            except RequestTimeoutException:
                swallowed.append(True)

    client = run(Client().ask(short(app), scope()))
    assert client.status == 504
    assert swallowed == [True, True]


@pytest.mark.slow
def test_work_behind_the_response_is_left_alone(run, roomy, seen, caplog):
    """It blocks the others, but has no limit. They are given their time."""

    async def app(scope, receive, send):
        if scope["path"] == "/background":
            await answer(send, b"hello")
            time.sleep(2 * ROOMY)
        else:
            await asyncio.sleep(ROOMY * 0.8)
            await answer(send, b"hello")

    async def asked():
        guard = roomy(app)
        return await asyncio.gather(*(Client().ask(guard, scope(path)) for path in ("/", "/background")))

    assert [(client.status, client.error) for client in run(asked())] == [(200, None), (200, None)]
    assert seen.count(State.COMPLETED) == 2
    assert len(told(caplog)) == 1


@pytest.mark.slow
def test_code_of_no_request_is_left_alone(run, roomy, seen, caplog):
    async def app(scope, receive, send):
        await asyncio.sleep(ROOMY * 0.8)
        await answer(send, b"hello")

    async def blocking():
        time.sleep(2 * ROOMY)

    async def asked():
        clients = asyncio.gather(Client().ask(roomy(app), scope()), blocking())
        return (await clients)[0]

    assert run(asked()).status == 200
    (message,) = told(caplog)
    assert "id=- blocks" in message


@pytest.mark.slow
def test_only_reported(run, seen, caplog):
    async def app(scope, receive, send):
        time.sleep(5 * LIMIT)
        await asyncio.sleep(SHORT)
        await answer(send, b"hello")

    guard = RequestTimeoutMiddleware(app, service_timeout=LIMIT, mode="report", observers=[seen])
    client = run(Client().ask(guard, scope()))
    assert (client.status, client.error) == (200, None)
    assert seen.states == READY_AND_TIMED_OUT
    assert len(told(caplog)) == 1


def test_mode_raise(run, short, seen, block):
    async def app(scope, receive, send):
        block(20)

    client = run(Client().ask(short(app, mode="raise"), scope()))
    assert type(client.error).__name__ == "RequestTimeoutError"
    assert isinstance(client.error.__cause__, RequestTimeoutException)


@pytest.mark.slow
def test_a_loop_in_another_thread_is_only_told(short, seen, caplog):
    async def app(scope, receive, send):
        time.sleep(5 * LIMIT)
        await asyncio.sleep(20)

    client = in_thread(lambda: asyncio.run(Client().ask(short(app), scope())))
    assert (client.status, client.error) == (504, None)
    assert seen.states == READY_AND_TIMED_OUT
    assert len(told(caplog)) == 1


@pytest.mark.slow
def test_who_waits_in_a_blocked_loop_of_another_thread_is_not_harmed(roomy, seen, caplog):
    async def app(scope, receive, send):
        if scope["path"] == "/slow":
            time.sleep(2 * ROOMY)
            await asyncio.sleep(20)
        await asyncio.sleep(ROOMY * 0.8)
        await answer(send, b"hello")

    async def asked():
        guard = roomy(app)
        return await asyncio.gather(*(Client().ask(guard, scope(path)) for path in ("/", "/slow")))

    assert [client.status for client in in_thread(lambda: asyncio.run(asked()))] == [200, 504]


def test_a_loop_that_nobody_runs_is_not_blocked(short, seen, caplog):
    """As in a program that runs its loop a bit at a time."""

    async def app(scope, receive, send):
        await asyncio.sleep(20)

    async def begin():
        asking.append(asyncio.ensure_future(Client().ask(short(app), scope())))
        await asyncio.sleep(0)

    asking = []
    with asyncio.Runner() as runner:
        runner.run(begin())
        lanes = lanes_of(runner.get_loop())
        assert eventually(lambda: lanes.sentinel.deadline > time.monotonic() + 0.5)
        assert runner.get_loop().run_until_complete(asking[0]).status == 504
    assert not told(caplog)


def test_the_sentinel_sleeps_where_nothing_is_in_flight(run, short, seen):
    async def app(scope, receive, send):
        await answer(send, b"hello")

    async def asked():
        await Client().ask(short(app), scope())
        sentinel = lanes_of(asyncio.get_running_loop()).sentinel
        while sentinel.plan < time.monotonic() + LONG:  # noqa: ASYNC110 - the watchdog tells nobody
            await asyncio.sleep(0.001)
        return sentinel.plan

    assert run(asked()) == float("inf")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_near_misses(run, seen):
    """Code that comes back just before, at or behind the shot; nothing else is ever hit."""
    strays = []

    async def app(scope, receive, send):
        spin(scope["for"])
        await answer(send, b"hello")

    async def witness():
        try:
            while True:  # noqa: ASYNC110 - it is to be hit, if anything is
                await asyncio.sleep(0)
        except RequestTimeoutException as error:
            strays.append(error)

    async def asked():
        guard = RequestTimeoutMiddleware(app, service_timeout=0.002, observers=[seen])
        watching = asyncio.ensure_future(witness())
        statuses = set()
        for number in range(200):
            client = Client()
            await client.ask(guard, scope(**{"for": 0.03 + 0.0003 * number}))
            assert client.error is None or (client.messages[0]["status"], client.is_complete) == (200, False)
            statuses.add(client.status)
            assert asyncio.current_task().cancelling() == 0
        watching.cancel()
        return statuses

    assert run(asked()) == {200, 504}
    assert not strays
    assert set(seen.endings().values()) == {1}
