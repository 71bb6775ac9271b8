"""Breaking off a response that has begun, on servers that would leave its client hanging.

ASGI has no message for it. An exception out of the app makes uvicorn, gunicorn, granian
and, over HTTP/1.1, hypercorn close the connection or reset the stream. Two do neither:

- hypercorn over HTTP/2 forgets the stream without a word to the client. Here h2 is told to
  reset that stream alone (RFC 9113, section 5.4.2); the others of its connection live on.
- daphne takes the exception, tries to answer 500, which cannot be any more, and its
  periodic look after all apps dies of that. Here Twisted is told to close the connection,
  and daphne that it is closed, after which it only logs the exception.

Both servers are found by what they hand to the app as ``send``; it is looked for in the
frames that called the guard, since other middlewares hand on a ``send`` of their own. A
middleware that runs the guard in another task (Starlette's ``BaseHTTPMiddleware``) hides it.

Imports neither server: where one serves, its modules are there. What is used of them is
public by name; the tests on the real servers fail when it goes.
"""

import sys
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from inspect import CO_COROUTINE
from types import FrameType
from typing import Any, Final

from hostline import _frames
from hostline._asgi_exchange import Send
from hostline._requests import logger

# RFC 9113, section 7. INTERNAL_ERROR, as granian resets a stream whose app has failed.
_INTERNAL_ERROR: Final = 2

Cut = Callable[[], Awaitable[None]]


async def cut(send: Send) -> None:
    """Break off the response that is sent by ``send``, if its server would not by itself."""
    breaks_off = next((cut for each in _sends(send) for cut in _cuts_by(each)), None)
    if breaks_off is None:
        return
    try:
        await breaks_off()
    except Exception:  # noqa: BLE001 - of a server's insides; no worse than without: it gets ours yet
        logger.warning("A response could not be cut; its client may wait in vain.", exc_info=True)


def _sends(send: Send) -> Iterator[object]:
    """It, and what the coroutines that wait for the guard call so."""
    yield send
    for frame in _frames.outwards(sys._getframe()):
        if not (_is_own(frame) or frame.f_code.co_flags & CO_COROUTINE):
            return
        # CPython before 3.13 keeps what f_locals tells until the frame ends. Of the guard's own frames
        # that would be the app's error, whose traceback has these frames: a circle.
        if not _is_own(frame):
            yield _frames.local(frame, "send")


def _is_own(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).startswith("hostline.")


def _cuts_by(send: object) -> Iterator[Cut]:
    yield from _of_hypercorn(send)
    yield from _of_daphne(send)


def _of_hypercorn(send: object) -> Iterator[Cut]:
    stream: Any = getattr(send, "__self__", None)
    if _is_a(stream, "hypercorn.protocol.http_stream", "HTTPStream"):
        protocol = getattr(stream.send, "__self__", None)
        if _is_a(protocol, "hypercorn.protocol.h2", "H2Protocol"):
            yield partial(_reset_stream, protocol, stream.stream_id)


async def _reset_stream(protocol: Any, stream_id: int) -> None:
    protocol.connection.reset_stream(stream_id, _INTERNAL_ERROR)
    # As if nothing had come from the client: hypercorn then sends what h2 has to say.
    await protocol.handle(sys.modules["hypercorn.events"].RawData(data=b""))
    # It would keep the stream's buffer, and its place among the 1000 that a connection may have, until
    # the connection ends. An end of the body has its sending task find out that the stream is closed.
    if stream_id in protocol.stream_buffers:
        await protocol.stream_buffers[stream_id].close()
        await protocol.stream_send(sys.modules["hypercorn.protocol.events"].EndBody(stream_id=stream_id))


def _of_daphne(send: object) -> Iterator[Cut]:
    if isinstance(send, partial) and send.args:
        request = send.args[0]
        if _is_a(request, "daphne.http_protocol", "WebRequest"):
            yield partial(_close_connection, request)


async def _close_connection(request: Any) -> None:
    # Over HTTP/2 the channel is the stream; losing that would be a proper end of it.
    getattr(request.channel, "abortConnection", request.loseConnection)()
    request.server.protocol_disconnected(request)


def _is_a(thing: object, module: str, name: str) -> bool:
    """Whether it is an instance of a class that may never have been imported."""
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(thing, kind)
