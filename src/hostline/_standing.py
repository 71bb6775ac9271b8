"""What a thread that is looked at again and again is doing, and whether it may be shot at there.

A thread that is in a C call raises what is pending for it when the call has returned. Where the call
fails instead, CPython goes to the handler first, and what is pending is raised in the first function
that the clean-up calls: the connection is not given back. So a thread that stays in such a call gets
no shot. It is woken without one, its error goes the way of all errors, and the shot is sent when it
is seen at a safe place. One that cannot be woken is waited for, which costs nothing: it does nothing.

It may catch the error and try again, or wait in many short turns. One that goes on like that is shot
at in its call after all. All is done by who looks: the watchdog, or the thread itself.
Imports: ``_safepoints``, ``_unblocking``.
"""

from math import inf
from types import FrameType

from hostline import _safepoints, _unblocking

#: How often in a row a thread has to be found where it was, for it to count as staying there.
_LOOKS = 3
#: How long a thread that runs is let run, if all that one sees it at are calls that are known to fail.
_RUNNING = 0.03
#: How long one that is woken, or has stood still, has to leave its call.
_LEAVING = 0.015
#: How many times one that goes on when it is woken is woken without a shot.
_WAKES = 12
#: How soon to look again at one that gets no shot, and for how long it is looked at more often.
_PAUSE, _SHORT_PAUSE, _SOON = 0.005, 0.001, 0.03


class Standing:
    """What is known of one thread."""

    def __init__(self) -> None:
        self._place: tuple[FrameType | None, int] = (None, -1)
        self._cpu_time = 0.0
        self._looks_here = 0  # in a row
        self._looks_alike = 0  # that have not seen it compute, either
        self._stays_since = inf  # where it gets no shot
        self._tried_at = -inf  # when it was last tried to wake it here
        self._is_woken = False  # whether there was something to wake
        self._was_just_woken = False
        self._wakes_left = _WAKES
        self._runs_since = inf  # when it was first seen to run where it may get a shot later
        #: When it was last seen to be where it gets none, and there to do nothing at all.
        self.until = self.idle_until = -inf

    def let_go(self) -> None:
        """Hold no frame any longer."""
        self._place = (None, -1)

    def look(self, frame: FrameType | None, cpu_time: float, no_work: float) -> bool:
        """Whether the thread has done nothing in the last looks but wait in this frame's call."""
        place = (frame, -1 if frame is None else frame.f_lasti)
        is_here = place == self._place
        is_alike = is_here and cpu_time - self._cpu_time <= no_work
        if not is_alike:
            self._note_that_it_runs()
        if not is_here:
            self._tried_at, self._is_woken, self._stays_since = -inf, False, inf
        self._was_just_woken = False
        self._place, self._cpu_time = place, cpu_time
        self._looks_here = self._looks_here + 1 if is_here else 0
        self._looks_alike = self._looks_alike + 1 if is_alike else 0
        return self._looks_alike >= _LOOKS

    def _note_that_it_runs(self) -> None:
        if self._was_just_woken:
            self._wakes_left -= 1
        elif self.is_beyond_waking and self._tried_at > -inf:
            self._wakes_left = 0  # where it waits next is as good a place as any

    @property
    def is_beyond_waking(self) -> bool:
        """Whether it does nothing, and there is nothing that could be woken."""
        return self._looks_alike >= _LOOKS and not self._is_woken

    def is_at_risk(self, frame: FrameType, cpu_time: float) -> bool:
        """Whether what is pending for it is to be taken back, as it stays in this frame's call."""
        if self._wakes_left <= 0 or not _may_cut_clean_up(frame):
            return False
        return _unblocking.can_wake(frame) or cpu_time == self._cpu_time

    def note_that_it_stays(self, now: float) -> None:
        """What was pending for it has been taken back."""
        self._looks_here = self._looks_alike = _LOOKS
        self.until = now

    def pause(self, frame: FrameType, now: float) -> float | None:
        """How long to wait with a shot; None: it may be sent. Wakes what stays where it gets none."""
        if not _may_cut_clean_up(frame):
            return None
        if self._looks_here < _LOOKS:
            return self._let_run(frame, now)
        if now - self._tried_at >= _LEAVING and self._wakes_left > 0:
            self._tried_at = now
            self._is_woken = self._was_just_woken = _unblocking.unblock(frame)
        does_nothing = self._looks_alike >= _LOOKS
        if not self._is_woken and not does_nothing:
            return self._let_run(frame, now)
        if self._wakes_left <= 0:
            return None
        self.until = now
        if does_nothing:
            self.idle_until = now
        self._stays_since = min(self._stays_since, now)
        return _SHORT_PAUSE if now - self._stays_since < _SOON else _PAUSE

    def _let_run(self, frame: FrameType, now: float) -> float | None:
        if now - self.until < _LEAVING:
            return _SHORT_PAUSE
        if _unblocking.can_wake(frame):
            self._runs_since = min(self._runs_since, now)
            if now - self._runs_since < _RUNNING:
                return _SHORT_PAUSE
        if self._looks_here >= _LOOKS:
            self._wakes_left = 0  # it computes
        return None


def _may_cut_clean_up(frame: FrameType) -> bool:
    return _unblocking.may_fail(frame) and _safepoints.fails_into_clean_up(frame)
