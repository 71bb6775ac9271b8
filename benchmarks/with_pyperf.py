"""``python -m benchmarks.with_pyperf``: the same apps under pyperf, in processes of their own.

    python -m benchmarks.with_pyperf --fast -o results.json
    python -m pyperf compare_to other.json results.json

pyperf's way is the field's standard, and the one for a quiet machine (``pyperf system tune``): it
runs each variant by itself, so what changes on the machine meanwhile is in the comparison. Where
others work on it too, believe ``python -m benchmarks``, which has the variants take turns.
"""

import asyncio
import time
from functools import partial
from typing import Any

import pyperf

from benchmarks import asgi_cost, loops, wsgi_cost
from benchmarks.traffic import HEROKU


def time_wsgi(count: int, app: Any) -> float:
    """Seconds for so many requests."""
    began = time.perf_counter()
    wsgi_cost.serve(app, HEROKU, count)
    return time.perf_counter() - began


def time_asgi(count: int, app: Any, loop: str) -> float:
    """The same in a loop of that kind."""

    async def timed() -> float:
        await asgi_cost.serve(app, HEROKU, 10)
        await asyncio.sleep(0)
        began = time.perf_counter()
        await asgi_cost.serve(app, HEROKU, count)
        return time.perf_counter() - began

    return loops.run(timed(), loops.factories()[loop])


def main() -> None:
    """Measure all of them, or those whose names are asked for by pyperf's options."""
    runner = pyperf.Runner(program_args=("-m", "benchmarks.with_pyperf"))
    for name, app in wsgi_cost.apps().items():
        runner.bench_time_func(f"WSGI: {name}", time_wsgi, app)
    for loop in loops.factories():
        for name, app in asgi_cost.apps().items():
            runner.bench_time_func(f"ASGI on {loop}: {name}", partial(time_asgi, loop=loop), app)


if __name__ == "__main__":
    main()
