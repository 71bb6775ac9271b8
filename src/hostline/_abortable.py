"""What the app asks of its own abort: to put it off, and to cancel more with it.

A *shield* is a block of the app's code to the end of which the abort is put off; a *block*
is one during which the work of somebody else (a query, a child process) can be cancelled.
Both belong to the request, whichever of its threads or tasks they run in: while one of
them is shielded, none is aborted.

**The claim.** ``blocks`` holds the blocks that run. Who pops one decides: the block itself,
when it is left, and then its callable is never called; or the deadline, and then the block
is not left before the call has returned. So nothing is cancelled but what the block has
ordered, and each callable is called at most once. ``is_cancelling`` is set before the
blocks are looked through, and a block looks at it after it has entered itself: one of the
two sees the other.

Every dict here is changed by single operations, by any thread; no lock is ever held while
a callable runs. May import ``_native`` and ``errors``.
"""

import logging
import sys
from _thread import LockType
from collections.abc import Callable
from math import inf
from time import monotonic

from hostline._native import native_lock, start_native_thread
from hostline.errors import RequestTimeoutException

logger = logging.getLogger("hostline")

Cancel = Callable[[], object]

#: How long a block has to end once it has been cancelled, before its thread is shot at all the same. An
#: asynchronous exception may arrive where the block is being left: the call, if it were still on its way
#: then, would cancel what the connection does for somebody else.
_CANCEL_GRACE = 0.03


class Block:
    """One run of a block whose work can be cancelled by calling ``cancel``."""

    __slots__ = ("_cancel", "_done", "_done_at", "is_left", "is_of_loop")

    def __init__(self, cancel: Cancel, *, is_of_loop: bool) -> None:
        self._cancel = cancel
        self._done = native_lock()
        self._done.acquire()
        self._done_at = inf  # when the call has returned
        self.is_left = False
        #: Whether it runs in an event loop's thread, whose objects no other may touch.
        self.is_of_loop = is_of_loop

    def call(self) -> None:
        """Cancel its work. By who has won the claim; never raises."""
        try:
            self._cancel()
        except BaseException as error:
            if not _is_harmless(error):
                raise
            logger.exception("What an interruptible block is to be cancelled by has failed: %r", self._cancel)
        finally:
            self._done_at = monotonic()
            self._done.release()

    def is_ending(self) -> bool:
        """Whether it is about to be left: it is being cancelled, or has been just now."""
        return not self.is_left and monotonic() < self._done_at + _CANCEL_GRACE

    def wait(self, wait_for: Callable[[LockType], object]) -> None:
        """Stay until the call has returned. An abort that comes meanwhile is raised behind it."""
        is_hit = False
        while self._done_at == inf:
            try:
                wait_for(self._done)
            except RequestTimeoutException:
                is_hit = True
        if is_hit:
            raise RequestTimeoutException


def _is_harmless(error: BaseException) -> bool:
    """Whether it says no more than that the cancelling has failed; asyncio's cancellation says so too."""
    # Not imported: no WSGI app should have to load asyncio, which has raised this where it is there.
    asyncio = sys.modules.get("asyncio.exceptions")
    return isinstance(error, Exception) or (asyncio is not None and isinstance(error, asyncio.CancelledError))


class Abortable:
    """A request, as far as its app has a say in how it is aborted."""

    deadline: float = inf
    #: Whether its code has been told by :meth:`give_up` that it is over.
    has_given_up = False
    #: The shields that its code is in.
    shields: dict[object, bool] | None = None
    blocks: dict[Block, bool] | None = None
    #: Whether the deadline has begun to cancel what blocks have ordered; which of them.
    is_cancelling = False
    _cancelled: tuple[Block, ...] = ()

    @property
    def is_breakable(self) -> bool:
        """Whether its guard aborts at all."""
        raise NotImplementedError

    @property
    def shield_limit(self) -> float:
        """How long behind its deadline a shield holds."""
        raise NotImplementedError

    def is_in_loop(self) -> bool:
        """Whether this is the thread of the event loop that serves it."""
        return False

    # Shields

    def shield(self, token: object) -> None:
        """Have the abort put off until :meth:`unshield`. From any thread."""
        shields: dict[object, bool] = self.__dict__.setdefault("shields", {})
        shields[token] = True

    def unshield(self, token: object) -> None:
        """Leave a shield; where the abort has been waiting for this, it falls now."""
        if self.shields is not None:
            self.shields.pop(token, False)
        if not self.shields:
            self.fall_due()

    def fall_due(self) -> None:
        """The last shield is gone. May raise the abort that was put off."""

    async def fall_due_now(self) -> None:
        """Be where a cancellation that was put off can be raised."""

    def is_held_back(self) -> bool:
        """Whether it is in a shield, and has not been for too long behind its deadline."""
        return bool(self.shields) and monotonic() < self.deadline + self.shield_limit

    # Blocks

    def enter(self, block: Block) -> bool:
        """Have its work cancelled at the deadline; False: too late for that, and it is clean-up."""
        blocks: dict[Block, bool] = self.__dict__.setdefault("blocks", {})
        blocks[block] = True
        if not self.is_cancelling or not blocks.pop(block, False):
            return True
        if not self.shields:
            self.refuse_work()
        return False

    def leave_block(self, block: Block, error: BaseException | None) -> None:
        """When this returns, its callable is not running, and will not be called any more."""
        block.is_left = True
        if self.blocks is None or not self.blocks.pop(block, False):
            block.wait(self.wait_for)
            self.end_here()  # rather than by the error that a cancelled query is to its driver
        elif self.is_ended_by(error):
            block.call()  # by `checkpoint`, or in a blocked loop: what was ordered would run on

    def wait_for(self, done: LockType) -> None:
        """Take this lock, waiting as code of this request waits."""
        done.acquire()

    def refuse_work(self) -> None:
        """Raise the abort, unless this code is cleaning up behind it."""

    def end_here(self) -> None:
        """Raise the abort in place of its shot, if this thread is one that is shot at."""

    def give_up(self) -> None:
        """Its time is up, and its code ends itself: whoever calls this raises the abort."""
        self.has_given_up = True

    def is_ended_by(self, error: BaseException | None) -> bool:
        """Whether this is its own abort."""
        return isinstance(error, RequestTimeoutException) and monotonic() >= self.deadline

    def call_cancels(self) -> None:
        """Cancel what its blocks have ordered, in a thread of its own. From any thread."""
        if self.is_cancelling or self.is_held_back():
            return
        self.is_cancelling = True
        blocks = self.blocks or {}
        due = [block for block in list(blocks) if blocks.pop(block, False)]
        if due:
            self._cancelled = tuple(due)
            self.cancel_each(due)

    def is_being_cancelled(self) -> bool:
        """Whether a block is about to end by its cancelling, and will raise the abort itself."""
        return any(block.is_ending() for block in self._cancelled)

    def cancel_each(self, blocks: list[Block]) -> None:
        """Call them, where what takes its time holds up no other request."""
        try:
            start_native_thread(call_each, (blocks,))
        except RuntimeError:  # out of threads, or of memory
            call_each(blocks)


def call_each(blocks: list[Block]) -> None:
    """Cancel what was claimed together, one after the other; whatever one of them raises."""
    if blocks:
        try:
            blocks[0].call()
        finally:
            call_each(blocks[1:])  # each waits for its own
