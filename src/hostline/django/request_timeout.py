"""The request timeout as an entry of ``MIDDLEWARE``, by the machinery of the WSGI and the ASGI one.

An entry gets a request and gives a response, so each call is put to the machinery as a
little app: its environ or scope is that of Django's request, and what it answers it leaves
in the ``Call``. A response that comes by way of the protocol instead is the guard's own, 503
or 504. ``sync_stack`` and ``async_stack`` tell what that is like in each.
"""

from collections.abc import Callable
from types import EllipsisType
from typing import Any, TypeAlias, cast

from django.http import HttpRequest

from hostline import _flat_names
from hostline._routes import DJANGO_REQUEST
from hostline.django import flat_settings
from hostline.django.layers import GetResponse, Response, is_made_async
from hostline.django.sync_stack import SyncStack
from hostline.settings import RequestTimeoutOptions, Seconds

_TimeoutFor: TypeAlias = Callable[[HttpRequest], Seconds | EllipsisType]


class RequestTimeoutMiddleware:
    """Drops the requests that waited too long and aborts those that run too long.

    Its clock runs from where it stands in ``MIDDLEWARE`` until the response is there; in a
    sync stack, until the first chunk of a stream is.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: GetResponse) -> None:
        self._get_response = get_response
        options = _options()
        if is_made_async(self, get_response):
            from hostline.django.async_stack import AsyncStack  # noqa: PLC0415 - no WSGI process needs it

            self._answer: GetResponse = AsyncStack(get_response, options)
        else:
            self._answer = SyncStack(get_response, options)

    def __call__(self, request: HttpRequest) -> Response:
        """Have the next layer answer, in time."""
        return self._answer(request)


def _options() -> RequestTimeoutOptions:
    """What Django's settings say, for a guard that is called with an environ or a scope."""
    given = flat_settings.given()
    _flat_names.check(given)
    options = _flat_names.arguments(given, _flat_names.TIMEOUT_FIELDS)
    timeout_for = options.get("timeout_for")
    if callable(timeout_for):
        options["timeout_for"] = _of_request(cast("_TimeoutFor", timeout_for))
    return cast("RequestTimeoutOptions", options)


def _of_request(timeout_for: _TimeoutFor) -> Callable[[dict[str, Any]], Seconds | EllipsisType]:
    """The function that is given an environ or scope, for one that is given Django's request."""
    return lambda source: timeout_for(source[DJANGO_REQUEST]())
