"""For the test-suites of apps that hostline guards: no guard, a clock to turn, a timeout at a chosen point.

:func:`disabled` takes the guards out of the way; :func:`advance` turns the clock of the request
that is being served, and :func:`time_out` has its time be up, at once and for real. ``async
def`` code awaits :func:`aadvance` and :func:`atime_out`.

Nothing of an app's own has to be prepared for this, and it costs a running app nothing:
while the guards are disabled their classes have another ``__call__``.
"""

import importlib
import inspect
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import wraps
from typing import Any, NoReturn, ParamSpec, TypeVar, cast
from unittest import mock

import anyio

from hostline._deadline_api import current, is_plain
from hostline._kinds import check_seconds
from hostline._options import Seconds
from hostline._requests import RequestDetails

__all__ = ["aadvance", "advance", "atime_out", "disabled", "time_out"]

P = ParamSpec("P")
R = TypeVar("R")

# How long an abort may take to come, on a machine that has much else to do.
_PATIENCE = 30.0
_STEP = 0.001


class disabled:  # noqa: N801 - used as a function is
    """Have every request pass all of hostline's guards untouched, in a ``with`` block or a decorated test.

    The test may be an ``async def``. Nothing is redirected, rejected, timed or told to
    observers; there is no ``hostline.current()``. Blocks may be nested.
    """

    def __init__(self) -> None:
        self._replaced: list[ExitStack] = []

    def __enter__(self) -> None:
        with ExitStack() as replaced:
            for guard, call in _guards():
                replaced.enter_context(mock.patch.object(guard, "__call__", call))
            self._replaced.append(replaced.pop_all())

    def __exit__(self, *_: object) -> None:
        self._replaced.pop().close()

    def __call__(self, test: Callable[P, R]) -> Callable[P, R]:
        """The same test, without the guards."""
        if not is_plain(test):
            raise TypeError(
                f"{test!r} is no plain function. Write `with hostline.testing.disabled():` in it."
            )
        if inspect.iscoroutinefunction(test):

            @wraps(test)
            async def unguarded_coroutine(*args: P.args, **kwargs: P.kwargs) -> Any:
                with disabled():
                    return await test(*args, **kwargs)

            return cast("Callable[P, R]", unguarded_coroutine)

        @wraps(test)
        def unguarded(*args: P.args, **kwargs: P.kwargs) -> R:
            with disabled():
                return test(*args, **kwargs)

        return unguarded


def advance(seconds: Seconds) -> None:
    """As if so many seconds had gone by for the request that is being served, and for no other.

    ``hostline.remaining()`` is less by that, its log line says so, and if that was all the time
    it had, the abort comes here. For code in a thread, as :func:`time_out` is. ``warn_after``
    and ``stream_timeout`` have clocks of their own. Raises :class:`hostline.SettingsError` for
    what is no number of seconds, RuntimeError outside of a request.
    """
    if _is_over(_request_in_thread("advance"), seconds):
        _wait_for_the_abort()


async def aadvance(seconds: Seconds) -> None:
    """As :func:`advance`, for ``async def`` code."""
    if _is_over(_request("aadvance"), seconds):
        await _await_the_abort()


def _is_over(request: RequestDetails, seconds: Seconds) -> bool:
    """Turn its clock; whether it is to be aborted now."""
    request.started -= check_seconds("seconds", seconds) or 0.0
    request.set_timeout(request.timeout)
    return request.is_breakable and request.next_deadline <= time.monotonic()


def time_out(*_: object, **__: object) -> NoReturn:
    """Have the request's time be up here, and wait for the abort. Takes, and ignores, any arguments.

    For code in a thread: all of a WSGI app, ``def`` endpoints. Put it where the app waits for
    something, as ``monkeypatch.setattr(views, "query", hostline.testing.time_out)``.
    """
    _time_out_now(_request_in_thread("time_out"), "time_out")
    _wait_for_the_abort()


async def atime_out(*_: object, **__: object) -> NoReturn:
    """As :func:`time_out`, for ``async def`` code."""
    _time_out_now(_request("atime_out"), "atime_out")
    await _await_the_abort()


def _time_out_now(request: RequestDetails, name: str) -> None:
    if not request.is_breakable:
        raise RuntimeError(f"{name}() was called where hostline only reports requests that run too long.")
    request.set_timeout(request.service)


def _request(name: str) -> RequestDetails:
    request = current()
    if request is None:
        raise RuntimeError(
            f"{name}() was called outside of a request that hostline times. Call the app through its "
            "RequestTimeoutMiddleware, and not within disabled()."
        )
    return request


def _request_in_thread(name: str) -> RequestDetails:
    request = _request(name)
    if request.is_in_loop():
        raise RuntimeError(f"{name}() was called in an event loop, which it would block. Use a{name}().")
    return request


def _wait_for_the_abort() -> NoReturn:
    given_up = time.monotonic() + _PATIENCE
    while time.monotonic() < given_up:
        time.sleep(_STEP)
    raise AssertionError(_NOT_ABORTED)


async def _await_the_abort() -> NoReturn:
    await anyio.sleep(_PATIENCE)
    raise AssertionError(_NOT_ABORTED)


_NOT_ABORTED = "The request was not aborted: is a debugger attached, or its code in a shield?"


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
