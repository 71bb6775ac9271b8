"""Sync code that a pool's thread runs for a request of an event loop's.

FastAPI's and Starlette's ``def`` endpoints run by ``anyio.to_thread.run_sync``, Django's
sync views by asgiref's ``SyncToAsync``. Both are given a replacement, once, that looks
whether the caller works for a guarded request (``current_request``), and if so wraps what
is to be run into a :class:`PoolCall`. So the pool thread is inside a ``try`` of ours, and
can be fired at by the protocol of ``_interrupts``.

**The order of things at a deadline.** An asyncio task that is cancelled while it waits for
a thread leaves at once: the pool's slot is free and the clean-up begins while the thread
goes on. So the threads are broken first, and the task is left to wait for them, as anyio
means it to; it is cancelled when they have ended. The client has its answer by then.

**The claim.** ``LoopRequest.calls`` holds the calls that run or are about to; who pops
one, the thread that has finished it or the loop at the deadline, decides how it ends.
The loop enters its state before it looks through ``calls``, and a thread looks at the
state after it has entered itself: one of the two sees the other.

**What is the request's.** A thread that a background task of the app's waits for is none of
the deadline's business, and is left alone. Where that cannot be told (``_waiters``), it is
broken as any, but the request's task waits for it no longer than a broken thread should take.

Imports: ``_breaker``, ``_called_back``, ``_deadlines``, ``_frames``, ``_interrupts``,
``_obstacles``, ``_requests``, ``_stacks``, ``_waiters``.
"""

import copy
import sys
from asyncio import CancelledError, Task, current_task, get_running_loop
from collections.abc import Awaitable, Callable, Iterator
from contextvars import Context
from functools import cache, partial, wraps
from itertools import chain, takewhile
from threading import get_ident
from types import FrameType, TracebackType
from typing import Any

import anyio.to_thread
from anyio import CapacityLimiter

from hostline import _stacks
from hostline._breaker import GRACE
from hostline._called_back import CalledBack
from hostline._deadlines import watchdog
from hostline._interrupts import GuardedRequest, ThreadCall
from hostline._obstacles import obstacle
from hostline._requests import State, current_request
from hostline._waiters import Tie, tie_of
from hostline.errors import RequestTimeoutException

_obstacle = cache(obstacle)


class LoopRequest(GuardedRequest):
    """A request that is served by a task, and may have threads of a pool work for it."""

    #: Whether a call holds its slot of the pool by way of :class:`_Slot`.
    is_on_asyncio = True
    #: The task that serves it, on asyncio.
    task: "Task[Any] | None" = None
    #: The calls that threads run for it, or are about to, while nobody has claimed their end.
    calls: "dict[PoolCall, bool] | None" = None
    #: Those that have been broken off and have not come back. Used in the loop's thread.
    broken_calls: "set[PoolCall] | None" = None

    @property
    def call_here(self) -> "PoolCall | None":
        """The call that this very thread runs for it."""
        every = [*list(self.calls or ()), *list(self.broken_calls or ())]
        return next((call for call in every if call.thread_id == get_ident()), None)

    @property
    def adopts_calls(self) -> bool:
        """Whether threads work for it now. A clean-up behind the deadline is not broken again."""
        return self.ended is None and self.is_breakable

    def break_calls(self) -> bool:
        """Fire at the threads that work for it; False: its task has none to wait for.

        In the loop's thread, when the state has been entered.
        """
        calls = self.calls
        if not calls:
            return False
        due = [call for call in list(calls) if call.tie is not Tie.KEPT and calls.pop(call, False)]
        self.broken_calls = {call for call in due if call.break_soon() and call.is_awaited}
        waiting = {call.task for call in self.broken_calls}
        for call in due:
            called_back = call.called_back  # its thread may be leaving it
            if called_back is not None:
                called_back.call_off(waiting)
        untied = {call for call in self.broken_calls if call.tie is Tie.NONE}
        if untied:
            loop = get_running_loop()
            loop.call_later(GRACE, self.wait_no_longer_for, untied, context=Context())
        return bool(self.broken_calls)

    def wait_no_longer_for(self, calls: "set[PoolCall]") -> None:
        """Have its task end though these threads have not, of which nobody knows whether it needs them."""
        raise NotImplementedError

    def has_called_back(self, task: "Task[Any] | None") -> bool:
        """Whether a thread that has been broken off waits for this task to run a coroutine."""
        every = [call.called_back for call in self.broken_calls or ()]
        return any(each is not None and each.task is task for each in every)

    def code_frames(self) -> Iterator[FrameType]:
        """Those of the threads that work for it."""
        begun = (call for call in list(self.calls or ()) if call.thread_id)
        return chain.from_iterable(call.code_frames() for call in begun)

    def calls_trace(self) -> _stacks.Trace:
        """What the first of the threads that work for it is doing."""
        for call in list(self.calls or ()):
            if call.thread_id and call.tie is not Tie.KEPT:
                return call.current_trace()
        return []

    def leave_behind(self, call: "PoolCall") -> None:
        """Its task has left it otherwise than by its end; it may have been broken off."""

    async def end_with(self, call: "PoolCall") -> None:
        """Leave a call that has been broken off. In the task that waited for it; never returns."""
        raise NotImplementedError


class PoolCall(ThreadCall):
    """One call that a thread of a pool runs for a request."""

    thread_id = 0  # not begun
    #: Whether asgiref runs it, which ends what its threads have called back when the task is cancelled.
    is_asgiref_s = False
    #: Whether a task waits for the end of the thread.
    is_awaited = True
    #: Which, on asyncio.
    task: "Task[Any] | None" = None
    #: What it has the loop run just now.
    called_back: CalledBack | None = None

    def __init__(self, function: Callable[..., Any], request: LoopRequest) -> None:
        self._function = function
        self._owner = request
        self.guard = request.guard
        if request.is_on_asyncio:
            self.task = current_task()
        if request.calls is None:
            request.calls = {}
        self._calls = request.calls

    @property
    def owner(self) -> LoopRequest:
        """The request that it is run for."""
        return self._owner

    @property
    def tie(self) -> Tie:
        """What ties the task that waits for it to its request."""
        return tie_of(self.task, self._owner.task)

    def enter(self) -> None:
        """Be there to be broken, from here on."""
        self._calls[self] = True

    def forget(self) -> None:
        """Nobody waits for it any more; it may have been called off before it began."""
        self.is_awaited = False
        self.task = None  # which may hold an error, whose traceback holds this
        if not self.thread_id:
            self._calls.pop(self, False)

    def break_soon(self) -> bool:
        """Have the watchdog fire at its thread; False: that is left to who cancels the task."""
        if not self.thread_id:
            return True  # it has not begun, and will look itself
        if self.is_asgiref_s and self._waits_for_the_loop():
            return False
        if _obstacle() is None:
            breaker = self.make_breaker()
            watchdog.at(breaker, breaker.deadline)
        return True

    def _waits_for_the_loop(self) -> bool:
        """Whether it has called a coroutine by asgiref, which cancels that when the task is cancelled."""
        asgiref = sys.modules.get("asgiref.sync")
        call_back = None if asgiref is None else asgiref.AsyncToSync.__call__.__code__
        # Another may be further out: calls are nested in one thread.
        own = takewhile(lambda each: not self.is_run_by(each), self.frames())
        return any(each.f_code is call_back for each in own)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """In the pool's thread."""
        request = self  # the local by which it is found
        self.thread_id = get_ident()
        try:
            self._calls[request] = True
            if self._is_too_late():
                raise RequestTimeoutException  # noqa: TRY301 - all ends meet below
            result = self._function(*args, **kwargs)
            if self._calls.pop(self, False):
                return result
            raise RequestTimeoutException  # noqa: TRY301
        except BaseException as error:
            self.came_back = True  # first of all: see _interrupts, point 2
            try:
                is_broken = self._come_back()
            except RequestTimeoutException:
                is_broken = self._come_back()
            if is_broken and not isinstance(error, RequestTimeoutException):
                raise RequestTimeoutException from error
            raise

    def _is_too_late(self) -> bool:
        """Whether its request has been broken off before it could begin."""
        owner = self._owner
        if owner.outcome is not State.TIMED_OUT or not owner.is_breakable:
            return False
        return not owner.is_held_back() and self.tie is not Tie.KEPT

    def run_in_loop(
        self, run: Callable[..., Any], function: Callable[..., Awaitable[Any]], *args: Any
    ) -> Any:
        """Have anyio run a coroutine in the loop, and wait for it. In its thread."""
        self.called_back = called_back = CalledBack(function)
        self.is_shielded = True  # the thread is not broken while that cleans up, as far as can be put off
        try:
            self._raise_if_due()
            return run(called_back, *args)
        finally:
            self.is_shielded = False
            self.called_back = None
            if called_back.is_called_off:
                self._raise_if_due()

    def _raise_if_due(self) -> None:
        if self.strike():
            raise RequestTimeoutException

    def _come_back(self) -> bool:
        """Whether it was broken off; nothing of it can reach the thread any more."""
        is_own = self._calls.pop(self, False)
        if is_own and self._owner.outcome is not State.TIMED_OUT:
            return False
        self.disarm()
        return not is_own


PoolCall.outermost = frozenset({PoolCall.__call__.__code__})


class _Slot:
    """A limiter of asyncio's, as anyio uses one: the call counts from when it has its slot."""

    def __init__(self, limiter: CapacityLimiter, call: PoolCall) -> None:
        self._limiter = limiter
        self._call = call

    async def __aenter__(self) -> None:
        await self._limiter.acquire()
        self._call.enter()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._limiter.release()


def _caller() -> LoopRequest | None:
    """The request that the calling code works for, if threads may be broken for it."""
    request = current_request.get()
    return request if isinstance(request, LoopRequest) and request.adopts_calls else None


async def _finished(waits: Awaitable[Any], request: LoopRequest, call: PoolCall) -> Any:
    """What the call answers, unless it is broken off."""
    is_broken = False
    try:
        return await waits
    except RequestTimeoutException:
        is_broken = request.state is State.TIMED_OUT
        if not is_broken:
            raise
    finally:
        call.forget()
        if not is_broken:
            request.leave_behind(call)
    if request.is_on_asyncio and request.has_called_back(current_task()):
        request.leave_behind(call)
        raise CancelledError  # which nobody else would have it do
    return await request.end_with(call)


def _guarding_anyio(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @wraps(original)
    async def run_sync(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        request = _caller()
        if request is None:
            return await original(function, *args, **options)
        call = PoolCall(function, request)
        call.is_awaited = not (options.get("abandon_on_cancel") or options.get("cancellable"))
        if request.is_on_asyncio:
            limiter = options.get("limiter") or anyio.to_thread.current_default_thread_limiter()
            options["limiter"] = _Slot(limiter, call)
            _guard_calls_back()
        return await _finished(original(call, *args, **options), request, call)

    return run_sync


def _guarding_asgiref(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @wraps(original)
    async def call_in_thread(self: Any, *args: Any, **kwargs: Any) -> Any:
        request = _caller()
        if request is None:
            return await original(self, *args, **kwargs)
        call = PoolCall(self.func, request)
        call.is_asgiref_s = True
        wrapped = copy.copy(self)
        wrapped.func = call
        return await _finished(original(wrapped, *args, **kwargs), request, call)

    return call_in_thread


def _guarding_call_back(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def run_async_from_thread(function: Callable[..., Awaitable[Any]], *args: Any, **options: Any) -> Any:
        run = partial(original, **options)
        request = current_request.get()
        call = request.call_here if isinstance(request, LoopRequest) else None
        return run(function, *args) if call is None else call.run_in_loop(run, function, *args)

    return run_async_from_thread


def _guard_calls_back() -> None:
    """Have anyio's way from a thread back into asyncio's loop know of requests.

    Behind the public one, which apps import by its name. It is there as soon as anyio has been
    used; should its name go, what is called back runs to its end, unless it ends itself.
    """
    backend: Any = getattr(sys.modules.get("anyio._backends._asyncio"), "AsyncIOBackend", None)
    if "from_thread" in _installed or not hasattr(backend, "run_async_from_thread"):
        return
    _installed.add("from_thread")
    backend.run_async_from_thread = staticmethod(_guarding_call_back(backend.run_async_from_thread))


_installed: set[str] = set()


def install() -> None:
    """Have anyio's way into its pool, and asgiref's where it is loaded, know of requests.

    In a loop's thread. Once for each; what is no guarded request passes as before.
    """
    if "anyio" not in _installed:
        _installed.add("anyio")
        anyio.to_thread.run_sync = _guarding_anyio(  # type: ignore[assignment]  # it hands all on
            anyio.to_thread.run_sync
        )
    asgiref = sys.modules.get("asgiref.sync")
    if asgiref is not None and "asgiref" not in _installed:
        _installed.add("asgiref")
        asgiref.SyncToAsync.__call__ = _guarding_asgiref(asgiref.SyncToAsync.__call__)
