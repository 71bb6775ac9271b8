"""A request of Django's on its way through the machinery of a protocol, and the guard's own answer to it."""

from collections.abc import Iterable

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from hostline._responses import phrase

#: Where an environ or scope has the call, until the app takes it out: it must not hold what holds it.
CALL = "hostline.django_call"

GUARDED_TWICE = (
    "Requests are timed twice: by hostline.django.RequestTimeoutMiddleware in MIDDLEWARE, and by another "
    "around it: the same entry once more, or what the app is wrapped in in wsgi.py or asgi.py. Remove one "
    "of them."
)


class Call:
    """One request, and what Django answers it."""

    def __init__(self, request: HttpRequest) -> None:
        self.request = request
        self.response: HttpResponseBase | None = None


def answer(status: int, headers: Iterable[tuple[str, str]], body: bytes) -> HttpResponse:
    """The guard's answer as one of Django's."""
    return HttpResponse(body, status=status, reason=phrase(status), headers=dict(headers))
