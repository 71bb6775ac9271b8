"""Frames of other threads, and the collector held off while they are read on CPython 3.11.

That it is needed, and is enough, is shown by tests/trials/frames.py.
"""

import gc
import sys
import threading

import pytest

from hostline import _frames
from hostline._frames import CollectorOff


@pytest.fixture
def collector():
    """As it is found on: what follows may leave it as it likes."""
    gc.enable()
    yield
    gc.enable()


def here():
    return _frames.outwards(sys._getframe())


def test_outwards():
    codes = [frame.f_code for frame in here()]
    assert codes[:2] == [here.__code__, test_outwards.__code__]
    assert list(_frames.outwards(None)) == []


def test_a_local_variable():
    value = object()
    assert _frames.local(sys._getframe(), "value") is value
    assert _frames.local(sys._getframe(), "no_such", 1) == 1


def test_a_thread_that_is_gone_has_no_frame():
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    assert _frames.of_thread(thread.ident) is None


def test_it_is_off_just_so_long(collector):
    off = CollectorOff()
    with off:
        assert not gc.isenabled()
        with off:
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_an_app_that_has_it_off_keeps_it_off(collector):
    gc.disable()
    with CollectorOff():
        pass
    assert not gc.isenabled()


def test_two_threads_take_turns(collector):
    off, seen = CollectorOff(), []

    def other():
        with off:
            seen.append(gc.isenabled())

    with off:
        thread = threading.Thread(target=other)
        thread.start()
        assert not gc.isenabled()
        assert seen == []
    thread.join(20)
    assert seen == [False]
    assert gc.isenabled()


def test_a_fork_in_the_middle_leaves_the_child_with_a_collector(collector):
    off = CollectorOff()
    off.__enter__()  # another thread's doing, which is not there in the child
    off.after_fork()
    assert gc.isenabled()
    in_thread = threading.Thread(target=off.__enter__)  # the lock is a new one
    in_thread.start()
    in_thread.join(20)
    assert not in_thread.is_alive()
    assert not gc.isenabled()


def test_it_is_held_off_where_it_would_run_in_the_middle():
    assert isinstance(_frames.still, CollectorOff) == (sys.version_info < (3, 12))
