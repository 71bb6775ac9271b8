"""Lanes and watchdog under every schedule with a few switches, and under random ones with many.

The code of ``_deadlines`` runs as it is, with a switch possible behind each statement, call
and look at an attribute. What is checked is what the module promises: each entry ends once,
never before its deadline, and not behind it but for the time that a thread was held up.
"""

from math import inf

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from instrument import Copies, Mutation
from scheduler import Schedule, Scheduler, attempting, every_schedule

DEADLINES = "hostline._deadlines"


class Entry:
    """What enters, and remembers how it has ended."""

    def __init__(self, model, deadline):
        self.model = model
        self.deadline = deadline
        self.first = deadline  # the earliest one that it has had
        self.ends = []
        self.fails = False
        self.moved_at = -inf

    def survives_fork(self):
        return False

    def expire(self):
        self.model.scheduler.point()
        self.ends.append(("expired", self.model.scheduler.now))
        if self.fails:
            raise ZeroDivisionError


class Model:
    """One run: a watchdog, the threads that use it, and what must hold behind it."""

    def __init__(self, schedule, mutation=None):
        self.scheduler = Scheduler(schedule)
        self.module = Copies(self.scheduler, {DEADLINES}, mutation).module(DEADLINES)
        self.dog = self.module.Watchdog()
        self.entries = []
        self.ticks = [self.scheduler.now]
        self.failures = []

    def sleep(self, seconds):
        self.scheduler.wait(lambda: False, seconds)

    def enter(self, timeout):
        """As a guard does it: the store first, and then the comparison."""
        point = self.scheduler.point
        entry = Entry(self, self.scheduler.now + timeout)
        self.entries.append(entry)
        lane = self.dog.lane(timeout)
        point()
        lane.entries[entry] = True
        point()
        earliest = lane.earliest
        point()
        is_met = earliest <= entry.deadline
        latest = lane.latest
        point()
        if not is_met or not entry.deadline <= latest:
            self.dog.rouse()
        return entry, lane.entries

    def enter_odd(self, timeout):
        entry = Entry(self, self.scheduler.now + timeout)
        self.entries.append(entry)
        return entry, self.dog.at(entry, entry.deadline)

    def move(self, entry, claims, timeout):
        entry.moved_at = self.scheduler.now
        entry.first = min(entry.first, self.scheduler.now + timeout)
        self.dog.move(entry, claims, self.scheduler.now + timeout)

    def finish(self, entry, claims):
        self.scheduler.point()
        if claims.pop(entry, False) or self.dog.reclaim(entry):
            entry.ends.append(("finished", self.scheduler.now))
        else:
            assert self.scheduler.now >= entry.first, "its claim was gone before it fell due"
            self.scheduler.wait(lambda: entry.ends)

    def serve(self, *steps, timeout=1.0, is_odd=False):
        """A thread with one request, whose steps are taken one after the other."""
        entry, claims = self.enter_odd(timeout) if is_odd else self.enter(timeout)
        for step, argument in steps:
            if step == "sleep":
                self.sleep(argument)
            elif step == "move":
                self.move(entry, claims, argument)
            elif step == "finish":
                self.finish(entry, claims)

    def tick(self, seconds):
        """Time passes while others could go on: all of them are held up."""
        for each in seconds:
            self.scheduler.point()
            self.scheduler.now += each
            self.ticks.append(self.scheduler.now)

    def run(self):
        others = list(self.scheduler.actors)

        def see_all_out():
            self.scheduler.wait(lambda: all(each.is_done for each in others))
            self.drained()

        self.scheduler.add(see_all_out, "the last")
        self.scheduler.run()
        self.check()

    def drained(self):
        """Wait until nobody is left who could expire."""
        self.scheduler.wait(lambda: all(each.ends or each.deadline == inf for each in self.entries))

    def check(self):
        held_up = self.ticks[-1] - self.ticks[0]
        for entry in self.entries:
            assert len(entry.ends) == (0 if entry.deadline == inf and not entry.ends else 1), entry.ends
            for end, at in entry.ends:
                if end == "expired":
                    assert at >= entry.deadline, "expired early"
                    # What the clock leapt while somebody was held up is nobody's fault.
                    late = max(entry.deadline, self.ticks[-1], entry.moved_at) + held_up
                    assert at <= late + 1e-6, f"expired {at - entry.deadline} late"
        ended = [each for each in self.entries if each.ends]
        for claims in (self.dog._odd, *(lane.entries for lane in self.dog._lanes.values())):
            assert not [each for each in ended if each in claims], "left behind"


def two_in_one_lane(model):
    model.scheduler.add(lambda: model.serve(("sleep", 0.5), ("finish", None)), "a")
    model.scheduler.add(lambda: (model.serve(), model.drained()), "b")


def at_the_very_deadline(model):
    model.scheduler.add(lambda: model.serve(("sleep", 1.0), ("finish", None)), "a")
    model.scheduler.add(lambda: (model.serve(("sleep", 1.0), ("finish", None)), model.drained()), "b")


def a_shorter_one_while_it_sleeps(model):
    model.scheduler.add(lambda: (model.serve(timeout=5.0), model.drained()), "long")
    model.scheduler.add(lambda: (model.sleep(0.5), model.serve(timeout=1.0)), "short")


def moved_while_finished(model):
    entries, moving = [], []

    def mover():
        model.scheduler.wait(lambda: entries)
        moving.append(1)
        model.move(*entries[0], 3.0)

    def server():
        entries.append(model.enter(1.0))
        model.scheduler.wait(lambda: moving)
        model.finish(*entries[0])

    model.scheduler.add(server, "serves")
    model.scheduler.add(mover, "moves")


def moved_while_looked_at(model):
    steps = (("sleep", 0.7), ("move", 3.0), ("finish", None))
    model.scheduler.add(lambda: model.serve(*steps), "moves")
    model.scheduler.add(lambda: (model.sleep(0.5), model.serve(), model.drained()), "behind it")
    model.scheduler.add(lambda: model.serve(timeout=0.7), "has it looked at")


def moved_at_the_deadline(model):
    steps = (("sleep", 1.0), ("move", 2.0), ("sleep", 2.0), ("move", 1.0), ("sleep", 0.5), ("finish", None))
    model.scheduler.add(lambda: (model.serve(*steps), model.drained()), "a")


def moved_twice(model):
    steps = (("sleep", 0.5), ("move", 1.0), ("move", 3.0), ("sleep", 1.5), ("finish", None))
    model.scheduler.add(lambda: model.serve(*steps), "a")


def odd_ones(model):
    model.scheduler.add(lambda: model.serve(("sleep", 1.0), ("finish", None), is_odd=True), "a")
    model.scheduler.add(lambda: (model.serve(timeout=2.0, is_odd=True), model.drained()), "b")


def an_odd_one_while_it_looks(model):
    model.scheduler.add(lambda: model.serve(is_odd=True), "a")
    model.scheduler.add(
        lambda: (model.sleep(1.0), model.serve(timeout=2.0, is_odd=True), model.drained()), "b"
    )


def unlimited_until_moved(model):
    steps = (("move", inf), ("sleep", 3.0), ("move", 0.25), ("sleep", 3.0), ("finish", None))
    model.scheduler.add(lambda: (model.serve(*steps), model.drained()), "a")


def one_after_another(model):
    def serve():
        for _ in range(3):
            model.serve(("finish", None))
        model.sleep(1.0)
        model.serve()
        model.drained()

    model.scheduler.add(serve, "a")


def one_that_fails(model):
    def serve():
        entry, _ = model.enter(1.0)
        entry.fails = True
        model.serve()
        model.drained()

    model.scheduler.add(serve, "a")


def a_fork(model):
    """The parent's watchdog, and whoever held a lock there, are gone in the child."""

    def fork():
        model.serve(("finish", None))
        model.scheduler.point()
        others = list(model.entries)
        model.scheduler.fork()
        model.dog.after_fork()
        model.entries = [each for each in model.entries if each not in others]
        assert not any(lane.entries for lane in model.dog._lanes.values()), "the parent's, in the child"
        model.serve()
        model.serve(("sleep", 0.5), ("finish", None))
        model.drained()

    model.scheduler.add(fork, "forks")
    model.scheduler.add(lambda: model.serve(("sleep", 0.2), ("move", 3.0), ("finish", None)), "lost")


SCENES = (
    two_in_one_lane,
    at_the_very_deadline,
    a_shorter_one_while_it_sleeps,
    moved_while_finished,
    moved_while_looked_at,
    moved_at_the_deadline,
    moved_twice,
    odd_ones,
    an_odd_one_while_it_looks,
    unlimited_until_moved,
    one_after_another,
    one_that_fails,
    a_fork,
)


attempt = attempting(Model)


MUTATIONS = {
    "the old plan stands while the watchdog scans": (
        an_odd_one_while_it_looks,
        Mutation(
            DEADLINES, "        self._publish(inf)\n        now = monotonic()", "        now = monotonic()"
        ),
    ),
    "what is due is taken without its claim": (
        at_the_very_deadline,
        Mutation(
            DEADLINES,
            "if self.entries.pop(entry, False):\n                    due",
            "self.entries.pop(entry, False)\n                if True:\n                    due",
        ),
    ),
    "a claim in the middle of a move is not waited for": (
        moved_while_finished,
        Mutation(
            DEADLINES,
            "        with self._lock():\n            return self._odd.pop(entry, False)",
            "        return self._odd.pop(entry, False)",
        ),
    ),
    "a move makes a claim of none": (
        moved_at_the_deadline,
        Mutation(
            DEADLINES,
            "if not claims.pop(entry, False) and not self._odd.pop(entry, False):",
            "if not claims.pop(entry, False) and not self._odd.pop(entry, False) and False:",
        ),
    ),
    "a moved entry falls due at its old place in the heap": (
        moved_twice,
        Mutation(
            DEADLINES,
            "entry.deadline == deadline and self._odd.pop(entry, False)",
            "self._odd.pop(entry, False)",
        ),
    ),
    "an odd entry falls due without its claim": (
        odd_ones,
        Mutation(
            DEADLINES,
            "entry.deadline == deadline and self._odd.pop(entry, False)",
            "entry.deadline == deadline and (self._odd.pop(entry, False) or True)",
        ),
    ),
    "an odd entry wakes nobody": (
        odd_ones,
        Mutation(
            DEADLINES,
            "                self._push(entry, deadline)\n            self._rouse_by(deadline)",
            "                self._push(entry, deadline)",
        ),
    ),
    "a move wakes nobody": (
        unlimited_until_moved,
        Mutation(
            DEADLINES,
            "        if deadline < inf:\n            self._rouse_by(deadline)\n        return True",
            "        return True",
        ),
    ),
    "a new lane claims to be watched": (
        two_in_one_lane,
        Mutation(DEADLINES, "        self.latest = -inf", "        self.earliest, self.latest = -inf, inf"),
    ),
    "what is nearly due is let expire": (
        two_in_one_lane,
        Mutation(
            DEADLINES, "                if deadline > now:\n", "                if deadline > now + 1:\n"
        ),
    ),
    "one entry's failure is everybody's": (
        one_that_fails,
        Mutation(DEADLINES, "    except Exception:  # one entry's", "    except KeyError:  # one entry's"),
    ),
    "the child keeps the parent's entries": (
        a_fork,
        Mutation(DEADLINES, "                if not entry.survives_fork():", "                if False:"),
    ),
}


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_without_a_switch(scene):
    assert every_schedule(attempt(scene), 0) == 1


@pytest.mark.slow
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_schedules_with_one_switch(scene):
    """Every second; ``tests/trials/fuzz.py`` tries all."""
    assert every_schedule(attempt(scene), 1, stride=2) > 1


SWITCHES = st.dictionaries(st.integers(0, 250), st.integers(0, 3), max_size=8)


@pytest.mark.slow
@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(SCENES), SWITCHES, st.lists(st.sampled_from((0.1, 0.5, 1.0, 3.0)), max_size=3))
def test_any_schedule(scene, switches, ticks):
    model = Model(Schedule(switches))
    scene(model)
    model.scheduler.add(lambda: model.tick(ticks), "the clock")
    model.run()


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_defect_is_seen(name):
    scene, mutation = MUTATIONS[name]
    with pytest.raises(AssertionError) as caught:
        every_schedule(attempt(scene, mutation), 1)
    assert "have this mutation follow" not in str(caught.value)
