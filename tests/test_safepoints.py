"""Where code may be broken, told of frames that stand at all kinds of places."""

import contextlib
import dis
import functools
import gc
import importlib
import logging
import queue
import signal
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from enum import Enum
from pathlib import Path
from types import SimpleNamespace

import pytest

import hostline
from hostline._safepoints import is_acquiring, may_break
from timeouts import eventually


def deeply(code, depth=3):
    """Call it a few frames down, as every app is called: whoever calls it from outside is far away."""
    return code() if depth == 0 else deeply(code, depth - 1)


def asked_here():
    """Whether the caller may be broken, as told in a signal's handler."""
    return may_break(sys._getframe(1))


class Elsewhere:
    """Runs code in a thread of its own, and shows where it waits."""

    def __init__(self, code):
        self.thread = threading.Thread(target=deeply, args=(code,))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.thread.join(20)
        assert not self.thread.is_alive()

    @property
    def frame(self):
        return sys._current_frames()[self.thread.ident]

    def waits_in(self, function):
        """Whether the innermost frame has come to the function, and stays there."""

        def stands():
            frame = self.frame
            place = frame.f_lasti
            time.sleep(0.002)
            return frame.f_code.co_name == function and self.frame is frame and frame.f_lasti == place

        return eventually(stands)


def test_plain_code_may_be_broken():
    assert asked_here()


def test_a_thread_that_is_gone():
    assert may_break(None)


@pytest.mark.parametrize("name", ("__del__", "__enter__", "__exit__", "acquire", "close", "release"))
def test_code_that_cleans_up_may_not(name):
    space = {"asked_here": asked_here}
    exec(f"def {name}(): return asked_here()", space)
    assert not space[name]()


def test_nor_may_what_it_calls():
    class Connection:
        def close(self):
            return self._say_goodbye()

        def _say_goodbye(self):
            return asked_here()

    assert not Connection().close()


def test_a_callback_of_the_garbage_collector_s_may_not():
    """What is raised there is printed, and the request goes on."""
    told = []

    def callback(phase, info):
        told.append(deeply(asked_here))

    gc.callbacks.append(callback)
    try:
        gc.collect()
    finally:
        gc.callbacks.remove(callback)
    assert told == [False, False]


def _restore(signum, before):
    signal.signal(signum, signal.SIG_DFL if before is None else before)


class Handlers:
    """Handlers of a signal, of every kind that there is."""

    def __init__(self):
        self.told = []

    def method(self, signum, frame):
        self.told.append(deeply(asked_here))

    def __call__(self, signum, frame):
        self.told.append(deeply(asked_here))

    def after(self, number, signum, frame):
        self.told.append(deeply(asked_here))


@pytest.mark.parametrize("kind", ("function", "method", "object", "partial"))
def test_a_handler_of_another_signal_may_not(kind):
    """It is the server's: gunicorn reopens its logs in one."""
    handlers = Handlers()

    def function(signum, frame):
        handlers.told.append(deeply(asked_here))

    handler = {
        "function": function,
        "method": handlers.method,
        "object": handlers,
        "partial": functools.partial(functools.partial(handlers.after), 1),
    }[kind]
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        assert deeply(asked_here), "nobody is in it"
        signal.raise_signal(signal.SIGUSR1)
    finally:
        _restore(signal.SIGUSR1, before)
    assert handlers.told == [False]


def test_what_a_signal_does_by_itself_is_no_handler():
    """``signal.SIG_DFL`` is an ``Enum``: what makes one of a number is code of the app's, too."""
    told = []

    class Colour(Enum):
        RED = 1

        @classmethod
        def _missing_(cls, value):
            told.append(asked_here())
            return cls.RED

    assert deeply(lambda: Colour(2)) is Colour.RED
    assert told == [True]


def _clean_up_with(asked):
    try:
        abs(1)
    finally:
        asked()


def _one_frame_out(asked):
    asked()


def test_within_a_finally_it_may_not():
    """CPython 3.11 and 3.12 tell where a frame is that has called another, but not by its instruction."""
    told = []

    def ask():
        told.append(asked_here())

    deeply(lambda: _clean_up_with(ask))
    deeply(lambda: _clean_up_with(functools.partial(_one_frame_out, ask)))
    deeply(lambda: _clean_up_with(lambda: deeply(ask)))
    assert told == [False, False, True]


def test_what_it_calls_far_below_may():
    """An app that is served within somebody's close() is still an app."""

    def close():
        return one()

    def one():
        return two()

    def two():
        return three()

    def three():
        return asked_here()

    assert close()


def test_code_in_a_with_block_may():
    @contextlib.contextmanager
    def manager():
        yield

    with manager():
        assert asked_here()


def test_a_generator_s_clean_up_in_contextlib_may_not():
    told = []

    @contextlib.contextmanager
    def manager():
        yield
        told.append(asked_here())

    with manager():
        pass
    assert told == [False]


@pytest.mark.parametrize("module", ("logging", "queue", "threading", "weakref", "concurrent.futures.thread"))
def test_bookkeeping_may_not(module):
    space = {"__name__": module, "asked_here": asked_here}
    exec("def anything(): return asked_here()", space)
    assert not space["anything"]()


@pytest.mark.parametrize(
    "path", sorted(Path(hostline.__file__).parent.glob("_[a-z]*.py")), ids=lambda path: path.stem
)
def test_no_module_of_the_guards_own_may(path):
    """Its innermost function alone: the app is what it calls."""
    space = {"__name__": f"hostline.{path.stem}", "may_break": may_break, "sys": sys}
    exec("def anything(): return may_break(sys._getframe())", space)
    assert not deeply(space["anything"])


def test_an_app_that_a_pool_calls_may():
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(deeply, asked_here).result(20)


def test_a_log_handler_holds_its_lock():
    told = []

    class Handler(logging.Handler):
        def emit(self, record):
            told.append(asked_here())

    logger = logging.getLogger("test_safepoints")
    logger.addHandler(handler := Handler())
    try:
        logger.warning("x")
    finally:
        logger.removeHandler(handler)
    assert told == [False]


def test_an_import_may_not(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(sys, "asked_here", lambda: told.append(may_break(sys._getframe(1))), raising=False)
    (tmp_path / "hostline_imported.py").write_text(
        "import sys\ndef f(n): return sys.asked_here() if n == 0 else f(n - 1)\nf(20)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("hostline_imported")
    sys.modules.pop("hostline_imported")
    assert told == [False]


def test_waits_of_conditions_may():
    """Event, Condition, Queue and Future all wait in Condition.wait, which was written to be interrupted."""
    event, items, future, condition = threading.Event(), queue.Queue(), Future(), threading.Condition()

    def wait():
        with condition:
            condition.wait(20)

    def notify():
        with condition:
            condition.notify_all()

    for code, wake in (
        (lambda: event.wait(20), event.set),
        (event.wait, event.set),  # without a timeout it stands at another line
        (lambda: items.get(timeout=20), lambda: items.put(1)),
        (lambda: future.result(20), lambda: future.set_result(1)),
        (wait, notify),
    ):
        event.clear()
        with Elsewhere(code) as there:
            try:
                assert there.waits_in("wait")
                assert may_break(there.frame)
                assert not is_acquiring(there.frame)
            finally:
                wake()


def test_a_bare_lock_that_is_waited_for():
    lock = threading.Lock()
    lock.acquire()

    def take():
        lock.acquire()
        try:
            pass
        finally:
            lock.release()

    with Elsewhere(take) as there:
        try:
            assert there.waits_in("take")
            # It may be granted in the very moment; unless it is known that it has not been.
            assert is_acquiring(there.frame)
            assert not may_break(there.frame)
            assert may_break(there.frame, is_waiting=True)
        finally:
            lock.release()


def _take(lock, x):
    x = x + 1
    lock.acquire()
    try:
        x = x + 2
        x = x + 3
        x = x + 4
    finally:
        lock.release()


def test_a_lock_that_has_just_been_taken():
    """At no instruction between the call and the ``try``; but at those of the work behind it."""
    code = _take.__code__
    told = {1: [], 2: [], 3: [], 6: []}
    for instruction in dis.get_instructions(code):
        line = (instruction.positions.lineno or 0) - code.co_firstlineno
        frame = SimpleNamespace(
            f_code=code, f_lasti=instruction.offset, f_globals=globals(), f_back=None, f_lineno=None
        )
        if line == 2 and instruction.opname not in ("CALL", "POP_TOP"):
            continue  # on its way to the call
        told.get(line, []).append(may_break(frame))
    assert not any(told[2])
    assert not any(told[3])
    assert all(told[6])
    assert sys.version_info >= (3, 13) or all(told[1])
    assert is_acquiring(None) is False


def test_behind_the_try_it_may():
    lock = threading.Lock()
    lock.acquire()
    try:
        x = [1, 2, 3]
        y = [each + 1 for each in x]
        z = sum(y)
        assert z == 9
        assert asked_here()
    finally:
        lock.release()


def test_a_wait_in_a_method_called_acquire_is_a_wait():
    """A semaphore's, a pool's: known to wait, it has not got what it waits for."""
    lock = threading.Lock()
    lock.acquire()

    class Pool:
        def acquire(self):
            lock.acquire()
            lock.release()

    with Elsewhere(Pool().acquire) as there:
        try:
            assert there.waits_in("acquire")
            assert not may_break(there.frame)
            assert may_break(there.frame, is_waiting=True)
        finally:
            lock.release()


def test_pools_in_the_act_of_handing_out(monkeypatch):
    for module, name, expected in (
        ("urllib3.connectionpool", "_get_conn", False),
        ("urllib3.connectionpool", "_put_conn", False),
        ("urllib3.connectionpool", "urlopen", True),
        ("django.db.backends.base.base", "connect", False),
        ("some.app", "connect", True),
        ("sqlalchemy.pool.impl", "_do_get", False),
    ):
        space = {"__name__": module, "asked_here": asked_here}
        exec(f"def {name}(): return asked_here()", space)
        assert space[name]() is expected, (module, name)


@pytest.mark.skipif(
    sys.version_info >= (3, 12), reason="a newborn thread has an id of its own from CPython 3.12 on"
)
def test_the_start_of_a_thread_may_not_on_3_11(monkeypatch):
    told = []
    started = threading.Thread(target=lambda: None)
    monkeypatch.setattr(threading, "_start_new_thread", lambda *_: told.append(asked_here()) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        started.start()
    assert told == [False]
