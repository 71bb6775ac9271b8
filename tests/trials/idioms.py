"""The idioms that an abort may break: how each is used, and how one sees that it is broken.

An idiom is used by one thread alone, so whatever is held when its code has come back is
held by nobody.
"""

import _imp
import gc
import importlib
import itertools
import logging
import queue
import sqlite3
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Idiom:
    """One round is ``step``. ``is_broken`` is asked in the same thread, when no code of it runs."""

    name: str
    #: How many steps of other work follow each round: next to none, and as much again.
    other_work = (0, 200)
    #: Whether threads that use it at the same time use one lock all the same.
    shares_a_lock = False

    def step(self) -> None:
        raise NotImplementedError

    def is_broken(self) -> bool:
        raise NotImplementedError

    def discard(self) -> None:
        """Nobody will use it any more."""


class WithLock(Idiom):
    name = "`with Lock`"

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.done = 0

    def step(self) -> None:
        with self.lock:
            self.done += 1

    def is_broken(self) -> bool:
        return self.lock.locked()


class AcquireTry(WithLock):
    name = "`acquire(); try: finally: release()`"

    def step(self) -> None:
        self.lock.acquire()
        try:
            self.done += 1
        finally:
            self.lock.release()


class ContextManager(WithLock):
    name = "`@contextmanager` around a lock"

    def step(self) -> None:
        with self.locked():
            self.done += 1

    @contextmanager
    def locked(self) -> Iterator[None]:
        self.lock.acquire()
        try:
            yield
        finally:
            self.lock.release()


class WithCondition(Idiom):
    name = "`with Condition`"

    def __init__(self) -> None:
        self.condition = threading.Condition(threading.Lock())
        self.done = 0

    def step(self) -> None:
        with self.condition:
            self.done += 1
            self.condition.notify_all()

    def is_broken(self) -> bool:
        return not _is_free(self.condition)


class PutAndGet(Idiom):
    name = "`queue.Queue` put, get"

    def __init__(self) -> None:
        self.queue: queue.Queue[int] = queue.Queue()

    def step(self) -> None:
        self.queue.put(1)
        self.queue.get()

    def is_broken(self) -> bool:
        return self.queue.mutex.locked()


class SetAndClear(Idiom):
    name = "`Event` set, clear"

    def __init__(self) -> None:
        self.event = threading.Event()

    def step(self) -> None:
        self.event.set()
        self.event.clear()

    def is_broken(self) -> bool:
        return not _is_free(self.event._cond)


class _Nowhere:
    def write(self, text: str) -> None:
        pass

    def flush(self) -> None:
        pass


class Logging(Idiom):
    name = "`logging`, a handler's lock"
    other_work = (100, 1_000)

    def __init__(self) -> None:
        self.logger = logging.Logger("trial")  # noqa: LOG001 - one for each thread, of no parent
        self.handler = logging.StreamHandler(_Nowhere())
        self.logger.addHandler(self.handler)

    def step(self) -> None:
        self.logger.warning("%s happened", "something")

    def is_broken(self) -> bool:
        return self.handler.lock is None or not _is_free(self.handler.lock)


MODULE = """
import collections
import enum

class Colour(enum.Enum):
    RED = 1
    GREEN = 2

Point = collections.namedtuple("Point", "x y")

def area(point):
    return point.x * point.y

TABLE = {area(Point(x, y)): Colour.RED for x in range(5) for y in range(5)}
COMPLETE = True
"""


class Import(Idiom):
    name = "an import"
    # A loop that did nothing but import would be broken in it, when putting it off has an end.
    other_work = (5_000, 20_000)
    shares_a_lock = True
    _numbers = itertools.count()
    _folder: Path | None = None

    def __init__(self) -> None:
        cls = type(self)
        if cls._folder is None:
            cls._folder = Path(tempfile.mkdtemp(prefix="hostline-trial-"))
            sys.path.insert(0, str(cls._folder))
        self.module = f"imported_in_trial_{next(cls._numbers)}"
        cls._folder.joinpath(f"{self.module}.py").write_text(MODULE)
        importlib.invalidate_caches()

    def step(self) -> None:
        sys.modules.pop(self.module, None)
        __import__(self.module)

    def is_broken(self) -> bool:
        module = sys.modules.get(self.module)
        if module is not None and not hasattr(module, "COMPLETE"):
            return True
        # Where a lock is still held, another thread's import waits for ever.
        lock = importlib._bootstrap._module_locks.get(self.module, lambda: None)()  # type: ignore[attr-defined]
        return _imp.lock_held() or (lock is not None and lock.owner is not None)

    def discard(self) -> None:
        while _imp.lock_held():
            _imp.release_lock()
        sys.modules.pop(self.module, None)


class Pool(Idiom):
    name = "SQLAlchemy pool check-out"
    other_work = (200, 2_000)

    def __init__(self) -> None:
        from sqlalchemy import create_engine, text  # noqa: PLC0415 - the other idioms do without
        from sqlalchemy.pool import QueuePool  # noqa: PLC0415

        self.engine = create_engine("sqlite://", poolclass=QueuePool, pool_size=1, max_overflow=0)
        self.statement = text("select 1")

    def step(self) -> None:
        with self.engine.connect() as connection:
            connection.execute(self.statement)

    def is_broken(self) -> bool:
        pool = self.engine.pool
        # checkedout() itself takes the lock of its queue.
        return not _is_free(pool._pool.mutex) or not _is_free(pool._overflow_lock) or pool.checkedout() != 0

    def discard(self) -> None:
        if _is_free(self.engine.pool._pool.mutex):
            self.engine.dispose()


class Transaction(Idiom):
    name = "`sqlite3` transaction"

    def __init__(self) -> None:
        self.connection = sqlite3.connect(":memory:")
        self.connection.execute("create table deeds (deed integer)")

    def step(self) -> None:
        with self.connection as connection:
            connection.execute("insert into deeds values (1)")
            connection.execute("delete from deeds")

    def is_broken(self) -> bool:
        return self.connection.in_transaction

    def discard(self) -> None:
        self.connection.close()


class FailingInFinally(Idiom):
    name = "a pool, a statement that fails: `try: finally:`"
    #: In a loop that did hardly anything else, every look would find it in the statement.
    other_work = (40_000, 80_000)

    def __init__(self) -> None:
        self.connection = sqlite3.connect(":memory:", check_same_thread=False)
        self.free = [self.connection]

    def step(self) -> None:
        connection = self.free.pop()
        try:
            self.execute(connection)
        except sqlite3.Error:
            pass
        finally:
            self.put(connection)

    def execute(self, connection: sqlite3.Connection) -> None:
        connection.execute("select 1 from nowhere")

    def put(self, connection: sqlite3.Connection) -> None:
        self.free.append(connection)

    def is_broken(self) -> bool:
        return not self.free

    def discard(self) -> None:
        self.connection.close()


class FailingInWith(FailingInFinally):
    name = "the same: a Python `__exit__`"

    def step(self) -> None:
        try:
            with self as connection:
                self.execute(connection)
        except sqlite3.Error:
            pass

    def __enter__(self) -> sqlite3.Connection:
        return self.free.pop()

    def __exit__(self, *error: object) -> None:
        self.put(self.connection)


# Not without end: a bare exception does not interrupt it.
SLOW = (
    "with recursive n(i) as (select 1 union all select i + 1 from n where i < 50000) select count(*) from n"
)


class InterruptedInFinally(FailingInFinally):
    name = "a pool, a slow statement that is interrupted: `try: finally:`"

    def step(self) -> None:
        connection = self.free.pop()
        try:
            connection.execute(SLOW)
        finally:
            self.put(connection)


class InterruptedInWith(FailingInWith):
    name = "the same: a Python `__exit__` "

    def step(self) -> None:
        with self as connection:
            connection.execute(SLOW)


IDIOMS: tuple[type[Idiom], ...] = (
    WithLock,
    AcquireTry,
    ContextManager,
    WithCondition,
    PutAndGet,
    SetAndClear,
    Logging,
    Import,
    Pool,
    Transaction,
    FailingInFinally,
    FailingInWith,
    InterruptedInFinally,
    InterruptedInWith,
)


def is_broken_for_good(idiom: Idiom) -> bool:
    """Whether it is broken, and stays so once all is gone that the exception's traceback held."""
    if not idiom.is_broken():
        return False
    gc.collect()
    return idiom.is_broken()


def _is_free(lock: "threading.Lock | threading.RLock | threading.Condition") -> bool:
    """Whether somebody else could take it: the owner of an RLock always could."""
    answers: list[bool] = []

    def try_it() -> None:
        answers.append(lock.acquire(blocking=False))
        if answers[0]:
            lock.release()

    thread = threading.Thread(target=try_it)
    thread.start()
    thread.join()
    return answers[0]
