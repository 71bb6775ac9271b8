"""The request timeout as an ASGI middleware, on asyncio and uvloop.

Everything here runs in the loop's thread, so whatever does not ``await`` is one step, and
needs no lock. At the deadline the loop's timer wins the claim, cancels the task and sends
the answer itself, at once: the app may take its time to unwind, and what it sends from
then on is dropped. Whether a cancellation was ours is told as ``asyncio.timeout`` does,
by the number of requests to cancel that the task has got.
"""

import asyncio
import time
from asyncio import CancelledError, current_task, get_running_loop
from collections.abc import Awaitable
from functools import partial
from math import inf
from time import monotonic
from typing import Any, Unpack

from hostline import _budget, _pool_threads, _responses, _slow, _stacks, observers
from hostline._asgi_deadline import BendableRequest
from hostline._asgi_exchange import (
    ASGIApp,
    Message,
    Receive,
    Scope,
    Send,
    header,
    media_type,
    send_response,
    target,
)
from hostline._breaker import GRACE, SHOTS
from hostline._interrupts import log_unstoppable
from hostline._loop_deadlines import NO_CONTEXT, LoopLane, LoopLanes, lanes_of
from hostline._pool_threads import PoolCall
from hostline._requests import State, current_request, logger, reporter
from hostline._targets import PathPrefixes
from hostline._termination import main_frame, terminator, warn_unless_replaced
from hostline.errors import RequestExpiryError, RequestTimeoutError, RequestTimeoutException
from hostline.settings import RequestTimeoutOptions, RequestTimeoutSettings

_WITH_BODY = frozenset({"PATCH", "POST", "PUT"})
_READY, _COMPLETED, _TIMED_OUT = State.READY, State.COMPLETED, State.TIMED_OUT

# The loop holds a task weakly; this holds the answers that are on their way.
_answering: set[asyncio.Task[None]] = set()


class AsgiRequest(BendableRequest):
    """A request between its server and its app, as ``scope["hostline.request"]``.

    Its claim is in ``claims`` until the response is complete or, without a
    ``stream_timeout``, has begun to stream; or until the deadline.
    """

    guard: "RequestTimeoutMiddleware"
    timer: asyncio.TimerHandle | None = None
    answer: asyncio.Task[None] | None = None
    #: How often its task has been cancelled by us.
    cancels = 0
    _upload_left: float | None = None  # None: nobody has asked for the body yet
    _upload_complete = False

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, guard: "RequestTimeoutMiddleware", lanes: LoopLanes
    ) -> None:
        self.started = monotonic()
        self.guard = guard
        self.lanes = lanes
        self.method: str = scope["method"]
        # Not the scope: that holds this object, and a circle would leave every request to
        # the garbage collector.
        self._path: str = scope["path"]
        self._headers = scope["headers"]
        self._server_receive = receive
        self._server_send = send

    @property
    def path(self) -> str:
        """The whole path, decoded, without the query."""
        return self._path

    def _raw_id(self) -> str:
        return self._header(b"x-request-id")

    def _header(self, name: bytes) -> str:
        return (header({"headers": self._headers}, name) or b"").decode("latin-1")

    @property
    def has_body(self) -> bool:
        """Whether a body comes with it."""
        return _budget.announces_body(self._header(b"content-length"), self._header(b"transfer-encoding"))

    @property
    def _may_have_body(self) -> bool:
        """The same, where HTTP/2 announces none (RFC 9113, section 8.1.1)."""
        return self.has_body or self.method in _WITH_BODY

    # Not `async def`, which would put a coroutine of ours around each of the server's.
    def send(self, message: Message) -> Awaitable[None]:
        """What the app gets as ``send``."""
        if self.state is _TIMED_OUT and self.guard.breaks:
            return _nowhere()
        kind = message["type"]
        if kind == "http.response.start":
            self.response_started = True
        elif kind == "http.response.body":
            if message.get("more_body", False):
                self._go_on_streaming()
            else:
                self.complete()
        elif kind == "http.response.pathsend":  # an extension: a body by the name of its file
            self.complete()
        return self._server_send(message)

    def complete(self) -> None:
        """The response is whole, or the app is done without one."""
        self._withdraw()
        if self.end(_COMPLETED) and self.guard.is_attended():
            self.guard.observers.tell(self, _COMPLETED)

    def _withdraw(self) -> None:
        self.claims.pop(self, False)
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def _go_on_streaming(self) -> None:
        """A chunk with more to come: from here on each gap has its own limit."""
        self.is_stream = True
        self._withdraw()
        gap = self.guard.settings.stream_timeout
        self.deadline = inf
        if gap is not None and self.ended is None:
            self.lanes.at(self, monotonic() + gap)

    def receive(self) -> Awaitable[Message]:
        """What the app gets as ``receive``."""
        if self._upload_complete or self.is_stream or self.ended is not None or self.deadline == inf:
            return self._server_receive()
        if self._upload_left is None:
            if not self._may_have_body:
                self._upload_complete = True
                return self._server_receive()
            self._upload_left = self.guard.settings.wait_overtime or inf
        return self._receive_upload(self._upload_left)

    async def _receive_upload(self, upload_left: float) -> Message:
        """Wait for the client on its own time: the service clock stands still."""
        began = monotonic()
        self.service_deadline = self.deadline
        self.lanes.move(self, began + upload_left)
        try:
            message = await self._server_receive()
        finally:
            now = monotonic()
            self._upload_left = upload_left - (now - began)
            self.paused += now - began
            service_deadline, self.service_deadline = self.service_deadline or inf, None
            if self.ended is None and not self.is_stream:
                self.lanes.move(self, service_deadline + (now - began))
        self._upload_complete = not message.get("more_body", False)
        return message

    def expire(self) -> None:
        """Time it out. Called by the loop's timer, which has won the claim."""
        self.time_out(self.current_trace())
        if self.guard.breaks:
            self.break_off()
            self.answer_at_once()

    def time_out(self, trace: _stacks.Trace) -> None:
        self.trace = trace
        self.move_to(_TIMED_OUT)
        self.term = terminator.count(self.guard.settings.term_on_timeout)
        reporter.submit(self._tell_timeout)

    def answer_at_once(self) -> None:
        """Answer for the app, which may take its time to come to its end."""
        if self.guard.settings.mode == "respond" and not self.response_started:
            self.answer = self.lanes.loop.create_task(self._send_answer())
            _answering.add(self.answer)
            self.answer.add_done_callback(_answering.discard)

    def break_off(self) -> None:
        """Have the app's code end: the threads that work for it first, then its task."""
        if self.is_put_off():
            return
        self.call_cancels()
        if not self.break_calls():
            self.cancel()

    async def end_with(self, call: PoolCall) -> None:
        """Go on where a task waited for a thread that has ended: be cancelled there."""
        assert self.broken_calls is not None  # this one has been broken off
        self.broken_calls.discard(call)
        if not self.broken_calls and self.cancels == 0:
            self.cancel()
        # Whoever waits here is cancelled with the request's task, be it that task or one below
        # it; what nobody cancels has been left behind by the app, and ends by itself.
        await asyncio.sleep(GRACE)
        raise CancelledError

    def cancel(self) -> None:
        """Cancel its task, and see to it that this is heeded."""
        if self.task is not None and not self.came_back:  # else the guard would be hit
            self.cancels += 1
            self.task.cancel()
            self.insistence = self.lanes.loop.call_later(GRACE, self.insist, context=NO_CONTEXT)

    def insist(self) -> None:
        """The cancellation has been swallowed, or the clean-up takes its time."""
        if self.cancels < SHOTS:
            self.cancel()
        else:
            self.tell_unstoppable()

    def tell_unstoppable(self) -> None:
        """Say that its code has not taken notice, and where it is."""
        if terminator.count_unstoppable(self.guard.settings.term_on_timeout):
            reporter.submit(partial(terminator.ask, main_frame()))
        reporter.submit(partial(log_unstoppable, self, self.current_trace()))

    def count_foreign(self) -> int:
        """The app has come back: how often somebody else has cancelled its task."""
        self.came_back = True
        if self.insistence is not None:
            self.insistence.cancel()
        assert self.task is not None  # it has not left
        for _ in range(self.cancels):
            self.task.uncancel()
        self.cancels = 0
        self.forget_shield_end()
        return self.task.cancelling()

    def _tell_timeout(self) -> None:
        self.guard.observers.tell(self, _TIMED_OUT)
        if self.term:
            terminator.ask(main_frame())

    def current_trace(self) -> _stacks.Trace:
        """What its task waits for just now, and a thread that works for it does."""
        waits = _stacks.of_coroutine(self.task and self.task.get_coro(), _GUARD_CODE)
        return waits + self.calls_trace()

    def warn_after(self, seconds: float) -> None:
        """Log where it is, if it has not ended by then. A soft limit, and rare: a timer of its own."""
        delay = max(0.0, self.started + seconds - monotonic())
        self.on_end = self.lanes.loop.call_later(delay, self._warn).cancel

    def _warn(self) -> None:
        _slow.warn_soon(self, self.current_trace())

    async def _send_answer(self) -> None:
        offered = media_type({"headers": self._headers}, _responses.TIMEOUT_PAGES)
        response = _responses.timed_out(self.guard.settings, self, offered)
        await send_response(response.to(self.method), "http.response", self._server_send)

    def detach(self) -> None:
        """Let go of what would keep the server's objects alive in a circle."""
        self._server_send = self._server_receive = _nowhere
        self.task = None


async def _nowhere(*_: object) -> Any:
    """Where messages go that come too late."""


class RequestTimeoutMiddleware:
    """Drops the requests that waited too long and aborts those that run too long.

    ``app`` is the application to guard; the options are the fields of
    :class:`hostline.RequestTimeoutSettings`, durations in seconds. One that is not given
    comes from its environment variable, else has its default. Raises
    :class:`hostline.SettingsError` for what is not allowed.

    To be called in a task of an asyncio loop, which is cancelled at the deadline. With
    ``mode="raise"`` a call raises :class:`hostline.RequestTimeoutError` or
    :class:`hostline.RequestExpiryError`; else it answers 504 or 503. A response that has
    begun to be sent is cut by :class:`hostline.RequestTimeoutError` in any mode but
    ``"report"``.
    """

    def __init__(self, app: ASGIApp, **options: Unpack[RequestTimeoutOptions]) -> None:
        settings = RequestTimeoutSettings.load(options)
        self.app = app
        self.settings = settings
        self.observers = observers.named(settings.observers)
        self.is_attended = self.observers.are_attentive
        self.breaks = settings.mode != "report"
        self._waits = _budget.WaitReader(settings)
        self._exempt = PathPrefixes(settings.exempt_paths)
        self._timeout = settings.service_timeout
        self._timeouts = _budget.ServiceTimeouts(settings)
        self._judges_each = _budget.judges_each(settings)
        self._lane: LoopLane | None = None  # of the loop that was last seen
        self._has_warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; what is not HTTP passes untouched."""
        # Every request's path, so one function: a call costs as much as all that it does.
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            loop = get_running_loop()
        except RuntimeError:
            await self._serve_unguarded(scope, receive, send)
            return
        lane = self._lane
        if lane is None or lane.lanes.loop is not loop:
            lane = self._meet_loop(loop)
        request = scope["hostline.request"] = AsgiRequest(scope, receive, send, self, lane.lanes)
        timeout = self._timeout
        request_start = None
        for name, value in scope["headers"]:
            if name == b"x-request-start":
                request_start = value if request_start is None else b""  # two say nothing
        is_judged = self._judges_each
        if not is_judged and request_start is not None:
            request.wait = self._waits.unhurried(request_start, time.time())
            is_judged = request.wait is None
        if is_judged:
            serve_instead = self._judge(request, scope, request_start)
            if serve_instead is not None:
                request.detach()
                await serve_instead(scope, receive, send)
                return
            if request.timeout != timeout:
                timeout = None  # it has one of its own
        else:
            request.timeout = timeout
        if self.is_attended():
            self.observers.tell(request, _READY)
        request.task = task = _current(loop)
        cancelling = task.cancelling()
        token = current_request.set(request)
        if timeout is not None:
            request.deadline = request.started + timeout
            request.claims = lane.entries
            lane.entries[request] = True
            if lane.timer is None:
                lane.start_timer()
        else:
            lane.lanes.at(request, request.deadline)
        try:
            await self.app(scope, request.receive, request.send)
        except BaseException as error:
            if request.has_given_up:
                request.give_up()  # a thread of its has, and nobody has answered yet
            if request.state is not _TIMED_OUT or not self.breaks:
                request.complete()
                raise
            await self._end(request, cancelling, error)
        else:
            if request.state is not _COMPLETED:
                if request.state is _TIMED_OUT and self.breaks:
                    await self._end(request, cancelling, None)
                else:
                    request.complete()
        finally:
            # An error's traceback holds this frame, and the task holds the error.
            del task
            current_request.reset(token)
            request.detach()

    def _meet_loop(self, loop: asyncio.AbstractEventLoop) -> LoopLane:
        """What there is to do once for each loop, as a rule once."""
        if self.settings.term_on_timeout and self._lane is None:
            warn_unless_replaced(main_frame())
        if self.breaks:
            _pool_threads.install()
        self._lane = lanes_of(loop).lane(self._timeout or inf)
        return self._lane

    def _judge(self, request: AsgiRequest, scope: Scope, request_start: bytes | None) -> ASGIApp | None:
        """Set how long the request may run; or what is to serve it instead."""
        settings = self.settings
        path = target(scope).path if self._timeouts.needs_path else b""
        if self._exempt.match(path):
            return self.app
        wait = None
        if request_start is not None and settings.wait_timeout is not None:
            wait = self._waits.read(request_start.decode("latin-1"), time.time())
        verdict = _budget.decide(
            settings,
            wait=wait,
            has_body=wait is not None and request.has_body,
            service_timeout=_budget.lowered(
                self._timeouts.of(scope, path),
                settings.trust_timeout_header,
                lambda name: request._header(name.encode()),
                wait,
            ),
        )
        request.wait, request.timeout = verdict.wait, verdict.timeout
        if isinstance(verdict, _budget.Expired):
            request.move_to(State.EXPIRED)
            self.observers.tell(request, State.EXPIRED)
            return self.app if settings.mode == "report" else self._refuse
        request.deadline = inf if verdict.timeout is None else request.started + verdict.timeout
        if settings.warn_after is not None:
            request.warn_after(settings.warn_after)
        return None

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer for a request that has expired."""
        del receive
        request: AsgiRequest = scope["hostline.request"]
        if self.settings.mode == "raise":
            raise RequestExpiryError(wait=request.wait, timeout=request.timeout)
        response = _responses.expired(media_type(scope, _responses.TIMEOUT_PAGES))
        await send_response(response.to(request.method), "http.response", send)

    async def _end(self, request: AsgiRequest, cancelling: int, error: BaseException | None) -> None:
        """Come back from an app that was aborted, telling our cancellation from a foreign one."""
        is_foreign = request.count_foreign() > cancelling
        if error is not None and (
            is_foreign or not isinstance(error, (CancelledError, Exception, RequestTimeoutException))
        ):
            raise error
        if request.answer is None:
            raise RequestTimeoutError(service=request.service, timeout=request.timeout) from error
        if isinstance(error, Exception):
            logger.warning("The app raised this while it was being aborted.", exc_info=error)
        await asyncio.shield(request.answer)

    async def _serve_unguarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        """On trio there is no timer yet: the app runs as if it were alone."""
        if not self._has_warned:
            self._has_warned = True
            logger.warning("hostline times requests on asyncio and uvloop; on this loop they run unguarded.")
        await self.app(scope, receive, send)


_GUARD_CODE = RequestTimeoutMiddleware.__call__.__code__


def _current(loop: asyncio.AbstractEventLoop) -> asyncio.Task[Any]:
    task = current_task(loop)
    if task is None:
        raise RuntimeError("hostline guards requests that run in a task of asyncio's; this one runs in none.")
    return task
