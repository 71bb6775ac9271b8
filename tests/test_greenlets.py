"""Greenlets of gevent's: how they are broken, and what else the deadline asks of their hub.

gevent replaces what every test here uses, for good, so each case runs in a process of its own.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timed

pytest.importorskip("gevent")

HERE = Path(__file__).parent
LIMIT = 0.2
#: An answer before this has not waited for what it was aborted in (3 s), nor for a second shot (1 s).
SOON = 1.0


def see(case):
    """What there is to see of a case."""
    done = subprocess.run(
        [sys.executable, str(HERE / "greenlet_program.py"), case],
        stdout=subprocess.PIPE,
        timeout=20,
        check=True,
    )
    return json.loads(done.stdout)


def assert_aborted(answer, within=SOON):
    assert answer["status"] == "504"
    assert LIMIT <= answer["seconds"] < within


# Blocks that the deadline cancels.

STEPS = ["cancel", "cancelled", "left"]


@pytest.mark.parametrize(
    "case", ("block_that_waits", "block_that_computes", "block_where_no_thread_can_be_started")
)
def test_a_block_is_left_when_it_has_been_cancelled(case):
    seen = see(case)
    assert_aborted(seen)
    assert seen["steps"] == STEPS


def test_others_run_while_a_block_is_cancelled():
    seen = see("block_whose_cancelling_waits")
    assert_aborted(seen)
    assert seen["steps"] == STEPS
    assert seen["gap"] < LIMIT


def test_what_is_thrown_meanwhile_waits_for_the_cancelling():
    seen = see("timeout_while_a_block_waits")
    assert seen["steps"] == STEPS
    assert_aborted(seen)


def test_a_driver_that_waits_in_c_is_cancelled_from_another_thread():
    seen = see("block_of_a_driver_that_waits_in_c")
    assert_aborted(seen)
    assert (seen["cancelled"], seen["here"]) == (1, False)


def test_a_driver_of_gevents_ends_by_the_cancelling_alone():
    seen = see("block_that_a_driver_of_gevents_ends")
    assert_aborted(seen)
    assert seen["ends"] == ["by its cancelling", "aborted"]


def test_clean_up_may_enter_blocks():
    assert see("block_in_clean_up") == {"statuses": ["504", "504"], "ran": 2}


# From one way of being broken to the other.


@pytest.mark.parametrize(
    "case",
    (
        "computes_where_it_may_not_be_broken_then_waits",
        "waits_where_it_may_not_be_broken_then_computes",
        "resumed_by_one_that_starves_the_hub",
    ),
)
def test_what_could_not_be_broken_is_when_it_can_be(case):
    assert_aborted(see(case))


def test_a_shields_end_raises():
    seen = see("shielded_then_computes")
    assert_aborted(seen)
    assert seen["seen"] == []


def test_what_swallows_is_broken_once_more_the_other_way():
    assert_aborted(see("swallows_then_computes"), within=LIMIT + 1 + SOON)


def test_no_way_fires_more_than_twice_in_all():
    seen = see("hits")
    assert seen["hits"] == 2
    assert seen["between"] >= 1


def test_a_checkpoint_ends_it():
    seen = see("given_up_by_a_checkpoint")
    assert_aborted(seen["shielded"])
    assert seen["seen"] == []
    assert_aborted(seen["looks"])


def test_what_was_sent_is_taken_back_from_the_systems_thread():
    seen = see("absorbing")
    assert seen["by"][:1] == seen["native"]


# What is logged of a hub that stands still.


def test_a_log_that_waits_keeps_nobody_past_a_deadline():
    seen = see("log_that_waits")
    assert seen["logged"] == ["another's", "hub_is_blocked", "another's"]
    assert seen["computes"]["seconds"] < 2 * LIMIT
    assert_aborted(seen["waits"])


def test_what_cannot_be_stopped_is_told_of():
    assert see("unstoppable") == {"statuses": ["504", "504"], "logged": ["unstoppable", "unstoppable"]}


# Whom it hits.


@pytest.mark.parametrize("case", ("near_misses_in_the_main_thread", "near_misses_without_a_signal"))
def test_no_abort_gets_into_the_hub_or_another_greenlet(case):
    assert see(case) == {"answers": {"504": 30}, "strangers": {}}


def test_without_a_signal_only_a_cpython_that_raises_at_once_breaks_a_computation():
    seen = see("computes_without_a_signal")
    assert seen["status"] == "504"
    assert (seen["seconds"] < SOON) == (sys.version_info < (3, 13))


def test_a_hub_may_be_in_any_thread():
    assert_aborted(see("hub_of_another_thread"))
