"""Sync code that pool threads run for ASGI requests: answered on time, broken, waited for."""

import asyncio
import socket
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from types import SimpleNamespace
from typing import Annotated

import anyio
import anyio.to_thread
import pytest
from anyio import from_thread
from anyio._backends._asyncio import AsyncIOBackend
from anyio.from_thread import run as imported_by_name
from asgiref.sync import async_to_sync, sync_to_async
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.routing import Route

import hostline
from hostline import RequestTimeoutException, _breaker, _interrupts, _pool_threads
from hostline._called_back import CalledBack
from hostline._requests import State, current_request
from hostline.asgi import RequestTimeoutMiddleware
from timeouts import LONG, Client, Recorder, answer, eventually, linger, scope

pytestmark = pytest.mark.timed

# Long enough for a thread to begin in, whatever else the machine does.
LIMIT = 0.1
READY_AND_TIMED_OUT = [State.READY, State.TIMED_OUT]
READY_AND_COMPLETED = [State.READY, State.COMPLETED]


@pytest.fixture
def seen():
    return Recorder()


@pytest.fixture
def short(seen):
    return partial(RequestTimeoutMiddleware, service_timeout=LIMIT, observers=[seen])


@pytest.fixture
def long(seen):
    return partial(RequestTimeoutMiddleware, service_timeout=LONG, observers=[seen])


class Work:
    """Sync code that remembers how it came to its end."""

    def __init__(self, code=linger):
        self.code = code
        self.ended_by = []
        self.threads = set()

    def __call__(self, *args):
        self.threads.add(threading.current_thread())
        try:
            return self.code(*args)
        except BaseException as error:
            self.ended_by.append(type(error))
            raise


def in_a_pool_thread(work, **options):
    """By anyio; looked up when it is called, for the guard puts another in its place."""
    return anyio.to_thread.run_sync(work, **options)


ENTRANCES = {
    "anyio": in_a_pool_thread,
    "asgiref": lambda work: sync_to_async(work)(),
    "asgiref's pool": lambda work: sync_to_async(work, thread_sensitive=False)(),
}


@pytest.fixture(params=ENTRANCES)
def enter(request):
    """A way into a pool of threads."""
    return ENTRANCES[request.param]


def pool_threads():
    return [thread for thread in threading.enumerate() if thread.name == "AnyIO worker thread"]


def endpoint(enter, work):
    async def app(scope, receive, send):
        await answer(send, await enter(work) or b"done")

    return app


def test_in_time(run, long, seen, enter):
    work = Work(lambda: b"hello")
    client = run(Client().ask(long(endpoint(enter, work)), scope()))
    assert (client.status, client.body, client.error) == (200, b"hello", None)
    assert seen.states == READY_AND_COMPLETED


def test_an_error_passes(run, long, seen, enter):
    def fail():
        raise KeyError("x")

    client = run(Client().ask(long(endpoint(enter, fail)), scope()))
    assert type(client.error) is KeyError
    assert seen.states == READY_AND_COMPLETED


def test_the_thread_is_broken(run, short, seen, enter):
    work = Work()
    client = run(Client().ask(short(endpoint(enter, work)), scope()))
    assert (client.status, client.error) == (504, None)
    assert work.ended_by == [RequestTimeoutException]
    assert seen.states == READY_AND_TIMED_OUT
    assert "linger" in seen.events[-1].stack


def test_what_waits_in_c_is_woken(run, short, enter):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        work = Work(lambda: ours.recv(1))
        client = run(Client().ask(short(endpoint(enter, work)), scope()))
    assert client.status == 504
    assert work.ended_by == [RequestTimeoutException]


def test_an_answer_does_not_wait_for_the_thread_but_the_app_does(run, short, seen, enter):
    lock = threading.Lock()
    work = Work(lambda: (lock.acquire(), linger()))  # nobody can wake it from the lock

    async def asked():
        client = Client()
        asking = asyncio.ensure_future(client.ask(short(endpoint(enter, work)), scope()))
        await client.complete.wait()
        assert not asking.done()
        assert not work.ended_by
        lock.release()
        await asking
        return client

    lock.acquire()
    client = run(asked())
    assert (client.status, client.error) == (504, None)
    assert work.ended_by == [RequestTimeoutException]
    assert seen.states == READY_AND_TIMED_OUT


def test_the_slot_stays_taken_until_the_thread_has_ended(run, short):
    lock = threading.Lock()
    lock.acquire()
    work = Work(lambda: (lock.acquire(), linger()))

    async def asked():
        limiter = anyio.to_thread.current_default_thread_limiter()
        client = Client()
        app = endpoint(in_a_pool_thread, work)
        asking = asyncio.ensure_future(client.ask(short(app), scope()))
        await client.complete.wait()
        taken = limiter.borrowed_tokens
        lock.release()
        await asking
        return taken, limiter.borrowed_tokens

    assert run(asked()) == (1, 0)


def test_what_cannot_have_a_slot_in_time_never_begins(run, short, seen):
    lock = threading.Lock()
    lock.acquire()
    first, second = Work(lambda: (lock.acquire(), linger())), Work()

    async def asked():
        limiter = anyio.CapacityLimiter(1)
        asking = [
            asyncio.ensure_future(Client().ask(short(endpoint(enter, work)), scope()))
            for work in (first, second)
            for enter in [partial(in_a_pool_thread, limiter=limiter)]
        ]
        await asking[1]
        lock.release()
        return await asyncio.gather(*asking)

    assert [client.status for client in run(asked())] == [504, 504]
    assert first.ended_by == [RequestTimeoutException]
    assert not second.threads


@pytest.mark.parametrize("limit", (1, 7))
def test_never_more_threads_than_the_limiter_allows(run, short, seen, limit):
    work = Work()
    most = 0

    async def asked():
        nonlocal most
        limiter = anyio.CapacityLimiter(limit)
        app = endpoint(partial(in_a_pool_thread, limiter=limiter), work)
        asking = asyncio.gather(*(Client().ask(short(app), scope()) for _ in range(60)))
        while not asking.done():
            most = max(most, len(pool_threads()))
            await asyncio.sleep(0.0005)
        return await asking

    before = len(pool_threads())
    clients = run(asked())
    assert {client.status for client in clients} == {504}
    assert most - before <= limit
    assert set(work.ended_by) == {RequestTimeoutException}
    assert seen.count(State.TIMED_OUT) == 60
    assert eventually(lambda: len(pool_threads()) <= before)


@pytest.mark.slow
def test_the_clean_up_begins_when_the_thread_has_ended(run, seen):
    """FastAPI's: a session must not be closed while a thread works with it."""
    told = []

    def session():
        try:
            yield
        finally:
            told.append("closed")

    app = FastAPI()

    @app.get("/")
    def work(session: Annotated[None, Depends(session)]):
        try:
            linger()
        finally:
            told.append("ended")

    guard = RequestTimeoutMiddleware(app, service_timeout=1, observers=[seen])  # FastAPI takes its time
    assert run(Client().ask(guard, scope())).status == 504
    assert told == ["ended", "closed"]


def test_a_clean_up_in_a_thread_is_not_broken(run, short, seen, enter):
    told = []

    async def app(scope, receive, send):
        try:
            await asyncio.sleep(20)
        finally:
            told.append(await enter(lambda: "clean"))

    assert run(Client().ask(short(app), scope())).status == 504
    assert told == ["clean"]


def test_a_background_task_is_not_broken(run, short, seen, enter):
    told = []

    async def app(scope, receive, send):
        await answer(send, b"hello")
        told.append(await enter(lambda: time.sleep(2 * LIMIT)))

    assert run(Client().ask(short(app), scope())).body == b"hello"
    assert told == [None]
    assert seen.states == READY_AND_COMPLETED


def test_only_reported(run, seen, enter):
    def code():
        assert eventually(lambda: current_request.get().state is State.TIMED_OUT)
        return b"late"

    guard = RequestTimeoutMiddleware(
        endpoint(enter, code), service_timeout=LIMIT, mode="report", observers=[seen]
    )
    assert run(Client().ask(guard, scope())).body == b"late"
    assert seen.states == READY_AND_TIMED_OUT


def test_mode_raise(run, short, seen, enter):
    work = Work()
    client = run(Client().ask(short(endpoint(enter, work), mode="raise"), scope()))
    assert type(client.error).__name__ == "RequestTimeoutError"
    assert work.ended_by == [RequestTimeoutException]


def test_a_thread_that_swallows_it_gets_one_more(run, short, seen, monkeypatch, caplog):
    monkeypatch.setattr(_breaker, "GRACE", 0.05)
    swallowed = []

    def stubborn():
        for _ in range(2):
            try:
                linger()
            except RequestTimeoutException:
                swallowed.append(True)
        assert eventually(lambda: "has not taken effect" in caplog.text)

    app = endpoint(in_a_pool_thread, stubborn)
    assert run(Client().ask(short(app), scope())).status == 504
    assert swallowed == [True, True]
    assert caplog.text.count("abort has not taken effect; the") == 1


# In tasks of its own


def test_below_base_http_middleware(run, seen):
    """The endpoint runs in a task that is not the request's."""
    work = Work()

    def page(request):
        work()

    async def dispatch(request, call_next):
        return await call_next(request)

    app = BaseHTTPMiddleware(Starlette(routes=[Route("/", page)]), dispatch)

    guard = RequestTimeoutMiddleware(app, service_timeout=0.1, observers=[seen])
    client = run(Client().ask(guard, scope()))
    assert (client.status, client.error) == (504, None)
    assert work.ended_by == [RequestTimeoutException]
    assert seen.states == READY_AND_TIMED_OUT


async def _gathered(*calls):
    await asyncio.gather(*(call() for call in calls))


async def _in_a_task_group(*calls):
    async with asyncio.TaskGroup() as group:
        for call in calls:
            group.create_task(call())


async def _in_anyio_s_task_group(*calls):
    async with anyio.create_task_group() as group:
        for call in calls:
            group.start_soon(call)


@pytest.mark.parametrize("together", (_gathered, _in_a_task_group, _in_anyio_s_task_group))
def test_several_threads_at_once(run, short, seen, together, enter):
    works = [Work(), Work(), Work()]

    async def app(scope, receive, send):
        await together(*(partial(enter, work) for work in works))

    client = run(Client().ask(short(app), scope()))
    assert (client.status, client.error) == (504, None)
    begun = [work for work in works if work.threads]
    assert begun
    assert eventually(lambda: all(work.ended_by == [RequestTimeoutException] for work in begun))
    assert seen.states == READY_AND_TIMED_OUT


@pytest.mark.parametrize("together", (_gathered, _in_a_task_group, _in_anyio_s_task_group))
def test_what_else_the_request_does_is_ended_too(run, short, seen, together):
    told = []

    async def waits():
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            told.append("cancelled")
            raise

    async def app(scope, receive, send):
        await together(partial(in_a_pool_thread, Work()), waits)

    assert run(Client().ask(short(app), scope())).status == 504
    assert told == ["cancelled"]


# Somebody else's cancellation


def test_somebody_else_s_cancellation_goes_through(run, long, seen):
    leave = threading.Event()

    async def app(scope, receive, send):
        try:
            async with asyncio.timeout(LIMIT):
                await anyio.to_thread.run_sync(leave.wait)
        except TimeoutError:
            leave.set()
            await answer(send, b"mine")

    client = run(Client().ask(long(app), scope()))
    assert (client.body, client.error) == (b"mine", None)
    assert seen.states == READY_AND_COMPLETED


def test_a_thread_that_somebody_else_gave_up_is_broken_but_not_waited_for(run, short, seen):
    lock = threading.Lock()
    lock.acquire()
    work = Work(lambda: (lock.acquire(), linger()))

    async def app(scope, receive, send):
        with anyio.move_on_after(LIMIT / 3):
            await anyio.to_thread.run_sync(work, abandon_on_cancel=True)
        await asyncio.sleep(20)

    client = run(Client().ask(short(app), scope()))
    assert client.status == 504
    lock.release()
    assert eventually(lambda: work.ended_by == [RequestTimeoutException])


def test_what_is_abandoned_with_leave_is_not_waited_for(run, short, seen):
    lock = threading.Lock()
    lock.acquire()
    work = Work(lambda: (lock.acquire(), linger()))

    async def app(scope, receive, send):
        await anyio.to_thread.run_sync(work, abandon_on_cancel=True)

    client = run(Client().ask(short(app), scope()))
    assert client.status == 504
    lock.release()
    assert eventually(lambda: work.ended_by == [RequestTimeoutException])


def test_a_thread_that_somebody_else_gave_up_does_not_keep_the_task_alive(run, short, seen):
    """It has been broken off, and its task leaves by a timeout of its own before the thread ends."""
    leave = threading.Event()
    told = []

    async def app(scope, receive, send):
        try:
            async with asyncio.timeout(2 * LIMIT):
                await anyio.to_thread.run_sync(lambda: time.sleep(4 * LIMIT))
        except TimeoutError:
            told.append("own timeout")
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            told.append("cancelled")
            raise
        finally:
            leave.set()

    client = run(Client().ask(short(app), scope()))
    assert (client.status, client.error) == (504, None)
    assert told == ["own timeout", "cancelled"]


# In tasks that the request does not wait for


class Detached:
    """A task that the app starts and leaves to itself, which waits for a thread."""

    def __init__(self, code, wait=in_a_pool_thread):
        self.code, self.wait = code, wait
        self.task = None
        self.told = []

    def start(self):
        self.task = asyncio.create_task(self._run())
        return self.task

    async def _run(self):
        try:
            self.told.append(await self.wait(partial(in_turn, self.told, self.code)))
        except BaseException as error:
            self.told.append(f"task: {type(error).__name__}")
            raise


async def _awaits(start):
    await start()


@pytest.mark.parametrize("below", ("itself", "another"))
def test_the_thread_of_a_background_task_is_left_alone(run, short, enter, below):
    """Kept in a set until it ends, as asyncio's documentation has it, it neither holds up nor is broken."""
    leave = threading.Event()
    work = Detached(lambda: leave.wait(20) and "done", enter)
    kept = set()

    async def app(scope, receive, send):
        task = work.start() if below == "itself" else asyncio.create_task(_awaits(work.start))
        kept.add(task)
        task.add_done_callback(kept.discard)
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            work.told.append("app cancelled")
            raise

    async def asked():
        client = await Client().ask(short(app), scope())
        leave.set()
        await work.task
        return client

    client = run(asked())
    assert (client.status, client.error) == (504, None)
    assert work.told == ["app cancelled", "done"]


def test_the_thread_of_a_background_task_may_begin_behind_the_deadline(run, short):
    limiter = anyio.CapacityLimiter(1)
    work = Detached(lambda: "done", partial(in_a_pool_thread, limiter=limiter))
    kept = set()

    async def app(scope, receive, send):
        await limiter.acquire_on_behalf_of("another")
        kept.add(work.start())
        work.task.add_done_callback(kept.discard)
        await asyncio.sleep(20)

    async def asked():
        assert (await Client().ask(short(app), scope())).status == 504
        limiter.release_on_behalf_of("another")
        while not work.task.done():  # noqa: ASYNC110 - to wait for it would be a tie
            await asyncio.sleep(0.001)

    run(asked())
    assert work.told == ["done"]


def test_a_task_that_nobody_waits_for_holds_nothing_up_for_long(run, short, monkeypatch):
    """It may be one whose results come by an event, so its thread is broken; the app's code ends soon."""
    monkeypatch.setattr(_pool_threads, "GRACE", 2 * LIMIT)
    lock = threading.Lock()
    lock.acquire()
    work = Detached(lambda: (lock.acquire(), linger()))

    async def app(scope, receive, send):
        work.start()
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            work.told.append("app cancelled")
            lock.release()
            raise

    async def asked():
        client = await Client().ask(short(app), scope())
        await asyncio.wait([work.task])
        return client

    client = run(asked())
    assert (client.status, client.error) == (504, None)
    assert work.told == ["app cancelled", "RequestTimeoutException", "task: CancelledError"]


def test_a_thread_whose_result_comes_by_an_event_ends_before_the_clean_up(run, short):
    arrived = None
    work = Detached(linger)

    async def app(scope, receive, send):
        nonlocal arrived
        arrived = asyncio.Event()
        work.start()
        try:
            await arrived.wait()
        finally:
            work.told.append("app left")

    async def asked():
        client = await Client().ask(short(app), scope())
        await asyncio.wait([work.task])
        return client

    assert run(asked()).status == 504
    assert work.told[:2] == ["RequestTimeoutException", "app left"]


def test_a_thread_of_its_own_is_waited_for_whatever_others_there_are(run, short, monkeypatch):
    monkeypatch.setattr(_pool_threads, "GRACE", LIMIT / 2)
    locks = threading.Lock(), threading.Lock()
    for lock in locks:
        lock.acquire()
    work = Detached(lambda: (locks[0].acquire(), linger()))
    told = []

    async def app(scope, receive, send):
        work.start()
        try:
            await in_a_pool_thread(partial(in_turn, told, lambda: (locks[1].acquire(), linger())))
        finally:
            told.append("app left")
            locks[0].release()

    async def asked():
        client = Client()
        asking = asyncio.ensure_future(client.ask(short(app), scope()))
        await client.complete.wait()
        await asyncio.sleep(LIMIT)
        assert not told
        locks[1].release()
        await asking
        await asyncio.wait([work.task])
        return client

    assert run(asked()).status == 504
    assert told == ["RequestTimeoutException", "app left"]


def test_what_a_background_task_does_is_not_told_as_the_request_s(run, short, seen):
    leave = threading.Event()
    kept = set()

    async def app(scope, receive, send):
        task = asyncio.create_task(in_a_pool_thread(leave.wait))
        kept.add(task)
        task.add_done_callback(kept.discard)
        await asyncio.sleep(20)

    async def asked():
        await Client().ask(short(app), scope())
        leave.set()
        await asyncio.gather(*kept)

    run(asked())
    assert seen.states == READY_AND_TIMED_OUT
    assert "wait(" not in seen.events[-1].stack


# Back in the loop


async def _for_long():
    await asyncio.sleep(20)


class Coroutine:
    """What a thread has the loop run: it waits, and tells how it has ended."""

    def __init__(self, told, wait=_for_long):
        self.told = told
        self.wait = wait

    async def __call__(self):
        try:
            await self.wait()
        except asyncio.CancelledError:
            self.told.append("cancelled")
            raise
        finally:
            await asyncio.sleep(0.02)
            self.told.append(f"cleaned up, cancelled {asyncio.current_task().cancelling()} times")


STOPPED = ["cancelled", "cleaned up, cancelled 1 times"]


def in_turn(told, call):
    """A thread's code that tells when and how it leaves what it calls."""
    try:
        return call()
    except BaseException as error:
        told.append(type(error).__name__)
        raise


CALLS_BACK = {"anyio": imported_by_name, "asgiref": lambda function: async_to_sync(function)()}


@pytest.mark.parametrize("way", CALLS_BACK)
def test_what_a_thread_calls_back_is_stopped_and_cleans_up(run, short, way):
    """By a name that the app has imported before there was a guard."""
    told = []
    work = partial(in_turn, told, partial(CALLS_BACK[way], Coroutine(told)))

    async def app(scope, receive, send):
        try:
            await ENTRANCES[way](work)
        finally:
            told.append("app left")

    client = run(Client().ask(short(app), scope()))
    assert (client.status, client.error) == (504, None)
    error = "RequestTimeoutException" if way == "anyio" else "CancelledError"
    assert told == [*STOPPED, error, "app left"]


def test_what_anyio_s_coroutines_are_told_by_is_there():
    """It has no public name. Without it they run on, and nothing else changes."""
    assert callable(AsyncIOBackend.run_async_from_thread)


def test_without_it_nothing_is_put_in_its_place(monkeypatch):
    monkeypatch.setattr(_pool_threads, "_installed", _pool_threads._installed - {"from_thread"})
    monkeypatch.setitem(sys.modules, "anyio._backends._asyncio", SimpleNamespace())
    _pool_threads._guard_calls_back()
    assert "from_thread" not in _pool_threads._installed


def test_a_coroutine_that_swallows_its_cancellation_is_not_waited_for_for_ever(run, seen):
    told, leave = [], asyncio.Event()

    async def stubborn():
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            await leave.wait()
        told.append("done")

    async def app(scope, receive, send):
        try:
            await in_a_pool_thread(partial(in_turn, told, partial(from_thread.run, stubborn)))
        finally:
            leave.set()

    guard = RequestTimeoutMiddleware(app, service_timeout=LIMIT, deferral_limit=LIMIT, observers=[seen])
    assert run(Client().ask(guard, scope())).status == 504
    assert told[0] == "RequestTimeoutException"


def test_a_coroutine_that_answers_its_cancellation_saves_no_thread(run, short):
    told = []

    async def answers():
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(20)

    def work():
        from_thread.run(answers)
        told.append("went on")

    assert run(Client().ask(short(endpoint(in_a_pool_thread, work)), scope())).status == 504
    assert told == []


def test_a_coroutine_called_back_in_a_shield(run, short):
    told = []

    async def commit():
        while current_request.get().state is not State.TIMED_OUT:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)
        told.append("committed")

    def work():
        with hostline.shield():
            from_thread.run(commit)

    assert run(Client().ask(short(endpoint(in_a_pool_thread, work)), scope())).status == 504
    assert told == ["committed"]


def test_a_clean_up_that_is_called_back_is_not_stopped(run, short):
    told = []

    def work():
        try:
            linger()
        finally:
            from_thread.run(Coroutine(told, partial(asyncio.sleep, 0.02)))

    assert run(Client().ask(short(endpoint(in_a_pool_thread, work)), scope())).status == 504
    assert told == ["cleaned up, cancelled 0 times"]


def test_a_thread_below_a_coroutine_ends_first(run, short):
    told = []
    below = Coroutine(told, partial(in_a_pool_thread, partial(in_turn, told, linger)))
    work = partial(in_turn, told, partial(from_thread.run, below))
    begun = time.monotonic()
    assert run(Client().ask(short(endpoint(in_a_pool_thread, work)), scope())).status == 504
    assert told == [
        *("RequestTimeoutException", "cancelled", "cleaned up, cancelled 0 times"),
        "RequestTimeoutException",
    ]
    assert time.monotonic() - begun < LIMIT + _breaker.GRACE


def test_a_coroutine_that_has_not_begun_does_not():
    told = []

    async def scenario():
        called_back = CalledBack(Coroutine(told))
        called_back.call_off(set())
        with pytest.raises(asyncio.CancelledError):
            await called_back()

    asyncio.run(scenario())
    assert told == []


def test_a_coroutine_whose_loop_is_closed_is_let_be():
    async def nothing():
        pass

    async def scenario():
        called_back = CalledBack(nothing)
        await called_back()
        return called_back

    asyncio.run(scenario()).call_off(set())


def test_what_a_thread_calls_back_in_time(run, long):
    """A coroutine, a function, and a portal with a loop of its own."""

    async def name(which):
        await asyncio.sleep(0)
        return which

    def work():
        with from_thread.start_blocking_portal() as portal:
            names = [portal.call(name, b"portal")]
        names += [from_thread.run(name, b"coroutine"), from_thread.run_sync(bytes, b"function")]
        return b" ".join(names)

    client = run(Client().ask(long(endpoint(in_a_pool_thread, work)), scope()))
    assert (client.body, client.error) == (b"portal coroutine function", None)


def test_an_error_of_what_a_thread_calls_back_passes(run, long):
    async def fail():
        raise KeyError("x")

    client = run(Client().ask(long(endpoint(in_a_pool_thread, partial(from_thread.run, fail))), scope()))
    assert type(client.error) is KeyError


def test_a_function_that_a_thread_calls_back_is_not_cut_short(run, short):
    told = []

    def work():
        try:
            linger()
        finally:
            from_thread.run_sync(told.append, "function")

    assert run(Client().ask(short(endpoint(in_a_pool_thread, work)), scope())).status == 504
    assert told == ["function"]


def test_a_portal_is_closed_by_the_abort(run, short):
    told = []

    def work():
        with from_thread.start_blocking_portal() as portal:
            told.append(portal)
            portal.call(asyncio.sleep, 5 * LIMIT)

    assert run(Client().ask(short(endpoint(in_a_pool_thread, work)), scope())).status == 504
    with pytest.raises(RuntimeError, match="not running"):
        told[0].call(asyncio.sleep, 0)


# Under a debugger


def test_what_a_debugger_has_spared_may_still_begin(run, short, monkeypatch):
    """It has waited for its slot while somebody looked at the request."""
    monkeypatch.setattr(_interrupts, "debugger_at", lambda frames: "a debugger")

    async def app(scope, receive, send):
        limiter = anyio.CapacityLimiter(1)
        await limiter.acquire_on_behalf_of("another")
        working = asyncio.create_task(anyio.to_thread.run_sync(lambda: b"mine", limiter=limiter))
        while scope["hostline.request"].state is not State.TIMED_OUT:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        limiter.release_on_behalf_of("another")
        await answer(send, await working)

    client = run(Client().ask(short(app), scope()))
    assert (client.body, client.error) == (b"mine", None)


# In a shield


def test_an_error_of_its_own_behind_the_deadline(run, short, enter):
    """Whoever is in a shield has to see how the work has ended."""
    told = []

    def work():
        assert eventually(lambda: current_request.get().state is State.TIMED_OUT)
        raise KeyError("x")

    async def app(scope, receive, send):
        async with hostline.shield():
            try:
                await enter(work)
            except BaseException as error:
                told.append((type(error), asyncio.current_task().cancelling()))

    assert run(Client().ask(short(app), scope())).status == 504
    assert told == [(KeyError, 0)]


def test_what_has_to_wait_for_its_slot_in_a_shield(run, short):
    told = []

    async def app(scope, receive, send):
        limiter = anyio.CapacityLimiter(1)

        async def other():
            async with limiter:
                while scope["hostline.request"].state is not State.TIMED_OUT:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)

        holding = asyncio.create_task(other())
        await asyncio.sleep(0)
        async with hostline.shield():
            await anyio.to_thread.run_sync(lambda: told.append("committed"), limiter=limiter)
            await holding

    assert run(Client().ask(short(app), scope())).status == 504
    assert told == ["committed"]


# Outside of a request


def test_no_request_no_difference(run, long, enter):
    async def main():
        return await enter(current_request.get)

    async def app(scope, receive, send):
        await answer(send, b"")

    async def both():
        await Client().ask(long(app), scope())
        return await main()

    assert run(both()) is None


def test_a_thread_works_for_the_request_that_called_it(run, long, enter):
    async def app(scope, receive, send):
        assert await enter(current_request.get) is scope["hostline.request"]
        await answer(send, b"")

    client = run(Client().ask(long(app), scope()))
    assert client.error is None


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_near_misses(run, seen):
    """Nothing is raised in a pool's thread but in the call that has run too long."""
    late = []
    ended = 0

    def work(end):
        nonlocal ended
        while time.monotonic() < end:
            pass
        return b"done"

    def witness():
        try:
            for _ in range(50):
                pass
        except BaseException as error:
            late.append(error)

    async def app(scope, receive, send):
        end = time.monotonic() + scope["for"]
        await answer(send, await anyio.to_thread.run_sync(work, end))

    async def asked():
        statuses = set()
        guard = RequestTimeoutMiddleware(app, service_timeout=0.004, observers=[seen])
        for number in range(2_000):
            client = Client()
            await client.ask(guard, scope(**{"for": 0.0025 + 0.000001 * (number % 2_000)}))
            # Between the head and the body the deadline cuts the response.
            assert client.error is None or (client.messages[0]["status"], client.is_complete) == (200, False)
            statuses.add(client.status)
            await anyio.to_thread.run_sync(witness)
        return statuses

    assert run(asked()) == {200, 504}
    assert not late
    assert set(seen.endings().values()) == {1}
