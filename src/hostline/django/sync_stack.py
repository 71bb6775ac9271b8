"""The timeout where the next layer of Django's stack is a sync one.

The request's thread runs the rest of the stack inside the very ``try`` of
``_wsgi_timeout``: what is said there holds here.

Django makes a sync stack under ASGI, too, of any that has a sync-only entry below ours. Its
thread may be waiting for an async view in the event loop, which an exception in the thread
would leave behind. So requests are only reported there, and ``checks`` tells of it.
"""

import weakref
from collections.abc import Callable, Iterable
from typing import Any, cast
from wsgiref.types import StartResponse, WSGIEnvironment

from django.http import FileResponse, HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase

from hostline._requests import logger
from hostline._routes import DJANGO_REQUEST
from hostline._wsgi_timeout import RequestTimeoutMiddleware
from hostline.django.calls import CALL, GUARDED_TWICE, Call, answer
from hostline.settings import RequestTimeoutOptions

_ONLY_REPORTS = (
    "hostline.django.RequestTimeoutMiddleware reports requests that run too long, but aborts none: an entry "
    "of MIDDLEWARE below it is sync-only, so Django runs it in a thread that may be waiting for the event "
    "loop. Wrap the app in asgi.py instead: application = hostline.asgi.from_env(application)."
)


class SyncStack:
    """The entry where the next layer is a sync one. Called in the request's thread."""

    def __init__(self, get_response: Callable[[HttpRequest], Any], options: RequestTimeoutOptions) -> None:
        self._get_response: Callable[[HttpRequest], HttpResponseBase] = get_response
        self._guard = RequestTimeoutMiddleware(self._app, **options)
        self._under_asgi = RequestTimeoutMiddleware(self._app, **options)
        self._under_asgi.breaks = False
        self._told: set[str] = set()

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Answer by the rest of the stack, or for it."""
        guard = self._guard
        if hasattr(request, "scope"):
            guard = self._under_asgi
            if guard.settings.mode != "report":
                self._tell_once(_ONLY_REPORTS)
        if "hostline.request" in getattr(request, "scope", request.META):
            self._tell_once(GUARDED_TWICE)
        call = Call(request)
        heads: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(status: str, headers: list[tuple[str, str]], *_: object) -> Any:
            heads.append((status, headers))

        body = guard(_environ(call), cast("StartResponse", start_response))
        for status, headers in heads:  # the guard's, for the app starts none
            return answer(int(status[:3]), headers, b"".join(body))
        response = cast("HttpResponseBase", call.response)
        if isinstance(response, StreamingHttpResponse) and body:
            response.streaming_content = body
        return response

    def _app(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """The rest of the stack, as a WSGI app that starts no response of its own."""
        del start_response
        call: Call = environ.pop(CALL)  # the environ is not to hold what holds it
        call.request.META["hostline.request"] = environ["hostline.request"]
        response = call.response = self._get_response(call.request)
        if not isinstance(response, StreamingHttpResponse) or isinstance(response, FileResponse):
            return []
        if response.is_async:  # Django's handler makes a list of it
            return []
        return cast("Iterable[bytes]", response.streaming_content)

    def _tell_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            logger.warning(text)


def _environ(call: Call) -> WSGIEnvironment:
    """The environ, with the path as PEP 3333 has it: Django has written its own reading over it."""
    meta = call.request.META
    return {
        **meta,
        "SCRIPT_NAME": meta["SCRIPT_NAME"].encode("utf-8", "replace").decode("latin-1"),
        "PATH_INFO": meta["PATH_INFO"].encode("utf-8", "replace").decode("latin-1"),
        DJANGO_REQUEST: weakref.ref(call.request),
        CALL: call,
    }
