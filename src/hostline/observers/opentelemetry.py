"""OpenTelemetry: metrics of how long requests wait and run, and events on their server spans.

Attributes have the names of the HTTP semantic conventions where these have one
(``http.route``, ``http.request.method``, ``error.type``), all else begins with ``hostline.``.
What instruments the server makes its span and measures ``http.server.request.duration``;
neither is done again here.

A timeout is found by another thread than the request's, and the span may have ended by the
time that one tells of it. So its metrics are told there, and the span's event is added in the
request's own thread or loop, before the answer goes out, with which the span may end
(:meth:`OpenTelemetryObserver.note_timeout`).

Imports: ``_host_events``, ``_requests``, and opentelemetry-api, which blocks for nobody: what
exports is the application's SDK, in threads of its own.
"""

import time
from collections.abc import Mapping, Sequence

from hostline._host_events import HostEvent
from hostline._requests import RequestDetails, RequestEvent, State
from hostline.observers._labels import MOST_ROUTES, RouteLabels, method_label

try:
    from opentelemetry import metrics, trace
except ImportError as error:
    raise ImportError(
        'hostline.observers.opentelemetry needs opentelemetry-api: pip install "hostline[opentelemetry]"'
    ) from error

#: Seconds, what an SDK is advised to take: those of the conventions, and on to the limits' defaults.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 15, 20, 30, 60, 90)

_ERRORS: Mapping[State, str] = {
    State.EXPIRED: "hostline.RequestExpiryError",
    State.TIMED_OUT: "hostline.RequestTimeoutError",
}
_ENDS = frozenset({State.COMPLETED, State.EXPIRED, State.TIMED_OUT})


class OpenTelemetryObserver:
    """Measures what happens to requests, and notes on their spans what hostline did to them.

    ``meter_provider`` is the global one where it is None; that one may be set later. May be
    called from any thread.
    """

    is_immediate = True

    def __init__(
        self, meter_provider: metrics.MeterProvider | None = None, *, most_routes: int = MOST_ROUTES
    ) -> None:
        meter = metrics.get_meter("hostline", meter_provider=meter_provider)
        self._routes = RouteLabels(most_routes)
        self._wait = meter.create_histogram(
            "hostline.request.wait.duration",
            "s",
            "How long requests waited before they reached the app.",
            explicit_bucket_boundaries_advisory=BUCKETS,
        )
        self._service = meter.create_histogram(
            "hostline.request.service.duration",
            "s",
            "How long requests ran, to their answer or their abort.",
            explicit_bucket_boundaries_advisory=BUCKETS,
        )
        self._expired = meter.create_counter(
            "hostline.request.expired", "{request}", "Requests dropped because they had waited too long."
        )
        self._timed_out = meter.create_counter(
            "hostline.request.timed_out", "{request}", "Requests aborted because they ran too long."
        )
        self._hosts = meter.create_counter(
            "hostline.host.requests",
            "{request}",
            "Requests for another host: redirected, rejected, or would be redirected.",
        )

    def wants(self, state: object) -> bool:
        """Every end, and every other host."""
        return not isinstance(state, State) or state in _ENDS

    def __call__(self, event: RequestEvent | HostEvent) -> None:
        """Measure it; and note it on the span, where it is told in the request's own context."""
        if isinstance(event, HostEvent):
            self._count_host(event)
        else:
            self._measure(event)

    def _count_host(self, event: HostEvent) -> None:
        self._hosts.add(1, _attributes(event))
        span = trace.get_current_span()
        if span.is_recording():
            noted: dict[str, str | int] = {"hostline.host": event.host}
            if event.reason is not None:
                noted["hostline.reason"] = event.reason
            span.add_event(f"hostline.{event.state}", noted)

    def _measure(self, event: RequestEvent) -> None:
        state = event.state
        attributes = _attributes(event)
        route = self._routes.label(event.route)
        if route:
            attributes["http.route"] = route
        if state in _ERRORS:
            attributes["error.type"] = _ERRORS[state]
        if event.wait is not None:
            self._wait.record(event.wait, attributes)
        if event.service is not None:
            self._service.record(event.service, attributes)
        if state is State.EXPIRED:
            self._expired.add(1, attributes)
            trace.get_current_span().add_event("hostline.expired", _durations(event))
        elif state is State.TIMED_OUT:
            self._timed_out.add(1, attributes)

    def meet(self, request: RequestDetails) -> None:
        """Remember the span that is current where the request begins."""
        span = trace.get_current_span()
        if span.is_recording():
            request.span = span

    def note_timeout(self, request: RequestDetails) -> None:
        """Note on its span that the request was timed out, when, and where it was.

        Called before its answer goes out: what instruments the server may end the span then.
        """
        span = request.span
        if not isinstance(span, trace.Span) or not span.is_recording():
            return
        noted = _durations(request)
        if request.trace:
            noted |= _place(request.trace)
        if request.stack is not None:
            noted["code.stacktrace"] = request.stack
        since = time.monotonic() - (request.ended or time.monotonic())
        span.add_event("hostline.timed_out", noted, time.time_ns() - int(since * 1e9))


def _attributes(event: RequestEvent | HostEvent) -> dict[str, str]:
    """What every metric has."""
    return {
        "hostline.state": str(event.state),
        "http.request.method": method_label(event.method, "_OTHER"),
    }


def _durations(request: RequestEvent | RequestDetails) -> dict[str, str | int | float]:
    known = {"wait": request.wait, "service": request.service, "timeout": request.timeout}
    return {f"hostline.{name}": seconds for name, seconds in known.items() if seconds is not None}


def _place(trace: Sequence[tuple[str, int, str]]) -> dict[str, str | int]:
    """The innermost frame, by the names of the conventions."""
    file, line, function = trace[-1]
    return {"code.file.path": file, "code.line.number": line, "code.function.name": function}
