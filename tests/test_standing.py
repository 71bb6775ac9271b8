"""A thread that stays in a call which may fail: when it is woken, and when it is shot at."""

import queue
import selectors
import socket
import sqlite3
import threading
import time

import pytest

from hostline import _standing, _unblocking
from hostline._standing import Standing
from hostline._unblocking import can_wake, may_fail
from test_safepoints import Elsewhere
from timeouts import eventually


class Frame:
    """One of its own, as frames are."""

    f_lasti = 2


class Looks:
    """A thread that is looked at every millisecond, at a call with clean-up behind it."""

    def __init__(self, monkeypatch):
        self.standing = Standing()
        self.frame = Frame()
        self.now = 100.0
        self.cpu_time = 0.0
        self.woken = []
        self.can_wake = self.fails = True
        self.on_waking = lambda: None
        monkeypatch.setattr(_standing._unblocking, "may_fail", lambda frame: self.fails)
        monkeypatch.setattr(_standing._unblocking, "can_wake", lambda frame: self.can_wake)
        monkeypatch.setattr(_standing._unblocking, "unblock", self.unblock)
        monkeypatch.setattr(_standing._safepoints, "fails_into_clean_up", lambda frame: True)

    def unblock(self, frame):
        if self.can_wake:
            self.woken.append(self.now)
            self.on_waking()
        return self.can_wake

    def look(self, computes=0.0, moves=False):
        """Whether it may be shot at."""
        self.now += 0.001
        self.cpu_time += computes
        if moves:
            self.frame = Frame()
        self.standing.look(self.frame, self.cpu_time, 0.0)
        return self.standing.pause(self.frame, self.now) is None

    def looks_until_shot(self, **what):
        return next((number for number in range(1000) if self.look(**what)), None)


@pytest.fixture
def looks(monkeypatch):
    return Looks(monkeypatch)


def test_where_nothing_fails_it_is_shot_at(looks):
    looks.fails = False
    assert looks.look()
    assert not looks.standing.is_at_risk(looks.frame, 0.0)


def test_one_that_stays_is_woken_and_never_shot_at(looks):
    assert looks.looks_until_shot() is None
    assert looks.woken[0] < 100.006, "soon"
    assert looks.standing.until == looks.standing.idle_until == looks.now


def test_nor_one_that_cannot_be_woken(looks):
    looks.can_wake = False
    looks.standing.look(looks.frame, 0.0, 0.0)
    assert looks.standing.is_at_risk(looks.frame, 0.0)
    looks.standing.note_that_it_stays(looks.now)
    assert looks.looks_until_shot() is None
    assert looks.standing.is_beyond_waking


def test_one_that_runs_is_shot_at(looks):
    looks.can_wake = False
    assert looks.looks_until_shot(computes=0.001) == 0


def test_even_where_it_could_be_woken(looks):
    """But not at once: it may be seen elsewhere."""
    assert 20 < looks.looks_until_shot(moves=True) < 40
    assert not looks.woken


def test_one_that_has_been_woken_is_given_time_to_leave(looks):
    for _ in range(10):
        assert not looks.look()
    assert looks.woken
    for _ in range(10):
        assert not looks.look(computes=0.0001)
    assert 5 < looks.looks_until_shot(moves=True) < 50


def test_one_that_goes_on_each_time_is_shot_at_where_it_stays(looks):
    def go_on():
        looks.cpu_time += 0.0001

    looks.on_waking = go_on
    assert 100 < looks.looks_until_shot() < 300
    assert len(looks.woken) == _standing._WAKES
    assert not looks.standing.is_at_risk(looks.frame, looks.cpu_time)


def test_one_that_now_and_then_looks_after_its_lock_has_not_gone_on(looks):
    """SQLite, which waits for another's transaction, and cannot be interrupted in that."""
    for number in range(1000):
        assert not looks.look(computes=0.00001 if number % 100 == 50 else 0.0)


def test_one_that_waits_in_turns_is_shot_at_when_it_waits_again(looks):
    looks.can_wake = False
    looks.standing.look(looks.frame, 0.0, 0.0)
    looks.standing.note_that_it_stays(looks.now)
    for _ in range(50):
        assert not looks.look()
    assert not looks.look(computes=0.0001), "it may be on its way out by an error"
    assert looks.looks_until_shot() < 5


def test_one_that_computes_in_c_is_shot_at(looks):
    looks.can_wake = False
    looks.standing.look(looks.frame, 0.0, 0.0)
    assert not looks.standing.is_at_risk(looks.frame, 0.001)
    looks.standing.note_that_it_stays(looks.now)
    assert looks.looks_until_shot(computes=0.001) < 20
    assert not looks.standing.is_at_risk(looks.frame, 0.0)


# What may fail


def told_of(code, ready):
    """What is told of a thread that waits in this code."""
    with Elsewhere(code) as there:
        try:
            assert there.waits_in(code.__name__)
            return may_fail(there.frame), can_wake(there.frame)
        finally:
            ready()


def test_a_function_hardly_fails():
    done = time.monotonic() + 0.2

    def doze():
        while time.monotonic() < done:
            time.sleep(0.05)

    def doze_by_name(sleep=time.sleep):
        sleep(0.2)

    with Elsewhere(doze) as there:
        assert eventually(lambda: there.frame.f_code is doze.__code__)
        assert not may_fail(there.frame)
    assert told_of(doze_by_name, lambda: None) == (False, False)


def test_a_lock_does_not_fail():
    lock = threading.Lock()
    lock.acquire()

    def take():
        lock.acquire()

    assert told_of(take, lock.release) == (False, False)


@pytest.mark.parametrize("kind", (selectors.PollSelector, selectors.EpollSelector))
def test_a_selector_does_not_fail(kind):
    """Drivers that wait in turns wait here: a shot is raised when the turn is over."""
    one, other = socket.socketpair()

    def select():
        waiting.select(20)

    with one, other, kind() as waiting:
        waiting.register(one, selectors.EVENT_READ)
        assert told_of(select, lambda: other.send(b"x")) == (False, False)


def test_a_condition_does_not_fail():
    event = threading.Event()

    def wait():
        event.wait(20)

    assert told_of(wait, event.set) == (False, True)


def test_a_method_may_fail():
    items = queue.SimpleQueue()

    def get():
        items.get(timeout=20)

    assert told_of(get, lambda: items.put(1)) == (True, False)


@pytest.mark.parametrize("does_read", (True, False))
def test_a_socket_that_is_read_tells_of_its_end(does_read):
    one, other = socket.socketpair()

    def read():
        one.recv(1)

    def write():
        while True:
            one.send(b"x" * 100_000)

    def ready():
        other.close()

    def failing():
        try:
            write()
        except OSError:
            pass

    with one, Elsewhere(read if does_read else failing) as there:
        assert there.waits_in("read" if does_read else "write")
        assert may_fail(there.frame) is not does_read
        assert can_wake(there.frame)
        ready()


def test_a_statement_fails_and_can_be_woken():
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    query = "with recursive n(i) as (select 1 union all select i+1 from n) select count(*) from n"

    def execute():
        try:
            connection.execute(*[query]) if connection else None
        except sqlite3.OperationalError:
            pass

    with Elsewhere(execute) as there:
        assert there.waits_in("execute")
        assert (may_fail(there.frame), can_wake(there.frame)) == (True, True)
        assert _unblocking.unblock(there.frame)
    connection.close()


def test_what_is_not_plain_may_fail():
    items, waits = queue.SimpleQueue(), [1]

    def get():
        items.get(timeout=20 if waits else 1)

    def get_by_number():
        [None, items.get][1](True, 20)

    for code in (get, get_by_number):
        assert told_of(code, lambda: items.put(1)) == (True, False)
