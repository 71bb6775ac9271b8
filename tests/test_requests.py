"""States, ids, observers, and the thread that tells them."""

import itertools
import os
import re
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostline import _requests
from hostline._requests import (
    Reporter,
    RequestDetails,
    RequestEvent,
    State,
    clean_request_id,
    reporter,
)
from timeouts import BareRequest as Request
from timeouts import eventually, switch_interval

LEGAL = {
    State.READY: {State.ACTIVE, State.COMPLETED, State.EXPIRED, State.TIMED_OUT},
    State.ACTIVE: {State.ACTIVE, State.COMPLETED, State.TIMED_OUT},
    State.COMPLETED: set(),
    State.EXPIRED: set(),
    State.TIMED_OUT: set(),
}
FINAL = {State.COMPLETED, State.EXPIRED, State.TIMED_OUT}


def _in_state(state):
    request = Request()
    if state is not State.READY:  # as every request begins
        assert request.move_to(state)
    return request


@pytest.mark.parametrize(("before", "after"), tuple(itertools.product(State, State)))
def test_every_move(before, after):
    request = _in_state(before)
    is_legal = after in LEGAL[before]
    assert request.move_to(after) is is_legal
    assert request.state is (after if is_legal else before)
    assert (request.ended is not None) is (request.state in FINAL)


def test_states_are_rack_timeout_s():
    assert [str(state) for state in State] == ["ready", "active", "completed", "expired", "timed_out"]


@given(st.lists(st.sampled_from(State)))
def test_a_request_ends_at_most_once(moves):
    request = Request()
    made = [state for state in moves if request.move_to(state)]
    assert sum(state in FINAL for state in made) <= 1
    assert not FINAL.intersection(made[:-1])


def test_service_stands_still_once_it_has_ended():
    request = Request()
    assert request.service < request.service or eventually(lambda: request.service > 0)
    request.move_to(State.COMPLETED)
    assert request.service == request.service == request.ended - request.started


def test_a_protocol_must_say_where_the_path_and_the_id_are():
    with pytest.raises(NotImplementedError):
        _ = RequestDetails().path
    with pytest.raises(NotImplementedError):
        _ = RequestDetails().id


def test_repr():
    assert repr(Request(path="/a b")) == "<BareRequest GET '/a b' ready>"


# Ids


@pytest.mark.parametrize(
    ("given_id", "cleaned"),
    (
        ("a1b2-c3", "a1b2-c3"),
        ("a b", "ab"),
        ("a\r\nsource=hostline", "asource=hostline"),
        ("\x1b[31mred\x7f", "[31mred"),
        ("caf\xe9\u2028", "caf"),
        ("%s %d", "%s%d"),
        ("x" * 500, "x" * 128),
        (" " * 10 + "y" * 500, "y" * 128),
        ("\t\n", ""),
    ),
)
def test_clean_request_id(given_id, cleaned):
    assert clean_request_id(given_id) == cleaned


@given(st.text(max_size=600))
def test_an_id_is_fit_for_a_log(text):
    cleaned = clean_request_id(text)
    assert re.fullmatch("[!-~]{0,128}", cleaned)
    assert clean_request_id(cleaned) == cleaned


@pytest.mark.parametrize("given_id", ("", " ", "\r\n", "\u2028"))
def test_an_id_is_made_where_none_is_given(given_id):
    request = Request(given_id)
    assert re.fullmatch("[0-9a-f]{32}", request.id)
    assert request.id == request.id
    assert request.id != Request(given_id).id


def test_an_id_is_the_same_for_all_who_ask_at_once():
    """The reporter's thread reads it, and the app may in the very moment."""
    seen = []
    with switch_interval(1e-6):
        for _ in range(100):
            barrier = threading.Barrier(2)

            class Awaited(Request):
                def _raw_id(self, barrier=barrier):
                    barrier.wait(10)
                    return ""

            request = Awaited()
            ids = []
            threads = [threading.Thread(target=lambda r=request, i=ids: i.append(r.id)) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(10)
            seen.append(len({*ids, request._id}))
    assert set(seen) == {1}


# Events


def test_an_event_holds_the_request_as_it_was():
    request = Request("abc", "PUT", "/p")
    request.wait, request.timeout = 0.5, 3.0
    request.trace = [("/app.py", 7, "view")]
    event = RequestEvent.of(request, State.TIMED_OUT)
    request.move_to(State.TIMED_OUT)
    assert (event.state, event.id, event.method, event.path) == (State.TIMED_OUT, "abc", "PUT", "/p")
    assert (event.wait, event.timeout, event.term) == (0.5, 3.0, False)
    assert event.service > 0
    assert event.stack == '  File "/app.py", line 7, in view'
    with pytest.raises(AttributeError):
        event.id = "other"


@pytest.mark.parametrize("state", State)
def test_a_request_that_never_ran_has_no_service(state):
    event = RequestEvent.of(Request(), state)
    assert (event.service is None) is (state in (State.READY, State.EXPIRED))


# The reporter


def test_jobs_are_done_in_order_and_in_another_thread():
    done = []
    for number in range(100):
        reporter.submit(lambda number=number: done.append((number, threading.get_ident())))
    assert reporter.flush(20)
    assert [number for number, _ in done] == list(range(100))
    assert {ident for _, ident in done} != {threading.get_ident()}
    assert len({ident for _, ident in done}) == 1


def test_a_job_that_fails_costs_no_other(caplog):
    done = []
    reporter.submit(lambda: 1 // 0)
    reporter.submit(lambda: done.append(1))
    assert reporter.flush(20)
    assert done == [1]
    assert caplog.records[0].exc_info[0] is ZeroDivisionError


def test_flush_gives_up_in_time():
    gate = threading.Event()
    reporter.submit(lambda: gate.wait(20))
    assert not reporter.flush(0.01)
    gate.set()
    assert reporter.flush(20)


def test_no_job_is_lost_at_the_start():
    """A second thread that submits while the first one starts the reporter."""
    done = []

    class Watched(Reporter):
        def __setattr__(self, name, value):
            super().__setattr__(name, value)
            if name == "_pid" and value:  # the moment from which others take it for started
                other = threading.Thread(target=self.submit, args=(lambda: done.append("other's"),))
                other.start()
                other.join(0.3)  # with a lock in the way it ends later

    fresh = Watched()
    fresh.submit(lambda: done.append("own"))
    assert eventually(lambda: len(done) == 2, within=2), done


def test_where_no_thread_can_be_started_a_job_is_done_at_once(monkeypatch):
    def out_of_threads(run, args):
        raise RuntimeError("can't start new thread")

    done = []
    fresh = Reporter()
    with monkeypatch.context() as patch:
        patch.setattr(_requests, "start_native_thread", out_of_threads)
        fresh.submit(lambda: done.append(threading.get_ident()))
        fresh.submit(lambda: 1 / 0)  # which is not its caller's affair
    assert done == [threading.get_ident()]
    fresh.submit(lambda: done.append(threading.get_ident()))
    assert fresh.flush(20)
    assert done[1] != done[0]


def test_threads_that_start_it_together():
    barrier = threading.Barrier(8)
    done = []
    fresh = Reporter()

    def submit():
        barrier.wait(10)
        fresh.submit(lambda: done.append(threading.get_ident()))

    threads = [threading.Thread(target=submit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert fresh.flush(20)
    assert len(done) == 8
    assert len(set(done)) == 1, "two reporters"


@pytest.mark.filterwarnings(
    "ignore:This process:DeprecationWarning"
)  # fork() with threads: that is the point
def test_a_child_reports_its_own_and_not_its_parent_s():
    gate = threading.Event()
    told = []
    reporter.submit(lambda: gate.wait(20))
    reporter.submit(lambda: told.append("parent's"))
    pid = os.fork()
    if pid == 0:  # nothing of pytest's may run in here
        reporter.submit(lambda: told.append("child's"))
        os._exit(0 if reporter.flush(10) and told == ["child's"] else 1)
    gate.set()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert reporter.flush(20)
    assert told == ["parent's"]


def test_a_job_cannot_end_the_reporter():
    done = []
    mine = Reporter()
    mine.submit(sys.exit)
    mine.submit(lambda: done.append(True))
    assert mine.flush(20)
    assert done == [True]


def test_a_reporter_that_is_stuck_says_so(monkeypatch):
    monkeypatch.setattr(_requests, "_MOST_JOBS", 2)
    go_on = threading.Event()
    mine = Reporter()
    assert mine.submit(go_on.wait)
    assert eventually(lambda: mine._jobs.qsize() == 0)
    assert [mine.submit(int) for _ in range(3)] == [True, True, False]
    go_on.set()
    assert eventually(lambda: mine._jobs.qsize() == 0)
