"""An entry of ``MIDDLEWARE`` that lets hostline's events know Django's routes."""

import weakref

from django.http import HttpRequest

from hostline._routes import DJANGO_REQUEST
from hostline.django.layers import GetResponse, Response, is_made_async


class RouteMiddleware:
    """Has the events of a guard that is around Django know its routes, wherever it is in ``MIDDLEWARE``.

    Django leaves no word of the route where such a guard could find it. The timeout's own entry,
    :class:`hostline.django.RequestTimeoutMiddleware`, needs no other.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: GetResponse) -> None:
        self._get_response = get_response
        is_made_async(self, get_response)

    def __call__(self, request: HttpRequest) -> Response:
        """Leave a reference to the request, whose route is resolved later."""
        source = getattr(request, "scope", request.META)
        source[DJANGO_REQUEST] = weakref.ref(request)  # the request holds the environ or scope itself
        return self._get_response(request)
