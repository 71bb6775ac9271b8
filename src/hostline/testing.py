"""For the test-suites of apps that hostline guards: no guard, or a timeout at a chosen point.

:func:`disabled` takes the guards out of the way; :func:`time_out` and :func:`atime_out` have
the request that is being served time out where they are called, at once and for real.

Nothing of an app's own has to be prepared for this, and it costs a running app nothing:
while the guards are disabled their classes have another ``__call__``.
"""

import importlib
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NoReturn
from unittest import mock

import anyio

from hostline._deadline_api import current
from hostline._requests import RequestDetails

__all__ = ["atime_out", "disabled", "time_out"]

# How long an abort may take to come, on a machine that has much else to do.
_PATIENCE = 30.0
_STEP = 0.001


@contextmanager
def disabled() -> Generator[None]:
    """Have every request pass all of hostline's guards untouched, in a ``with`` block or a decorated test.

    Nothing is redirected, rejected, timed or told to observers; there is no
    ``hostline.current()``. Blocks may be nested.
    """
    with ExitStack() as replaced:
        for guard, call in _guards():
            replaced.enter_context(mock.patch.object(guard, "__call__", call))
        yield


def time_out(*_: object, **__: object) -> NoReturn:
    """Have the request's time be up here, and wait for the abort. Takes, and ignores, any arguments.

    For code in a thread: all of a WSGI app, ``def`` endpoints. Put it where the app waits for
    something, as ``monkeypatch.setattr(views, "query", hostline.testing.time_out)``.
    """
    request = _time_out_now("time_out")
    if request.is_in_loop():
        raise RuntimeError("time_out() was called in an event loop, which it would block. Use atime_out().")
    given_up = time.monotonic() + _PATIENCE
    while time.monotonic() < given_up:
        time.sleep(_STEP)
    raise AssertionError(_NOT_ABORTED)


async def atime_out(*_: object, **__: object) -> NoReturn:
    """As :func:`time_out`, for ``async def`` code."""
    _time_out_now("atime_out")
    await anyio.sleep(_PATIENCE)
    raise AssertionError(_NOT_ABORTED)


_NOT_ABORTED = "The request was not aborted: is a debugger attached, or its code in a shield?"


def _time_out_now(name: str) -> RequestDetails:
    request = current()
    if request is None:
        raise RuntimeError(
            f"{name}() was called outside of a request that hostline times. Call the app through its "
            "RequestTimeoutMiddleware, and not within disabled()."
        )
    if not request.is_breakable:
        raise RuntimeError(f"{name}() was called where hostline only reports requests that run too long.")
    request.set_timeout(request.service)
    return request


def _guards() -> Iterator[tuple[type, Callable[..., Any]]]:
    """Each guard that can be in use, with what it does when it does nothing."""
    for name, call in _PASSES.items():
        module, _, guard = name.partition(".")
        try:
            yield getattr(importlib.import_module(f"hostline.{module}"), guard), call
        except ImportError:
            continue  # its framework is not installed, so it is not in use


def _wsgi_timeout(self: Any, environ: Any, start_response: Any) -> Any:
    return self.app(environ, start_response)


def _wsgi_host(self: Any, environ: Any, start_response: Any) -> Any:
    return self._app(environ, start_response)


# Coroutine functions, for servers look at that.
async def _asgi_timeout(self: Any, scope: Any, receive: Any, send: Any) -> None:
    await self.app(scope, receive, send)


async def _asgi_host(self: Any, scope: Any, receive: Any, send: Any) -> None:
    await self._app(scope, receive, send)


def _django(self: Any, request: Any) -> Any:
    return self._get_response(request)


_PASSES: dict[str, Callable[..., Any]] = {
    "wsgi.RequestTimeoutMiddleware": _wsgi_timeout,
    "wsgi.CanonicalHostMiddleware": _wsgi_host,
    "asgi.RequestTimeoutMiddleware": _asgi_timeout,
    "asgi.CanonicalHostMiddleware": _asgi_host,
    "django.CanonicalHostMiddleware": _django,
    "django.RequestTimeoutMiddleware": _django,
}
