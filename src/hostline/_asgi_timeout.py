"""The request timeout as an ASGI middleware, on asyncio, uvloop and trio.

At the deadline the loop's timer wins the claim, cancels the task and sends the answer
itself, at once: the app may take its time to unwind, and what it sends from then on is
dropped. ``_asgi_request`` tells what a request is, ``_asyncio_request`` and ``_trio_request``
how it is ended.
"""

import asyncio
import logging
import sys
import threading
import time
from asyncio import CancelledError, current_task, get_running_loop
from math import inf
from time import monotonic
from typing import Unpack, cast

from hostline import _budget, _pool_threads, _responses, observers
from hostline._asgi_exchange import (
    ASGIApp,
    Receive,
    Scope,
    Send,
    header,
    media_type,
    send_response,
    target,
)
from hostline._asgi_request import AsgiRequest, disconnected, nowhere
from hostline._asgi_startup import unstartable
from hostline._asyncio_request import AsyncioRequest
from hostline._blocked_loops import watch
from hostline._breaker import main_thread
from hostline._loop_deadlines import LoopLane, lanes_of
from hostline._obstacles import obstacle
from hostline._protocols import check_asgi_app
from hostline._requests import State, current_request, logger
from hostline._targets import PathPrefixes
from hostline._termination import main_frame, warn_unless_replaced
from hostline._trio_request import TrioRequest
from hostline.errors import RequestExpiryError, RequestTimeoutError, RequestTimeoutException
from hostline.settings import RequestTimeoutOptions, RequestTimeoutSettings

_NO_TASK = "hostline guards requests that run in a task of asyncio's; this one runs in none."
_NOT_YET: State | None = None
_INFO = logging.INFO
_COMPLETED, _TIMED_OUT = State.COMPLETED, State.TIMED_OUT


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
        try:
            check_asgi_app(app, "RequestTimeoutMiddleware")
            settings = RequestTimeoutSettings.load(options)
            self.observers = observers.named(settings.observers)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is to be heard of
            app, settings = unstartable(error), RequestTimeoutSettings(observers=())
            self.observers = observers.named(())
        self.app = app
        self.settings = settings
        self._is_attended = self.observers.are_attentive
        self._attention = self.observers.attention
        self.breaks = settings.mode != "report"
        self.waits = _budget.WaitReader(settings, bytes)
        self._exempt = PathPrefixes(settings.exempt_paths)
        self._timeout = settings.service_timeout
        self._timeouts = _budget.ServiceTimeouts(settings)
        self._judges_each = _budget.judges_each(settings)
        self._lane: LoopLane | None = None  # of the loop that was last seen
        self._has_warned = self._has_met_trio = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; what is not HTTP passes untouched."""
        # Every request's path, so one function: a call costs as much as all that it does.
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        loop: asyncio.AbstractEventLoop | None = None
        try:
            loop = get_running_loop()
        except RuntimeError:
            pass
        # Not in the handler: asyncio's error would be the context of every error of the app's.
        if loop is None:
            await self._serve_on_another(scope, receive, send)
            return
        lane = self._lane
        if lane is None or lane.loop is not loop:
            lane = self._meet_loop(loop)
        request = scope["hostline.request"] = AsyncioRequest()
        request.started = started = monotonic()
        request.guard = self
        request.lanes = lane.lanes
        request._server_receive = receive
        request._server_send = send
        request.method = scope["method"]
        request._path = scope["path"]
        request._headers = headers = scope["headers"]
        request.outcome = _NOT_YET
        request.ended = request.stamp = request.timer = None
        request.came_back = request.response_started = False
        timeout = self._timeout
        stamp = None
        for name, value in headers:
            if name == b"x-request-start":
                stamp = value if stamp is None else b""  # two say nothing
        is_judged = self._judges_each
        if stamp is not None and not is_judged:
            waits = self.waits
            if started >= waits.until:
                waits.renew(started)
            request.stamp = stamp
            is_judged = not waits.oldest <= stamp <= waits.newest
        if is_judged:
            request.stamp = None
            serve_instead = self._judge(request, scope, stamp)
            if serve_instead is not None:
                request.detach()
                await serve_instead(scope, receive, send)
                return
            if request.timeout != timeout:
                timeout = None  # it has one of its own
        else:
            request.timeout, request.deadline = timeout, inf
        try:
            is_attended = self._attention[_INFO] and self._is_attended()
        except KeyError:  # some logger's level has been changed since
            is_attended = self._is_attended()
        request.is_heard_of = is_attended or is_judged
        if is_attended:
            request.is_attended = True
            self.observers.begin(request, scope)
        request.task = task = current_task(loop)
        if task is None:
            raise RuntimeError(_NO_TASK)
        cancelling = task.cancelling()
        token = current_request.set(request)
        if timeout is not None:
            request.deadline = started + timeout
            request.claims = claims = lane.entries
            claims[request] = True
            if lane.timer is None:
                lane.start_timer()
        else:
            lane.lanes.at(request, request.deadline)
        try:
            await self.app(scope, request.receive, request.send)
        except BaseException as error:
            if request.has_given_up:
                request.give_up()  # a thread of its has, and nobody has answered yet
            if request.outcome is not _TIMED_OUT or not request.is_breakable:
                request.leave()
                raise
            await self._end(request, cancelling, error)
        else:
            if request.outcome is not _COMPLETED:
                if request.outcome is _TIMED_OUT and request.is_breakable:
                    await self._end(request, cancelling, None)
                else:
                    request.leave()
        finally:
            # An error's traceback holds this frame, and the task holds the error.
            del task
            current_request.reset(token)
            request._server_send, request._server_receive = nowhere, disconnected  # as `detach` does
            request.came_back = True
            request.task = None

    def _meet_loop(self, loop: asyncio.AbstractEventLoop) -> LoopLane:
        """What there is to do once for each loop, as a rule once."""
        if self.settings.term_on_timeout and self._lane is None:
            warn_unless_replaced(main_frame())
        self._prepare()
        lanes = lanes_of(loop)
        watch(lanes, OUTERMOST, self.settings.deferral_limit)
        lane = self._lane = lanes.lane(self._timeout or inf)
        return lane  # another thread's loop may have been met meanwhile

    def _prepare(self) -> None:
        """Have pool threads, and code that blocks the loop, within reach."""
        if self.breaks:
            _pool_threads.install()
            if threading.current_thread() is threading.main_thread() and obstacle() is None:
                main_thread.prepare(self.settings.signal)

    def _judge(self, request: AsgiRequest, scope: Scope, request_start: bytes | None) -> ASGIApp | None:
        """Set how long the request may run; or what is to serve it instead."""
        settings = self.settings
        path = target(scope).path if self._timeouts.needs_path else b""
        request.timeout, request.deadline = None, inf
        if self._exempt.match(path):
            return self.app
        wait = None
        has_body = False
        if request_start is not None and settings.wait_timeout is not None:
            wait = self.waits.read(request_start.decode("latin-1"), time.time())
            announces = scope.get("http_version", "1.1").startswith("1")
            has_body = request.has_body if announces else request.may_have_body
        verdict = _budget.decide(
            settings,
            wait=wait,
            has_body=has_body,
            service_timeout=_budget.lowered(
                self._timeouts.of(scope, path),
                settings.trust_timeout_header,
                lambda name: request._header(name.encode()),
                wait,
            ),
        )
        request.judged_wait, request.timeout = verdict.wait, verdict.timeout
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

    async def _end(self, request: AsyncioRequest, cancelling: int, error: BaseException | None) -> None:
        """Come back from an app that was aborted, telling our cancellation from a foreign one."""
        request.lanes.revive()
        is_foreign = request.count_foreign() > cancelling
        self.observers.note_timeout(request)
        if error is not None and is_foreign:
            raise error
        await self._conclude(request, error)
        if request.is_answered:
            await request.see_answer_off(cancelling)

    async def _conclude(self, request: AsgiRequest, error: BaseException | None) -> None:
        """The app that was aborted has ended by this: raise what is to be raised."""
        if error is not None and not _is_of_an_abort(error):
            raise error
        if not request.is_answered:
            if request.response_started:
                await request.cut()
            raise RequestTimeoutError(service=request.service, timeout=request.timeout) from error
        if isinstance(error, Exception) and not isinstance(error, BaseExceptionGroup):
            logger.warning("The app raised this while it was being aborted.", exc_info=error)

    async def _serve_on_another(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request where there is no loop of asyncio's."""
        trio = sys.modules.get("trio")
        if trio is None or not trio.lowlevel.in_trio_run():
            if not self._has_warned:
                self._has_warned = True
                logger.warning(
                    "hostline times requests on asyncio and trio; on this loop they run unguarded."
                )
            await self.app(scope, receive, send)
            return
        if not self._has_met_trio:
            self._has_met_trio = True
            self._prepare()
        request = scope["hostline.request"] = TrioRequest(scope, receive, send, self)
        serve_instead = self._judge(request, scope, header(scope, b"x-request-start"))
        if serve_instead is not None:
            request.detach()
            await serve_instead(scope, receive, send)
            return
        if self._is_attended():
            request.is_attended = True
            self.observers.begin(request, scope)
        token = current_request.set(request)
        error: BaseException | None = None
        try:
            error = await request.run(self.app, scope)
            if request.outcome is _TIMED_OUT and request.is_breakable:
                await self._conclude(request, error)
            elif error is not None:
                raise error
        finally:
            request.leave()
            current_request.reset(token)
            request.detach()
            del error  # its traceback holds this frame, which would hold it


OUTERMOST = frozenset({RequestTimeoutMiddleware.__call__.__code__})


def _is_of_an_abort(error: BaseException) -> bool:
    """Whether code that is aborted may end by this; task groups put several into one."""
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return all(_is_of_an_abort(each) for each in group.exceptions)
    return isinstance(error, (CancelledError, Exception, RequestTimeoutException))


AsyncioRequest.outermost = OUTERMOST
