"""Whether an app speaks the protocol of its guard, as far as that can be told before a request.

Only what would fail with each request is refused: a coroutine function as a WSGI app, and
what cannot be called with the arguments of the protocol. What nobody can know, such as the
signature of some callables in C, passes.

May import ``_environment`` of hostline.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, cast

from hostline._environment import shown


class _Protocol(NamedTuple):
    app: str
    module: str
    arguments: tuple[str, ...]


_WSGI = _Protocol("a WSGI app", "hostline.wsgi", ("environ", "start_response"))
_ASGI = _Protocol("an ASGI app", "hostline.asgi", ("scope", "receive", "send"))


def check_wsgi_app(app: object, guard: str) -> None:
    """Raise a TypeError for what is surely no WSGI app; ``guard`` is the class that it was given to."""
    _check(app, guard, _WSGI, _ASGI)


def check_asgi_app(app: object, guard: str) -> None:
    """The same for an ASGI app."""
    _check(app, guard, _ASGI, _WSGI)


def _check(app: object, guard: str, here: _Protocol, other: _Protocol) -> None:
    fault = f"{here.module}.{guard} guards {here.app}, and {shown(app)}"
    if not callable(app):
        raise TypeError(f"{fault} cannot be called.")
    is_wrongly_async = here is _WSGI and _is_async(app)
    fits = _takes(app, here.arguments)
    if fits and not is_wrongly_async:
        return
    if not fits and _takes(app, ("request",)):
        raise TypeError(f"{fault} takes one argument. In Django's MIDDLEWARE, write hostline.django.{guard}.")
    if is_wrongly_async or _takes(app, other.arguments):
        raise TypeError(f"{shown(app)} is {other.app}: use {other.module}, not {here.module}.")
    raise TypeError(f"{fault} does not take {' and '.join(here.arguments)}.")


def _takes(app: Callable[..., object], arguments: tuple[str, ...]) -> bool:
    """Whether it can be called with so many; True where nobody can know."""
    try:
        # Not what a decorator says that it wraps: its own arguments are what it is called with.
        signature = inspect.signature(app, follow_wrapped=False)
    except Exception:  # noqa: BLE001 - of somebody else's object, or annotations of CPython 3.14
        return True
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True


def _is_async(app: Callable[..., object]) -> bool:
    while isinstance(app, partial):
        app = cast("partial[object]", app).func
    try:
        return inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(type(app).__call__)
    except Exception:  # noqa: BLE001 - of a proxy, such as Flask's current_app, that stands for nothing yet
        return False
