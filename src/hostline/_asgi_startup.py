"""A guard that cannot be made where its error would be lost.

Starlette makes its middlewares when it is called for the first time. Under a server that is
the ``lifespan`` call, and servers take an exception there for an app that knows no lifespan
events: they go on without a word, and every request is answered 500. So what is made
within that call fails the start-up, in the protocol's own way, with the error's text.

May import ``errors``, ``settings``, ``_asgi_exchange`` and ``_frames`` of hostline.
"""

import sys
from collections.abc import Mapping
from types import FrameType
from typing import cast

from hostline import _frames
from hostline._asgi_exchange import ASGIApp, Receive, Scope, Send
from hostline.errors import SettingsError
from hostline.settings import check_environment


def unstartable(error: Exception) -> ASGIApp:
    """The app in place of one whose guard cannot be made because of this error.

    Raises the error where whoever makes the guard will hear of it.
    """
    if not any(map(_is_lifespan_call, _frames.outwards(sys._getframe(1)))):
        raise error
    return _Unstartable(_with_all_of_the_environment(error))


def _is_lifespan_call(frame: FrameType) -> bool:
    """Whether this frame is an ASGI app's, or a server's, that is at the lifespan events."""
    if "scope" not in frame.f_code.co_varnames:
        return False
    scope = _frames.local(frame, "scope")
    return isinstance(scope, Mapping) and cast("Scope", scope).get("type") == "lifespan"


def _with_all_of_the_environment(error: Exception) -> Exception:
    """The error, with what is wrong with both guards' variables: the server stops at the first."""
    if isinstance(error, SettingsError):
        try:
            check_environment()
        except SettingsError as others:
            return SettingsError(dict.fromkeys([*error.problems, *others.problems]))
    return error


class _Unstartable:
    def __init__(self, error: Exception) -> None:
        self._error = error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.failed", "message": str(self._error)})
        raise self._error.with_traceback(None)
