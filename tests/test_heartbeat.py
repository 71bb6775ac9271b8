"""`active`: once a second, for whoever wants to hear of it, and nothing at all for nobody."""

import logging

import anyio
import pytest

from hostline import _heartbeat, _observers
from hostline._heartbeat import Heartbeat, heartbeat
from hostline._observers import Observers
from hostline._requests import State, reporter
from hostline.asgi import RequestTimeoutMiddleware as AsgiGuard
from hostline.observers.logging import log
from hostline.wsgi import RequestTimeoutMiddleware as WsgiGuard
from timeouts import LONG, SHORT, BareRequest, Client, Recorder, answer, eventually, hello, serve, slow


class OfBeats(Recorder):
    """Wants `active` alone."""

    def wants(self, state):
        return state is State.ACTIVE


class OfAll(Recorder):
    def wants(self, state):
        return True


class ByHand(Heartbeat):
    """Beats when it is told to, so that no sweep of its own comes in between."""

    def _plan(self):
        pass

    def sweep(self):
        self._sweep()
        assert reporter.flush(20)


@pytest.fixture
def by_hand(monkeypatch):
    made = ByHand()
    monkeypatch.setattr(_observers, "heartbeat", made)
    return made


def _running_for(seconds):
    request = BareRequest()
    request.started -= seconds
    return request


def test_who_runs_is_told_at_each_sweep_and_who_has_ended_is_not(by_hand):
    told = OfBeats()
    observers = Observers([told])
    request, other = _running_for(1), _running_for(1)
    observers.begin(request, {})
    observers.begin(other, {})
    by_hand.sweep()
    other.end(State.COMPLETED)
    by_hand.sweep()
    assert [event.id for event in told.events] == [request.id, other.id, request.id]
    assert {event.state for event in told.events} == {"active"}
    assert min(event.service for event in told.events) >= 1
    assert request.state is State.ACTIVE
    request.end(State.TIMED_OUT)
    assert not by_hand.entries
    by_hand.sweep()
    assert len(told.events) == 3


def test_who_has_just_begun_is_left_for_the_next_sweep(by_hand):
    told = OfBeats()
    request = BareRequest()
    Observers([told]).begin(request, {})
    by_hand.sweep()
    assert told.events == []
    assert request.state is State.READY
    request.started -= 1
    by_hand.sweep()
    assert [event.state for event in told.events] == [State.ACTIVE]
    request.end(State.COMPLETED)


def test_one_that_ends_in_the_moment_stays_ended():
    told = OfBeats()
    request = _running_for(1)
    request.end(State.COMPLETED)
    _heartbeat._beat(request, Observers([told]).tell)
    assert told.events == []
    assert request.state is State.COMPLETED


def test_nobody_is_entered_whom_nobody_wants_to_hear_of(by_hand, caplog):
    request = BareRequest()
    with caplog.at_level(logging.INFO, "hostline"):
        Observers([Recorder(), log]).begin(request, {})
    assert not by_hand.entries
    assert request.on_end is not None, "it knows its route"


def test_what_is_to_be_done_at_the_end_is_done_in_order():
    done = []
    request = BareRequest()
    for number in range(3):
        request.at_end(lambda number=number: done.append(number))
    request.end(State.COMPLETED)
    assert done == [0, 1, 2]
    assert request.on_end is None


def test_a_child_has_none_of_its_parent_s(by_hand):
    request = _running_for(1)
    Observers([OfBeats()]).begin(request, {})
    assert by_hand.entries
    assert not by_hand.survives_fork()
    by_hand.after_fork()
    assert not by_hand.entries
    request.end(State.COMPLETED)


def test_one_whom_nobody_wants_to_hear_of_any_more_is_not_told(by_hand, caplog):
    request = _running_for(1)
    with caplog.at_level(logging.DEBUG, "hostline"):
        Observers([log]).begin(request, {})
        by_hand.sweep()
    with caplog.at_level(logging.INFO, "hostline"):
        by_hand.sweep()
    assert [line.partition("state=")[2] for line in caplog.messages] == ["ready", "active"]
    request.end(State.COMPLETED)


@pytest.mark.slow
def test_a_thread_s_request_is_active():
    told = OfAll()

    def app(environ, start_response):
        assert eventually(lambda: sum(event.state is State.ACTIVE for event in told.events) >= 2)
        return hello(environ, start_response)

    assert serve(WsgiGuard(app, service_timeout=LONG, observers=told)).status == 200
    states = told.states
    assert (states[0], states[-1]) == ("ready", "completed")
    assert set(states[1:-1]) == {"active"}
    assert not heartbeat.entries


async def _wait_for_beats(told, count):
    while sum(event.state is State.ACTIVE for event in told.events) < count:  # noqa: ASYNC110 - by a thread
        await anyio.sleep(0.01)


@pytest.mark.slow
def test_a_loop_s_request_is_active(run):
    told = OfAll()

    async def app(scope, receive, send):
        await _wait_for_beats(told, 2)
        await answer(send, b"hello")

    assert run(Client().ask(AsgiGuard(app, service_timeout=LONG, observers=told))).status == 200
    assert set(told.states[1:-1]) == {"active"}
    assert told.states[-1] == "completed"
    assert not heartbeat.entries


@pytest.mark.slow
def test_the_log_at_debug_has_a_line_for_each_beat(caplog):
    def app(environ, start_response):
        assert eventually(lambda: any("state=active" in message for message in caplog.messages))
        return hello(environ, start_response)

    with caplog.at_level(logging.DEBUG, "hostline"):
        serve(WsgiGuard(app, service_timeout=LONG))
    (line, *_) = [record for record in caplog.records if "state=active" in record.getMessage()]
    assert line.levelname == "DEBUG"


def test_an_aborted_request_leaves_the_heartbeat():
    told = OfBeats()
    assert serve(WsgiGuard(slow, service_timeout=SHORT, observers=told)).status == 504
    assert eventually(lambda: not heartbeat.entries)


def test_a_sweep_that_the_reporter_does_not_take_is_called_for_again(monkeypatch):
    """Its queue is full just then; nobody is to be forgotten for that."""
    planned = []
    beats = Heartbeat()
    monkeypatch.setattr(beats, "_plan", lambda: planned.append(True))
    monkeypatch.setattr(_heartbeat.reporter, "submit", lambda job: False)
    beats.expire()
    assert planned == [True]
