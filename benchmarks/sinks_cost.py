"""What each sink adds to a WSGI request that is answered, and to one that is redirected."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from benchmarks.results import Report, Table
from benchmarks.rounds import Cost, measure
from benchmarks.scale import Scale
from benchmarks.traffic import HEROKU, wsgi_app
from benchmarks.wsgi_cost import serve
from hostline.wsgi import CanonicalHostMiddleware, RequestTimeoutMiddleware

NO_SINK = "no observer"


def _log() -> Callable[[Any], object]:
    from hostline.observers.logging import log  # noqa: PLC0415

    return log


@contextmanager
def _info_to_a_file() -> Iterator[None]:
    """What many apps have; by default a request that goes well is not logged at all."""
    logger = logging.getLogger("hostline")
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        handler = logging.StreamHandler(nowhere)
        logger.addHandler(handler)
        logger.propagate, level = False, logger.level
        logger.setLevel(logging.INFO)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.propagate = True
            logger.setLevel(level)


def _prometheus(*, in_flight: bool) -> Callable[[Any], object]:
    from prometheus_client import CollectorRegistry  # noqa: PLC0415

    from hostline.observers.prometheus import PrometheusObserver  # noqa: PLC0415

    return PrometheusObserver(CollectorRegistry(), in_flight=in_flight)


def _opentelemetry() -> Callable[[Any], object]:
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader  # noqa: PLC0415

    from hostline.observers.opentelemetry import OpenTelemetryObserver  # noqa: PLC0415

    return OpenTelemetryObserver(MeterProvider(metric_readers=[InMemoryMetricReader()]))


def _sentry() -> Callable[[Any], object]:
    from hostline.observers.sentry import SentryObserver  # noqa: PLC0415

    return SentryObserver()


def _own() -> Callable[[Any], object]:
    """The least that an observer of a user's own can do: what handing over the event costs."""

    def ignore(event: object) -> None:
        del event

    return ignore


SINKS: Mapping[str, Callable[[], Callable[[Any], object]]] = {
    "log, INFO to a file": _log,
    "prometheus": partial(_prometheus, in_flight=False),
    "prometheus, with the gauge": partial(_prometheus, in_flight=True),
    "opentelemetry": _opentelemetry,
    "sentry": _sentry,
    "an observer of your own": _own,
}


def run(scale: Scale, report: Report, show: Callable[[str, float], object]) -> None:
    """The request of every day, and a redirect."""
    sinks: dict[str, Any] = {NO_SINK: (), **{name: make() for name, make in SINKS.items()}}
    kinds: dict[str, Callable[..., Any]] = {
        "answered": partial(RequestTimeoutMiddleware, wsgi_app),
        "redirected": partial(CanonicalHostMiddleware, wsgi_app, "elsewhere.example.com"),
    }
    with _info_to_a_file():
        for kind, guarded in kinds.items():
            apps = {name: guarded(observers=sink) for name, sink in sinks.items()}
            costs = measure(
                {name: partial(serve, app, HEROKU) for name, app in apps.items()},
                baseline=NO_SINK,
                rounds=max(2, scale.rounds // 4),  # they differ by microseconds, not by nanoseconds
                requests=scale.requests,
                show=partial(show, kind),
            )
            report.add(_table(kind, costs))


def _table(kind: str, costs: Mapping[str, Cost]) -> Table:
    columns = [(f"WSGI, {kind}", ""), ("in all", "us"), ("added", "us"), ("quartiles apart", "us")]
    return Table(
        f"What a sink adds to a WSGI request that is {kind}",
        columns,
        [[name, cost.whole, cost.added, cost.spread] for name, cost in costs.items()],
    )
