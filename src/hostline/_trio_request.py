"""A request on trio: a cancel scope ends its task, and a task beside it keeps its deadline.

By way of anyio, whose scopes and task groups are trio's there. What the server's own
``send`` does is shielded: a cancellation in the middle of it leaves hypercorn with half a
message, and brings its process down.

A task for each request costs more than asyncio's lanes; trio has no timer that could call
back. A blocked loop is not noticed on trio: nobody outside can tell what it runs.
"""

from math import inf
from time import monotonic
from typing import Any

import anyio
import anyio.lowlevel

from hostline import _slow, _stacks
from hostline._asgi_exchange import ASGIApp, Message, Receive, Scope, Send
from hostline._asgi_request import AsgiGuard, AsgiRequest
from hostline._pool_threads import PoolCall
from hostline.errors import RequestTimeoutException


class TrioRequest(AsgiRequest):
    """A request that a task of trio's serves. Its own keeper of deadlines."""

    is_on_asyncio = False
    _answer_error: Exception | None = None
    _warn_after: float | None = None
    _coroutine: object = None
    _alarm: anyio.CancelScope | None = None

    def __init__(self, scope: Scope, receive: Receive, send: Send, guard: AsgiGuard) -> None:
        super().__init__(scope, receive, _shielded(send), guard, self)
        self.claims = {}
        self._scope = anyio.CancelScope()

    def at(self, entry: "TrioRequest", deadline: float) -> None:
        """Have this deadline from here on."""
        entry.deadline = deadline
        entry.claims[entry] = True
        entry._ring_at(deadline)

    def move(self, entry: "TrioRequest", deadline: float) -> None:
        """Give it another, while it has not expired."""
        if entry in entry.claims:
            self.at(entry, deadline)

    def _ring_at(self, deadline: float) -> None:
        if self._alarm is not None:
            self._alarm.deadline = _on_the_loop_s_clock(deadline)

    def _withdraw(self) -> None:
        self.claims.pop(self, False)
        self._ring_at(inf)

    async def run(self, app: ASGIApp, scope: Scope) -> BaseException | None:
        """Serve it; what the app has raised."""
        self._coroutine = anyio.get_current_task().coro
        self.at(self, self.deadline)
        async with anyio.create_task_group() as group:
            group.start_soon(self._keep_deadline)
            if self._warn_after is not None:
                group.start_soon(self._warn)
            error = await self._call(app, scope)
            self.came_back = True
            group.cancel_scope.cancel()  # the answer is shielded, if it is on its way
        if self._answer_error is not None:
            raise self._answer_error
        return error

    async def _call(self, app: ASGIApp, scope: Scope) -> BaseException | None:
        try:
            with self._scope:
                await app(scope, self.receive, self.send)
        except BaseException as error:  # noqa: BLE001 - raised anew, where no task group can wrap it
            return error
        return None

    async def _keep_deadline(self) -> None:
        """In a task of its own: time the request out, and answer for it."""
        while self.ended is None:
            with anyio.CancelScope(deadline=_on_the_loop_s_clock(self.deadline)) as self._alarm:
                await anyio.sleep_forever()
            if self.deadline > monotonic() or not self.claims.pop(self, False):
                continue
            self.expire()
            if self.is_answered:
                await self._answer()

    async def _answer(self) -> None:
        try:
            await self._send_answer()
        except Exception as error:  # noqa: BLE001 - as above
            self._answer_error = error

    def _answer_at_once(self) -> None:
        self.is_answered = self.is_answered_for

    def break_off(self) -> None:
        """Have the app's code end. Its task waits for its threads: trio sees to that."""
        self.break_calls()
        self.cancel()

    def cancel(self) -> None:
        """Cancel all that it waits for, now and from here on."""
        self._scope.cancel()

    async def end_with(self, call: PoolCall) -> None:
        """Go on where a task waited for a thread that has ended: be cancelled there."""
        del call
        await anyio.lowlevel.checkpoint()
        raise RequestTimeoutException  # not reached, but in a shield of the app's

    def _current_trace(self) -> _stacks.Trace:
        return _stacks.of_coroutine(self._coroutine, _CALLS_THE_APP) + self.calls_trace()

    def warn_after(self, seconds: float) -> None:
        """Log where it is, if it has not ended by then."""
        self._warn_after = seconds

    async def _warn(self) -> None:
        assert self._warn_after is not None  # or it is not started
        await anyio.sleep(max(0.0, self.started + self._warn_after - monotonic()))
        if self.ended is None:
            _slow.warn_soon(self, self._current_trace())


_CALLS_THE_APP = frozenset({TrioRequest._call.__code__})


def _on_the_loop_s_clock(deadline: float) -> float:
    return anyio.current_time() + (deadline - monotonic())


def _shielded(send: Send) -> Send:
    async def send_shielded(message: Message) -> Any:
        with anyio.CancelScope(shield=True):
            await send(message)

    return send_shielded
