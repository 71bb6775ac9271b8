"""Type-checked, never run: Django's entries, which Django calls."""

from collections.abc import Awaitable

from django.http import HttpRequest, HttpResponse

from hostline.django import CanonicalHostMiddleware, RequestTimeoutMiddleware


def get_response(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.path)


async def get_response_async(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.path)


CanonicalHostMiddleware(RequestTimeoutMiddleware(get_response))
entry = RequestTimeoutMiddleware(get_response_async)
answered = entry(HttpRequest())
if isinstance(answered, Awaitable):
    print(answered)

RequestTimeoutMiddleware(print)  # type: ignore[arg-type]
