"""Real threads of which one runs at a time, in an order that a test decides; and its clock.

An :class:`Actor` is a thread that goes on until it reaches a *point*: there the
:class:`Scheduler` asks its ``schedule`` who goes on. Locks, sleeping and starting threads
are the scheduler's own (:meth:`Scheduler.native`), so that who waits, and until when, is
known: with nobody able to go on, the clock jumps to the next instant that somebody waits
for; with nobody waiting for one, that is a deadlock. The same schedule gives the same run.

An exception that is set for an actor from outside is raised at one of the actor's next
points, as CPython raises it where the interpreter looks for it; the schedule says how late.
"""

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf
from types import FrameType, SimpleNamespace
from typing import Any

_PATIENCE = 60.0  # real seconds: only a defect of this module's can need them

_START, _LONGEST = 1000.0, 500.0  # the clock's


class End(BaseException):
    """Ends an actor that would go on for ever, such as a watchdog."""


@dataclass
class Schedule:
    """Who goes on where: at the given points, somebody else than who would have.

    Each *switch* is the number of a point and which of the others goes on there; each of
    ``delays`` is by how many points of its thread an exception is raised late.
    """

    switches: dict[int, int] = field(default_factory=dict)
    delays: Sequence[int] = ()

    def __post_init__(self) -> None:
        self._delays = deque(self.delays)
        self.points = 0
        #: How many others could have gone on, at each point.
        self.choices: list[int] = []

    def next(self, others: Sequence["Actor"]) -> "Actor | None":
        """Who goes on instead of the running one; None: nobody."""
        number, self.points = self.points, self.points + 1
        self.choices.append(len(others))
        if number in self.switches and others:
            return others[self.switches[number] % len(others)]
        return None

    def delay(self) -> int:
        return self._delays.popleft() if self._delays else 0


class Actor:
    """One of the threads."""

    def __init__(
        self, scheduler: "Scheduler", name: str, run: Callable[[], object], *, is_daemon: bool
    ) -> None:
        self.name = name
        self.is_daemon = is_daemon
        self.is_done = False
        self.error: BaseException | None = None
        #: What it waits for; and until when, at most.
        self.ready: Callable[[], bool] | None = None
        self.until = inf
        self.pending: object = None
        self.delay = 0
        self.pid = scheduler.pid
        self.baton = threading.Semaphore(0)
        self._scheduler = scheduler
        self._run = run
        self.thread = threading.Thread(target=self._live, daemon=True)
        self.thread.start()

    def _live(self) -> None:
        self.baton.acquire()
        try:
            if not self._scheduler.is_over:
                self._run()
        except End:
            pass
        except BaseException as error:
            self.error = error
        self.is_done = True
        self._scheduler.leave()

    def can_go_on(self, now: float) -> bool:
        return not self.is_done and (self.ready is None or self.ready() or self.until <= now)


class Scheduler:
    """Runs actors one at a time, and is their clock."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.now = _START
        self.pid = 1
        self.actors: list[Actor] = []
        self.running: Actor | None = None
        self.is_over = False
        self._finished = threading.Semaphore(0)
        self._fork_hooks: list[Callable[[], object]] = []

    # Building

    def add(self, run: Callable[[], object], name: str, *, is_daemon: bool = False) -> Actor:
        actor = Actor(self, name, run, is_daemon=is_daemon)
        self.actors.append(actor)
        return actor

    def run(self) -> None:
        """Run all to their ends, the daemons until nobody else is left; their first error is raised."""
        self._hand_over(self.actors[0])
        assert self._finished.acquire(timeout=_PATIENCE), f"the scheduler hangs: {self._told()}"
        self.is_over = True
        for actor in self.actors:
            while not actor.is_done:
                self.running = actor
                actor.baton.release()
                assert self._finished.acquire(timeout=_PATIENCE), f"{actor.name} does not end"
            actor.thread.join(_PATIENCE)
        for actor in self.actors:
            if actor.error is not None:
                raise actor.error

    # From within an actor

    def point(self) -> None:
        """Where another may go on, and where an exception set from outside is raised."""
        actor = self.running
        if actor is None or self.is_over or actor.thread is not threading.current_thread():
            return
        others = [each for each in self.actors if each is not actor and each.can_go_on(self.now)]
        chosen = self.schedule.next(others)
        if chosen is not None:
            self._switch(actor, chosen)
        self._deliver(actor)

    def wait(self, ready: Callable[[], bool], timeout: float = inf) -> bool:
        """Have the others go on until ``ready()``; False: not within the timeout."""
        actor = self.running
        assert actor is not None, "only an actor can wait"
        end = self.now + timeout
        if self.is_over:
            raise End  # again: code that lets nothing end its thread has taken the first
        while not ready():
            if self.now >= end:
                return False
            actor.ready, actor.until = ready, end
            self._switch(actor, self._next_of_all())
            actor.ready, actor.until = None, inf
        return True

    def leave(self) -> None:
        """The running actor has come to its end."""
        if self.is_over or all(each.is_done or each.is_daemon for each in self.actors):
            self._finished.release()
        else:
            try:
                self._hand_over(self._next_of_all())
            except BaseException as error:
                assert self.running is not None
                self.running.error = error
                self._finished.release()

    def set_exception(self, thread_id: int, error: object) -> int:
        """What ``PyThreadState_SetAsyncExc`` is to CPython: one is pending at a time."""
        for actor in self.actors:
            if actor.thread.ident == thread_id and not actor.is_done:
                actor.pending, actor.delay = error, self.schedule.delay()
                return 1
        return 0

    def frames(self) -> dict[int, FrameType]:
        """As ``sys._current_frames``, without this module's own frames."""
        every = {}
        for actor in self.actors:
            frame = None if actor.is_done else sys._current_frames().get(actor.thread.ident or 0)
            while frame is not None and frame.f_code.co_filename == __file__:
                frame = frame.f_back
            if frame is not None:
                every[actor.thread.ident or 0] = frame
        return every

    def fork(self) -> None:
        """Become the child: the running actor alone goes on, with another process's number."""
        self.pid += 1
        for actor in self.actors:
            if actor is not self.running and not actor.is_done:
                actor.ready, actor.until, actor.is_daemon = _never, inf, True
        for hook in self._fork_hooks:
            hook()

    def _next_of_all(self) -> Actor:
        """Who goes on where the running one cannot; time passes if nobody could otherwise."""
        while True:
            able = [each for each in self.actors if each.can_go_on(self.now)]
            if able:
                # The watchdog before the threads that it looks after: what is due falls due.
                return self.schedule.next(able) or able[-1]
            instant = min((each.until for each in self.actors if not each.is_done), default=inf)
            assert instant < inf, f"a deadlock: {self._told()}"
            assert instant < _START + _LONGEST, f"nothing comes of it: {self._told()}"
            self.now = instant

    def _switch(self, actor: Actor, chosen: Actor) -> None:
        if chosen is not actor:
            self._hand_over(chosen)
            actor.baton.acquire()
        if self.is_over:
            raise End

    def _hand_over(self, chosen: Actor) -> None:
        self.running = chosen
        chosen.baton.release()

    def _deliver(self, actor: Actor) -> None:
        if actor.pending is None:
            return
        if actor.delay > 0:
            actor.delay -= 1
            return
        error, actor.pending = actor.pending, None
        raise error  # type: ignore[misc]

    def _told(self) -> str:
        return ", ".join(f"{each.name} {'done' if each.is_done else each.until}" for each in self.actors)

    # What takes the place of the system's

    def native(self) -> Any:
        """In the place of ``hostline._native``: the same names, all under control."""
        return SimpleNamespace(
            SimpleQueue=partial(Queue, self),
            after_fork_in_child=self._fork_hooks.append,
            native_get_ident=threading.get_ident,
            native_lock=partial(Lock, self),
            native_rlock=threading.RLock,
            start_native_thread=self.start_daemon,
        )

    def start_daemon(self, run: Callable[..., object], args: tuple[object, ...]) -> None:
        self.add(lambda: run(*args), f"thread {len(self.actors)}", is_daemon=True)


def _never() -> bool:
    return False


class Lock:
    """A lock of ``_thread``'s, for actors."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._is_taken = False

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        patience = inf if timeout < 0 else timeout
        if self._is_taken and (not blocking or not self._scheduler.wait(self._is_free, patience)):
            return False
        self._is_taken = True
        return True

    def release(self) -> None:
        if not self._is_taken:
            raise RuntimeError("release unlocked lock")
        self._is_taken = False

    def locked(self) -> bool:
        return self._is_taken

    def _is_free(self) -> bool:
        return not self._is_taken

    def __enter__(self) -> bool:
        self._scheduler.point()
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class Queue:
    """A ``SimpleQueue``, for actors."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._items: deque[Any] = deque()

    def put(self, item: object) -> None:
        self._items.append(item)

    def qsize(self) -> int:
        return len(self._items)

    def get(self) -> Any:
        self._scheduler.wait(lambda: bool(self._items))
        return self._items.popleft()


Attempt = Callable[[Schedule], object]


def attempting(model: Callable[..., Any]) -> Callable[..., Callable[[Schedule], None]]:
    """What makes one run of a scene on such a model, with a mutation or without."""

    def attempt(scene: Callable[[Any], object], mutation: object = None) -> Callable[[Schedule], None]:
        def run(schedule: Schedule) -> None:
            played = model(schedule, mutation)
            scene(played)
            played.run()

        return run

    return attempt


def every_schedule(
    attempt: Attempt, switches: int, delays: Sequence[int] = (), *, stride: int = 1, first: int = 0
) -> int:
    """Try all schedules with at most so many switches, at every ``stride``-th point; how many there are.

    Each is one more switch, behind the last one of a schedule that has been tried (Musuvathi
    and Qadeer call it iterative context bounding: most defects need two).
    """
    return sum(1 for _ in schedules(attempt, {}, switches, delays, stride, first))


def schedules(
    attempt: Attempt, switches: dict[int, int], more: int, delays: Sequence[int], stride: int, first: int
) -> Iterator[Schedule]:
    """Those that have been tried, with these switches and so many more."""
    schedule = Schedule(dict(switches), delays)
    try:
        attempt(schedule)
    except BaseException as error:
        error.add_note(f"with {schedule}")
        raise
    yield schedule
    if more == 0:
        return
    for point in range(first, schedule.points, stride):
        for other in range(schedule.choices[point]):
            yield from schedules(attempt, {**switches, point: other}, more - 1, delays, stride, point + 1)
