"""What a task of asyncio's is doing, and the tasks that it waits for."""

import asyncio
import time
from types import SimpleNamespace

import anyio
import pytest
from django.utils.functional import SimpleLazyObject
from werkzeug.local import LocalProxy

from hostline._tasks import of_task
from hostline.asgi import RequestTimeoutMiddleware
from timeouts import SHORT, Client, Recorder, eventually


def _functions(trace):
    return [function for _, _, function in trace]


async def stuck():
    await asyncio.get_running_loop().create_future()


async def _awaited():
    await asyncio.create_task(stuck())


async def _gathered():
    await asyncio.gather(asyncio.sleep(0), stuck())


async def _waited_for():
    await asyncio.wait([asyncio.create_task(stuck())])


async def _grouped():
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(0))
        group.create_task(stuck())


async def _grouped_by_anyio():
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep, 0)
        group.start_soon(_gathered)


async def _in_time():
    await asyncio.wait_for(stuck(), 60)


async def _shielded():
    await asyncio.shield(stuck())


async def _shielded_in_time():
    await asyncio.wait_for(asyncio.shield(stuck()), 60)


async def _gathered_in_shields():
    await asyncio.shield(asyncio.gather(asyncio.sleep(0), asyncio.shield(asyncio.shield(stuck()))))


WAYS = (
    *(_awaited, _gathered, _waited_for, _grouped, _grouped_by_anyio, _in_time),
    *(_shielded, _shielded_in_time, _gathered_in_shields),
)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_the_chain_of_awaits_goes_on_in_other_tasks(way):
    async def main():
        task = asyncio.create_task(way())
        for _ in range(10):
            await asyncio.sleep(0)
        trace = of_task(task)
        task.cancel()
        return _functions(trace)

    functions = asyncio.run(main())
    assert (functions[0], functions[-1]) == (way.__name__, "stuck")


def test_a_task_that_waits_for_itself_by_way_of_another_ends_somewhere():
    async def main():
        ours = asyncio.current_task()
        other = asyncio.create_task(_wait_for(ours))
        await asyncio.sleep(0)
        waiting = asyncio.create_task(_wait_for(other))
        await asyncio.sleep(0)
        trace = of_task(waiting)
        other.cancel()
        return _functions(trace)

    assert asyncio.run(main()).count("_wait_for") == 2


async def _wait_for(task):
    await asyncio.wait([task])


def test_the_chain_of_awaits_of_no_task():
    assert of_task(None) == []


def _fails():
    raise ZeroDivisionError


class Untouchable:
    """What fails, and says so, whatever is asked of it."""

    def __getattr__(self, name):
        touched.append(name)
        raise ZeroDivisionError


touched = []
HELD = {
    "no tasks": lambda: SimpleNamespace(_tasks=None),
    "a number": lambda: SimpleNamespace(_tasks=7),
    "Django's": lambda: SimpleLazyObject(_fails),
    "Werkzeug's": lambda: LocalProxy(_fails),
    "an object": Untouchable,
}


@pytest.mark.parametrize("make", HELD.values(), ids=HELD)
def test_what_the_app_holds_is_left_alone(make):
    """A proxy runs the app's code when it is asked anything, and may fail."""

    async def app(scope, receive, send):
        mine = make()  # noqa: F841 - looked at, while the app waits
        await asyncio.gather(stuck())

    touched.clear()
    told = Recorder()
    guard = RequestTimeoutMiddleware(app, service_timeout=SHORT, observers=told)
    assert asyncio.run(Client().ask(guard)).status == 504
    assert eventually(lambda: told.states == ["ready", "timed_out"])
    assert "in stuck" in told.events[-1].stack
    assert touched == []


def test_a_stack_that_cannot_be_told_costs_no_abort(monkeypatch, caplog):
    async def app(scope, receive, send):
        await stuck()

    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr("hostline._tasks.of_task", fail)
    guard = RequestTimeoutMiddleware(app, service_timeout=SHORT, observers=())
    began = time.monotonic()
    assert asyncio.run(Client().ask(guard)).status == 504
    assert time.monotonic() - began < 10
    assert eventually(lambda: "hostline cannot tell what a request is doing" in caplog.text)
