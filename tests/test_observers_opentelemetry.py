"""What OpenTelemetry is told: metrics and spans as its SDK exports them, behind its own middlewares."""

import asyncio
import json
import threading
from contextlib import suppress

import anyio
import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware as AsgiInstrumentation
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware as WsgiInstrumentation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

import hostline.asgi
from hostline.observers.opentelemetry import OpenTelemetryObserver
from sinks import CANONICAL, WAITED, ask, ask_for_one_of_each, hurry, shop, stamp
from timeouts import SHORT, Client, eventually, in_thread, scope

ORDERS, REPORTS = "/orders/<int:number>", "/reports/<int:year>"


class Telemetry:
    """Providers of this test's own, and what came out of them."""

    def __init__(self, **options):
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider(metric_readers=[self.reader])
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.observer = OpenTelemetryObserver(self.meters, **options)

    @property
    def points(self):
        data = self.reader.get_metrics_data()
        if data is None:
            return {}
        return {
            (metric.name, *sorted(point.attributes.items())): point
            for resource in data.resource_metrics
            for scoped in resource.scope_metrics
            if scoped.scope.name == "hostline"
            for metric in scoped.metrics
            for point in metric.data.data_points
        }

    def point(self, name, **attributes):
        named = {key.replace("__", "."): value for key, value in attributes.items()}
        return self.points.get((name, *sorted(named.items())))

    @property
    def server_spans(self):
        return [span for span in self.exporter.get_finished_spans() if span.kind is SpanKind.SERVER]

    @property
    def noted(self):
        """The events of hostline's on all server spans, in order."""
        events = [event for span in self.server_spans for event in span.events]
        return [event for event in events if event.name.startswith("hostline.")]


@pytest.fixture
def telemetry():
    made = Telemetry()
    yield made
    made.tracers.shutdown()
    made.meters.shutdown()


def instrumented(telemetry, **options):
    app = shop(telemetry.observer, **options)
    app.wsgi_app = WsgiInstrumentation(
        app.wsgi_app, tracer_provider=telemetry.tracers, meter_provider=telemetry.meters
    )
    return app


def test_metrics_of_one_of_each(telemetry):
    ask_for_one_of_each(shop(telemetry.observer))
    get = {"http__request__method": "GET"}
    timed_out = {**get, "http__route": REPORTS, "hostline__state": "timed_out"}
    timed_out |= {"error__type": "hostline.RequestTimeoutError"}
    assert eventually(lambda: telemetry.point("hostline.request.timed_out", **timed_out))
    assert telemetry.point("hostline.request.timed_out", **timed_out).value == 1
    service = telemetry.point("hostline.request.service.duration", **timed_out)
    assert (service.count, service.sum >= SHORT) == (1, True)
    completed = {**get, "http__route": ORDERS, "hostline__state": "completed"}
    assert telemetry.point("hostline.request.service.duration", **completed).count == 1
    assert telemetry.point("hostline.request.wait.duration", **completed).sum >= 0.1
    expired = {**get, "hostline__state": "expired", "error__type": "hostline.RequestExpiryError"}
    assert telemetry.point("hostline.request.expired", **expired).value == 1
    assert telemetry.point("hostline.request.wait.duration", **expired).sum >= WAITED - 1
    assert telemetry.point("hostline.request.service.duration", **expired) is None
    redirected = {**get, "hostline__state": "redirected"}
    assert telemetry.point("hostline.host.requests", **redirected).value == 1


def test_the_bounds_of_the_histograms_are_seconds(telemetry):
    ask(shop(telemetry.observer), "/orders/1")
    bounds = {name: point.explicit_bounds for (name, *_), point in telemetry.points.items()}
    for name in ("hostline.request.wait.duration", "hostline.request.service.duration"):
        assert {0.005, 15, 30} <= set(bounds[name])


def test_no_client_makes_an_attribute(telemetry):
    app = shop(telemetry.observer)
    for number in range(10):
        ask(app, f"/nowhere/{number}", method="PURGE")
        ask(app, "/", host=f"{number}.example.org", method="PURGE")
    values = {tuple(rest) for _, *rest in telemetry.points}
    other = ("http.request.method", "_OTHER")
    assert values == {(("hostline.state", "completed"), other), (("hostline.state", "redirected"), other)}


def test_one_route_too_many_is_another():
    telemetry = Telemetry(most_routes=1)
    app = shop(telemetry.observer)
    app.add_url_rule("/a", "a", lambda: "")
    ask(app, "/a")
    ask(app, "/orders/1")
    assert {dict(rest)["http.route"] for _, *rest in telemetry.points} == {"/a", "other"}


@pytest.mark.parametrize("call", (in_thread, lambda call: call()), ids=("worker thread", "main thread"))
def test_each_is_noted_on_its_server_span(telemetry, call):
    app = instrumented(telemetry)
    call(lambda: ask_for_one_of_each(app))
    assert len(telemetry.server_spans) == 4
    timed_out, expired, redirected = telemetry.noted
    assert timed_out.name == "hostline.timed_out"
    assert timed_out.attributes["hostline.timeout"] >= SHORT
    assert timed_out.attributes["hostline.service"] >= SHORT
    stack = timed_out.attributes["code.stacktrace"]
    assert "be_late()  # the slow line" in stack
    place = 'File "{code.file.path}", line {code.line.number}, in {code.function.name}'
    for name in ("code.file.path", "code.line.number", "code.function.name"):
        place = place.replace(f"{{{name}}}", str(timed_out.attributes[name]))
    assert place in stack.splitlines()[-2:][0]
    assert expired.name == "hostline.expired"
    assert expired.attributes["hostline.wait"] >= WAITED - 1
    assert expired.attributes["hostline.timeout"] == 30
    assert redirected.name == "hostline.redirected"
    assert redirected.attributes["hostline.host"] == "example.com"


def test_why_a_host_was_rejected(telemetry):
    app = instrumented(telemetry)
    assert ask(app, "/", host="[nonsense") == 400
    [noted] = telemetry.noted
    assert noted.name == "hostline.rejected"
    assert noted.attributes == {"hostline.host": "[nonsense", "hostline.reason": "malformed_host"}


def test_its_time_is_that_of_the_abort(telemetry):
    """And not that of whenever the code, or the telling of it, came to its end."""
    app = instrumented(telemetry)
    in_thread(lambda: ask(app, "/reports/2026"))
    [span], [noted] = telemetry.server_spans, telemetry.noted
    assert span.start_time + int(SHORT * 1e9) <= noted.timestamp <= span.end_time


def test_every_span_gets_its_own(telemetry):
    """Many at a time, though their ids are the same and another thread tells of all of them."""
    app = instrumented(telemetry)
    threads = [threading.Thread(target=ask, args=(app, f"/reports/{year}")) for year in range(2000, 2008)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(telemetry.server_spans) == len(threads)
    for span in telemetry.server_spans:
        assert [event.name for event in span.events if event.name.startswith("hostline")] == [
            "hostline.timed_out"
        ]


@pytest.mark.parametrize("mode", ("raise", "report"))
def test_in_every_mode(telemetry, mode):
    app = instrumented(telemetry, mode=mode)

    @app.get("/reports/soon")
    def soon():
        hurry()
        assert eventually(lambda: telemetry.point("hostline.request.timed_out", **noted_as))
        return ""

    noted_as = {
        "http__request__method": "GET",
        "http__route": "/reports/soon",
        "hostline__state": "timed_out",
    }
    noted_as |= {"error__type": "hostline.RequestTimeoutError"}
    if mode == "raise":
        with pytest.raises(hostline.RequestTimeoutError):
            ask(app, "/reports/2026")
    else:
        assert ask(app, "/reports/soon") == 200
    assert [event.name for event in telemetry.noted] == ["hostline.timed_out"]


def test_around_what_instruments_flask(telemetry):
    """That one's span begins and ends within the app: there has to be one around hostline."""
    app = instrumented(telemetry)
    FlaskInstrumentor().instrument_app(
        app, tracer_provider=telemetry.tracers, meter_provider=telemetry.meters
    )
    try:
        ask_for_one_of_each(app)
    finally:
        FlaskInstrumentor().uninstrument_app(app)
    assert len(telemetry.server_spans) == 4
    names = [event.name for event in telemetry.noted]
    assert names == ["hostline.timed_out", "hostline.expired", "hostline.redirected"]


async def endless(scope, receive, send):
    await asyncio.Event().wait()  # the slow line


def asgi(telemetry, app=endless, **options):
    app = hostline.asgi.RequestTimeoutMiddleware(
        app, observers=telemetry.observer, service_timeout=SHORT, **options
    )
    app = hostline.asgi.CanonicalHostMiddleware(app, CANONICAL, observers=telemetry.observer)
    return AsgiInstrumentation(app, tracer_provider=telemetry.tracers, meter_provider=telemetry.meters)


def asgi_scope(waited=0.2, host=CANONICAL):
    headers = [(b"host", host.encode()), (b"x-request-start", stamp(waited).encode())]
    return scope("/reports/2026", headers=headers)


@pytest.mark.anyio
async def test_each_is_noted_on_its_asgi_span(telemetry):
    app = asgi(telemetry)
    statuses = []
    for asked in (asgi_scope(), asgi_scope(waited=WAITED), asgi_scope(host="example.com")):
        client = Client()
        await app(asked, client.receive, client.send)
        statuses.append(client.status)
    assert statuses == [504, 503, 301]
    timed_out, expired, redirected = telemetry.noted
    assert timed_out.name == "hostline.timed_out"
    assert "await asyncio.Event().wait()  # the slow line" in timed_out.attributes["code.stacktrace"]
    assert (expired.name, redirected.name) == ("hostline.expired", "hostline.redirected")


@pytest.mark.anyio
async def test_every_asgi_span_gets_its_own(telemetry):
    app = asgi(telemetry)
    clients = [Client() for _ in range(8)]
    await asyncio.gather(*(app(asgi_scope(), client.receive, client.send) for client in clients))
    assert [client.status for client in clients] == [504] * 8
    for span in telemetry.server_spans:
        assert [event.name for event in span.events] == ["hostline.timed_out"]


@pytest.mark.parametrize("mode", ("respond", "raise", "report"))
@pytest.mark.parametrize("name", ("asyncio", "trio"))
def test_a_span_has_one_event_in_every_mode(telemetry, name, mode):
    is_let = mode == "report"

    async def late(scope, receive, send):
        try:
            while not is_let or not telemetry.point("hostline.request.timed_out", **timed_out):  # noqa: ASYNC110
                await anyio.sleep(0.001)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.02)  # the answer is out by now, where there is one
        for message in ({"type": "http.response.start", "status": 200}, {"type": "http.response.body"}):
            await send(message)

    timed_out = {"http__request__method": "GET", "hostline__state": "timed_out"}
    timed_out |= {"error__type": "hostline.RequestTimeoutError"}
    sent = []

    async def send(message):
        sent.append(message)

    async def run():
        with suppress(hostline.RequestTimeoutError):
            await asgi(telemetry, late, mode=mode)(asgi_scope(), None, send)

    anyio.run(run, backend=name)
    assert [message.get("status") for message in sent[:1]] == {
        "respond": [504],
        "raise": [],
        "report": [200],
    }[mode]
    assert [event.name for event in telemetry.noted] == ["hostline.timed_out"]


def test_without_a_span_there_is_nothing_to_note(telemetry):
    assert trace.get_current_span().is_recording() is False
    ask_for_one_of_each(shop(telemetry.observer))
    assert telemetry.noted == []


def test_what_is_noted_can_be_exported(telemetry):
    ask_for_one_of_each(instrumented(telemetry))
    for span in telemetry.server_spans:
        json.loads(span.to_json())
