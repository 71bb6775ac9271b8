"""Type-checked, never run: the WSGI adapter as users write it."""

from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from hostline.observers import HostEvent, RequestEvent
from hostline.observers.prometheus import PrometheusObserver
from hostline.wsgi import CanonicalHostMiddleware, RequestTimeoutMiddleware, from_env


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [])
    return [b"hello"]


def _host_for(environ: WSGIEnvironment) -> str | None:
    return "www.example.com" if environ["PATH_INFO"] == "/" else None


def _timeout_for(environ: WSGIEnvironment) -> float | None:
    return None if environ["PATH_INFO"] == "/reports" else 5


wrapped: WSGIApplication = from_env(app)
wrapped = RequestTimeoutMiddleware(app)
wrapped = RequestTimeoutMiddleware(wrapped, service_timeout=10, exempt_paths=["/reports/"])
wrapped = RequestTimeoutMiddleware(wrapped, timeout_for=_timeout_for)
wrapped = CanonicalHostMiddleware(wrapped)
wrapped = CanonicalHostMiddleware(wrapped, "www.example.com", scheme="https", ignore="*.preview.example.com")
wrapped = CanonicalHostMiddleware(wrapped, host_for=_host_for)


def _observer(event: RequestEvent | HostEvent) -> None:
    print(event.state, event.method)


wrapped = RequestTimeoutMiddleware(wrapped, observers=["log", "prometheus", PrometheusObserver(), _observer])
wrapped = CanonicalHostMiddleware(wrapped, "www.example.com", observers=PrometheusObserver())

CanonicalHostMiddleware(wrapped, "www.example.com", scheme="ftp")  # type: ignore[arg-type]
CanonicalHostMiddleware(wrapped, hots="www.example.com")  # type: ignore[call-arg]
RequestTimeoutMiddleware(wrapped, service_timeout="15")  # type: ignore[arg-type]
