"""An outage does not become a flood: so many lines and stacks of a kind a minute, and what was left out."""

import logging
import sys

import pytest

from hostline import _log_ration, _stacks
from hostline._log_ration import LINES, PERIOD, STACKS, log_ration
from hostline._observers import Observers
from hostline._requests import State, reporter
from hostline.observers.logging import log
from timeouts import BareRequest, eventually


class Clock:
    now = 1_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(log_ration, "_clock", made)
    log_ration.reset()
    return made


TRACE = _stacks.of_thread(sys._getframe())[-5:]


def _time_out(observers):
    request = BareRequest()
    request.trace = TRACE
    observers.tell(request, State.TIMED_OUT)


LEFT_OUT = "source=hostline left_out=%d stacks_left_out=%d of %s in 60s: the log is kept short"


@pytest.mark.slow
def test_ten_thousand_timeouts_in_a_minute(clock, caplog):
    observers = Observers([log])
    for _ in range(10_000):
        clock.now += PERIOD / 10_001
        _time_out(observers)
    assert len(caplog.messages) == LINES
    assert sum("\n" in message for message in caplog.messages) == STACKS
    assert sum(len(message) for message in caplog.messages) < 100_000
    clock.now += PERIOD
    _time_out(observers)
    summary, line = caplog.messages[LINES:]
    assert summary == LEFT_OUT % (10_000 - LINES, LINES - STACKS, "timed_out")
    assert f'File "{__file__}"' in line, "a new minute has stacks again"


def test_a_record_without_its_stack_says_so_to_no_field_either(clock, caplog):
    for _ in range(STACKS + 1):
        _time_out(Observers([log]))
    *_, last, bare = caplog.records
    assert last.stack in last.getMessage()
    assert bare.stack is None
    assert bare.getMessage().endswith("state=timed_out")


def test_each_kind_has_its_own(clock, caplog):
    observers = Observers([log])
    for _ in range(LINES + 1):
        observers.tell(BareRequest(), State.TIMED_OUT)
    observers.tell(BareRequest(), State.EXPIRED)
    assert len(caplog.messages) == LINES + 1
    assert caplog.messages[-1].endswith("state=expired")


def test_what_was_asked_for_is_not_rationed(clock, caplog):
    observers = Observers([log])
    with caplog.at_level(logging.INFO, "hostline"):
        for _ in range(2 * LINES):
            observers.tell(BareRequest(), State.COMPLETED)
    assert len(caplog.messages) == 2 * LINES


def test_a_defect_of_an_observer_s_is_no_flood_either(clock, caplog):
    def broken(event):
        raise ValueError

    broken.is_immediate = True
    observers = Observers([broken])
    for _ in range(2 * LINES):
        observers.tell(BareRequest(), State.COMPLETED)
    assert len(caplog.records) == LINES
    assert sum(record.exc_info is not None for record in caplog.records) == STACKS


def test_it_is_said_when_the_minute_is_over_though_nothing_comes_any_more(monkeypatch, caplog):
    monkeypatch.setattr(_log_ration, "PERIOD", 0.05)
    log_ration.reset()
    logger = logging.getLogger("hostline")
    with monkeypatch.context() as patch:
        patch.setattr(log_ration, "_clock", Clock())
        for _ in range(LINES + 3):
            logger.error("the same again")
    monkeypatch.setattr(log_ration, "_clock", lambda: Clock.now + 1)
    assert eventually(lambda: len(caplog.messages) > LINES)
    assert reporter.flush(20)
    assert caplog.messages[LINES:] == [
        "source=hostline left_out=3 stacks_left_out=0 of the same again in 0s: the log is kept short"
    ]


def test_a_minute_in_which_all_was_written_ends_in_silence(clock, caplog):
    logger = logging.getLogger("hostline")
    logger.error("once")
    clock.now += PERIOD
    logger.error("once")
    assert caplog.messages == ["once"] * 2


def test_more_kinds_than_there_can_be_are_not_counted(clock, caplog):
    logger = logging.getLogger("hostline")
    for number in range(200):
        logger.error(f"kind {number}")  # noqa: G004 - a text for each
    for _ in range(2 * LINES):
        logger.error("kind 199")
    assert len(caplog.messages) == 200 + 2 * LINES
    assert len(log_ration._minutes) == 100


def test_nobody_is_told_of_what_the_parent_has_left_out():
    assert not _log_ration._Summary(0.0, print).survives_fork()
