"""Who is told, and what becomes of an observer that raises, is slow, blocks or ends."""

import os
import subprocess
import sys
import textwrap
import threading

import pytest

from hostline import _observers
from hostline._observers import MOST_WAITING, Observers
from hostline._requests import RequestDetails, State
from hostline.wsgi import RequestTimeoutMiddleware
from timeouts import LONG, SHORT, Recorder, environ, eventually, hello, serve, slow
from timeouts import BareRequest as Request


def test_all_are_told_the_same_event_in_order():
    first, second = Recorder(), Recorder()
    observers = Observers([first, second])
    observers.tell(Request(), State.READY)
    observers.tell(Request(), State.COMPLETED)
    assert [event.state for event in first.events] == [State.READY, State.COMPLETED]
    assert all(one is other for one, other in zip(first.events, second.events, strict=True))


def broken(event):
    raise ValueError("a defect of the user's")


def broken_at_once(event):
    raise ValueError("a defect of the user's")


broken_at_once.is_immediate = True


@pytest.mark.parametrize("broken", (broken, broken_at_once))
def test_one_that_raises_is_logged_and_skipped(broken, caplog):
    recorder = Recorder()
    observers = Observers([broken, recorder])
    observers.tell(Request(), State.COMPLETED)
    assert observers.flush(20)
    assert [event.state for event in recorder.events] == [State.COMPLETED]
    (record,) = caplog.records
    assert record.exc_info[0] is ValueError
    assert "broken" in record.getMessage()


class Choosy(Recorder):
    def __init__(self, *wanted):
        super().__init__()
        self.wanted = wanted

    def wants(self, state):
        return state in self.wanted


def test_an_observer_hears_what_it_wants():
    choosy, greedy = Choosy(State.TIMED_OUT), Recorder()
    observers = Observers([choosy, greedy])
    observers.tell(Request(), State.COMPLETED)
    observers.tell(Request(), State.TIMED_OUT)
    assert [event.state for event in choosy.events] == [State.TIMED_OUT]
    assert [event.state for event in greedy.events] == [State.COMPLETED, State.TIMED_OUT]


def test_where_nobody_wants_a_state_no_event_is_made():
    request = RequestDetails()  # which cannot answer anything that an event asks
    Observers([Choosy(State.EXPIRED)]).tell(request, State.COMPLETED)
    Observers([]).tell(request, State.COMPLETED)


class Unsure(Recorder):
    def wants(self, state):
        raise ValueError("a defect of the user's")


def test_one_whose_wants_raises_is_logged_and_skipped(caplog):
    recorder = Recorder()
    Observers([Unsure(), recorder]).tell(Request(), State.COMPLETED)
    assert [event.state for event in recorder.events] == [State.COMPLETED]
    assert len(caplog.records) == 1


@pytest.mark.parametrize("others", ((), (Recorder(),)))
def test_one_whose_wants_raises_is_isolated_before_a_request_too(others):
    assert Observers([Unsure(), *others]).are_attentive() in (True, False)


@pytest.mark.parametrize(
    ("observers", "attentive"),
    (
        ((), False),
        ((Recorder(),), True),
        ((Choosy(State.READY),), True),
        ((Choosy(State.COMPLETED),), True),
        ((Choosy(State.ACTIVE),), True),
        ((Choosy(State.TIMED_OUT, State.EXPIRED),), False),
        ((Choosy(), Choosy(State.COMPLETED)), True),
        ((Choosy(), Choosy()), False),
    ),
)
def test_are_attentive(observers, attentive):
    assert Observers(observers).are_attentive() is attentive
    assert bool(Observers(observers)) is bool(observers)


def test_a_lone_observer_may_answer_that_itself():
    class Asleep(Recorder):
        def is_attentive(self):
            return False

    assert Observers([Asleep()]).are_attentive() is False
    assert Observers([Asleep(), Recorder()]).are_attentive() is True


# Isolation


class Stuck:
    """An observer that blocks, until the test is over."""

    def __init__(self):
        self.gate = threading.Event()
        self.told = []
        self.threads = set()

    def __call__(self, event):
        self.threads.add(threading.get_ident())
        assert self.gate.wait(60)
        self.told.append(event)


@pytest.fixture
def stuck():
    made = Stuck()
    yield made
    made.gate.set()


def test_an_observer_that_blocks_harms_neither_the_request_nor_the_next_observer(stuck):
    seen = Recorder()
    guard = RequestTimeoutMiddleware(hello, service_timeout=LONG, observers=[stuck, seen])
    for _ in range(3):
        assert serve(guard).status == 200
    assert seen.states == ["ready", "completed"] * 3
    assert stuck.told == []
    stuck.gate.set()
    assert guard.observers.flush(20)
    assert stuck.told == seen.events
    assert len(stuck.threads) == 1
    assert threading.get_ident() not in stuck.threads


def test_an_observer_that_blocks_keeps_no_deadline_from_coming(stuck):
    guard = RequestTimeoutMiddleware(slow, service_timeout=SHORT, observers=[stuck])
    assert [serve(guard).status for _ in range(3)] == [504] * 3


def test_what_does_not_fit_is_dropped_and_counted(stuck, caplog):
    observers = Observers([stuck])
    observers.tell(Request(), State.READY)
    assert eventually(lambda: stuck.threads), "it has taken the first one"
    for _ in range(MOST_WAITING + 5):
        observers.tell(Request(), State.COMPLETED)
    (mailbox,) = (each.mailbox for each in observers._observers)
    assert mailbox.dropped == 5
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "too slow: 1 events so far were not told" in record.getMessage()
    stuck.gate.set()
    assert observers.flush(20)
    assert len(stuck.told) == 1 + MOST_WAITING


def test_flush_gives_up_in_time(stuck):
    observers = Observers([stuck])
    assert observers.flush(0)
    observers.tell(Request(), State.READY)
    assert not observers.flush(0.01)


class Ending(BaseException):
    """Ends the thread that it is raised in."""


def test_an_observer_that_ends_its_thread_is_told_of_what_comes_next():
    told = []

    def observer(event):
        told.append(event.state)
        if event.state is State.READY:
            raise Ending

    observers = Observers([observer])
    (mailbox,) = (each.mailbox for each in observers._observers)
    observers.tell(Request(), State.READY)
    assert eventually(lambda: told and not mailbox._queues)
    observers.tell(Request(), State.COMPLETED)
    assert observers.flush(20)
    assert told == [State.READY, State.COMPLETED]


def test_an_observer_cannot_leave_the_process():
    told = []
    observers = Observers([lambda event: (told.append(event.state), sys.exit(1))])
    for state in (State.READY, State.COMPLETED):
        observers.tell(Request(), state)
    assert observers.flush(20)
    assert told == [State.READY, State.COMPLETED]


class Killed(BaseException):
    """As gevent's, by which a greenlet is ended from outside."""


def test_what_a_thread_that_was_ended_has_not_told_is_counted():
    told, go_on = [], threading.Event()

    def observer(event):
        told.append(event.state)
        assert go_on.wait(20)
        raise Killed

    observers = Observers([observer])
    (mailbox,) = (each.mailbox for each in observers._observers)
    observers.tell(Request(), State.READY)
    assert eventually(lambda: told)
    for _ in range(5):
        observers.tell(Request(), State.COMPLETED)
    go_on.set()
    assert eventually(lambda: mailbox.dropped == 5)
    observers.tell(Request(), State.TIMED_OUT)
    assert eventually(lambda: told == [State.READY, State.TIMED_OUT])


def test_one_that_cannot_say_what_it_wants_is_told_all():
    seen = []
    observers = Observers([seen.append, Choosy()])
    assert observers.are_attentive()
    assert all(observers.want(state) for state in State)


def test_where_no_thread_can_be_started_the_next_event_tries_again(monkeypatch, caplog):
    def no_start(self):
        raise RuntimeError("can't start new thread")

    seen = []
    observers = Observers([seen.append])
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_start)
        observers.tell(Request(), State.READY)
    assert len(caplog.records) == 1
    observers.tell(Request(), State.COMPLETED)
    assert observers.flush(20)
    assert [event.state for event in seen] == [State.COMPLETED]


def test_who_comes_second_finds_it_started():
    (mailbox,) = (each.mailbox for each in Observers([lambda event: None])._observers)
    assert mailbox._start() is mailbox._start()


def test_many_who_start_it_at_once_start_one():
    for _ in range(50):
        threads, gate = set(), threading.Barrier(4)
        observers = Observers([lambda event, threads=threads: threads.add(threading.get_ident())])

        def tell(observers=observers, gate=gate):
            gate.wait(20)
            observers.tell(Request(), State.READY)

        tellers = [threading.Thread(target=tell) for _ in range(4)]
        for teller in tellers:
            teller.start()
        for teller in tellers:
            teller.join(20)
        assert observers.flush(20)
        assert len(threads) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_tells_its_own_events_and_none_of_its_parent(tmp_path):
    out = tmp_path / "told"
    program = """
        import os, sys, threading
        from hostline._observers import Observers
        from hostline._requests import State
        from timeouts import BareRequest as Request

        gate = threading.Event()

        def observer(event):
            gate.wait(20)
            with open(sys.argv[1], "a") as told:
                told.write(f"{event.id} {'parent' if os.getpid() == parent else 'child'}\\n")

        parent = os.getpid()
        observers = Observers([observer])
        observers.tell(Request("first"), State.READY)
        child = os.fork()
        gate.set()
        if child == 0:
            observers.tell(Request("second"), State.READY)
            assert observers.flush(20)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        observers.tell(Request("third"), State.READY)
    """
    _run(program, str(out))
    assert sorted(out.read_text().split("\n")) == ["", "first parent", "second child", "third parent"]


def _run(program, *args):
    paths = os.pathsep.join([*sys.path])
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *args],
        check=True,
        env={**os.environ, "PYTHONPATH": paths},
        timeout=50,
    )


def test_what_is_waiting_at_the_end_of_the_process_is_told(tmp_path):
    out = tmp_path / "told"
    program = """
        import sys, time
        from hostline.wsgi import RequestTimeoutMiddleware
        from timeouts import environ, hello, serve, slow

        def observer(event):
            time.sleep(0.01)
            with open(sys.argv[1], "a") as told:
                told.write(f"{event.state} ")

        serve(RequestTimeoutMiddleware(hello, observers=[observer]))
        serve(RequestTimeoutMiddleware(slow, service_timeout=0.01, observers=[observer]))
    """
    _run(program, str(out))
    assert sorted(out.read_text().split()) == ["completed", "ready", "ready", "timed_out"]


@pytest.mark.slow
def test_an_observer_that_never_returns_keeps_no_process_from_ending():
    program = """
        import threading
        from hostline._observers import Observers
        from hostline._requests import State
        from timeouts import BareRequest as Request

        observers = Observers([lambda event: threading.Event().wait()])
        observers.tell(Request(), State.READY)
    """
    _run(program)


def test_last_words_take_no_longer_than_they_may(stuck, monkeypatch):
    monkeypatch.setattr(_observers, "LAST_WORDS", 0.01)
    observers = [Observers([stuck]) for _ in range(3)]
    for each in observers:
        each.tell(Request(), State.READY)
    _observers._last_words()
    assert stuck.told == []


class Attached(Recorder):
    """A sink that belongs to the context of its requests."""

    is_immediate = True

    def __init__(self, fault=None):
        super().__init__()
        self.fault = fault
        self.calls = []

    def meet(self, request):
        self._note("met", request)

    def note_timeout(self, request):
        self._note("noted", request)

    def _note(self, what, request):
        self.calls.append((what, request.path, threading.get_ident()))
        if self.fault:
            raise self.fault


@pytest.mark.parametrize("fault", (None, ValueError("a defect of the sink's")))
def test_a_sink_meets_the_request_and_notes_its_timeout_in_its_own_thread(fault, caplog):
    sink = Attached(fault)
    here = threading.get_ident()
    for app, limit in ((hello, LONG), (slow, SHORT)):
        guarded = RequestTimeoutMiddleware(app, observers=sink, service_timeout=limit)
        served = serve(guarded)
    assert served.status == 504
    assert sink.calls == [("met", "/", here), ("met", "/", here), ("noted", "/", here)]
    failed = [record for record in caplog.records if "Attached" in record.getMessage()]
    assert len(failed) == (3 if fault else 0)


def test_a_timeout_is_noted_before_its_answer_goes_out_and_once():
    sink = Attached()
    order = []
    sink.note_timeout = lambda request: order.append("noted")
    app = RequestTimeoutMiddleware(
        RequestTimeoutMiddleware(slow, observers=sink, service_timeout=SHORT),
        service_timeout=LONG,
        observers=sink,
    )

    def start_response(status, headers, exc_info=None):
        order.append(status)

    app(environ(), start_response)
    assert order == ["noted", "504 Gateway Timeout"]
