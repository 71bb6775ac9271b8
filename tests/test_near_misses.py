"""The app ends within a millisecond of its deadline, again and again: who was first, and who noticed?

Not one exception outside its request, not one request without exactly one ending.
"""

import asyncio
import itertools
import random
import threading
import time
from collections import Counter

import pytest
import uvloop

from hostline import RequestTimeoutError, RequestTimeoutException
from hostline._loop_deadlines import lanes_of
from hostline._requests import State
from hostline.asgi import RequestTimeoutMiddleware as AsgiGuard
from hostline.wsgi import RequestTimeoutMiddleware as WsgiGuard
from timeouts import (
    Client,
    Recorder,
    Server,
    answer,
    entries_left,
    environ,
    eventually,
    scope,
    switch_interval,
)

pytestmark = pytest.mark.timed

_MARGIN = 0.001  # seconds before and after the deadline


class Trial:
    """Calls of WSGI apps that count everything that can go wrong."""

    def __init__(self, timeout, *, is_nested=False):
        self.seen = Recorder()
        self.outer_seen = Recorder()
        self.timeout = timeout
        self.is_nested = is_nested
        self.answers = Counter()
        self.escapes = []
        self.hits = Counter()
        self.wrong = []
        self.guard = WsgiGuard(self.app, service_timeout=timeout, observers=[self.seen])
        if is_nested:
            self.guard = WsgiGuard(self.guard, service_timeout=timeout, observers=[self.outer_seen])

    def app(self, environ, start_response):
        deadline = environ["hostline.request"].deadline
        try:
            until = deadline + environ["margin"]
            time.sleep(max(0.0, until - time.monotonic() - 2 * _MARGIN))
            while time.monotonic() < until:
                pass
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [b"ok"] if environ["is_list"] else iter([b"ok"])
        except RequestTimeoutException:
            self.hits[environ["HTTP_X_REQUEST_ID"]] += 1
            try:
                for _ in range(environ["clean_up"]):
                    pass
            except RequestTimeoutException:
                self.hits[environ["HTTP_X_REQUEST_ID"]] += 1
            raise

    def once(self, name, rng):
        env = environ(HTTP_X_REQUEST_ID=name, margin=rng.uniform(-_MARGIN, _MARGIN))
        env |= {"is_list": rng.random() < 0.7, "clean_up": rng.choice((0, 0, 10, 20_000))}
        served = Server().run(self.guard, env)
        request = env["hostline.request"]
        self.answers[served.status] += 1
        expected = {State.COMPLETED: 200, State.TIMED_OUT: 504}.get(request.state)
        if served.error or (served.status != expected and not self.is_nested):
            self.wrong.append((name, served, request))

    def serve(self, index, count):
        """A server's loop. What is raised here was raised outside of its request."""
        rng = random.Random(index)
        numbers = iter(range(count))
        done = False
        while not done:
            try:
                for number in numbers:
                    self.once(f"{index}-{number}", rng)
                    for _ in range(200):  # the server's own work
                        pass
                done = True
            except RequestTimeoutException as error:
                self.escapes.append(error)

    def check(self, count):
        assert self.escapes == []
        assert self.wrong == []
        for seen in (self.seen, self.outer_seen) if self.is_nested else (self.seen,):
            endings = seen.endings()
            assert len(endings) == count
            assert set(endings.values()) == {1}
        assert sum(self.answers.values()) == count
        assert set(self.answers) <= {200, 504}
        if not self.is_nested:
            assert set(self.hits.values()) <= {1}, "broken twice"
        assert entries_left() == 0
        if count >= 1000:  # the trial was one: both were first often enough
            assert min(self.answers[200], self.answers[504]) > count / 50


def _in_threads(trial, threads, count):
    working = [threading.Thread(target=trial.serve, args=(n, count // threads)) for n in range(threads)]
    for thread in working:
        thread.start()
    for thread in working:
        thread.join(280)
    trial.check(count)


def test_threads():
    _in_threads(Trial(0.02), 8, 400)


def test_threads_nested():
    _in_threads(Trial(0.02, is_nested=True), 8, 240)


def test_main_thread():
    trial = Trial(0.004)
    trial.serve("main", 100)
    trial.check(100)


def test_main_thread_nested():
    trial = Trial(0.004, is_nested=True)
    trial.serve("main", 60)
    trial.check(60)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_20_000_in_threads():
    _in_threads(Trial(0.02), 10, 20_000)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_2_000_in_threads_that_take_turns_often():
    with switch_interval(1e-4):
        _in_threads(Trial(0.01), 8, 2_000)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_2_000_in_threads_nested():
    _in_threads(Trial(0.02, is_nested=True), 10, 2_000)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_20_000_in_the_main_thread():
    trial = Trial(0.0015)
    # Or the watchdog would get its turn 5 ms after the deadline, when all is over.
    with switch_interval(1e-4):
        trial.serve("main", 20_000)
    trial.check(20_000)


# asyncio


async def _app(scope, receive, send):
    until = scope["hostline.request"].deadline + scope["margin"]
    await asyncio.sleep(until - time.monotonic())
    if scope["spins"]:
        while time.monotonic() < until + _MARGIN / 5:
            pass
    await answer(send, b"o", b"k") if scope["is_stream"] else await answer(send, b"ok")


class AsgiTrial:
    def __init__(self):
        self.seen = Recorder()
        self.guard = AsgiGuard(_app, service_timeout=0.02, observers=[self.seen])
        self.rng = random.Random(1)
        self.wrong = []
        self.answers = Counter()
        self.cancelled = 0

    async def once(self, name):
        asked = scope(headers=[(b"x-request-id", b"%d" % name)])
        asked["margin"] = self.rng.uniform(-2 * _MARGIN, 2 * _MARGIN)
        asked["spins"] = self.rng.random() < 0.05
        asked["is_stream"] = self.rng.random() < 0.2
        is_cancelled_too = self.rng.random() < 0.05
        client = Client()
        task = asyncio.current_task()
        if is_cancelled_too:
            asyncio.get_running_loop().call_later(0.02 + asked["margin"], task.cancel)
        try:
            await client.ask(self.guard, asked)
            if is_cancelled_too:
                await asyncio.sleep(1)
        except asyncio.CancelledError:
            if not is_cancelled_too:
                self.wrong.append((name, "cancelled"))
            task.uncancel()
            self.cancelled += 1
        if task.cancelling():
            self.wrong.append((name, "cancelling"))
        await asyncio.sleep(0)  # what was left pending would be raised here
        state = asked["hostline.request"].state
        if not is_cancelled_too:
            expected = {State.COMPLETED: 200, State.TIMED_OUT: 504}[state]
            is_cut = (
                type(client.error) is RequestTimeoutError and client.status == 200 and not client.is_complete
            )
            if not is_cut and (client.error or client.status != expected or not client.is_complete):
                self.wrong.append((name, state, client.messages, client.error))
            self.answers["cut" if is_cut else client.status] += 1

    async def main(self, count):
        for first in itertools.count(0, 100):
            if first >= count:
                break
            await asyncio.gather(*(self.once(first + n) for n in range(100)))
        await asyncio.sleep(0.05)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        lanes = lanes_of(asyncio.get_running_loop())
        assert not lanes._odd
        assert not any(lane.entries for lane in lanes._lanes.values())


def _on_loop(make_loop, count):
    trial = AsgiTrial()
    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(trial.main(count))
    assert trial.wrong == []
    endings = trial.seen.endings()
    assert len(endings) == count
    assert set(endings.values()) == {1}
    if count >= 1000:
        assert trial.cancelled > count / 50
        assert min(trial.answers[200], trial.answers[504]) > count / 50


LOOPS = pytest.mark.parametrize("make_loop", (asyncio.new_event_loop, uvloop.new_event_loop))


@LOOPS
def test_asyncio(make_loop):
    _on_loop(make_loop, 500)


@LOOPS
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_20_000_on_asyncio(make_loop):
    _on_loop(make_loop, 20_000)


def test_nothing_of_all_this_is_left():
    assert eventually(lambda: entries_left() == 0)
