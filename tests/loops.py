"""The event loops that hostline is used on, and running one test on each."""

import asyncio
import sys

import pytest
import uvloop

from hostline._loop_deadlines import lanes_of


def _eager():
    loop = asyncio.new_event_loop()
    loop.set_task_factory(asyncio.eager_task_factory)
    return loop


LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
if sys.version_info >= (3, 12):
    LOOPS["eager"] = _eager


@pytest.fixture(params=LOOPS)
def run(request):
    """Run a coroutine on a fresh loop; nothing may be left on it."""

    def run_on_loop(awaitable):
        async def main():
            result = await asyncio.wait_for(awaitable, 30)
            await asyncio.sleep(0)
            others = asyncio.all_tasks() - {asyncio.current_task()}
            assert not others, others
            lanes = lanes_of(asyncio.get_running_loop())
            assert not lanes._odd
            assert not any(lane.entries for lane in lanes._lanes.values())
            return result

        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            return runner.run(main())

    return run_on_loop
