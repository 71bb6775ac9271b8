"""What the guards cost beside time: memory for each request in flight, and the start of the process."""

import asyncio
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Generator
from contextlib import contextmanager
from statistics import median
from typing import Any

from benchmarks import asgi_cost, loops, wsgi_cost
from benchmarks.results import Report, Table
from benchmarks.scale import Scale
from benchmarks.traffic import HEROKU, environ, receive, scope, send, start_response, wsgi_app
from hostline import asgi, wsgi

_TOLD = "import sys, time; began = time.perf_counter(); import {}; print(time.perf_counter() - began)"
_IMPORTED = ("hostline", "hostline.wsgi", "hostline.asgi", "werkzeug", "starlette.applications", "flask")


_THREADS = 200


def run(scale: Scale, report: Report, show: Callable[[str, float], object]) -> None:
    """Memory, then imports."""
    show("memory", 0.0)
    rows: list[list[Any]] = [["WSGI", _wsgi_memory(min(scale.hung_requests, _THREADS))]]
    for loop, factory in loops.factories().items():
        rows.append([f"ASGI on {loop}", loops.run(_asgi_memory(scale.hung_requests), factory)])
    columns = [("what a request in flight holds", ""), ("bytes", "B")]
    report.add(Table("Memory that the request timeout takes for each request in flight", columns, rows))
    times = {}
    for done, module in enumerate(_IMPORTED):
        show("imports", done / len(_IMPORTED))
        times[module] = median(_import_time(module) for _ in range(min(scale.aborts, 9)))
    rows = [[module, seconds] for module, seconds in times.items()]
    report.add(Table("Time to import, in a process of its own", [("module", ""), ("time", "ms")], rows))


def _import_time(module: str) -> float:
    done = subprocess.run([sys.executable, "-c", _TOLD.format(module)], capture_output=True, check=True)
    return float(done.stdout)


@contextmanager
def _counted() -> Generator[list[int]]:
    """Allocated meanwhile and not given back; read at the end."""
    held: list[int] = []
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    try:
        yield held
        held.append(tracemalloc.get_traced_memory()[0] - before)
    finally:
        tracemalloc.stop()


def _wsgi_memory(count: int) -> float:
    """The difference of so many hung requests with the guard and without, each in a thread."""
    return (_held_in_threads(wsgi.RequestTimeoutMiddleware, count) - _held_in_threads(_Bare, count)) / count


class _Bare(wsgi_cost.DoNothing):
    def __init__(self, app: Any, service_timeout: float) -> None:
        del service_timeout
        super().__init__(app)


def _held_in_threads(guard: Callable[..., Any], count: int) -> int:
    within = threading.Semaphore(0)
    leave = threading.Event()

    def hang(environ: Any, respond: Any) -> Any:
        within.release()
        leave.wait()
        return wsgi_app(environ, respond)

    app = guard(hang, service_timeout=3_600)
    wsgi_cost.serve(guard(wsgi_app, service_timeout=3_600), HEROKU, 3)  # what is made once is made
    made = environ(HEROKU)
    threads = [threading.Thread(target=app, args=(made.copy(), start_response)) for _ in range(count)]
    with _counted() as held:
        for thread in threads:
            thread.start()
            within.acquire()
    leave.set()
    for thread in threads:
        thread.join()
    return held[0]


async def _asgi_memory(count: int) -> float:
    """The difference of so many hung requests with the guard and without."""
    guarded = await _held_by(asgi.RequestTimeoutMiddleware(_hang, service_timeout=3_600), count)
    bare = await _held_by(asgi_cost.DoNothing(_hang), count)
    return (guarded - bare) / count


async def _held_by(app: Any, count: int) -> int:
    made = scope(HEROKU)
    with _counted() as held:
        tasks = [asyncio.ensure_future(app(made.copy(), receive, send)) for _ in range(count)]
        await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return held[0]


async def _hang(scope: Any, receive: Any, send: Any) -> None:
    del scope, receive, send
    await asyncio.Event().wait()
