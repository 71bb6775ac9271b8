"""Whether a signal ends a blocking call in a thread: asked of this interpreter."""

import signal
import sys
import threading
import time

import pytest

from hostline import _wait_probe
from hostline._wait_probe import WaitProbe


@pytest.fixture
def signum():
    """A signal with a handler, as the probe wants one."""
    before = signal.signal(signal.SIGURG, lambda *_: None)
    yield signal.SIGURG
    signal.signal(signal.SIGURG, before)


@pytest.mark.skipif(sys.version_info >= (3, 15), reason="CPython ends waits from 3.15 on")
def test_up_to_3_14_it_does_not(signum):
    probe = WaitProbe()
    probe.run(signum)
    assert not probe.ends_waits
    assert probe._is_answered


def test_where_the_exception_is_raised_at_once_it_does(signum):
    """As on an interpreter that ends the wait: here one that waits in Python."""

    class Polling(WaitProbe):
        def wait(self, seconds):
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                pass

    probe = Polling()
    probe.run(signum)
    assert probe.ends_waits


def test_asking_does_not_wait_and_tries_once(signum, monkeypatch):
    tried = []
    monkeypatch.setattr(
        _wait_probe, "start_native_thread", lambda run, arguments: tried.append((run, arguments))
    )
    probe = WaitProbe()
    assert [probe.ask(signum), probe.ask(signum)] == [False, False]
    assert tried == [(probe.run, (signum,))]


def test_where_no_thread_can_be_started_the_answer_is_no(signum, monkeypatch):
    """Who asks is about to fire at a thread, and must go on with that."""

    def out_of_threads(call, arguments):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_wait_probe, "start_native_thread", out_of_threads)
    probe = WaitProbe()
    assert not probe.ask(signum)
    probe.run(signum)
    assert not probe.ends_waits


def test_nothing_is_raised_elsewhere(signum):
    """Neither here, nor in the thread that tried, nor is one left running."""
    before = threading.active_count()
    WaitProbe().run(signum)
    assert threading.active_count() == before
