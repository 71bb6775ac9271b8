"""``active``: about once a second, each request that runs, while somebody wants to hear of it.

One sweep for all of them, be they served by threads, greenlets or loops: no timer and no
thread for each. A request is entered here only if somebody wants ``active`` when it
begins; without an entry nothing runs. The watchdog calls for the sweep, the reporter's
thread makes it, and a sweep that the reporter has not come to is not called for again.

The entries are changed by any thread, by single dict operations. Imports: ``_deadlines``,
``_native``, ``_requests``.
"""

from collections.abc import Callable
from functools import partial
from time import monotonic

from hostline._deadlines import watchdog
from hostline._native import after_fork_in_child
from hostline._requests import RequestDetails, State, reporter

BEAT = 1.0

Tell = Callable[[RequestDetails, State], object]


class Heartbeat:
    """The requests that are to be told of, and the sweep over them. An entry of the watchdog's."""

    def __init__(self) -> None:
        self.deadline = 0.0
        self.after_fork()

    def after_fork(self) -> None:
        """What runs in the parent is the parent's to tell."""
        self.entries: dict[RequestDetails, Tell] = {}
        self._is_planned = False

    def survives_fork(self) -> bool:
        """The child's own begin another."""
        return False

    def add(self, request: RequestDetails, tell: Tell) -> None:
        """Have it told, by ``tell``, that this request is active, until it ends."""
        self.entries[request] = tell
        request.at_end(partial(self.entries.pop, request, None))
        if not self._is_planned:  # behind the entry: see _sweep
            self._plan()

    def _plan(self) -> None:
        self._is_planned = True
        self.deadline = monotonic() + BEAT
        watchdog.at(self, self.deadline)

    def expire(self) -> None:
        """In the watchdog's thread."""
        if not reporter.submit(self._sweep):
            self._plan()  # or nobody would ever be told of again

    def _sweep(self) -> None:
        """In the reporter's thread: one beat."""
        now = monotonic()
        for request, tell in self.entries.copy().items():
            # One that has just begun is left for the next, so that it has run for a second or so.
            if now - request.started >= BEAT / 2:
                request.report(partial(_beat, request, tell))
        self._is_planned = False  # first, and then a look: whoever enters meanwhile plans, or is seen
        if self.entries:
            self._plan()


def _beat(request: RequestDetails, tell: Tell) -> None:
    if request.move_to(State.ACTIVE):
        tell(request, State.ACTIVE)


heartbeat = Heartbeat()
after_fork_in_child(heartbeat.after_fork)
