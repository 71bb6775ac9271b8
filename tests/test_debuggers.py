"""Under a debugger requests are reported and not broken, and it is said once."""

import asyncio
import pdb  # noqa: T100 - it is what is tested
import sys
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import anyio.to_thread
import coverage
import pytest

import hostline
from hostline import _interrupts
from hostline._debuggers import debugger_at
from hostline.asgi import RequestTimeoutMiddleware as AsgiGuard
from hostline.wsgi import RequestTimeoutMiddleware as WsgiGuard
from timeouts import LONG, SHORT, Client, Recorder, answer, eventually, hello, in_thread, serve

pytestmark = pytest.mark.timed


@pytest.fixture(autouse=True)
def _nothing_said_yet(monkeypatch):
    monkeypatch.setattr(_interrupts, "_debuggers_met", set())


@contextmanager
def traced_by(trace):
    """This thread looked at by a debugger, and what it calls."""
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def debugger(frame, event, argument):
    """The least that one has; whose frames have it too, as those of pdb."""
    return debugger


def has_timed_out():
    request = hostline.current()
    return request is None or request.state == "timed_out"


def come_due():
    """Have the deadline come soon, now that the debugger is there."""
    assert hostline.set_timeout(hostline.current().service + SHORT)


def dawdle():
    """Run past the deadline, and on for as long as an abort would take, in a traced function."""
    come_due()
    assert eventually(has_timed_out)
    time.sleep(2 * SHORT)


# Who is one


def test_there_is_none():
    assert debugger_at([sys._getframe(), SimpleNamespace(f_trace=None)]) is None


def test_a_trace_function_of_the_thread_s():
    with traced_by(debugger):
        found = debugger_at([])
    assert found == __name__


def test_pdb():
    found = []

    class AtThePrompt(pdb.Pdb):
        def interaction(self, *where):
            found.append(debugger_at([]))
            self.set_continue()

    def run():
        AtThePrompt().set_trace()
        len(found)  # where it stops, up to CPython 3.12

    in_thread(run)  # for it leaves its trace function in the frames further out
    assert found == [__name__]
    assert debugger_at([]) is None, "it has been told to go on"


def test_a_trace_function_of_a_frame_s_in_another_thread():
    """All that can be seen of one from the watchdog's thread."""
    frames, seen = [], threading.Event()

    def run():
        with traced_by(debugger):
            stand()

    def stand():
        frames.append(sys._getframe())
        assert seen.wait(20)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        while not frames:
            time.sleep(0.001)
        assert debugger_at(frames) == __name__
    finally:
        seen.set()
        thread.join(20)


def test_one_for_all_threads_to_come():
    before = threading.gettrace()
    threading.settrace(debugger)
    try:
        assert debugger_at([]) == __name__
    finally:
        threading.settrace(before)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="PEP 669 is of CPython 3.12")
def test_the_tool_that_python_keeps_a_place_for():
    monitoring = sys.monitoring
    monitoring.use_tool_id(monitoring.DEBUGGER_ID, "a debugger")
    try:
        assert debugger_at([]) == "a debugger"
    finally:
        monitoring.free_tool_id(monitoring.DEBUGGER_ID)
    assert debugger_at([]) is None


class _Collector:
    """As coverage's: a module of its own is told by its class."""

    def trace(self, frame, event, argument):
        return self.trace


def test_a_python_that_has_such_a_place(monkeypatch):
    tools = ["a debugger", None]
    place = SimpleNamespace(DEBUGGER_ID=0, get_tool=lambda number: tools.pop(0))
    monkeypatch.setattr(sys, "monitoring", place, raising=False)
    assert debugger_at([]) == "a debugger"
    assert debugger_at([]) is None


def test_a_python_that_has_none(monkeypatch):
    monkeypatch.delattr(sys, "monitoring", raising=False)
    assert debugger_at([]) is None


def test_coverage_is_none(monkeypatch):
    monkeypatch.setattr(_Collector, "__module__", f"{coverage.__name__}.pytracer")
    with traced_by(_Collector().trace):
        assert debugger_at([sys._getframe()]) is None


# What becomes of a request


@pytest.mark.parametrize("road", (in_thread, lambda call: call()), ids=("thread", "main thread"))
def test_a_thread_s_request_is_reported_and_not_broken(road, caplog):
    def app(environ, start_response):
        with traced_by(debugger):
            dawdle()
        return hello(environ, start_response)

    told = Recorder()
    guard = WsgiGuard(app, service_timeout=LONG, term_on_timeout=1, observers=told)
    caplog.clear()
    for _ in range(2):
        assert road(lambda: serve(guard)).status == 200
    assert told.count("timed_out") == 2
    assert not any(event.term for event in told.events)
    assert sum(f"a debugger ({__name__}) is at" in message for message in caplog.messages) == 1


def test_when_it_has_gone_requests_are_broken_again():
    traces = [debugger, None]

    def app(environ, start_response):
        with traced_by(traces.pop(0) or sys.gettrace()):
            dawdle()
        return hello(environ, start_response)

    guard = WsgiGuard(app, service_timeout=LONG, observers=())
    assert [in_thread(lambda: serve(guard)).status for _ in range(2)] == [200, 504]


@pytest.mark.parametrize("kind", ("blocking", "def", "suspended"))
def test_a_loop_s_request_is_reported_and_not_broken(kind, run):
    def traced():
        with traced_by(debugger):
            dawdle()

    async def app(scope, receive, send):
        if kind == "def":
            await anyio.to_thread.run_sync(traced)
        else:
            with traced_by(debugger):
                come_due()
                if kind == "blocking":
                    time.sleep(10 * SHORT)  # as at a prompt, and so that the watchdog has a look
                while not has_timed_out():  # noqa: ASYNC110 - by a timer
                    await asyncio.sleep(0.001)
                await asyncio.sleep(2 * SHORT)
        await answer(send, b"hello")

    told = Recorder()
    client = run(Client().ask(AsgiGuard(app, service_timeout=LONG, observers=told)))
    assert (client.status, client.error) == (200, None)
    assert told.states == ["ready", "timed_out"]
