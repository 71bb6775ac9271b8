"""A WSGI guard and its breaker under every schedule: requests that end in the moment of their deadline.

The code of the guard, of ``_interrupts``, ``_breaker``, ``_deadlines`` and ``_requests`` runs as it
is, with a switch possible wherever CPython may make one, and an abort raised at the next of
these places or, as CPython 3.13 does, at a later one.
"""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from instrument import Copies, Immediate, Mutation
from scheduler import Schedule, Scheduler, attempting, every_schedule

from hostline.errors import RequestTimeoutException

LIMIT = 1.0


class Model:
    """One run: a guard, the threads that serve behind it, and what must hold."""

    def __init__(self, schedule, mutation=None):
        self.scheduler = Scheduler(schedule)
        self.copies = Copies(self.scheduler, (), mutation)
        self.api = self.copies.module("hostline._deadline_api")
        self.requests = self.copies.module("hostline._requests")
        self.events = []
        self.answers = {}
        self.number = 0
        self.faults = []

    def guard(self, app, **options):
        made = self.copies.module("hostline._wsgi_timeout").RequestTimeoutMiddleware
        options = {"service_timeout": LIMIT, "deferral_limit": 0.5, **options}
        return made(app, **{"observers": [Immediate(self.observe)], **options})

    def observe(self, event):
        if event.state == "timed_out" and event.service < event.timeout - 1e-9:
            self.faults.append("timed out before its deadline")
        self.events.append((event.id, event.state.value))

    def work(self, seconds):
        """Code that can be interrupted, and notices it at its next point."""
        end = self.scheduler.now + seconds
        while self.scheduler.now < end:
            self.scheduler.wait(_never, end - self.scheduler.now)
            self.scheduler.point()

    def ask(self, guard, **environ):
        """One request in this thread; behind it, nothing may be raised."""
        self.number += 1
        name = f"r{self.number}"
        answer = self.answers[name] = []
        try:
            result = guard(
                {"REQUEST_METHOD": "GET", "HTTP_X_REQUEST_ID": name, **environ},
                lambda status, headers, exc_info=None: answer.append(status),
            )
            try:
                for _ in result:
                    pass
            finally:
                if hasattr(result, "close"):
                    result.close()
        except RequestTimeoutException:
            raise AssertionError("the abort got out of the guard") from None
        except Exception as error:
            answer.append(type(error).__name__)
        try:
            for _ in range(4):
                self.scheduler.point()
        except RequestTimeoutException:
            raise AssertionError("the abort was raised behind its request") from None

    def endings(self):
        every = {}
        for name, state in self.events:
            if state in ("completed", "timed_out"):
                every.setdefault(name, []).append(state)
        return every

    def all_told(self):
        self.scheduler.wait(lambda: len(self.endings()) == self.number)

    def run(self):
        self.scheduler.run()
        self.check()

    def check(self):
        assert not self.faults
        failures = [each for each in self.copies.log.failures if not isinstance(each, ZeroDivisionError)]
        assert not failures, "not what a scene makes fail"
        endings = self.endings()
        for name, answer in self.answers.items():
            assert len(endings.get(name, [])) == 1, (name, self.events)
            assert (answer, endings[name]) in ALLOWED, (answer, endings[name])
        dog = self.copies.module("hostline._deadlines").watchdog
        for claims in (dog._odd, *(lane.entries for lane in dog._lanes.values())):
            assert not claims, f"left behind: {list(claims)}"
        assert not any(actor.pending for actor in self.scheduler.actors), "still pending"


def _never():
    return False


OK, LATE = "200 OK", "504 Gateway Timeout"
ALLOWED = [
    ([OK], ["completed"]),
    ([LATE], ["timed_out"]),
    (["ValueError"], ["completed"]),
    (["RequestTimeoutError"], ["timed_out"]),
    ([OK, "RequestTimeoutError"], ["timed_out"]),  # a stream that is cut
]


def _scene(app, times=2, **options):
    """An app behind a guard, asked some times in one thread."""

    def scene(model):
        guard = model.guard(lambda environ, start: app(model, environ, start), **options)
        model.scheduler.add(lambda: ([model.ask(guard) for _ in range(times)], model.all_told()), "server")

    scene.__name__ = app.__name__
    return scene


def _answer(start):
    start(OK, [])
    return [b"ok"]


def at_the_deadline(model, environ, start):
    model.work(LIMIT)
    return _answer(start)


def at_the_deadline_by_an_error(model, environ, start):
    model.work(LIMIT)
    raise ValueError


def too_late(model, environ, start):
    model.work(5 * LIMIT)
    return _answer(start)


def swallows_the_abort(model, environ, start):
    try:
        model.work(5 * LIMIT)
    except RequestTimeoutException:
        model.work(0.5)
    return _answer(start)


def swallows_every_abort(model, environ, start):
    for _ in range(3):
        try:
            model.work(2 * LIMIT)
        except RequestTimeoutException:
            pass
    return _answer(start)


def in_a_shield(model, environ, start):
    with model.api.shield():
        try:
            model.work(LIMIT)
        except RequestTimeoutException:
            model.faults.append("aborted in its shield")
            raise
    model.work(0.1)
    return _answer(start)


def given_more_time(model, environ, start):
    model.work(LIMIT / 2)
    model.api.set_timeout(2 * LIMIT)
    model.work(1.5 * LIMIT)
    return _answer(start)


def given_less_time_at_the_deadline(model, environ, start):
    model.work(LIMIT)
    model.api.set_timeout(LIMIT / 2)
    return _answer(start)


def gives_up_itself(model, environ, start):
    model.work(LIMIT)
    model.api.checkpoint()
    return _answer(start)


def cancels_a_block(model, environ, start):
    calls = []

    def cancel():
        calls.append("begun")
        model.scheduler.point()
        calls.append("done")

    try:
        with model.api.interruptible(cancel):
            model.work(LIMIT)
    finally:
        before = list(calls)
        if len(before) == 1:
            model.faults.append("left while its callable ran")
    return _answer(start)


def is_not_cancelled_later(model, environ, start):
    """The callable of a block that has been left is not called any more."""
    left = []

    def cancel():
        if left:
            model.faults.append("cancelled when it had been left")

    with model.api.interruptible(cancel):
        model.work(LIMIT)
    left.append(True)
    model.work(LIMIT)
    return _answer(start)


def a_stream(model, environ, start):
    start(OK, [])

    def chunks():
        yield b"a"
        model.work(LIMIT)
        yield b"b"

    return chunks()


def behind_another_guard(model, environ, start):
    inner = model.guard(lambda environ, start: at_the_deadline(model, environ, start), observers=[])
    return inner(environ, start)


def _failing_observer(model):
    def fail(event):
        raise ZeroDivisionError

    guard = model.guard(
        lambda environ, start: at_the_deadline(model, environ, start),
        observers=[Immediate(fail), Immediate(model.observe)],
    )
    model.scheduler.add(lambda: ([model.ask(guard) for _ in range(2)], model.all_told()), "server")


def two_threads(model):
    guard = model.guard(lambda environ, start: at_the_deadline(model, environ, start))
    model.scheduler.add(lambda: ([model.ask(guard) for _ in range(2)], model.all_told()), "one")
    model.scheduler.add(lambda: (model.ask(guard), model.all_told()), "other")


SCENES = (
    _scene(at_the_deadline),
    _scene(at_the_deadline_by_an_error),
    _scene(too_late),
    _scene(swallows_the_abort),
    _scene(swallows_every_abort),
    _scene(in_a_shield),
    _scene(given_more_time),
    _scene(given_less_time_at_the_deadline),
    _scene(gives_up_itself),
    _scene(cancels_a_block),
    _scene(is_not_cancelled_later),
    _scene(a_stream, stream_timeout=LIMIT),
    _scene(behind_another_guard),
    _failing_observer,
    two_threads,
)


attempt = attempting(Model)


GUARD, INTERRUPTS, BREAKER = "hostline._wsgi_timeout", "hostline._interrupts", "hostline._breaker"
REQUESTS, ABORTABLE = "hostline._requests", "hostline._abortable"

#: By name: the scene, how many switches, how late exceptions are raised, and the defect.
MUTATIONS = {
    "the claim of one that was moved is not looked for": (
        *("given_more_time", 1, (0,)),
        Mutation(
            GUARD,
            "if claims.pop(request, False) or watchdog.reclaim(request):\n                if is_list",
            "if claims.pop(request, False):\n                if is_list",
        ),
    ),
    "what is pending is not taken back": (
        *("at_the_deadline", 0, range(10, 200, 10)),
        Mutation(INTERRUPTS, "        if self.is_pending:\n            absorb()\n", ""),
    ),
    "the breaker is not let go": (
        *("at_the_deadline", 0, (0,)),
        Mutation(INTERRUPTS, "        if breaker is not None:\n            breaker.let_go()\n", ""),
    ),
    "a shot is sent at one that is not armed": (
        *("at_the_deadline", 1, (0,)),
        Mutation(BREAKER, "is_over = not self.request.is_armed", "is_over = False"),
    ),
    "a request is timed out twice": (
        *("at_the_deadline", 0, (0,)),
        Mutation(INTERRUPTS, "            if self.ended is not None:\n                return False\n", ""),
    ),
    "a timeout is told by whoever comes": (
        *("at_the_deadline", 0, (0,)),
        Mutation(INTERRUPTS, 'if not self.__dict__.pop("is_untold", False):', "if False:"),
    ),
    "a shield shields nothing": (
        *("in_a_shield", 0, (0,)),
        Mutation(ABORTABLE, "return bool(self.shields) and monotonic()", "return False and monotonic()"),
    ),
    "a block that has been left is cancelled": (
        *("is_not_cancelled_later", 1, (0,)),
        Mutation(
            ABORTABLE,
            "due = [block for block in list(blocks) if blocks.pop(block, False)]",
            "due = list(blocks)",
        ),
    ),
}


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_without_a_switch(scene):
    assert every_schedule(attempt(scene), 0) == 1


@pytest.mark.slow
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_schedules_with_one_switch(scene):
    """One of sixteen; ``tests/trials/fuzz.py`` tries all."""
    assert every_schedule(attempt(scene), 1, stride=16) > 1


@pytest.mark.slow
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_an_exception_that_is_raised_late(scene):
    for late in range(0, 120, 12):
        assert every_schedule(attempt(scene), 0, (late, late)) == 1


def test_an_exception_that_is_taken_back_late():
    """That by which another is replaced is pending for as long as anything can be."""
    for late in range(8):
        attempt(SCENES[0])(Schedule(delays=(200, late)))


SWITCHES = st.dictionaries(st.integers(0, 400), st.integers(0, 3), max_size=8)
DELAYS = st.lists(st.integers(0, 80), max_size=4)


@pytest.mark.slow
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(SCENES), SWITCHES, DELAYS)
def test_any_schedule(scene, switches, delays):
    attempt(scene)(Schedule(switches, delays))


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_defect_is_seen(name):
    scene_name, switches, delays, mutation = MUTATIONS[name]
    scene = next(each for each in SCENES if each.__name__ == scene_name)
    with pytest.raises(AssertionError) as caught:
        _try_all(attempt(scene, mutation), switches, delays)
    assert "have this mutation follow" not in str(caught.value)


def _try_all(run, switches, delays):
    for delay in delays:
        every_schedule(run, switches, (delay,))
