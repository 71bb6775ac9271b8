"""How many of CPython's instructions a request costs: a guard against growth that no noise can move.

Nanoseconds differ from run to run; the number of bytecodes that hostline's own code executes for a
request does not. It is no measure of time (a call of C code counts as one), but what makes the hot path
longer is seen here at once. `make bench` tells what it costs.
"""

import asyncio
import sys
from collections import Counter
from pathlib import Path

import pytest
from benchmarks.traffic import HEROKU, HOST, PLAIN, asgi_app, environ, receive, scope, send, wsgi_app
from benchmarks.traffic import start_response as respond

import hostline
from hostline import asgi, wsgi
from timeouts import eventually

_OURS = str(Path(hostline.__file__).parent)
_WARM_UP = 50

# The most that each request may execute, by CPython's version: as it was measured, and a twentieth more.
LIMITS = {
    ("wsgi timeout", "plain"): {(3, 11): 245, (3, 12): 229, (3, 13): 234},
    ("wsgi timeout", "heroku"): {(3, 11): 277, (3, 12): 263, (3, 13): 269},
    ("wsgi host", "heroku"): {(3, 11): 21, (3, 12): 19, (3, 13): 18},
    ("asgi timeout", "plain"): {(3, 11): 330, (3, 12): 315, (3, 13): 315},
    ("asgi timeout", "heroku"): {(3, 11): 419, (3, 12): 407, (3, 13): 402},
    ("asgi host", "heroku"): {(3, 11): 126, (3, 12): 124, (3, 13): 104},
}
_HEADERS = {"plain": PLAIN, "heroku": HEROKU}


def _counted_by_tracing(run):
    counts = Counter()

    def trace(frame, event, _):
        if not frame.f_code.co_filename.startswith(_OURS):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            counts[frame.f_code.co_qualname] += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(before)
    return counts


def _counted_by_monitoring(run):
    counts = Counter()
    monitoring = sys.monitoring
    tool = next(each for each in (3, 4) if monitoring.get_tool(each) is None)
    monitoring.use_tool_id(tool, "hot path")

    def count(code, _):
        if not code.co_filename.startswith(_OURS):
            return monitoring.DISABLE
        counts[code.co_qualname] += 1
        return None

    monitoring.register_callback(tool, monitoring.events.INSTRUCTION, count)
    monitoring.set_events(tool, monitoring.events.INSTRUCTION)
    try:
        run()
    finally:
        monitoring.set_events(tool, 0)
        monitoring.free_tool_id(tool)
    return counts


_counted = _counted_by_monitoring if sys.version_info >= (3, 12) else _counted_by_tracing


def _step(coroutine):
    """Run one that waits for nothing."""
    with pytest.raises(StopIteration):
        coroutine.send(None)


def _fewest(serve):
    """Of some requests, when the watchdog is awake: one of them may come when a second is over."""
    for _ in range(_WARM_UP):
        serve()
    assert eventually(lambda: "Watchdog.rouse" not in _counted(serve))
    return min((_counted(serve) for _ in range(5)), key=Counter.total)


async def _asgi(app, headers):
    return _fewest(lambda: _step(app(scope(headers), receive, send)))


def _wsgi(app, headers):
    return _fewest(lambda: app(environ(headers), respond))


APPS = {
    "wsgi timeout": lambda headers: _wsgi(wsgi.RequestTimeoutMiddleware(wsgi_app), headers),
    "wsgi host": lambda headers: _wsgi(wsgi.CanonicalHostMiddleware(wsgi_app, HOST), headers),
    "asgi timeout": lambda headers: asyncio.run(_asgi(asgi.RequestTimeoutMiddleware(asgi_app), headers)),
    "asgi host": lambda headers: asyncio.run(_asgi(asgi.CanonicalHostMiddleware(asgi_app, HOST), headers)),
}


@pytest.mark.parametrize(("app", "kind"), LIMITS, ids=" ".join)
def test_a_request_executes_no_more_than_it_did(app, kind):
    limits = LIMITS[app, kind]
    limit = limits.get(sys.version_info[:2], max(limits.values()) * 5 // 4)
    counts = APPS[app](_HEADERS[kind])
    assert 0 < sum(counts.values()) <= limit, counts
