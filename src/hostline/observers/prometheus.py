"""Prometheus: histograms of how long requests wait and run, and counters of what hostline did to them.

Every label has a closed set of values: ``state``, ``method`` (one that HTTP does not define
is ``other``) and ``route``, the framework's template (``""`` where it is not known, ``other``
beyond :data:`~hostline.observers._labels.MOST_ROUTES`). Paths, hosts and ids are a client's
choice, and label nothing.

Right in prometheus_client's multi-process mode. Of its gauges only the one that is asked for
is there, and that counts the processes that live.

Imports: ``_host_events``, ``_requests``, ``errors``, and prometheus_client, which does not block: its values
are in memory, or in a memory-mapped file.
"""

from collections.abc import Sequence
from functools import partial
from typing import TypeAlias

from hostline._host_events import HostEvent
from hostline._requests import RequestEvent, State
from hostline.errors import SettingsError
from hostline.observers._labels import MOST_ROUTES, RouteLabels, method_label

try:
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
except ImportError as error:
    raise ImportError(
        'hostline.observers.prometheus needs prometheus_client: pip install "hostline[prometheus]"'
    ) from error

#: Seconds. They hold hostline's default limits, 15 and 30 s, and 90 s for the wait of an upload.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 90.0)

_LABELS = ("route", "method", "state")
_Labels: TypeAlias = tuple[str, str, State]
_Children: TypeAlias = dict[_Labels, Histogram]
_ENDS = frozenset({State.COMPLETED, State.EXPIRED, State.TIMED_OUT})

_TWICE = (
    "There is a PrometheusObserver in this registry already: another one of yours, or that by the name "
    "'prometheus'. Give one to both guards, or each a registry of its own."
)


class PrometheusObserver:
    """Counts and measures what happens to requests, in a registry of prometheus_client's.

    ``registry`` is the default one where it is None; a registry takes one observer, to be
    given to both guards, and a second is a :class:`hostline.SettingsError`. ``buckets`` are
    the upper bounds of the histograms, in seconds. ``in_flight`` adds a gauge of the requests
    that run; it makes two events of each request. May be called from any thread.
    """

    is_immediate = True

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        *,
        buckets: Sequence[float] = BUCKETS,
        most_routes: int = MOST_ROUTES,
        in_flight: bool = False,
    ) -> None:
        registry = REGISTRY if registry is None else registry
        self._routes = RouteLabels(most_routes)
        histogram = partial(Histogram, labelnames=_LABELS, buckets=buckets, registry=registry)
        counter = partial(Counter, registry=registry)
        try:
            self._wait = histogram(
                "hostline_request_wait_seconds", "How long requests waited before they reached the app."
            )
        except ValueError as error:
            if "Duplicated timeseries" not in str(error):
                raise
            raise SettingsError([_TWICE]) from error
        self._service = histogram(
            "hostline_request_service_seconds", "How long requests ran, to their answer or their abort."
        )
        self._expired = counter(
            "hostline_requests_expired",
            "Requests dropped because they had waited too long.",
            ("route", "method"),
        )
        self._timed_out = counter(
            "hostline_requests_timed_out", "Requests aborted because they ran too long.", ("route", "method")
        )
        self._hosts = counter(
            "hostline_host_requests",
            "Requests for another host: redirected, rejected, or would be redirected.",
            ("state", "method"),
        )
        self._in_flight: Gauge | None = None
        if in_flight:
            self._in_flight = Gauge(
                "hostline_requests_in_flight",
                "Requests that run.",
                multiprocess_mode="livesum",
                registry=registry,
            )
        self._waits: _Children = {}
        self._services: _Children = {}

    def wants(self, state: object) -> bool:
        """Every end, and every other host; a beginning only for the gauge."""
        if isinstance(state, State):
            return state in _ENDS or (state is State.READY and self._in_flight is not None)
        return True

    def __call__(self, event: RequestEvent | HostEvent) -> None:
        """Count it."""
        if isinstance(event, HostEvent):
            self._hosts.labels(str(event.state), method_label(event.method)).inc()
        elif event.state is State.READY:
            self._change_in_flight(1)
        else:
            self._measure(event)

    def _measure(self, event: RequestEvent) -> None:
        route, method, state = self._routes.label(event.route), method_label(event.method), event.state
        labels = route, method, state
        if event.wait is not None:
            _child(self._wait, labels, self._waits).observe(event.wait)
        if event.service is not None:
            _child(self._service, labels, self._services).observe(event.service)
        if state is State.EXPIRED:
            self._expired.labels(route, method).inc()
            return  # it has never run
        self._change_in_flight(-1)
        if state is State.TIMED_OUT:
            self._timed_out.labels(route, method).inc()

    def _change_in_flight(self, change: int) -> None:
        if self._in_flight is not None:
            self._in_flight.inc(change)


# A look-up by labels checks and copies them, and takes a lock; these are ours, and grow to
# routes x methods x states at most.
def _child(histogram: Histogram, labels: _Labels, known: _Children) -> Histogram:
    found = known.get(labels)
    return known.setdefault(labels, histogram.labels(*labels)) if found is None else found
