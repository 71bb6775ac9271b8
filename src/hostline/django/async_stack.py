"""The timeout where the next layer of Django's stack is an async one.

The machinery of ``_asgi_timeout`` runs the rest of the stack in a task of its own, which it
cancels at the deadline. It is a task of its own so that the entry can hand Django the 504 at
that moment, while the view is still unwinding: nobody but Django has the server's ``send``.

All that Django does to the entry's task is done to that one: a cancellation is handed on,
and what is set in its context is there afterwards.
"""

import asyncio
import weakref
from asyncio import CancelledError
from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from typing import Any, cast

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from hostline._asgi_exchange import Message, Receive, Scope, Send
from hostline._asgi_timeout import RequestTimeoutMiddleware
from hostline._requests import logger
from hostline._routes import DJANGO_REQUEST
from hostline.django.calls import CALL, GUARDED_TWICE, Call, answer
from hostline.settings import RequestTimeoutOptions


class AsyncCall(Call):
    """The same, whose response may be the guard's, and is then there before the call has come to its end."""

    def __init__(self, request: HttpRequest, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(request)
        self.outcome: asyncio.Future[HttpResponseBase] = loop.create_future()
        self._start: Message | None = None

    async def send(self, message: Message) -> None:
        """What the guard answers."""
        if self._start is None:
            self._start = message
        elif not self.outcome.done():
            headers = [(name.decode(), value.decode("latin-1")) for name, value in self._start["headers"]]
            self.outcome.set_result(answer(self._start["status"], headers, message["body"]))

    def settle(self, task: "asyncio.Task[None]") -> None:
        """The task has come to its end: that is the outcome, where there was none before."""
        if task.cancelled():
            self.outcome.cancel()
            return
        error = task.exception()
        if self.outcome.done():
            if error is not None:
                logger.warning("The app raised this when its request had been answered.", exc_info=error)
        elif error is not None:
            self.outcome.set_exception(error)
        else:
            self.outcome.set_result(cast("HttpResponseBase", self.response))


class AsyncStack:
    """The entry where the next layer is an async one. Called in a task of Django's."""

    def __init__(self, get_response: Callable[[HttpRequest], Any], options: RequestTimeoutOptions) -> None:
        self._get_response: Callable[[HttpRequest], Awaitable[HttpResponseBase]] = get_response
        self._guard = RequestTimeoutMiddleware(self._app, **options)
        self._has_told = False
        # The loop holds a task weakly, and nobody waits for one that has been answered for.
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Answer by the rest of the stack, or at the deadline."""
        own_scope = _scope(request)
        if "hostline.request" in own_scope and not self._has_told:
            self._has_told = True
            logger.warning(GUARDED_TWICE)
        loop = asyncio.get_running_loop()
        call = AsyncCall(request, loop)
        scope = {**own_scope, DJANGO_REQUEST: weakref.ref(request), CALL: call}
        context = copy_context()
        task = loop.create_task(self._guard(scope, _receive, call.send), context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(call.settle)
        while not call.outcome.done():
            try:
                await asyncio.wait((call.outcome,))
            except CancelledError:
                task.cancel()  # handed on, as often as it comes; how the task ends by it is the outcome
                if call.outcome.done():
                    raise  # it came behind the outcome, which would leave nothing of it
        if task.done():
            _adopt(context)
        try:
            return call.outcome.result()
        finally:
            del call, task  # an error's traceback holds this frame, which would hold the error

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The rest of the stack, as an ASGI app that sends nothing of its own."""
        del receive, send
        call: Call = scope.pop(CALL)
        found: Scope = getattr(call.request, "scope", call.request.META)
        found["hostline.request"] = scope["hostline.request"]
        call.response = await self._get_response(call.request)


def _scope(request: HttpRequest) -> Scope:
    """The server's; one like it under WSGI, where an async-only entry below makes the stack async."""
    found: Scope | None = getattr(request, "scope", None)
    if found is not None:
        return found
    headers = [
        (name.lower().encode(), value.encode("latin-1", "replace")) for name, value in request.headers.items()
    ]
    return {"type": "http", "method": request.method, "path": request.path, "headers": headers}


async def _receive() -> Message:
    """Nobody asks: Django has read the body before."""
    raise NotImplementedError


def _adopt(context: Context) -> None:
    """Have here what was set in the context of the task, as if its code had run here."""
    for variable, value in context.items():
        if variable.get(None) is not value:
            variable.set(value)
