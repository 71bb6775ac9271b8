"""What code's check points are told to be, of functions that show one matter each."""

import ctypes
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path

import pytest

from hostline import _safepoints
from hostline._calls import Call, call_at, calls, offset_of, receiver_of
from hostline._points import OUT, points
from hostline._safepoints import has_acquired, is_acquiring, may_inject
from timeouts import eventually

IS_LATE = sys.version_info >= (3, 13)


@pytest.fixture(params=(False, True), ids=("at once", "late"))
def is_late(request, monkeypatch):
    """Both ways of CPython, in any: whether an exception is raised only where the thread comes next."""
    monkeypatch.setattr(_safepoints, "_RAISES_LATE", request.param)
    return request.param


def lines_of(function):
    """The line of each offset, counted from the ``def``; None where the compiler names none."""
    code = function.__code__
    spans = [(range(start, end), line) for start, end, line in code.co_lines() if line]
    return defaultdict(lambda: None, {at: line - code.co_firstlineno for span, line in spans for at in span})


def lines(function, name, only_checks=True):
    """The lines, counted from the ``def``, of those check points that belong to a set."""
    code = function.__code__
    found = points(code)
    offsets = getattr(found, name) & found.checks if only_checks else getattr(found, name)
    line_at = lines_of(function)
    return sorted({line_at[offset] for offset in offsets})


def ahead(function, line):
    """The lines of the check points that come after those of a line."""
    code = function.__code__
    found = points(code)
    line_at = lines_of(function)
    here = [offset for offset in found.checks if line_at[offset] == line]
    return {offset if offset == OUT else line_at[offset] for at in here for offset in found.ahead[at]}


def take_bare(lock):
    one()
    lock.acquire()
    try:
        one()
    finally:
        lock.release()


def take_from_nothing_plain(locks):
    locks[0].acquire()
    one()


def give_up_soon(lock):
    if not lock.acquire(timeout=1):
        raise ValueError
    try:
        one()
    finally:
        lock.release()


def spin(lock):
    while not lock.acquire(timeout=0.1):
        pass


def clean_up(things):
    try:
        one(things)
        if things:
            return 1
    except ValueError:
        one(things)
    finally:
        one(things)
        things.close()
    return one(things)


def clean_up_and_go_on(things):
    for thing in things:
        try:
            one(thing)
        finally:
            one(thing)
            continue  # noqa: B012


def catch_all():
    try:
        one()
    except:  # noqa: E722
        one()


def catch_groups():
    try:
        one()
    except* ValueError:
        one()


def hold(lock):
    with lock:
        one()
    one(None, None)


def one(*_):
    return 1


def yield_all(things):
    for thing in things:
        yield one(thing)
    yield from things


async def wait_for(thing):
    async with thing:
        await thing
    async for each in thing:
        one(each)


def loop_on_condition(lock):
    with lock:
        n = 0
        while n < 10**12:
            n += 1


def loop_at_once(lock):
    lock.acquire()
    try:
        while True: pass  # noqa: E701  # fmt: skip
    finally:
        lock.release()


def test_a_bare_lock_is_in_nobody_s_hands_until_the_try():
    assert lines(take_bare, "acquiring") == [2]
    assert lines(take_bare, "acquiring", only_checks=False) == [2, 3]
    assert lines(give_up_soon, "acquiring") == [1]
    assert 2 not in lines(spin, "acquiring"), "the loop itself has not got it"


def test_of_whatever_it_is_called_on():
    assert lines(take_from_nothing_plain, "acquiring") == [1, 2]


def test_what_a_finally_does():
    assert lines(clean_up, "cleaning") == [8, 9]
    assert lines(clean_up, "delicate") == [8], "the last call has done it all when it has returned"
    assert lines(clean_up, "delicate_ahead") == [8, 9]
    assert 5 in lines(clean_up_and_go_on, "cleaning")
    assert 3 not in lines(clean_up_and_go_on, "cleaning")


def test_what_handles_an_error_is_no_finally():
    assert lines(catch_all, "cleaning") == []
    assert lines(catch_groups, "cleaning") == []


def test_the_end_of_a_with():
    assert lines(hold, "delicate") == []
    assert lines(hold, "delicate_ahead") == [1]
    assert lines(take_bare, "delicate_ahead") == [2, 6]


def test_what_comes_next():
    assert ahead(take_bare, 1) == {2}
    assert ahead(take_bare, 2) == {4}
    assert ahead(take_bare, 4) == {6}
    assert ahead(clean_up, 10) == {OUT}
    assert OUT in ahead(yield_all, 2)
    assert 1 in ahead(loop_at_once, 3) or 3 in ahead(loop_at_once, 3)
    assert points(wait_for.__code__).checks


def test_all_code_can_be_read():
    """Whatever there is in the standard library's larger modules."""
    import argparse  # noqa: PLC0415
    import asyncio.base_events  # noqa: PLC0415
    import tarfile  # noqa: PLC0415
    import typing  # noqa: PLC0415

    def codes(code):
        yield code
        for constant in code.co_consts:
            if isinstance(constant, type(code)):
                yield from codes(constant)

    for module in (argparse, asyncio.base_events, tarfile, threading, typing):
        for code in codes(compile(Path(module.__file__).read_text(), module.__file__, "exec")):
            found = points(code)
            assert found.delicate <= set(found.ahead)
            assert all(found.ahead[offset] for offset in found.checks), code


class Aborted(BaseException):
    pass


def abort(code, lock):
    """Whether code that was broken in its loop has given its lock back."""

    def run(depth=3):  # far from `threading`, which must not be broken
        try:
            run(depth - 1) if depth else code(lock)
        except Aborted:
            pass

    thread = threading.Thread(target=run)
    thread.start()
    assert eventually(lock.locked)
    time.sleep(0.01)
    frame = sys._current_frames()[thread.ident]
    is_safe = may_inject(frame)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(Aborted))
    thread.join()
    return is_safe, not lock.locked()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("code", (loop_on_condition, loop_at_once), ids=lambda code: code.__name__)
def test_loops_that_cpython_leaves_out_of_its_handlers(code):
    """It is what it does: where a loop is told to be unsafe, an exception there misses the handlers."""
    is_safe, is_released = abort(code, threading.Lock())
    assert is_safe == is_released
    assert is_safe == ((code is loop_on_condition) is not IS_LATE)


class Frame:
    """A frame as far as it is looked at."""

    def __init__(self, function, at, back=None, module="app"):
        self.f_code = function.__code__
        self.f_lasti = at
        self.f_lineno = 0
        self.f_globals = {"__name__": module}
        self.f_back = back


def check(function, line, kind="calls"):
    """The offset of this line's first check point of a kind."""
    code = function.__code__
    found = points(code)
    line_at = lines_of(function)
    return min(offset for offset in getattr(found, kind) if line_at[offset] == line)


def test_injection_before_a_lock_is_taken(is_late):
    frame = Frame(take_bare, check(take_bare, 1))
    assert may_inject(frame) is not is_late
    assert may_inject(frame, stands_still=True), "it is raised when this very call returns"
    assert is_acquiring(frame) is is_late
    assert not has_acquired(frame)
    frame = Frame(take_bare, check(take_bare, 2))
    assert not may_inject(frame)
    assert not may_inject(frame, stands_still=True)
    assert is_acquiring(frame)
    assert has_acquired(frame)


def test_injection_before_a_with_ends(is_late):
    frame = Frame(hold, check(hold, 2))
    assert may_inject(frame) is not is_late
    assert may_inject(frame, stands_still=True)
    assert may_inject(Frame(hold, check(hold, 1)), stands_still=True), "there it has ended"


def test_injection_where_the_caller_goes_on(is_late):
    caller = Frame(take_bare, check(take_bare, 4))
    returning = Frame(one, max(points(one.__code__).checks), caller)
    assert may_inject(returning) is not is_late, "the finally comes next"
    caller = Frame(hold, check(hold, 3))
    assert may_inject(Frame(one, max(points(one.__code__).checks), caller))


def test_injection_within_a_finally():
    caller = Frame(clean_up, check(clean_up, 8))
    inner = Frame(hold, check(hold, 3), caller)
    assert not may_inject(inner)
    assert not may_inject(Frame(hold, check(hold, 3), Frame(one, 0, caller)))


def test_injection_where_an_instruction_is_no_check_point():
    """A contended lock of a ``with``: the exception is raised in its body."""
    entering = min(set(points(hold.__code__).ahead) - {0})
    assert may_inject(Frame(hold, entering))


@pytest.mark.usefixtures("is_late")
def test_a_loop_is_taken_to_go_on():
    def loop(lock, things):
        with lock:
            for _ in things:
                pass

    assert may_inject(Frame(loop, min(points(loop.__code__).loops)))


def test_no_frame_no_harm():
    assert may_inject(None)
    assert not has_acquired(None)
    assert not is_acquiring(None)


def test_where_the_handler_itself_is_interrupted():
    outer = Frame(one, 0, module="hostline._breaker")
    frame = outer
    for _ in range(10):
        frame = Frame(one, 0, frame)
    assert not may_inject(frame)


@pytest.mark.parametrize(
    "module", ("hostline._wsgi_timeout", "hostline._wsgi_bodies", "hostline._interrupts")
)
def test_injection_between_two_lines_of_a_guard(module):
    assert not may_inject(Frame(one, 0, module=module))
    assert may_inject(Frame(one, 0, Frame(one, 0, module=module)))


class Box:
    def __init__(self, content):
        self.content = content


def doze(clock, seconds):
    return clock.sleep(seconds)


@pytest.mark.parametrize("times_before", (0, 100), ids=("cold", "hot"))
def test_what_is_called_where_it_waits(times_before):
    """CPython 3.11 stands at another instruction once it has often called the same thing."""
    for _ in range(times_before):
        doze(time, 0)
    thread = threading.Thread(target=doze, args=(time, 0.3))
    thread.start()
    told = set()
    while thread.is_alive():
        frame = sys._current_frames().get(thread.ident)
        if frame is not None and frame.f_code is doze.__code__:
            told.add(call_at(frame))
        time.sleep(0.01)
    assert Call(("clock",), "sleep") in told
    assert told <= {None, Call(("clock",), "sleep")}


def test_where_the_one_that_has_called_stands():
    def tell():
        frame = sys._getframe(1)
        return offset_of(frame), frame.f_code

    at, code = tell()
    assert at in points(code).calls
    assert offset_of(Frame(one, -1)) == -1, "not yet begun"


def call_methods(thing, things, flag):
    """A call a line, each of another kind."""
    thing.plain(1, key=flag)
    thing.content.deep()
    BOX.content.of_a_global(things)
    things[0].of_no_name()
    thing.choosing(1 if flag else 2)
    one(thing)


BOX = Box(3)


def test_what_is_called():
    line_at = lines_of(call_methods)
    told = {line_at[offset]: call for offset, call in calls(call_methods.__code__).items()}
    assert told == {
        2: Call(("thing",), "plain"),
        3: Call(("thing", "content"), "deep"),
        4: Call(("BOX", "content"), "of_a_global"),
        5: Call((), "of_no_name"),
        7: Call((), ""),
    }


def test_on_what_it_is_called():
    frame = Frame(call_methods, check(call_methods, 3))
    frame.f_globals = globals()
    frame.f_locals = {"thing": Box(5), "things": [Box(6)]}
    assert receiver_of(call_at(frame), frame) == 5
    found = {call.method: receiver_of(call, frame) for call in calls(call_methods.__code__).values()}
    assert found["plain"] is frame.f_locals["thing"]
    assert found["of_a_global"] == 3
    assert found["of_no_name"] is None
    assert receiver_of(Call(("nowhere", "content"), "x"), frame) is None
