"""How late an abort is: from the deadline to the moment at which the server has the 504.

Alone, and with two threads that compute all the time and want the interpreter for
themselves. On the thread road the app computes too; in the main thread it sleeps in C; on
asyncio it awaits.
"""

# ruff: noqa: ARG001 - an app has the signature of its protocol

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import monotonic
from typing import Any

from benchmarks import loops
from benchmarks.results import Report, Table
from benchmarks.scale import Scale
from benchmarks.spans import Span, quietly
from benchmarks.traffic import PLAIN, environ, receive, scope
from hostline import asgi, wsgi

_TIMEOUT = 0.02
_BUSY_THREADS = 2
_GIVEN_UP = 10  # seconds: an app that nobody has aborted by then ends by itself


class _NotAbortedError(Exception):
    """The app's, that ended by itself. The middleware answers 504 all the same."""


def run(scale: Scale, report: Report, show: Callable[[str, float], object]) -> None:
    """Each road, idle and busy."""
    roads: dict[str, Callable[[int], Span]] = {
        "thread, computing": _in_thread,
        "main thread, in sleep()": _wsgi,
    }
    for loop, factory in loops.factories().items():
        roads[f"{loop}, awaiting"] = lambda count, make=factory: loops.run(_asgi(count), make)
    rows = []
    for done, (road, measure) in enumerate(roads.items()):
        show(road, done / len(roads))
        with quietly():
            idle = measure(scale.aborts)
            with busy_threads():
                busy = measure(scale.aborts)
        rows.append([road, *_figures(idle), *_figures(busy)])
        report.expect(f"abort lateness p99, idle: {road}", idle.percentile(0.99), "ms", (0.010, 0.002))
        report.expect(f"abort lateness p99, busy: {road}", busy.percentile(0.99), "ms", (0.050, 0.020))
    columns = [("road", ""), ("idle p50", "ms"), ("p99", "ms"), ("worst", "ms")]
    columns += [("busy p50", "ms"), ("p99", "ms"), ("worst", "ms")]
    report.add(
        Table(f"How late an abort is ({scale.aborts} each, {_BUSY_THREADS} busy threads)", columns, rows)
    )


def _figures(span: Span) -> list[float]:
    return span.figures()[1:]


@contextmanager
def busy_threads() -> Iterator[None]:
    """Threads that compute."""
    ended = threading.Event()

    def compute() -> None:
        while not ended.is_set():
            sum(range(1_000))

    threads = [threading.Thread(target=compute, daemon=True) for _ in range(_BUSY_THREADS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def _in_thread(count: int) -> Span:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_wsgi, count).result()


def _wsgi(count: int) -> Span:
    is_main = threading.current_thread() is threading.main_thread()
    guarded = wsgi.RequestTimeoutMiddleware(_sleep if is_main else _compute, service_timeout=_TIMEOUT)
    late = []
    for _ in range(count):
        made = environ(PLAIN)
        guarded(made, _check_answer)
        late.append(monotonic() - made["hostline.request"].deadline)
    return _aborted(late)


def _sleep(environ: Any, start_response: Any) -> list[bytes]:
    time.sleep(_GIVEN_UP)
    raise _NotAbortedError


def _compute(environ: Any, start_response: Any) -> list[bytes]:
    end = monotonic() + _GIVEN_UP
    while monotonic() < end:
        pass
    raise _NotAbortedError


async def _asgi(count: int) -> Span:
    guarded = asgi.RequestTimeoutMiddleware(_wait, service_timeout=_TIMEOUT)
    late: list[float] = []
    for _ in range(count):
        made = scope(PLAIN)

        async def send(message: Any, made: dict[str, Any] = made) -> None:
            if message["type"] == "http.response.start":
                late.append(monotonic() - made["hostline.request"].deadline)
                _check_status(message["status"])

        await guarded(made, receive, send)
    return _aborted(late)


async def _wait(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.sleep(_GIVEN_UP)
    raise _NotAbortedError


def _aborted(late: list[float]) -> Span:
    span = Span(late)
    if span.worst > _GIVEN_UP / 2:
        raise RuntimeError(
            "A request was not aborted; the log would say why, but is off while this measures."
        )
    return span


def _check_answer(status: str, headers: object, exc_info: object = None) -> None:
    _check_status(int(status[:3]))


def _check_status(status: int) -> None:
    if status != 504:
        raise RuntimeError(f"answered {status} instead of 504")
