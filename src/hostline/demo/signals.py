"""Ctrl-C, SIGTERM and SIGHUP: whatever ends the demo has to end its servers too."""

import signal
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ended(BaseException):
    """One of the signals has come."""

    def __init__(self, signum: int) -> None:
        super().__init__()
        self.signum = signum


class Endings:
    """Takes the signals, and lets them interrupt nothing but what is told that it may be.

    So none can come between the start of a process and its name in our books, or while the
    processes are being ended. Used by the main thread alone, where the handlers run.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._may_raise = False
        for signum in _ENDINGS:
            # Ignored is what nohup, or a shell that runs us in the background, wants it to be.
            if signal.getsignal(signum) != signal.SIG_IGN:
                signal.signal(signum, self._handle)

    @contextmanager
    def let_in(self) -> Generator[None]:
        """Raise :class:`Ended` in this block for a signal that has come or comes."""
        self._may_raise = True
        try:
            if self._received is not None:
                raise Ended(self._received)
            yield
        finally:
            self._may_raise = False

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        del frame
        self._received = signum
        if self._may_raise:
            self._may_raise = False  # once: what follows is the end already
            raise Ended(signum)
