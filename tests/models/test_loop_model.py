"""Requests on an asyncio loop whose steps, clock, client and server a state machine decides.

The guard's code runs as it is, on a real loop of asyncio's whose clock stands still until a
rule lets time pass. Several things may be asked for before the loop goes on, so that they
meet in one round of it: a deadline with the end of a response, a cancellation, a client
that goes away. The watchdog looks when time has passed; observers are told at once.
"""

import asyncio
from math import inf

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from instrument import Copies, Immediate, Mutation
from scheduler import Schedule, Scheduler

from hostline._breaker import GRACE, SHOTS
from hostline.errors import RequestTimeoutError

LIMIT, STREAM_LIMIT, UPLOAD_LIMIT, SHIELD_LIMIT = 1.0, 2.0, 4.0, 3.0
RESOLUTION = 0.002  # of a loop's timers
FINAL = ("completed", "expired", "timed_out")


class Loop(asyncio.SelectorEventLoop):
    """A loop that goes on only when it is told to, and has the scheduler's time."""

    def __init__(self, scheduler):
        self._scheduler = scheduler
        super().__init__()

    def time(self):
        return self._scheduler.now

    def settle(self):
        """Go on until nothing is left to be done at this instant."""
        for _ in range(200):
            self.call_soon(self.stop)
            self.run_forever()
            timer = self._scheduled[0]._when if self._scheduled else inf
            if not self._ready and timer > self.time():
                return
        raise AssertionError("the loop does not come to rest")


class Stopped(Scheduler):
    """Threads are not started: what they would do is done by the rules."""

    def start_daemon(self, run, args):
        pass


class Connection:
    """One request: the server's side, what the app is told to do, and what has become of it."""

    def __init__(self, world, name, *, swallows, has_body, blocks):
        self.world = world
        self.swallows = swallows
        self.commands = asyncio.Queue()
        self.incoming = asyncio.Queue()
        self.is_flowing = asyncio.Event()
        if not blocks:
            self.is_flowing.set()
        self.messages = []
        self.foreign_cancels = 0
        self.cancelling = None
        self.error = None
        self.swallowed = 0
        self.shields = []
        self.faults = []
        headers = [(b"x-request-id", name.encode())]
        self.name = name
        self.scope = {
            "type": "http",
            "method": "POST" if has_body else "GET",
            "path": "/",
            "headers": [*headers, (b"content-length", b"9")] if has_body else headers,
            "connection": self,
        }
        if not has_body:
            self.incoming.put_nowait({"type": "http.request", "body": b""})

    @property
    def request(self):
        return self.scope["hostline.request"]

    @property
    def is_complete(self):
        return bool(self.messages) and self.messages[-1].get("more_body") is False

    async def send(self, message):
        if message["type"] == "http.response.start":
            if self.messages:
                self.faults.append("a second start")
            self.messages.append({**message, "more_body": None})
        elif not self.messages:
            self.faults.append("a body without a start")
        elif self.is_complete:
            self.faults.append("a message behind the end")
        else:
            self.messages.append({"more_body": False, **message})
        await self.is_flowing.wait()

    async def receive(self):
        return await self.incoming.get()

    async def serve(self, guard):
        try:
            await guard(self.scope, self.receive, self.send)
        except BaseException as error:
            self.error = error
        self.cancelling = asyncio.current_task().cancelling()


async def app(scope, receive, send):
    """Does what it is told, one thing after the other, and swallows some cancellations."""
    me, api = scope["connection"], scope["connection"].world.api
    shields = me.shields
    start = {"type": "http.response.start", "status": 200, "headers": []}
    has_started = False
    while True:
        try:
            command, argument = await me.commands.get()
            if command == "end":
                if not has_started:
                    await send(start)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                return
            if command == "stream":
                if not has_started:
                    has_started = True
                    await send(start)
                await send({"type": "http.response.body", "body": b".", "more_body": True})
            elif command == "return":
                return
            elif command == "fail":
                raise ValueError
            elif command == "fail by a timeout":
                raise TimeoutError
            elif command == "receive":
                await receive()
            elif command == "set_timeout":
                api.set_timeout(argument)
            elif command == "checkpoint":
                api.checkpoint()
            elif command == "shield":
                shields.append(api.shield())
                shields[-1].__enter__()
            elif command == "unshield" and shields:
                shields.pop().__exit__(None, None, None)
        except asyncio.CancelledError:
            if me.swallows <= 0:
                raise
            me.swallows -= 1
            me.swallowed += 1


class World(RuleBasedStateMachine):
    """What may happen, in any order."""

    connections = Bundle("connections")
    mutation = None

    def __init__(self):
        super().__init__()
        self.scheduler = Stopped(Schedule())
        self.loop = Loop(self.scheduler)
        self.unheard = []
        self.loop.set_exception_handler(lambda loop, context: self.unheard.append(context))
        copies = Copies(self.scheduler, (), self.mutation)
        copies.module("hostline._pool_threads").install = lambda: None
        copies.module("hostline._breaker").main_thread.prepare = lambda signum: False
        self.middleware = copies.module("hostline._asgi_timeout").RequestTimeoutMiddleware
        self.api = copies.module("hostline._deadline_api")
        self.watchdog = copies.module("hostline._deadlines").watchdog
        self.reporter = copies.module("hostline._requests").reporter
        self.lanes_of = copies.module("hostline._loop_deadlines").lanes_of
        self.lanes = None
        self.all = []
        self.endings = {}
        self.guards = {mode: self.guard(mode) for mode in ("respond", "raise", "report")}

    def guard(self, mode):
        return self.middleware(
            app,
            service_timeout=LIMIT,
            stream_timeout=STREAM_LIMIT,
            wait_overtime=UPLOAD_LIMIT,
            shield_limit=SHIELD_LIMIT,
            mode=mode,
            observers=[Immediate(self.fail), Immediate(self.observe)],
        )

    def fail(self, event):
        raise ZeroDivisionError

    def observe(self, event):
        if event.state in FINAL:
            self.endings.setdefault(event.id, []).append(event.state.value)

    # What may happen

    @precondition(lambda self: len(self.all) < 3)
    @rule(
        target=connections,
        mode=st.sampled_from(("respond", "respond", "raise", "report")),
        swallows=st.sampled_from((0, 0, 0, 1, 3)),
        has_body=st.booleans(),
        blocks=st.sampled_from((False, False, True)),
    )
    def request(self, mode, swallows, has_body, blocks):
        connection = Connection(
            self, f"r{len(self.all)}", swallows=swallows, has_body=has_body, blocks=blocks
        )
        connection.mode = mode
        self.all.append(connection)
        connection.task = self.loop.create_task(connection.serve(self.guards[mode]))
        self.go_on()
        self.lanes = connection.request.lanes
        return connection

    @rule(
        connection=connections,
        does=st.sampled_from(
            (
                *(
                    ("end", None),
                    ("end", None),
                    ("stream", None),
                    ("stream", None),
                    ("return", None),
                    ("fail", None),
                    ("receive", None),
                ),
                *(("fail by a timeout", None), ("checkpoint", None), ("shield", None), ("unshield", None)),
                *(("set_timeout", each) for each in (0.5, 2 * LIMIT, None)),
            )
        ),
        at_once=st.booleans(),
    )
    def app_does(self, connection, does, at_once):
        connection.commands.put_nowait(does)
        if at_once:
            self.go_on()

    @rule(seconds=st.sampled_from((0.25, 0.5, 1.0, 1.0, 3.0, 5.0)))
    def time_passes(self, seconds):
        self.scheduler.now += seconds
        self.go_on()

    @rule(connection=connections, at_once=st.booleans())
    def somebody_else_cancels(self, connection, at_once):
        connection.foreign_cancels += connection.task.cancel()
        if at_once:
            self.go_on()

    @rule(connection=connections)
    def somebody_else_cancels_at_the_deadline(self, connection):
        """In the moment that its own timer fires, and before its task goes on."""
        deadline = connection.request.deadline
        if deadline < inf:

            def cancel():
                connection.foreign_cancels += connection.task.cancel()

            self.loop.call_at(max(deadline, self.scheduler.now) + RESOLUTION / 4, cancel)

    @rule(connection=connections, more=st.booleans(), at_once=st.booleans())
    def client_sends(self, connection, more, at_once):
        connection.incoming.put_nowait({"type": "http.request", "body": b".", "more_body": more})
        if at_once:
            self.go_on()

    @rule(connection=connections, at_once=st.booleans())
    def client_goes_away(self, connection, at_once):
        connection.incoming.put_nowait({"type": "http.disconnect"})
        if at_once:
            self.go_on()

    @rule(connection=connections)
    def client_reads_on(self, connection):
        connection.is_flowing.set()
        self.go_on()

    def go_on(self):
        for _ in range(3):  # what the watchdog has found goes to the loop, and back
            self.loop.settle()
            self.watchdog._look()
            while self.reporter._jobs._items:
                self.reporter._jobs._items.popleft()()
            self.scheduler.now += RESOLUTION / 2  # a deadline that is past already falls due a tick later

    # What must hold

    @invariant()
    def messages_are_in_order(self):
        assert not [each.faults for each in self.all if each.faults]

    @invariant()
    def nothing_is_lost_in_the_loop(self):
        assert not self.unheard, self.unheard

    @invariant()
    def each_ends_once(self):
        assert all(len(states) == 1 for states in self.endings.values()), self.endings

    @invariant()
    def nobody_is_overdue(self):
        if self.loop._ready:
            return  # something has still to be done at this instant
        now = self.scheduler.now
        for each in self.all:
            request = each.request
            assert request.ended is not None or request.deadline > now - RESOLUTION, f"{each.name} is overdue"

    @invariant()
    def who_takes_no_notice_is_told_again(self):
        for each in self.all:
            request = each.request
            if request.state == "timed_out" and each.mode != "report" and not each.task.done():
                late = self.scheduler.now - request.ended
                if late > GRACE + RESOLUTION and not each.shields and not request.came_back:
                    assert request.shots >= SHOTS, f"{each.name} is left alone"

    @invariant()
    def who_is_back_leaves_nothing(self):
        for each in self.all:
            if each.task.done():
                self.check(each)

    def look(self):
        """All of what must hold at any time."""
        self.messages_are_in_order()
        self.nothing_is_lost_in_the_loop()
        self.each_ends_once()
        self.nobody_is_overdue()
        self.who_takes_no_notice_is_told_again()
        self.who_is_back_leaves_nothing()

    def check(self, each):
        request, error = each.request, each.error
        assert request.ended is not None, f"{each.name} has come back and not ended"
        assert self.lanes is not None
        assert not any(request in claims for claims in self.lanes.claimed()), "its claim is left"
        assert request.timer is None or request.timer.cancelled() or request.state == "timed_out", (
            "a timer is left"
        )
        assert request._shield_end is None, "the end of a shield is left"
        assert each.cancelling == each.foreign_cancels, "cancellations are miscounted"
        if each.foreign_cancels and not each.swallowed:
            assert isinstance(error, asyncio.CancelledError), f"somebody's cancellation is lost: {error!r}"
        if each.foreign_cancels == 0:
            assert not isinstance(error, asyncio.CancelledError), "our own cancellation got out"
        if request.state == "timed_out" and each.mode != "report" and not each.foreign_cancels:
            has_answer = bool(each.messages) and each.messages[0]["status"] == 504
            if each.mode == "respond" and has_answer:
                assert error is None, error
                assert each.is_complete
            else:
                assert isinstance(error, RequestTimeoutError), error

    def teardown(self):
        try:
            self.end_all()
        finally:
            self.close()

    def close(self):
        """Leave no task behind, whatever has come of the rest."""
        for each in self.all:
            each.swallows = 0
            each.is_flowing.set()
            each.task.cancel()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        for _ in range(3):
            self.loop.settle()
            self.scheduler.now += GRACE + RESOLUTION
        self.loop.close()

    def end_all(self):
        """Whatever has happened: all come to their ends, and then nothing is left."""
        for each in self.all:
            each.is_flowing.set()
            each.swallows = 0
        self.go_on()
        for _ in range(12):
            for each in self.all:
                each.incoming.put_nowait({"type": "http.disconnect"})
                each.commands.put_nowait(("unshield", None))
                each.commands.put_nowait(("return", None))
            self.scheduler.now += LIMIT
            self.go_on()
        for each in self.all:
            assert each.task.done(), f"{each.name} does not end"
            assert len(self.endings.get(each.name, [])) == 1, f"{each.name}: {self.endings}"
            self.check(each)
        self.messages_are_in_order()
        self.nothing_is_lost_in_the_loop()
        if self.lanes is not None:
            assert not any(self.lanes.claimed())
        kinds = {type(entry).__name__ for entry in self.watchdog._odd}
        assert kinds <= {"Sentinel"}, kinds


REQUEST, ASYNCIO, LOOP = "hostline._asgi_request", "hostline._asyncio_request", "hostline._loop_deadlines"


def aborted_and_goes_on(world):
    connection = yield world.request("respond", 1, has_body=False, blocks=False)
    yield world.time_passes(LIMIT)
    yield world.app_does(connection, ("end", None), at_once=True)


def in_time(world):
    connection = yield world.request("respond", 0, has_body=False, blocks=False)
    yield world.app_does(connection, ("end", None), at_once=True)
    yield world.time_passes(LIMIT)


def too_late(world):
    yield world.request("respond", 0, has_body=False, blocks=False)
    yield world.time_passes(LIMIT)


def reported_and_streams(world):
    connection = yield world.request("report", 0, has_body=False, blocks=False)
    yield world.time_passes(LIMIT)
    yield world.app_does(connection, ("stream", None), at_once=True)
    yield world.time_passes(STREAM_LIMIT)


def an_upload_that_stalls(world):
    connection = yield world.request("respond", 0, has_body=True, blocks=False)
    yield world.app_does(connection, ("receive", None), at_once=True)
    yield world.time_passes(UPLOAD_LIMIT)


def cancelled_at_the_deadline(world):
    connection = yield world.request("respond", 0, has_body=False, blocks=False)
    yield world.somebody_else_cancels_at_the_deadline(connection)
    yield world.time_passes(LIMIT)


def ends_in_its_shield(world):
    connection = yield world.request("respond", 0, has_body=False, blocks=False)
    yield world.app_does(connection, ("shield", None), at_once=True)
    yield world.time_passes(LIMIT)
    yield world.app_does(connection, ("return", None), at_once=True)


def given_less_time(world):
    connection = yield world.request("respond", 0, has_body=False, blocks=False)
    yield world.app_does(connection, ("set_timeout", LIMIT / 2), at_once=True)
    yield world.time_passes(LIMIT / 2)


def one_behind_another(world):
    yield world.request("respond", 0, has_body=False, blocks=False)
    yield world.time_passes(LIMIT / 2)
    yield world.request("respond", 0, has_body=False, blocks=False)
    yield world.time_passes(LIMIT / 2)
    yield world.time_passes(LIMIT / 2)


def behind_one_that_was_put_off(world):
    connection = yield world.request("respond", 0, has_body=False, blocks=False)
    yield world.app_does(connection, ("set_timeout", 2 * LIMIT), at_once=True)
    yield world.time_passes(LIMIT / 2)
    yield world.request("respond", 0, has_body=False, blocks=False)
    yield world.time_passes(LIMIT / 2)
    yield world.time_passes(LIMIT / 2)


def a_stream_that_stalls(world):
    connection = yield world.request("respond", 0, has_body=False, blocks=False)
    yield world.app_does(connection, ("stream", None), at_once=True)
    yield world.time_passes(STREAM_LIMIT)


def takes_no_notice(world):
    yield world.request("respond", 3, has_body=False, blocks=False)
    yield world.time_passes(LIMIT)
    yield world.time_passes(LIMIT)
    yield world.time_passes(LIMIT)


MUTATIONS = {
    "what an aborted app sends goes to the server": (
        aborted_and_goes_on,
        Mutation(
            REQUEST,
            "            if self.is_breakable:\n                return nowhere()",
            "            if False:\n                return nowhere()",
        ),
    ),
    "a complete response keeps its claim": (
        in_time,
        Mutation(
            REQUEST,
            "        self.claims.pop(self, False)\n        if self.timer is not None:",
            "        if self.timer is not None:",
        ),
    ),
    "a request ends twice": (
        reported_and_streams,
        Mutation("hostline._requests", "        if self.ended is not None:\n            return False\n", ""),
    ),
    "our own cancellations are counted as somebody's": (
        too_late,
        Mutation(ASYNCIO, "            self.task.uncancel()\n        self", "            pass\n        self"),
    ),
    "a stream that has ended has a deadline": (
        reported_and_streams,
        Mutation(REQUEST, "if gap is not None and self.ended is None:", "if gap is not None:"),
    ),
    "an upload that has ended has a deadline": (
        an_upload_that_stalls,
        Mutation(
            REQUEST,
            "if self.ended is None and not self.is_stream:\n                self.lanes.move",
            "if True:\n                self.lanes.move",
        ),
    ),
    "somebody's cancellation is taken for ours": (
        cancelled_at_the_deadline,
        Mutation(
            "hostline._asgi_timeout", "request.count_foreign() > cancelling", "request.count_foreign() > inf"
        ),
    ),
    "the end of a shield stays": (
        ends_in_its_shield,
        Mutation(
            ASYNCIO,
            "        self.came_back = True\n        self.forget_shield_end()",
            "        self.came_back = True",
        ),
    ),
    "an earlier deadline waits for the one before": (
        given_less_time,
        Mutation(LOOP, "if entry.claims is self._odd or deadline < filed:", "if entry.claims is self._odd:"),
    ),
    "a deadline that was put off falls due": (
        behind_one_that_was_put_off,
        Mutation(
            LOOP,
            "            if entry.filed is not None:\n                if",
            "            if False:\n                if",
        ),
    ),
    "a lane sleeps after its first batch": (
        one_behind_another,
        Mutation(LOOP, "                self._start_timer(max(entry.deadline - now, _TICK))\n", ""),
    ),
    "the answer is sent into a response": (
        a_stream_that_stalls,
        Mutation(
            REQUEST, 'settings.mode == "respond" and not self.response_started', 'settings.mode == "respond"'
        ),
    ),
    "nobody insists": (
        takes_no_notice,
        Mutation(ASYNCIO, "        elif self.shots < SHOTS:", "        elif False:"),
    ),
}


SCENES = tuple(dict.fromkeys(scene for scene, _ in MUTATIONS.values()))


def explore(examples, **more):
    """Try so many sequences of rules."""
    options = {"deadline": None, "suppress_health_check": list(HealthCheck), "stateful_step_count": 30}
    run_state_machine_as_test(World, settings=settings(max_examples=examples, **options, **more))


def play(scene, mutation=None):
    """Have one sequence of rules happen; what must hold is looked at behind each."""
    world = type("World", (World,), {"mutation": mutation})()
    steps = scene(world)
    try:
        done = next(steps)
        while True:
            world.look()
            done = steps.send(done)
    except StopIteration:
        world.teardown()
    finally:
        if not world.loop.is_closed():
            world.close()


@pytest.mark.slow
def test_any_sequence():
    explore(40, phases=(Phase.explicit, Phase.generate))  # what is found is made small by `fuzz.py`


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_scene(scene):
    play(scene)


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_defect_is_seen(name):
    scene, mutation = MUTATIONS[name]
    with pytest.raises(AssertionError) as caught:
        play(scene, mutation)
    assert "have this mutation follow" not in str(caught.value)
