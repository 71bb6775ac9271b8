"""Whether somebody waits for a task, as asyncio keeps it."""

import asyncio
from functools import partial
from types import SimpleNamespace
from weakref import WeakSet

import anyio
import pytest
from asgiref.sync import async_to_sync, sync_to_async

from hostline._waiters import Tie, tie_of


def tie_in(arrange):
    """What ties the task that ``arrange(job)`` makes to the one that runs that."""

    jobs = []

    async def job():
        jobs.append(asyncio.current_task())
        await asyncio.sleep(20)

    async def scenario():
        request_task = asyncio.create_task(arrange(job))
        while not jobs:  # noqa: ASYNC110
            await asyncio.sleep(0)
        await asyncio.sleep(0)  # for whoever waits to do so
        return tie_of(jobs[0], request_task)

    return asyncio.run(scenario())


async def _awaited(job):
    await asyncio.create_task(job())


async def _gathered(job):
    await asyncio.gather(job())


async def _waited_for(job):
    await asyncio.wait([asyncio.create_task(job())])


async def _timed(job):
    await asyncio.wait_for(asyncio.create_task(job()), 20)


async def _shielded(job):
    await asyncio.shield(asyncio.create_task(job()))


async def _in_a_task_group(job):
    async with asyncio.TaskGroup() as group:
        group.create_task(job())


async def _in_anyio_s_task_group(job):
    async with anyio.create_task_group() as group:
        group.start_soon(job)
        await asyncio.sleep(20)


async def _kept_and_gathered(job):
    kept = {asyncio.create_task(job())}
    for task in kept:
        task.add_done_callback(kept.discard)
    await asyncio.gather(*kept)


async def _with_a_callback_of_the_app_s(job):
    task = asyncio.create_task(job())
    task.add_done_callback(lambda task: None)
    await asyncio.sleep(20)


@pytest.mark.parametrize(
    "arrange",
    (
        *(_awaited, _gathered, _waited_for, _timed, _shielded, _in_a_task_group, _in_anyio_s_task_group),
        *(_kept_and_gathered, _with_a_callback_of_the_app_s),
    ),
)
def test_somebody_waits_for_it(arrange):
    """As far as can be told; on every CPython, for the names are not public."""
    assert tie_in(arrange) is Tie.AWAITED


async def _left_to_itself(job):
    task = asyncio.create_task(job())
    await asyncio.sleep(20)
    del task


async def _awaited_by_one_left_to_itself(job):
    async def other():
        await asyncio.create_task(job())

    await _left_to_itself(other)


@pytest.mark.parametrize("arrange", (_left_to_itself, _awaited_by_one_left_to_itself))
def test_nothing_is_known_of_it(arrange):
    assert tie_in(arrange) is Tie.NONE


async def _kept_in(kept, job):
    task = asyncio.create_task(job())
    kept.add(task)
    task.add_done_callback(kept.discard)
    await asyncio.sleep(20)


async def _awaited_by_one_that_is_kept(job):
    await _kept_in(set(), partial(_awaited, job))


@pytest.mark.parametrize(
    "arrange",
    (lambda job: _kept_in(set(), job), lambda job: _kept_in(WeakSet(), job), _awaited_by_one_that_is_kept),
)
def test_it_is_kept_as_a_background_task(arrange):
    assert tie_in(arrange) is Tie.KEPT


def test_what_asgiref_runs_for_a_thread_is_waited_for():
    """Nothing of its task says so but its code, which is found by a name that is not documented."""

    async def here():
        return tie_of(asyncio.current_task(), None)

    async def scenario():
        return await sync_to_async(async_to_sync(here))()

    assert asyncio.run(scenario()) is Tie.AWAITED


def test_without_the_names_somebody_waits():
    assert tie_of(SimpleNamespace(get_coro=lambda: None), None) is Tie.AWAITED


def test_the_request_s_own_task_and_none():
    async def scenario():
        task = asyncio.current_task()
        return tie_of(task, task), tie_of(None, task)

    assert asyncio.run(scenario()) == (Tie.AWAITED, Tie.AWAITED)
