"""An entry of ``MIDDLEWARE`` that lets hostline's events know Django's routes."""

import weakref
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from hostline._routes import DJANGO_REQUEST

_Response: TypeAlias = HttpResponseBase | Awaitable[HttpResponseBase]


class RouteMiddleware:
    """Has the events of a guard that is around Django know its routes, wherever it is in ``MIDDLEWARE``.

    Django leaves no word of the route where such a guard could find it. The timeout's own entry,
    :class:`hostline.django.RequestTimeoutMiddleware`, needs no other.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], _Response]) -> None:
        self._get_response = get_response
        # asgiref's: before CPython 3.12 inspect's does not see what markcoroutinefunction does.
        if iscoroutinefunction(get_response):  # pyright: ignore[reportDeprecated]
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> _Response:
        """Leave a reference to the request, whose route is resolved later."""
        source = getattr(request, "scope", request.META)
        source[DJANGO_REQUEST] = weakref.ref(request)  # the request holds the environ or scope itself
        return self._get_response(request)
