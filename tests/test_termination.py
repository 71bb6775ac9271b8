"""Who is asked to end, when, and who is killed."""

import os
import signal
import sys
import threading
from types import SimpleNamespace

import pytest

import hostline
from hostline import _termination
from hostline._requests import State
from hostline._termination import Terminator, server, terminator
from hostline.wsgi import RequestTimeoutMiddleware
from timeouts import LONG, Recorder, eventually, hello, in_thread, serve


class Code:
    """What is to be broken."""

    came_back = False


@pytest.fixture
def killed(monkeypatch):
    sent = []
    monkeypatch.setattr(_termination.os, "kill", lambda pid, signum: sent.append((pid, signum)))
    return sent


def test_unstoppable_code_that_goes_on_has_its_process_killed(killed):
    code = Code()
    mine = Terminator()
    mine.count_unstoppable(code, 0)
    _termination._Kill(mine).expire()
    assert killed == [(os.getpid(), signal.SIGKILL)]


@pytest.mark.parametrize("end", (lambda code: setattr(code, "came_back", True), lambda code: codes.clear()))
def test_code_that_has_come_back_late_has_nobody_killed(killed, end):
    """Once a request was late to take notice; what the process is doing when it drains is something else."""
    mine = Terminator()
    codes.append(Code())
    mine.count_unstoppable(codes[0], 0)
    assert mine.has_unstoppable
    end(codes[0])
    assert not mine.has_unstoppable
    _termination._Kill(mine).expire()
    assert killed == []
    codes.clear()


codes = []


def test_what_has_come_back_is_forgotten():
    mine = Terminator()
    for _ in range(100):
        code = Code()
        mine.count_unstoppable(code, 0)
        code.came_back = True
    assert len(mine._unstoppable) == 1


@pytest.mark.parametrize(("reload", "signum"), ((False, signal.SIGTERM), (True, None)))
def test_only_workers_of_uvicorn_s_are_replaced(reload, signum):
    """Its reloader begins them in the same place, and never looks whether they live."""
    made = {"__name__": "uvicorn._subprocess", "sys": sys}
    exec("def subprocess_started(config):\n    return sys._getframe()", made)
    frame = made["subprocess_started"](SimpleNamespace(reload=reload))
    assert server(frame).signum == signum


def test_whoever_tells_of_a_timeout_knows_whether_it_ends_the_process(monkeypatch):
    """The watchdog may lose the interpreter at any point, and the request's thread tells in its place."""
    asked, is_counting, is_told = [], threading.Event(), threading.Event()
    count = Terminator.count

    def slow_count(self, limit):
        is_counting.set()
        is_told.wait(0.2)  # not told before it is counted
        return count(self, limit)

    def app(environ, start_response):
        hostline.set_timeout(hostline.current().service)
        is_counting.wait(20)
        return hello(environ, start_response)

    class Told(Recorder):
        def __call__(self, event):
            super().__call__(event)
            if event.state is State.TIMED_OUT:
                is_told.set()

    terminator.after_fork()
    monkeypatch.setattr(Terminator, "count", slow_count)
    monkeypatch.setattr(Terminator, "ask", lambda self, frame: asked.append(True))
    told = Told()
    guard = RequestTimeoutMiddleware(app, service_timeout=LONG, term_on_timeout=1, observers=told)
    assert in_thread(lambda: serve(guard)).status == 504
    assert told.states == [State.READY, State.TIMED_OUT]
    assert told.events[-1].term
    assert eventually(lambda: asked == [True])
    terminator.after_fork()
