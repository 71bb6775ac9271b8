"""The request timeout as a WSGI middleware (PEP 3333).

The app runs in the thread that calls the middleware, inside one ``try`` from which it
comes back in one of three ways: in time, having popped its own claim; by an error of its
own; or too late, the watchdog having popped the claim. ``_interrupts`` tells why no
exception of ours outlives that ``try``.
"""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable
from math import inf
from threading import get_ident
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn, Unpack, cast
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from hostline import _budget, _frames, _greenlets, _responses, _wsgi_bodies, observers
from hostline._breaker import main_thread
from hostline._deadlines import Claims, Lane, watchdog
from hostline._greenlets import GreenletRequest
from hostline._interrupts import ThreadRequest
from hostline._obstacles import obstacle
from hostline._protocols import check_wsgi_app
from hostline._requests import State, current_request, logger
from hostline._routes import Source
from hostline._slow import ThreadWatch
from hostline._targets import PathPrefixes
from hostline._termination import main_frame, warn_unless_replaced
from hostline._wsgi_exchange import media_type, send, target
from hostline.errors import RequestExpiryError, RequestTimeoutError, RequestTimeoutException
from hostline.settings import RequestTimeoutOptions, RequestTimeoutSettings

if TYPE_CHECKING:
    from _typeshed import OptExcInfo

# Whether it does is tried out when it matters (_wait_probe); before, it is known not to.
_SIGNALS_MAY_END_WAITS = sys.version_info >= (3, 15)
_NONE: Claims = {}
_COMPLETED = State.COMPLETED
_INFO = logging.INFO
# Threads are met once each; their identities recur, but a server that makes one for each
# connection may show thousands.
_MOST_THREADS_MET = 1_000


class WsgiRequest(ThreadRequest):
    """A request between its server and its app, as ``environ["hostline.request"]``."""

    # The values, not the environ: that holds this object, and a circle would leave
    # every request to the garbage collector.
    script_name: str
    path_info: str
    given_id: str
    is_stream = False
    head: tuple[str, list[tuple[str, str]]] | None
    head_is_out: bool
    server_start: StartResponse
    server_write: Callable[[bytes], object]
    #: Whether a response that the server will not see has been closed.
    is_closed = False

    # CPython before 3.13 makes an object far sooner without an __init__ of its class's: what
    # there is to be set, the guard sets.
    if TYPE_CHECKING:

        def __init__(self) -> None: ...

    else:
        __init__ = object.__init__

    @property
    def path(self) -> str:
        """The whole path, decoded. PEP 3333 hands it on one character an octet."""
        return (self.script_name + self.path_info).encode("latin-1", "replace").decode(errors="replace")

    def _raw_id(self) -> str:
        return self.given_id

    # What the app gets as `start_response` goes to the server when the claim is won, or with
    # the first `write`. Until then another head can take its place; given a second one
    # afterwards, with exc_info, gunicorn and cheroot send both and uWSGI sends no body.
    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: "OptExcInfo | None" = None, /
    ) -> Callable[[bytes], object]:
        """Hold the app's head back (PEP 3333)."""
        if exc_info is None or exc_info[1] is None:
            if self.head is not None:
                raise AssertionError("start_response was called a second time, without exc_info (PEP 3333).")
        elif self.head_is_out:
            raise exc_info[1].with_traceback(exc_info[2])
        self.head = (status, headers)
        return self._write

    def find_route_in(self, source: Source) -> None:
        """As everywhere; but Flask knows its route no longer when it has made its response."""
        super().find_route_in(source)
        self.__dict__["start_response"] = self._note_route_and_start

    def _note_route_and_start(self, *head: Any) -> Callable[[bytes], object]:
        self._route = self.route
        return type(self).start_response(self, *head)

    def note_route(self) -> None:
        """Remember the route, and let go of where it was found."""
        super().note_route()
        self.__dict__.pop("start_response", None)

    def find_routing(self) -> Source | None:
        """The environ, while the app is at work on its response."""
        guard = next((each for each in self.frames() if self.is_run_by(each)), None)
        return None if guard is None else cast("Source | None", _frames.local(guard, "environ"))

    def _write(self, data: bytes) -> object:
        # The server's own code, within the app's: no place for an abort.
        self.is_shielded = True
        try:
            if not self.head_is_out and self.head is not None:
                self.head_is_out = True
                self.server_write = self.server_start(*self.head)
            return self.server_write(data)
        finally:
            self.is_shielded = False

    def set_timeout(self, timeout: float | None) -> bool:
        """Let it run for so long from its start; False: too late. From any thread."""
        if self.is_stream:
            return False
        before, self.timeout = self.timeout, timeout
        if not watchdog.move(self, self._lane_entries, inf if timeout is None else self.started + timeout):
            self.timeout = before
            return False
        return True

    def withdraw(self) -> bool:
        """Claim it, whatever lane it is in. From any thread."""
        return self._lane_entries.pop(self, False) or watchdog.reclaim(self)

    @property
    def _lane_entries(self) -> Claims:
        """The claims among which it has begun, unless its timeout was no lane's."""
        lane = cast("RequestTimeoutMiddleware", self.guard).lane
        return _NONE if lane is None else lane.entries

    def complete(self) -> None:
        """End well, unless it has ended already."""
        if self.end(_COMPLETED):
            self.guard.observers.tell(self, _COMPLETED)


class GreenletWsgiRequest(GreenletRequest, WsgiRequest):  # pyright: ignore[reportIncompatibleVariableOverride]
    """The same under gevent."""

    def __init__(self) -> None:
        self.bind()


class RequestTimeoutMiddleware:
    """Drops the requests that waited too long and aborts those that run too long.

    ``app`` is the application to guard; the options are the fields of
    :class:`hostline.RequestTimeoutSettings`, durations in seconds. One that is not given
    comes from its environment variable, else has its default. Raises
    :class:`hostline.SettingsError` for what is not allowed.

    May be called from any thread. The request runs in the thread that calls, and there
    :class:`hostline.RequestTimeoutException` is raised at the deadline. With
    ``mode="raise"`` a call raises :class:`hostline.RequestTimeoutError` or
    :class:`hostline.RequestExpiryError`; else it answers 504 or 503. A response that has
    begun to be sent is cut by :class:`hostline.RequestTimeoutError` in any mode but
    ``"report"``.
    """

    def __init__(self, app: WSGIApplication, **options: Unpack[RequestTimeoutOptions]) -> None:
        check_wsgi_app(app, "RequestTimeoutMiddleware")
        settings = RequestTimeoutSettings.load(options)
        self.app = app
        self.settings = settings
        self.observers = observers.named(settings.observers)
        #: Whether this process can, and is to, break what runs too long.
        self.breaks = settings.mode != "report"
        self.waits = _budget.WaitReader(settings, str)
        self._exempt = PathPrefixes(settings.exempt_paths)
        self._has_begun = False
        self._threads_met: set[int] = set()
        self._request: type[WsgiRequest] = WsgiRequest
        self._is_attended = self.observers.are_attentive
        self._attention = self.observers.attention
        self._timeouts = _budget.ServiceTimeouts(settings)
        self._judges_each = _budget.judges_each(settings)
        if _SIGNALS_MAY_END_WAITS and self.breaks and threading.current_thread() is threading.main_thread():
            main_thread.prepare(settings.signal)  # the worker threads cannot
        timeout = settings.service_timeout
        self.lane: Lane | None = None if timeout is None else watchdog.lane(timeout)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        # Every request's path, so one function: a call costs as much as all that it does.
        thread_id = get_ident()
        if thread_id not in self._threads_met:
            self._meet_thread(thread_id)
        request = environ["hostline.request"] = self._request()
        request.started = started = monotonic()
        request.guard = self
        request.thread_id = thread_id
        request.outcome = request.ended = request.head = request.stamp = None
        request.head_is_out = False
        request.method = environ["REQUEST_METHOD"]
        try:
            request.script_name = environ["SCRIPT_NAME"]
            request.path_info = environ["PATH_INFO"]
        except KeyError:  # a server may leave out what is empty (PEP 3333)
            request.script_name = environ.get("SCRIPT_NAME", "")
            request.path_info = environ.get("PATH_INFO", "")
        request.given_id = environ.get("HTTP_X_REQUEST_ID", "")
        lane = self.lane
        is_judged = self._judges_each
        if "HTTP_X_REQUEST_START" in environ and not is_judged:
            waits = self.waits
            if started >= waits.until:
                waits.renew(started)
            request.stamp = stamp = environ["HTTP_X_REQUEST_START"]
            is_judged = not waits.oldest <= stamp <= waits.newest
        if is_judged:
            request.stamp = None
            serve_instead = self._judge(environ, request)
            if serve_instead is not None:
                return serve_instead(environ, start_response)
            if lane is not None and request.timeout != lane.timeout:
                lane = None  # it has one of its own
        elif lane is not None:
            request.timeout = lane.timeout
        else:
            request.timeout = None
            request.deadline = inf
        try:
            is_attended = self._attention[_INFO] and self._is_attended()
        except KeyError:  # some logger's level has been changed since
            is_attended = self._is_attended()
        if is_attended:
            self.observers.begin(request, environ)
        request.server_start = start_response
        result: Iterable[bytes] = ()
        claims = _NONE
        token = current_request.set(request)
        try:
            if lane is not None:
                request.deadline = deadline = started + lane.timeout
                claims = lane.entries
                claims[request] = True
                if not lane.earliest <= deadline <= lane.latest:
                    watchdog.rouse()
            else:
                claims = watchdog.at(request, request.deadline)
            result = self.app(environ, request.start_response)
            is_list = result.__class__ is list
            if not is_list:
                result = self._begun(request, result, environ)
            if claims.pop(request, False) or watchdog.reclaim(request):
                if is_list and not is_attended and not is_judged:  # as `end` does, to which nobody listens
                    request.outcome = _COMPLETED
                    request.ended = monotonic()
                elif not request.is_stream:
                    request.end(_COMPLETED)
                    if is_attended:
                        self.observers.tell(request, _COMPLETED)
            elif request.is_breakable:
                raise RequestTimeoutException  # noqa: TRY301 - the watchdog was first; all ends meet below
            else:
                request.leave()
        except BaseException as error:
            request.came_back = True  # first of all: see _interrupts, point 2
            try:
                request.server_start = request.server_write = _too_late
                answer = self._answer(request, claims, result, error, environ, start_response)
            except RequestTimeoutException:
                if not request.shot_at:
                    request.see_out()
                    raise  # that of a guard further out
                answer = self._answer(request, claims, result, error, environ, start_response)
            finally:
                current_request.reset(token)
            if answer is None:
                raise
            return answer
        current_request.reset(token)
        # The server's objects hold the environ, which holds the request: no circle is left.
        request.server_start = request.server_write = _too_late
        if not request.head_is_out:
            request.head_is_out = True
            head = request.head
            if head is not None:
                try:
                    start_response(head[0], head[1])
                except BaseException:  # the server finds a header wrong, and will not see the response
                    _wsgi_bodies.close(result)
                    raise
        return result

    def _meet_thread(self, thread_id: int) -> None:
        """What there is to do once for each thread, in that thread."""
        if len(self._threads_met) >= _MOST_THREADS_MET:
            self._threads_met.clear()
        self._threads_met.add(thread_id)
        if self.settings.term_on_timeout and not self._has_begun:
            warn_unless_replaced(_greenlets.main_frame() if _greenlets.in_use() else main_frame())
        self._has_begun = True
        if _greenlets.in_use():
            if self.breaks and self._request is WsgiRequest:
                _greenlets.prepare(self.settings.signal)
            self._request = GreenletWsgiRequest
            return
        if not self.breaks:
            return
        reason = obstacle()
        if reason is not None:
            self.breaks = False
            logger.warning("hostline reports requests that run too long, but aborts none: %s.", reason)
        elif thread_id == threading.main_thread().ident:
            main_thread.prepare(self.settings.signal)

    def _judge(self, environ: WSGIEnvironment, request: WsgiRequest) -> WSGIApplication | None:
        """Set how long the request may run; or what is to serve it instead."""
        settings = self.settings
        path = target(environ).path if self._timeouts.needs_path else b""
        request.timeout, request.deadline = None, inf
        if self._exempt.match(path):
            return self.app
        wait = None
        if settings.wait_timeout is not None:
            wait = self.waits.read(environ.get("HTTP_X_REQUEST_START", ""), time.time())
        verdict = _budget.decide(
            settings,
            wait=wait,
            has_body=_budget.announces_body(
                environ.get("CONTENT_LENGTH"), environ.get("HTTP_TRANSFER_ENCODING")
            ),
            service_timeout=_budget.lowered(
                self._timeouts.of(environ, path),
                settings.trust_timeout_header,
                lambda name: environ.get("HTTP_" + name.upper().replace("-", "_"), ""),
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
            ThreadWatch(request, settings.warn_after)
        return None

    def _refuse(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer for a request that has expired."""
        request: WsgiRequest = environ["hostline.request"]
        if self.settings.mode == "raise":
            raise RequestExpiryError(wait=request.wait, timeout=request.timeout)
        response = _responses.expired(media_type(environ, _responses.TIMEOUT_PAGES))
        return send(response, environ, start_response)

    def _begun(
        self, request: WsgiRequest, result: Iterable[bytes], environ: WSGIEnvironment
    ) -> Iterable[bytes]:
        """The response with its first chunk made."""
        if _wsgi_bodies.is_whole(result, environ):
            return result
        if self.settings.stream_timeout is None:
            return _wsgi_bodies.Body(result)
        lane = watchdog.lane(self.settings.stream_timeout)

        def guarded(make: Callable[[], bytes]) -> bytes:
            return self._next_chunk(request, lane, make)

        body = _wsgi_bodies.TimedBody(result, guarded, request.complete)
        request.is_stream = True
        return body

    def _next_chunk(self, request: WsgiRequest, lane: Lane, make: Callable[[], bytes]) -> bytes:
        """One more chunk of a stream: the same ``try`` as for the call, and the head is out."""
        request.came_back = False
        request.thread_id = get_ident()
        request.deadline = deadline = monotonic() + lane.timeout
        claims = lane.entries
        token = current_request.set(request)
        try:
            claims[request] = True
            if not lane.earliest <= deadline <= lane.latest:
                watchdog.rouse()
            chunk = make()
            if claims.pop(request, False) or watchdog.reclaim(request):
                return chunk
            if not request.is_breakable:
                request.leave()
                return chunk
            raise RequestTimeoutException  # noqa: TRY301 - as in __call__
        except BaseException as error:
            request.came_back = True
            try:
                timeout_error = self._given_up(request, claims, error)
            except RequestTimeoutException:
                if not request.shot_at:
                    request.see_out()
                    raise
                timeout_error = self._given_up(request, claims, error)
            if timeout_error is None:
                raise
            try:
                raise timeout_error from error
            finally:
                del timeout_error  # its traceback holds this frame, which would hold it
        finally:
            current_request.reset(token)

    def _given_up(
        self, request: WsgiRequest, claims: Claims, error: BaseException
    ) -> RequestTimeoutError | None:
        """What an exception out of the app means: None, that it is the app's own."""
        is_own = not request.shot_at and (claims.pop(request, False) or watchdog.reclaim(request))
        if is_own and not request.has_given_up:
            return None
        request.leave()
        if not request.is_breakable or not isinstance(error, (Exception, RequestTimeoutException)):
            return None
        return RequestTimeoutError(service=request.service, timeout=request.timeout)

    def _answer(
        self,
        request: WsgiRequest,
        claims: Claims,
        result: Iterable[bytes],
        error: BaseException,
        environ: WSGIEnvironment,
        start_response: StartResponse,
    ) -> Iterable[bytes] | None:
        """Answer for a call that ended by an exception; None: let that exception pass."""
        timeout_error = self._given_up(request, claims, error)
        try:
            if not request.is_closed:  # this may be the second time that we come here
                request.is_closed = True
                _wsgi_bodies.close(result)
        finally:
            if timeout_error is None:
                request.complete()
        if timeout_error is None:
            return None
        try:
            return self._respond(request, environ, start_response, timeout_error, error)
        finally:
            del timeout_error, error  # a traceback holds this frame, which would hold the error

    def _respond(
        self,
        request: WsgiRequest,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        timeout_error: RequestTimeoutError,
        error: BaseException,
    ) -> Iterable[bytes]:
        """Answer 504, or raise."""
        if self.settings.mode == "raise" or request.head_is_out:  # by `write`: the response is cut
            try:
                raise timeout_error from error
            finally:
                del timeout_error, error  # as above
        offered = media_type(environ, _responses.TIMEOUT_PAGES)
        return send(_responses.timed_out(self.settings, request, offered), environ, start_response)


def _too_late(*_: object) -> NoReturn:
    raise RuntimeError("write() was called when the response had been handed over (PEP 3333).")


WsgiRequest.outermost = frozenset(
    {RequestTimeoutMiddleware.__call__.__code__, RequestTimeoutMiddleware._next_chunk.__code__}
)
