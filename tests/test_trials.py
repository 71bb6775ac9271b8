"""The trials in short: each is a program of its own (tests/trials), and fails by its exit status."""

import subprocess
import sys
from pathlib import Path

import pytest

TRIALS = Path(__file__).parent / "trials"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def passes(program, *arguments):
    done = subprocess.run([sys.executable, TRIALS / program, *arguments], capture_output=True, text=True)
    return done.returncode == 0 or pytest.fail(f"{done.stdout}\n{done.stderr}")


@pytest.mark.parametrize(
    "idiom",
    (
        "AcquireTry",
        "ContextManager",
        "FailingIn",
        "Import",
        "InterruptedIn",
        "Logging",
        "Pool",
        "PutAndGet",
        "SetAndClear",
        "Transaction",
        "WithCondition",
        "WithLock",
    ),
)
def test_aborts_leave_no_state_broken(idiom):
    """None in the main thread; in threads at most one of 60 (of 5,000: see the docs)."""
    if idiom == "Pool":
        pytest.importorskip("sqlalchemy")
    roads = ("--roads", "main,threads")
    assert passes("broken_state.py", "--only", idiom, "--aborts", "60", "--at-most", "0.02", *roads)


def test_no_near_miss_hits_anything_else():
    assert passes("near_misses.py", "--count", "4000")


def test_no_near_miss_hits_anything_else_on_a_loop():
    assert passes("near_misses_asgi.py", "--count", "8000")


def test_never_more_pool_threads_than_allowed():
    assert passes("pool_threads.py", "--count", "120")


def test_frames_are_read_without_harm():
    assert passes("frames.py", "--walks", "300")


def test_timeouts_leave_nothing_behind():
    assert passes("leftovers.py", "--timeouts", "1000")


def test_answers_are_not_late():
    """The median, without other work: all else is what the machine makes of it."""
    assert passes("lateness.py", "--timeouts", "11", "--at-most", "150")


def test_fuzzing_stops_by_itself_and_finds_nothing():
    pytest.importorskip("yarl")
    assert passes("fuzz.py", "--minutes", "0.05", "--part", "request-start,watchdog,loop")
