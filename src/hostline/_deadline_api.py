"""The deadline as the app sees it: how long is left, more or less of it, and what an abort must spare.

What users call, and nothing of how it is done: the request that the running code works for
(``_requests.current_request``) does all that, each protocol's in its own way. Outside a
request, behind its end, and where no middleware is installed, everything here is as if
there were no limit, and costs one look at a context variable.

Every function may be called from any thread or task that has the request's context: its
own, and those of pools that copy it (anyio's, asgiref's, ``asyncio.to_thread``).

Imports: ``_abortable``, ``_environment``, ``_kinds``, ``_options``, ``_requests``, ``errors``.
"""

import inspect
from collections.abc import Callable
from functools import wraps
from math import inf
from time import monotonic
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, cast

from hostline._abortable import Block, Cancel
from hostline._environment import shown
from hostline._kinds import check_seconds
from hostline._options import Seconds
from hostline._requests import RequestDetails, current_request
from hostline.errors import RequestTimeoutException

P = ParamSpec("P")
R = TypeVar("R")


def current() -> RequestDetails | None:
    """The request that this code works for; None outside one, and when it has ended.

    One that has timed out counts until its code has come to its end.
    """
    request = current_request.get()
    return None if request is None or request.has_left else request


def deadline() -> float | None:
    """The :func:`time.monotonic` instant at which this request is aborted; None: never."""
    request = current()
    if request is None or request.next_deadline == inf:
        return None
    return request.next_deadline


def remaining() -> float | None:
    """How many seconds this request has left, 0 behind its deadline; None: no limit."""
    end = deadline()
    return None if end is None else max(0.0, end - monotonic())


def set_timeout(timeout: Seconds) -> bool:
    """Let this request run for so long, counted from its start; None and 0: without a limit.

    Answers whether that has taken effect: False outside a request, and when it is too late
    because the request has timed out or its response has begun to stream. From a thread of
    an ASGI request, True says that the event loop has been told. Raises
    :class:`hostline.SettingsError` for what is no number of seconds.
    """
    return _set_timeout(check_seconds("timeout", timeout))


def _set_timeout(seconds: float | None) -> bool:
    request = current()
    return request is not None and request.set_timeout(seconds)


def timeout(seconds: Seconds) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Have a view or endpoint, sync or async, begin with :func:`set_timeout`."""
    limit = check_seconds("timeout", seconds)

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        return _limited(function, limit)

    return decorate


def no_timeout(function: Callable[P, R]) -> Callable[P, R]:
    """Have a view or endpoint, sync or async, run without a limit."""
    return _limited(function, None)


def _limited(function: Callable[P, R], limit: float | None) -> Callable[P, R]:
    # A generator's own kind of call cannot be wrapped so that frameworks still see one, and
    # a class would turn into a function.
    if not is_plain(function):
        raise TypeError(
            f"{function!r} is no plain function. Call hostline.set_timeout() in its body instead, or "
            "decorate the method of a class."
        )
    if inspect.iscoroutinefunction(function):
        return cast("Callable[P, R]", _limited_coroutine(function, limit))

    @wraps(function)
    def limited(*args: P.args, **kwargs: P.kwargs) -> R:
        _set_timeout(limit)
        return function(*args, **kwargs)

    return limited


def _limited_coroutine(function: Callable[P, Any], limit: float | None) -> Callable[P, Any]:
    @wraps(function)
    async def limited(*args: P.args, **kwargs: P.kwargs) -> Any:
        _set_timeout(limit)
        return await function(*args, **kwargs)

    return limited


def is_plain(function: Callable[..., object]) -> bool:
    """Whether all that it does is done while it is called, or awaited."""
    kinds = (inspect.isclass, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    return not any(is_of(function) for is_of in kinds)


def checkpoint() -> None:
    """Raise the abort now if the deadline has passed, again and again; not in a :func:`shield`.

    What is raised is :class:`hostline.RequestTimeoutException`, in async code too.
    """
    request = current()
    if request is None or monotonic() < request.next_deadline:
        return
    if request.is_breakable and not request.is_held_back():
        request.give_up()
        raise RequestTimeoutException


class shield:  # noqa: N801 - used as a function is
    """Puts the abort off to the end of a ``with`` or ``async with`` block.

    At most by the setting ``shield_limit``, counted from the deadline. Blocks may be nested;
    the outermost counts.
    """

    __slots__ = ("_entered",)

    def __init__(self) -> None:
        self._entered: list[tuple[RequestDetails | None, object]] = []

    def __enter__(self) -> Self:
        request = current()
        token = object()
        self._entered.append((request, token))
        if request is not None:
            request.shield(token)  # the last step: what is raised before it is outside the block
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        request, token = self._entered.pop()
        if request is not None:
            request.unshield(token)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        request = self._entered[-1][0]
        self.__exit__(kind, error, trace)
        if request is not None and not request.shields:
            await request.fall_due_now()


class interruptible:  # noqa: N801 - used as a function is
    """While this ``with`` block runs, the deadline calls ``cancel``, once.

    A block in a thread is cancelled from another thread, one in a coroutine by its event
    loop, which ``cancel`` must not block. When the block has been left, ``cancel`` is not
    running and will not be called any more. What it raises is logged. A block that begins
    behind the deadline raises the abort instead; in the clean-up that the abort has brought
    about it runs, and is not cancelled.
    """

    __slots__ = ("_cancel", "_entered")

    def __init__(self, cancel: Cancel) -> None:
        if not callable(cancel):
            raise TypeError(
                f"interruptible() takes a function for the deadline to call, not {shown(cancel)}."
            )
        self._cancel = cancel
        self._entered: list[tuple[RequestDetails, Block] | None] = []

    def __enter__(self) -> Self:
        request = current()
        entered = None
        if request is not None and request.is_breakable:
            block = Block(self._cancel, is_of_loop=request.is_in_loop())
            if request.enter(block):
                entered = request, block
        self._entered.append(entered)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        entered = self._entered.pop()
        if entered is not None:
            request, block = entered
            request.leave_block(block, error)
