"""Whether a signal ends a blocking call of a thread that an exception is pending for.

Up to CPython 3.14 it does not: the call is taken up again. From 3.15 on
``PyErr_CheckSignals`` raises asynchronous exceptions too (python/cpython#144748), and then
``time.sleep``, a bare lock and all that waits in C can be broken in any thread. What this
interpreter does is tried out, once, with a thread made for it.

Imports: ``_async_exceptions``, ``_native``.
"""

import contextlib
import signal
import time
from _thread import LockType
from threading import get_ident

from hostline._async_exceptions import set_async_exc
from hostline._native import after_fork_in_child, native_lock, start_native_thread

#: How long the thread sleeps if nothing wakes it, and how long it is given to fall asleep.
SLEEP = 0.1
_FALLING_ASLEEP = 0.02


class _Woken(BaseException):
    """What is raised in the thread that is tried."""


class WaitProbe:
    """Tries it out when it is first asked; the answer until then is no."""

    def __init__(self) -> None:
        self.ends_waits = False
        self._has_begun = self._is_answered = False

    def after_fork(self) -> None:
        """The thread that tried has not come along; the answer has, if there was one."""
        self._has_begun = self._is_answered

    def ask(self, signum: int) -> bool:
        """Whether this signal, which must have a handler, ends waits. Never blocks."""
        if not self._has_begun:
            self._has_begun = True
            with contextlib.suppress(RuntimeError):  # out of threads, or of memory: taken for a no
                start_native_thread(self.run, (signum,))
        return self.ends_waits

    def run(self, signum: int) -> None:
        """Try it. In a thread of its own."""
        begun, ended = native_lock(), native_lock()
        begun.acquire()
        ended.acquire()
        sleeper: list[int] = []
        try:
            start_native_thread(self._sleep, (sleeper, begun, ended))
        except RuntimeError:
            return  # as in `ask`
        begun.acquire()
        time.sleep(_FALLING_ASLEEP)
        set_async_exc(sleeper[0], _Woken)
        signal.pthread_kill(sleeper[0], signum)
        ended.acquire()
        self._is_answered = True

    def _sleep(self, sleeper: list[int], begun: LockType, ended: LockType) -> None:
        sleeper.append(get_ident())
        until = time.monotonic() + SLEEP
        try:
            begun.release()
            self.wait(SLEEP)
            for _ in range(2):
                pass  # a check point more
        except _Woken:
            self.ends_waits = time.monotonic() < until
        finally:
            ended.release()

    def wait(self, seconds: float) -> None:
        """The blocking call that is tried."""
        time.sleep(seconds)


wait_probe = WaitProbe()
after_fork_in_child(wait_probe.after_fork)
