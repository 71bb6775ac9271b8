"""A request between its ASGI server and its app: what is sent, what is asked for, how it ends.

The same on every loop. ``_asyncio_request`` and ``_trio_request`` tell how its task is
ended there and how the answer gets out while that takes its time.

Everything here runs in the loop's thread, so whatever does not ``await`` is one step, and
needs no lock.
"""

import gc
import sys
from collections.abc import Awaitable, Iterable, Iterator
from functools import partial
from itertools import chain, takewhile
from math import inf
from time import monotonic
from types import CodeType, FrameType
from typing import Any, cast

from hostline import _asgi_cuts, _budget, _frames, _responses, _stacks
from hostline._asgi_deadline import BendableRequest, Lanes
from hostline._asgi_exchange import Message, Receive, Scope, Send, header, media_type, send_response
from hostline._blocked_loops import Breakable
from hostline._interrupts import Guard, log_unstoppable
from hostline._pool_threads import PoolCall
from hostline._requests import State, reporter
from hostline._routes import Source
from hostline._termination import main_frame, terminator

#: Whose content says nothing (RFC 9110, section 9.3), so that nobody waits for it.
_WITHOUT_BODY = frozenset({"CONNECT", "GET", "HEAD", "TRACE"})
_COMPLETED, _TIMED_OUT = State.COMPLETED, State.TIMED_OUT


class AsgiRequest(BendableRequest, Breakable):
    """A request between its server and its app, as ``scope["hostline.request"]``.

    Its claim is in ``claims`` until the response is complete or, without a
    ``stream_timeout``, has begun to stream; or until the deadline.
    """

    #: The guard's own code, in whose frames the local ``request`` is this one.
    outermost: frozenset[CodeType] = frozenset()
    #: What calls it at its deadline, where it is no lane's.
    timer: Any
    #: Whether somebody wants to hear how it goes.
    is_attended = False
    #: Whether anything hangs on its end but the end itself.
    is_heard_of: bool
    response_started: bool
    #: Whether the guard has answered for it.
    is_answered = False
    _upload_left: float | None = None  # None: nobody has asked for the body yet
    _upload_complete = False

    # Not the scope: that holds this object, and a circle would leave every request to the
    # garbage collector.
    _path: str
    _headers: Iterable[tuple[bytes, bytes]]
    _server_receive: Receive
    _server_send: Send

    def __init__(self, scope: Scope, receive: Receive, send: Send, guard: Guard, lanes: Lanes) -> None:
        """As the guard's hot path does for asyncio, spelt out."""
        super().__init__()
        self.started = monotonic()
        self.guard = guard
        self.lanes = lanes
        self.method = scope["method"]
        self._path = scope["path"]
        self._headers = scope["headers"]
        self._server_receive = receive
        self._server_send = send
        self.timer = None
        self.is_heard_of = True
        self.came_back = self.response_started = False

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
    def may_have_body(self) -> bool:
        """The same, where HTTP/2 announces none (RFC 9113, section 8.1.1)."""
        return self.has_body or self.method not in _WITHOUT_BODY

    # Not `async def`, which would put a coroutine of ours around each of the server's.
    def send(self, message: Message) -> Awaitable[None]:
        """What the app gets as ``send``."""
        if self.outcome is _TIMED_OUT:
            if self.is_breakable:
                return nowhere()
            self.guard.observers.note_timeout(self)
        kind = message["type"]
        if kind == "http.response.start":
            self.response_started = True
        elif kind == "http.response.body":
            if message.get("more_body"):
                self._go_on_streaming()
            elif self.is_heard_of or self.timer is not None or self.ended is not None:
                self.complete()
            else:  # the same, where nobody listens
                self.claims.pop(self, False)
                self.outcome = _COMPLETED
                self.ended = monotonic()
        elif kind == "http.response.pathsend":  # an extension: a body by the name of its file
            self.complete()
        return self._server_send(message)

    def complete(self) -> None:
        """The response is whole, or the app is done without one."""
        self.claims.pop(self, False)
        if self.timer is not None:
            self._withdraw()
        if self.end(_COMPLETED) and self.is_attended:
            self.guard.observers.tell(self, _COMPLETED)

    def leave(self) -> None:
        """The app has come back, and nobody has broken it off."""
        self.complete()
        if self.outcome is _TIMED_OUT:
            self.guard.observers.note_timeout(self)

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
            if not self.may_have_body:
                self._upload_complete = True
                return self._server_receive()
            self._upload_left = self.guard.settings.wait_overtime or inf
        return self._receive_upload(self._upload_left)

    async def _receive_upload(self, upload_left: float) -> Message:
        """Wait for the client on its own time: the service clock stands still."""
        if self.service_deadline is not None:  # another of its tasks waits already
            message = await self._server_receive()
            self._upload_complete = not message.get("more_body", False)
            return message
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
        self.spare_if_debugged()
        self.time_out(self.trace_now())
        if self.is_breakable:
            self.break_off()
            self.answer_at_once()

    def code_frames(self) -> Iterator[FrameType]:
        """Those of the threads that work for it, and of the loop's, unless that is this one."""
        frame = None if self.is_in_loop() else _frames.of_thread(self.lanes.thread_id)
        in_loop = takewhile(lambda each: each.f_code not in self.outermost, _frames.outwards(frame))
        return chain(super().code_frames(), in_loop)

    def is_overdue(self) -> bool:
        """Whether its time has come, and its code has not come back and is to be broken."""
        is_out = self.ended is None or (self.outcome is _TIMED_OUT and not self.came_back)
        is_due = is_out and self.is_breakable and self.deadline <= monotonic() and not self.is_held_back()
        return is_due and not self.spare_if_debugged()

    def expire_in_step(self, frame: FrameType | None) -> bool:
        """Time it out from within its code, which blocks the loop (``_blocked_loops``)."""
        send_code = self._send_code
        if any(each.f_code is send_code for each in _frames.outwards(frame)):
            return False  # half a message would be sent
        if self.ended is None and self.claims.pop(self, False):
            self.time_out(_stacks.of_thread(frame, self.outermost))
            self.answer_at_once()
            self.break_off_above()
        return not self.came_back

    def find_routing(self) -> Source | None:
        """The scope: an argument of the guard's coroutine, or of its frame where that runs just now."""
        for _, awaiting in _stacks.awaits(self.task_coroutine):
            # Not by the frame's f_locals: up to CPython 3.12 that would keep them, in a circle.
            held = gc.get_referents(awaiting)
            if any(each is self for each in held):
                scopes = (cast("Scope", each) for each in held if isinstance(each, dict))
                return next((each for each in scopes if "type" in each), None)
        for frame in _frames.outwards(sys._getframe()):
            if frame.f_code in self.outermost and _frames.local(frame, "request") is self:
                return cast("Source | None", _frames.local(frame, "scope"))
        return None

    @property
    def task_coroutine(self) -> object:
        """The outermost coroutine of its task; None where it has left."""
        raise NotImplementedError

    @property
    def _send_code(self) -> CodeType | None:
        """The server's own, if it is written in Python."""
        send = self._server_send
        send = getattr(send, "func", send)  # a partial
        send = getattr(send, "__func__", send)  # a bound method
        return getattr(send, "__code__", None)

    def time_out(self, trace: _stacks.Trace | None) -> None:
        self.trace = trace
        self.note_route()
        self.move_to(_TIMED_OUT)
        self.term = not self.is_spared and terminator.count(self.guard.settings.term_on_timeout)
        reporter.submit(self._tell_timeout)

    def break_off(self) -> None:
        """Have the app's code end, and what it has ordered, unless a shield puts that off."""
        if not self.is_put_off():
            self.call_cancels()
            self.break_code()

    def break_code(self) -> None:
        """Have the app's code end: the threads that work for it first, then its task."""
        if not self.break_calls():
            self.cancel()

    def wait_no_longer_for(self, calls: set[PoolCall]) -> None:
        """Have its task end though these threads have not, of which nobody knows whether it needs them."""
        if self.came_back or not self.broken_calls or self.broken_calls.isdisjoint(calls):
            return
        self.broken_calls -= calls
        if not self.broken_calls:
            self.break_off()

    def tell_unstoppable(self) -> None:
        """Say that its code has not taken notice, and where it is."""
        if terminator.count_unstoppable(self, self.guard.settings.term_on_timeout):
            reporter.submit(partial(terminator.ask, main_frame()))
        reporter.submit(partial(log_unstoppable, self, self.trace_now() or []))

    def _tell_timeout(self) -> None:
        self.guard.observers.tell(self, _TIMED_OUT)
        if self.term:
            terminator.ask(main_frame())

    async def _send_answer(self) -> None:
        self.guard.observers.note_timeout(self)
        offered = media_type({"headers": self._headers}, _responses.TIMEOUT_PAGES)
        response = _responses.timed_out(self.guard.settings, self, offered)
        await send_response(response.to(self.method), "http.response", self._server_send)

    def detach(self) -> None:
        """Let go of what would keep the server's objects alive in a circle."""
        self._server_send, self._server_receive = nowhere, disconnected
        self.came_back = True

    async def cut(self) -> None:
        """Break off the response that has begun, so that the client can tell."""
        await _asgi_cuts.cut(self._server_send)

    @property
    def is_answered_for(self) -> bool:
        """Whether it is to be answered at the deadline, and can be."""
        return self.guard.settings.mode == "respond" and not self.response_started

    def cancel(self) -> None:
        """Have its task end."""
        raise NotImplementedError

    def warn_after(self, seconds: float) -> None:
        """Log where it is, if it has not ended by then. A soft limit."""
        raise NotImplementedError

    def _withdraw(self) -> None:
        """Have no deadline any more."""
        raise NotImplementedError


async def nowhere(*_: object) -> Any:
    """Where messages go that come too late."""


async def disconnected() -> Message:
    """What is left to receive behind the end (ASGI specification, "Disconnect")."""
    return {"type": "http.disconnect"}
