"""A request on trio: a cancel scope ends its task, and a task beside it keeps its deadline.

By way of anyio, whose scopes and task groups are trio's there. What the server's own
``send`` does is shielded: a cancellation in the middle of it leaves hypercorn with half a
message, and brings its process down.

A task for each request costs more than asyncio's lanes; trio has no timer that could call
back. A blocked loop is noticed where a request's own task blocks it; what other tasks it
runs cannot be told from outside.
"""

import sys
import threading
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Any

import anyio
import anyio.lowlevel

from hostline import _frames, _slow, _stacks
from hostline._asgi_exchange import ASGIApp, Message, Receive, Scope, Send
from hostline._asgi_request import AsgiRequest
from hostline._blocked_loops import watch
from hostline._interrupts import Guard
from hostline._loop_deadlines import Watched
from hostline._pool_threads import PoolCall
from hostline.errors import RequestTimeoutException


class TrioRequest(AsgiRequest):
    """A request that a task of trio's serves."""

    is_on_asyncio = False
    lanes: "TrioLanes"  # pyright: ignore[reportIncompatibleVariableOverride] - set once
    _has_answered = False
    _answer_error: Exception | None = None
    _warn_after: float | None = None
    _coroutine: object = None
    timer: anyio.CancelScope | None

    def __init__(self, scope: Scope, receive: Receive, send: Send, guard: Guard) -> None:
        super().__init__(scope, receive, _shielded(send), guard, _lanes_here())
        self._scope = anyio.CancelScope()

    def ring_at(self, deadline: float) -> None:
        """Have its keeper wake up then."""
        if self.timer is not None:
            self.timer.deadline = _on_the_loop_s_clock(deadline)

    def _withdraw(self) -> None:
        self.claims.pop(self, False)
        self.ring_at(inf)

    async def run(self, app: ASGIApp, scope: Scope) -> BaseException | None:
        """Serve it; what the app has raised."""
        self._coroutine = anyio.get_current_task().coro
        watch(self.lanes, self.outermost, self.guard.settings.deferral_limit)
        self.lanes.at(self, self.deadline)
        error: BaseException | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(self._keep_deadline)
            if self._warn_after is not None:
                group.start_soon(self._warn)
            error = await self._call(app, scope)
            self.came_back = True
            # The end of a task group is a checkpoint, which the app was not. Somebody else's cancellation
            # would be met there, and take the place of the app's error, or of its having answered.
            group.cancel_scope.shield = True
            group.cancel_scope.cancel()  # the answer is shielded, if it is on its way
        self.lanes.revive()
        if self.is_answered and not self._has_answered:
            await self._answer()
        if self._answer_error is not None:
            raise self._answer_error
        return error

    async def _call(self, app: ASGIApp, scope: Scope) -> BaseException | None:
        request = self  # the local by which it is found
        try:
            with self._scope:
                await app(scope, request.receive, request.send)
        except BaseException as error:  # noqa: BLE001 - raised anew, where no task group can wrap it
            if self.has_given_up:
                self.give_up()  # a thread of its has, and nobody has answered yet
            return error
        return None

    async def _keep_deadline(self) -> None:
        """In a task of its own: time the request out, and answer for it."""
        while self.ended is None:
            with anyio.CancelScope(deadline=_on_the_loop_s_clock(self.deadline)) as self.timer:
                await anyio.sleep_forever()
            now = self.lanes.revive()  # first, for that may move the deadline
            if self.deadline <= now and self.claims.pop(self, False):
                self.expire()
        if self.is_answered:
            await self._answer()

    async def _answer(self) -> None:
        self._has_answered = True
        try:
            await self._send_answer()
        except Exception as error:  # noqa: BLE001 - as above
            self._answer_error = error

    def answer_at_once(self) -> None:
        self.is_answered = self.is_answered_for

    def break_off_above(self) -> None:
        self.break_off()

    def break_code(self) -> None:
        """Have the app's code end. Its task waits for its threads: trio sees to that."""
        self.break_calls()
        self.cancel()

    def cancel(self) -> None:
        """Cancel all that it waits for, now and from here on."""
        self._scope.cancel()

    def call_in_loop(self, call: Callable[[], object]) -> bool:
        """Have the loop do it in its next round; False: it does nothing any more."""
        try:
            self.lanes.token.run_sync_soon(call)
        except RuntimeError:  # trio.RunFinishedError
            return False
        return True

    def break_off_soon(self) -> None:
        """A scope may be cancelled by the code that is in it."""
        if self.is_in_loop():
            self.break_off_unshielded()
        else:
            super().break_off_soon()

    def insist_later(self) -> None:
        """A scope insists by itself."""

    async def end_with(self, call: PoolCall) -> None:
        """Go on where a task waited for a thread that has ended: be cancelled there."""
        del call
        await anyio.lowlevel.checkpoint()
        raise RequestTimeoutException  # not reached, but in a shield of the app's

    @property
    def task_coroutine(self) -> object:
        """The outermost coroutine of its task."""
        return self._coroutine

    def current_trace(self) -> _stacks.Trace:
        return _stacks.of_coroutine(self._coroutine, _CALLS_THE_APP) + self.calls_trace()

    def warn_after(self, seconds: float) -> None:
        """Log where it is, if it has not ended by then."""
        self._warn_after = seconds

    async def _warn(self) -> None:
        assert self._warn_after is not None  # or it is not started
        await anyio.sleep(max(0.0, self.started + self._warn_after - monotonic()))
        if self.ended is None:
            _slow.warn_soon(self, self.trace_now() or [])


_CALLS_THE_APP = TrioRequest.outermost = frozenset({TrioRequest._call.__code__})


class TrioLanes(Watched[TrioRequest]):
    """The deadlines of one run of trio's."""

    def __init__(self, token: Any) -> None:
        super().__init__()
        self.token = token
        self.claims: dict[TrioRequest, bool] = {}

    def at(self, entry: TrioRequest, deadline: float) -> None:
        """Enter, or enter anew, with this deadline."""
        entry.deadline = deadline
        entry.claims = self.claims
        self.claims[entry] = True
        entry.ring_at(deadline)
        self.is_due(deadline)

    def move(self, entry: TrioRequest, deadline: float) -> None:
        """Give an entry that has not expired another deadline."""
        if entry in self.claims:
            self.at(entry, deadline)

    def claimed(self) -> tuple[dict[TrioRequest, bool], ...]:
        """All entries, by where their claims are to be popped."""
        return (self.claims,)

    def is_over(self) -> bool:
        """Whether nobody is to be looked after."""
        return not self.claims

    def is_running(self) -> bool:
        """Whether somebody runs the loop: trio does not stop in between."""
        return True

    def running(self) -> object:
        """The request whose own task it runs just now; of other tasks nobody can tell."""
        return _stacks.request_in(_frames.of_thread(self.thread_id), _CALLS_THE_APP)

    def coroutine(self) -> object:
        """The outermost one of the step that is run just now. In the loop's thread."""
        lowlevel = sys.modules["trio"].lowlevel
        if not lowlevel.in_trio_task():
            return None
        return lowlevel.current_task().coro

    def due(self) -> float:
        """When the next of its deadlines is due, or was."""
        return min((entry.deadline for entry in list(self.claims)), default=inf)


class _OfThisThread(threading.local):
    lanes: TrioLanes | None = None


_of_this_thread = _OfThisThread()


def _lanes_here() -> TrioLanes:
    token = sys.modules["trio"].lowlevel.current_trio_token()
    lanes = _of_this_thread.lanes
    if lanes is None or lanes.token is not token:
        lanes = _of_this_thread.lanes = TrioLanes(token)
    return lanes


def _on_the_loop_s_clock(deadline: float) -> float:
    return anyio.current_time() + (deadline - monotonic())


def _shielded(send: Send) -> Send:
    async def send_shielded(message: Message) -> Any:
        with anyio.CancelScope(shield=True):
            await send(message)

    return send_shielded
