"""Lanes and who lets their entries expire: the watchdog in threads, the timers of a loop."""

import asyncio
import ctypes
import heapq
import itertools
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
from functools import partial
from math import inf
from pathlib import Path

import pytest
import uvloop

from hostline import _deadlines, _loop_deadlines
from hostline._deadlines import Watchdog
from hostline._loop_deadlines import LoopLanes, lanes_of
from timeouts import eventually, switch_interval

pytestmark = pytest.mark.timed


class Entry:
    """One that counts how often it has expired, and how late."""

    def __init__(self, timeout=0.0):
        self.deadline = time.monotonic() + timeout
        self.expired_at = []
        self.in_thread = None
        self.owner = threading.get_ident()

    def survives_fork(self):
        return self.owner == threading.get_ident()

    def expire(self):
        self.in_thread = threading.get_ident()
        self.expired_at.append(time.monotonic())


@pytest.fixture
def dog():
    """A watchdog of the test's own, put to rest at the end."""
    dog = Watchdog()
    yield dog
    dog._pid = -1
    dog.rouse = None  # nobody may start it again
    if dog._wake.locked():
        dog._wake.release()


def enter(dog, lane, entry):
    """As a request does it."""
    lane.entries[entry] = True
    if not lane.earliest <= entry.deadline <= lane.latest:
        dog.rouse()
    return lane.entries


# The watchdog


def test_a_lane_for_each_timeout(dog):
    assert dog.lane(15) is dog.lane(15.0)
    assert dog.lane(15) is not dog.lane(16)


def test_no_thread_before_the_first_entry():
    program = """
        import os, hostline.wsgi, hostline.asgi
        from hostline._deadlines import watchdog
        hostline.wsgi.RequestTimeoutMiddleware(print, service_timeout=1)
        assert len(os.listdir("/proc/self/task")) == 1
    """
    assert _run(program) == ""


def test_an_entry_of_a_lane_expires_once_at_its_deadline(dog):
    entry = Entry(0.02)
    claims = enter(dog, dog.lane(0.02), entry)
    assert eventually(lambda: entry.expired_at)
    assert entry.expired_at[0] >= entry.deadline
    assert entry.in_thread != threading.get_ident()
    assert claims.pop(entry, False) is False


def test_an_entry_that_has_left_does_not_expire(dog):
    lane = dog.lane(0.02)
    gone, stays = Entry(0.02), Entry(0.02)
    assert enter(dog, lane, gone).pop(gone, False) is True
    enter(dog, lane, stays)
    assert eventually(lambda: stays.expired_at)
    assert not gone.expired_at


def test_oldest_first(dog):
    order = []
    lane = dog.lane(0.02)
    for number in range(600):  # more than the watchdog takes in one piece
        entry = Entry(0.02)
        entry.expire = partial(order.append, number)
        enter(dog, lane, entry)
    assert eventually(lambda: len(order) == 600)
    assert order == sorted(order)


def test_one_that_entered_late_is_let_expire_late_and_never_early(dog):
    """A thread that had read the clock was held up, and a younger one went first."""
    lane = dog.lane(0.1)
    younger, older = Entry(0.1), Entry(0.02)
    enter(dog, lane, younger)
    enter(dog, lane, older)
    assert eventually(lambda: younger.expired_at and older.expired_at)
    assert older.expired_at[0] >= older.deadline


def test_an_earlier_deadline_wakes_the_watchdog(dog):
    late, early = Entry(60), Entry(0.05)
    enter(dog, dog.lane(60), late)
    assert eventually(lambda: dog._plan < inf)  # it has looked, and sleeps for a minute
    enter(dog, dog.lane(0.05), early)
    assert eventually(lambda: early.expired_at, within=10)
    assert not late.expired_at


def test_an_earlier_odd_deadline_wakes_the_watchdog(dog):
    late, early = Entry(60), Entry(0.05)
    dog.at(late, late.deadline)
    assert eventually(lambda: dog._plan < inf)
    dog.at(early, early.deadline)
    assert eventually(lambda: early.expired_at, within=10)
    assert not late.expired_at


def test_a_later_odd_deadline_lets_it_sleep(dog):
    early, late = Entry(60), Entry(90)
    dog.at(early, early.deadline)
    assert eventually(lambda: dog._plan < inf)
    plan = dog._plan
    dog.at(late, late.deadline)
    assert dog._plan == plan


def test_odd_deadlines_expire_in_the_order_of_their_deadlines(dog):
    order = []
    for number, timeout in enumerate((0.06, 0.02, 0.04)):
        entry = Entry(timeout)
        entry.expire = partial(order.append, number)
        dog.at(entry, entry.deadline)
    assert eventually(lambda: len(order) == 3)
    assert order == [1, 2, 0]


def test_an_odd_entry_that_has_left_does_not_expire(dog):
    gone, stays = Entry(0.02), Entry(0.03)
    assert dog.at(gone, gone.deadline).pop(gone, False) is True
    dog.at(stays, stays.deadline)
    assert eventually(lambda: stays.expired_at)
    assert not gone.expired_at


def test_infinity_never_comes_but_can_be_left(dog):
    entry = Entry()
    claims = dog.at(entry, inf)
    assert claims.pop(entry, False) is True
    assert claims.pop(entry, False) is False


def test_one_that_fails_to_expire_costs_the_others_nothing(dog, caplog):
    lane = dog.lane(0.02)
    broken, sound = Entry(0.02), Entry(0.02)
    broken.expire = lambda: 1 // 0
    enter(dog, lane, broken)
    enter(dog, lane, sound)
    assert eventually(lambda: sound.expired_at)
    assert caplog.records[0].exc_info[0] is ZeroDivisionError


def test_a_round_that_fails_is_not_the_last(dog, caplog):
    class Broken(Entry):
        @property
        def deadline(self):
            if len(reads) < 2:
                reads.append(1)
                raise ZeroDivisionError
            return 0.0

        @deadline.setter
        def deadline(self, value):
            pass

    reads = []
    entry = Broken()
    lane = dog.lane(0.02)
    lane.entries[entry] = True
    assert eventually(lambda: dog.rouse() or entry.expired_at)  # it would sleep for a second, else
    assert caplog.records[0].exc_info[0] is ZeroDivisionError


def test_a_watchdog_that_could_not_be_started_is_started_by_the_next():
    """Out of threads for a moment is not out of deadlines for ever.

    In a process of its own: after such a failure CPython 3.11 knows two threads of this
    one's identity, and exceptions sent to it go to the one that never was.
    """
    program = """
        import threading
        from hostline._deadlines import Watchdog
        from timeouts import eventually
        from test_deadlines import Entry, enter
        dog = Watchdog()
        threading.stack_size(1 << 46)
        enter(dog, dog.lane(0.02), Entry(0.02))
        assert dog._pid == 0
        threading.stack_size(0)
        enter(dog, dog.lane(0.02), again := Entry(0.02))
        assert eventually(lambda: again.expired_at)
    """
    _run(program)


def test_a_failure_to_start_is_logged_once_and_tried_again(dog, monkeypatch, caplog):
    """No request has to fail because nobody can guard it."""

    def out_of_threads(run, args):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(_deadlines, "start_native_thread", out_of_threads)
        dog.rouse()
        dog.rouse()
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "can't start new thread" in caplog.text
    entry = Entry(0.02)
    enter(dog, dog.lane(0.02), entry)
    assert eventually(lambda: entry.expired_at)


def test_a_watchdog_that_dies_has_a_successor(dog):
    """Of what nobody foresaw: found out with a process that had no memory left, not even for the log."""

    class Fatal(Entry):
        def expire(self):
            raise SystemExit  # by which a thread ends without a word

    fatal = Fatal()
    dog.at(fatal, fatal.deadline)
    assert eventually(lambda: dog._pid == 0)
    for enters in (
        lambda entry: dog.at(entry, entry.deadline),
        lambda entry: enter(dog, dog.lane(0.02), entry),
    ):
        entry = Entry(0.02)
        enters(entry)
        assert eventually(lambda: entry.expired_at)  # noqa: B023 - within the loop


def test_a_failure_that_cannot_be_logged_costs_no_other_its_deadline(dog):
    class NoMemory(logging.Handler):
        def handle(self, record):
            raise MemoryError

    class Failing(Entry):
        def expire(self):
            raise MemoryError

    handler = NoMemory()
    logging.getLogger("hostline").addHandler(handler)
    try:
        failing, entry = Failing(), Entry()
        dog.lane(0.02).entries.update({failing: True, entry: True})
        dog.rouse()
        assert eventually(lambda: entry.expired_at)
        assert dog._pid == os.getpid()
    finally:
        logging.getLogger("hostline").removeHandler(handler)


def test_exactly_one_claim_of_many_threads(dog):
    """Each entry is popped by the watchdog and by three threads at its deadline."""
    lane = dog.lane(0.005)
    wins = []
    barrier = threading.Barrier(3)
    entries = []

    def finish(index):
        for number in range(100):
            barrier.wait(20)
            if index == 0:
                entries.append(Entry(0.005))
                enter(dog, lane, entries[-1])
            barrier.wait(20)
            entry = entries[number]
            while time.monotonic() < entry.deadline:
                pass
            if lane.entries.pop(entry, False):
                wins.append(entry)

    threads = [threading.Thread(target=finish, args=(index,)) for index in range(3)]
    with switch_interval(1e-5):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert len(entries) == 100
    for entry in entries:
        assert eventually(lambda entry=entry: wins.count(entry) + len(entry.expired_at) == 1)
    assert not lane.entries


def test_many_threads_that_come_and_go_lose_no_deadline(dog):
    """Every entry that is not left expires, however busy the lanes are."""
    left, expired = [], []

    def work(index):
        lanes = [dog.lane(0.01), dog.lane(0.013)]
        for number in range(400):
            entry = Entry(0.01 if number % 2 else 0.013)
            claims = enter(dog, lanes[0 if number % 2 else 1], entry)
            if number % 7 == index % 7:
                expired.append(entry)
            elif claims.pop(entry, False):
                left.append(entry)
            else:
                expired.append(entry)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(6)]
    with switch_interval(1e-5):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert len(left) + len(expired) == 2400
    assert eventually(lambda: all(len(entry.expired_at) == 1 for entry in expired))
    assert not any(entry.expired_at for entry in left)


@pytest.mark.slow
def test_a_hundred_thousand_due_at_once(dog):
    lane = dog.lane(2.0)
    deadline = time.monotonic() + 2.0
    entries = []
    for _ in range(100_000):
        entry = Entry()
        entry.deadline = deadline
        entries.append(entry)
        enter(dog, lane, entry)
    assert eventually(lambda: not lane.entries and entries[-1].expired_at, within=30)
    assert all(len(entry.expired_at) == 1 for entry in entries)
    assert max(entry.expired_at[0] for entry in entries) - max(deadline, entries[0].expired_at[0]) < 5


# Forks


def _exit_status(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _in_child(check, fork=os.fork):
    """The answer of ``check`` in a forked child, 1 for an error."""
    pid = fork()
    if pid == 0:
        status = 1
        try:
            status = check()
        finally:
            os._exit(status)
    return _exit_status(pid)


forks = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # threads: that is the point


@forks
def test_a_deadline_after_a_fork_comes_once_in_each_process(monkeypatch):
    dog = _deadlines.watchdog
    lane = dog.lane(0.4)
    before = Entry(0.4)
    other = Entry(0.4)
    other.owner = -1
    odd = Entry(0.4)
    odd.owner = -1
    enter(dog, lane, other)
    enter(dog, lane, before)
    dog.at(odd, odd.deadline)
    assert eventually(lambda: dog._plan < inf)

    def check():
        if list(lane.entries) != [before] or odd in dog._odd:
            return 2
        mine = Entry(0.05)
        enter(dog, dog.lane(0.05), mine)
        if not eventually(lambda: mine.expired_at, within=10):
            return 3
        # The request that forked goes on in both, and once the child has a watchdog of its
        # own, its deadline comes in both.
        if not eventually(lambda: before.expired_at, within=10):
            return 4
        odd_here = Entry(0.05)
        dog.at(odd_here, odd_here.deadline)
        if not eventually(lambda: odd_here.expired_at, within=10):
            return 5
        once = [mine, before, odd_here]
        return (
            0
            if [len(e.expired_at) for e in once] == [1, 1, 1] and not other.expired_at + odd.expired_at
            else 6
        )

    assert _in_child(check) == 0
    assert eventually(lambda: before.expired_at and other.expired_at and odd.expired_at)
    assert [len(entry.expired_at) for entry in (before, other, odd)] == [1, 1, 1]


@forks
def test_a_fork_with_the_watchdog_s_lock_held():
    """Another thread may be in the middle of anything."""
    dog = _deadlines.watchdog

    def check():
        entry = Entry(0.02)
        dog.at(entry, entry.deadline)
        return 0 if eventually(lambda: entry.expired_at, within=10) else 2

    with dog._lock():
        pid = os.fork()
        if pid == 0:
            os._exit(check())
    assert _exit_status(pid) == 0


def test_what_a_child_s_watchdog_keeps(dog):
    """The same, looked at in this process: a child's coverage is not collected."""
    lane = dog.lane(60)
    mine, other, odd = Entry(60), Entry(60), Entry(60)
    other.owner = odd.owner = -1
    enter(dog, lane, mine)
    enter(dog, lane, other)
    dog.at(odd, odd.deadline)
    wake = dog._wake
    dog.after_fork()
    assert list(lane.entries) == [mine]
    assert not dog._odd
    if wake.locked():
        wake.release()  # the thread that a child would not have ends
    new = Entry(0.02)
    enter(dog, dog.lane(0.02), new)
    assert eventually(lambda: new.expired_at)


def test_a_watchdog_of_another_process_is_replaced(dog):
    """What a fork without hooks looks like from within."""
    enter(dog, dog.lane(0.02), first := Entry(0.02))
    assert eventually(lambda: first.expired_at)
    wake = dog._wake
    dog._pid = 1
    enter(dog, dog.lane(0.03), entry := Entry(0.03))
    assert dog._wake is not wake
    if wake.locked():
        wake.release()
    assert eventually(lambda: entry.expired_at)


def test_a_dict_that_changes_while_it_is_read():
    class Restless(dict):
        def __iter__(self):
            if not changes:
                changes.append(1)
                iterator = super().__iter__()
                self["more"] = True
                return iterator
            return super().__iter__()

    changes = []
    assert _deadlines.first(Restless(one=True), 5) == ["one", "more"]


def _run(program):
    """What a program writes to stderr; it must end well."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=50,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([*filter(None, sys.path), str(Path(__file__).parent)]),
        },
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr


_SILENT_FORK = """
    import ctypes, os, signal, sys, threading, time, types
    sys.modules["uwsgi"] = types.ModuleType("uwsgi")
    from hostline._deadlines import watchdog as dog
    from timeouts import eventually
    from test_deadlines import Entry, enter
    libc_fork = ctypes.PyDLL(None).fork  # runs none of Python's hooks, as uWSGI's
    def fork():
        # A thread that waits for the interpreter's lock at this moment would leave the child a
        # lock that is broken, which nobody's hooks can mend. So only while the watchdog sleeps.
        for _ in range(30):
            time.sleep(0.001)
        pid = libc_fork()
        if pid == 0:
            signal.alarm(20)  # whatever happens, it ends
        return pid
    lane = dog.lane(0.2)
    enter(dog, lane, first := Entry(0.2))
    assert eventually(lambda: first.expired_at)
"""


def test_a_fork_that_runs_no_hooks_is_found_out():
    """uWSGI's: the thread is gone, and everything says that it is there.

    The parent's entries come with it, and cannot be told from those of another new request.
    They expire here too, and hit nobody: a request is fired at only where its thread is
    seen to run it.
    """
    program = (
        _SILENT_FORK
        + """
    other = Entry(0.2)
    other.owner = -1
    enter(dog, lane, other)
    pid = fork()
    if pid == 0:
        entry = Entry(0.2)
        enter(dog, lane, entry)
        odd = Entry(0.1)
        dog.at(odd, odd.deadline)
        if not eventually(lambda: entry.expired_at and odd.expired_at, within=10):
            os._exit(2)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == 0, status
    assert eventually(lambda: other.expired_at)
    """
    )
    _run(program)


def test_requests_that_begin_together_after_a_silent_fork_keep_their_claims():
    """The one that starts the watchdog must not take the other for its parent's."""
    program = (
        _SILENT_FORK
        + """
    pid = fork()
    if pid == 0:
        entered, go = threading.Event(), threading.Event()
        entry = None
        def other():
            global entry
            entry = Entry(5)
            lane.entries[entry] = True  # it will look at `earliest` next
            entered.set()
            go.wait(10)
        import _thread
        _thread.start_new_thread(other, ())
        entered.wait(10)
        enter(dog, lane, Entry(0.2))
        os._exit(0 if lane.entries.pop(entry, False) else 2)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == 0, status
    """
    )
    _run(program)


# Loops, with a clock that stands still unless told


class Clock:
    """A loop of timers alone."""

    def __init__(self, slack=0.0):
        self.now = 1000.0
        self.slack = slack  # how much early the loop's timers fire
        self.timers = []
        self._numbers = itertools.count()
        self.calls = 0

    def call_soon(self, callback, *args, context=None):
        return self.call_later(0, callback, *args, context=context)

    def call_later(self, delay, callback, *args, context=None):
        assert delay >= 0
        self.calls += 1
        handle = asyncio.TimerHandle(self.now + delay, callback, args, self, context)
        heapq.heappush(self.timers, (self.now + delay - self.slack, next(self._numbers), handle))
        return handle

    def _timer_handle_cancelled(self, handle):
        pass

    def get_debug(self):
        return False

    def advance(self, seconds):
        end = self.now + seconds
        while self.timers and self.timers[0][0] <= end:
            when, _, handle = heapq.heappop(self.timers)
            self.now = max(self.now, when)
            if not handle.cancelled():
                handle._callback(*handle._args)
        self.now = end

    @property
    def live(self):
        return sum(not handle.cancelled() for _, _, handle in self.timers)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(_loop_deadlines, "monotonic", lambda: clock.now)
    return clock


class LoopEntry:
    filed = None
    timer = None

    def __init__(self, clock, timeout=inf):
        self.clock = clock
        self.deadline = clock.now + timeout
        self.expired_at = []

    def expire(self):
        self.expired_at.append(self.clock.now)


def enter_loop(lane, entry):
    """As a request does it."""
    entry.claims = lane.entries
    lane.entries[entry] = True
    if lane.timer is None:
        lane.start_timer()
    return entry


def test_one_timer_for_a_whole_lane(clock):
    lane = LoopLanes(clock).lane(15)
    entries = []
    for _ in range(1000):
        entries.append(enter_loop(lane, LoopEntry(clock, 15)))
        clock.advance(0.001)
    assert clock.calls == 1
    clock.advance(14)
    assert not any(entry.expired_at for entry in entries)
    clock.advance(15)
    assert all(len(entry.expired_at) == 1 for entry in entries)
    assert all(0 <= entry.expired_at[0] - entry.deadline <= 0.002 for entry in entries)
    assert lane.timer is None
    assert clock.live == 0


def test_a_lane_of_those_who_leave_in_time_costs_a_timer_each_timeout(clock):
    lane = LoopLanes(clock).lane(15)
    for _ in range(1500):
        entry = enter_loop(lane, LoopEntry(clock, 15))
        clock.advance(0.1)
        assert lane.entries.pop(entry, False)
    assert clock.calls <= 11
    clock.advance(60)
    assert clock.live == 0


def test_the_same_lane_for_the_same_timeout(clock):
    lanes = LoopLanes(clock)
    assert lanes.lane(15) is lanes.lane(15.0)
    assert lanes.lane(15) is not lanes.lane(14)


def test_a_timer_that_fires_early_is_set_anew(monkeypatch):
    clock = Clock(slack=0.0005)
    monkeypatch.setattr(_loop_deadlines, "monotonic", lambda: clock.now)
    lanes = LoopLanes(clock)
    entry = enter_loop(lanes.lane(1), LoopEntry(clock, 1))
    odd = LoopEntry(clock)
    lanes.at(odd, clock.now + 1)
    clock.advance(2)
    assert len(entry.expired_at) == len(odd.expired_at) == 1
    assert entry.expired_at[0] >= entry.deadline
    assert odd.expired_at[0] >= odd.deadline
    assert clock.calls < 10


def test_an_odd_entry(clock):
    lanes = LoopLanes(clock)
    entry = LoopEntry(clock)
    lanes.at(entry, clock.now + 3)
    clock.advance(2.9)
    assert not entry.expired_at
    clock.advance(1)
    assert entry.expired_at == [1003.0]
    assert entry.claims.pop(entry, False) is False


def test_an_odd_entry_that_has_left(clock):
    lanes = LoopLanes(clock)
    entry = LoopEntry(clock)
    lanes.at(entry, clock.now + 3)
    assert entry.claims.pop(entry, False) is True
    clock.advance(5)
    assert not entry.expired_at


def test_an_infinite_deadline_never_comes(clock):
    lanes = LoopLanes(clock)
    entry = LoopEntry(clock)
    lanes.at(entry, inf)
    assert clock.calls == 0
    assert entry.claims.pop(entry, False) is True


def test_an_entry_that_is_entered_anew_has_one_timer(clock):
    lanes = LoopLanes(clock)
    entry = LoopEntry(clock)
    for _ in range(5):
        lanes.at(entry, clock.now + 3)
        clock.advance(1)
    assert clock.live == 1
    clock.advance(10)
    assert entry.expired_at == [1007.0]


def test_moving_to_later_costs_no_timer_of_its_own(clock):
    lanes = LoopLanes(clock)
    lane = lanes.lane(15)
    entry = enter_loop(lane, LoopEntry(clock, 15))
    lanes.move(entry, clock.now + 60)
    lanes.move(entry, clock.now + 50)
    assert clock.calls == 1
    assert entry.claims is lane.entries
    clock.advance(49.9)
    assert not entry.expired_at
    clock.advance(1)
    assert entry.expired_at == [1050.0]


def test_moving_to_later_and_leaving(clock):
    lanes = LoopLanes(clock)
    entry = enter_loop(lanes.lane(15), LoopEntry(clock, 15))
    lanes.move(entry, clock.now + 60)
    assert entry.claims.pop(entry, False) is True
    clock.advance(100)
    assert not entry.expired_at


def test_moving_to_earlier(clock):
    lanes = LoopLanes(clock)
    lane = lanes.lane(15)
    entry = enter_loop(lane, LoopEntry(clock, 15))
    lanes.move(entry, clock.now + 2)
    assert not lane.entries
    clock.advance(20)
    assert entry.expired_at == [1002.0]


@pytest.mark.parametrize("deadlines", tuple(itertools.permutations((5, 15, 40, inf), 3)))
def test_moving_about(clock, deadlines):
    """Whatever the order, an entry expires once, at the last deadline that it was given."""
    lanes = LoopLanes(clock)
    start = clock.now
    entry = enter_loop(lanes.lane(15), LoopEntry(clock, 15))
    others = [enter_loop(lanes.lane(15), LoopEntry(clock, 15)) for _ in range(3)]
    for deadline in deadlines:
        lanes.move(entry, start + deadline)
        clock.advance(1)
    clock.advance(100)
    last = start + deadlines[-1]
    if last == inf:
        assert not entry.expired_at
        assert entry.claims.pop(entry, False) is True
    else:
        assert len(entry.expired_at) == 1
        assert entry.expired_at[0] == pytest.approx(last, abs=0.002)
    assert all(len(other.expired_at) == 1 for other in others)


def test_an_expiry_that_ends_others(clock):
    """What is cancelled at its deadline may end its neighbours."""
    lanes = LoopLanes(clock)
    lane = lanes.lane(15)
    first, second, third = (enter_loop(lane, LoopEntry(clock, 15)) for _ in range(3))
    first.expire = lambda: lane.entries.pop(second, False)
    clock.advance(20)
    assert not second.expired_at
    assert len(third.expired_at) == 1


def test_an_expiry_that_ends_one_whose_deadline_has_been_moved(clock):
    lanes = LoopLanes(clock)
    lane = lanes.lane(15)
    first, second = (enter_loop(lane, LoopEntry(clock, 15)) for _ in range(2))
    lanes.move(second, clock.now + 60)
    first.expire = lambda: lane.entries.pop(second, False)
    clock.advance(100)
    assert not second.expired_at


def test_an_expiry_that_enters_others(clock):
    lanes = LoopLanes(clock)
    lane = lanes.lane(15)
    first = enter_loop(lane, LoopEntry(clock, 15))
    new = []
    first.expire = lambda: new.append(enter_loop(lane, LoopEntry(clock, 15)))
    clock.advance(20)
    assert not new[0].expired_at
    clock.advance(20)
    assert len(new[0].expired_at) == 1


def test_an_expiry_that_fails(clock, caplog):
    lanes = LoopLanes(clock)
    lane = lanes.lane(15)
    first, second = (enter_loop(lane, LoopEntry(clock, 15)) for _ in range(2))
    first.expire = lambda: 1 // 0
    odd = LoopEntry(clock)
    odd.expire = first.expire
    lanes.at(odd, clock.now + 3)
    clock.advance(20)
    assert len(second.expired_at) == 1
    assert [record.exc_info[0] for record in caplog.records] == [ZeroDivisionError] * 2


@pytest.mark.parametrize("make_loop", (asyncio.new_event_loop, uvloop.new_event_loop))
def test_on_a_real_loop(make_loop):
    class Real(LoopEntry):
        def expire(self):
            self.expired_at.append(time.monotonic())

    class Now:
        now = property(lambda self: time.monotonic())

    async def main():
        lanes = lanes_of(asyncio.get_running_loop())
        assert lanes_of(asyncio.get_running_loop()) is lanes
        entries = [enter_loop(lanes.lane(0.02), Real(Now(), 0.02)) for _ in range(300)]
        odd = Real(Now())
        lanes.at(odd, time.monotonic() + 0.01)
        while not all(entry.expired_at for entry in (*entries, odd)):  # noqa: ASYNC110 - they tell nobody
            await asyncio.sleep(0.001)
        return entries, odd, lanes

    with asyncio.Runner(loop_factory=make_loop) as runner:
        entries, odd, lanes = runner.run(asyncio.wait_for(main(), 20))
    for entry in (*entries, odd):
        assert len(entry.expired_at) == 1
        assert entry.expired_at[0] >= entry.deadline

    async def of_another_loop():
        return lanes_of(asyncio.get_running_loop())

    assert asyncio.run(of_another_loop()) is not lanes


def test_each_thread_s_loop_has_lanes_of_its_own():
    async def lanes():
        return lanes_of(asyncio.get_running_loop())

    seen = []
    threads = [threading.Thread(target=lambda: seen.append(asyncio.run(lanes()))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len({*seen}) == 2


def test_fork_without_hooks_is_available_to_these_tests():
    assert ctypes.PyDLL(None).fork
