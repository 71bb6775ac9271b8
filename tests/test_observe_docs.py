"""What `docs/how-to/observe.md` shows of each sink: made anew by the same four requests, and compared.

``python tests/test_observe_docs.py`` writes the outputs of this very run into the page.
"""

import importlib.util
import json
import linecache
import logging
import re
import socket
import sys
import threading
import warnings
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest
import sentry_sdk
from honeybadger import honeybadger
from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, generate_latest
from sentry_sdk.transport import Transport

from hostline._log import logger
from hostline.observers.opentelemetry import OpenTelemetryObserver
from hostline.observers.prometheus import PrometheusObserver
from hostline.observers.sentry import SentryObserver
from hostline.wsgi import CanonicalHostMiddleware, RequestTimeoutMiddleware
from sinks import CANONICAL, ask_for_one_of_each
from timeouts import eventually

with warnings.catch_warnings():
    warnings.simplefilter(
        "ignore", DeprecationWarning
    )  # it imports WebOb, if that is there, and that imports cgi
    import rollbar

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "how-to" / "observe.md"
_SHOWN = re.compile(r"(<!-- output: ([\w ]+) -->\n```\w+\n)(.*?)(^```$)", re.DOTALL | re.MULTILINE)
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_FILE = "/app/shop.py"
PATHS = ("/orders/7", "/reports/2026", "/orders/8", "/orders/9")
LIMIT = 0.5  # the page's: long enough for a slow machine to get to the slow line


@contextmanager
def shop(*observers, app_of=lambda app: app):
    """The page's app behind both guards, in a file of its own as far as a stack can tell."""
    source = next(block for block in _BLOCK.findall(PAGE.read_text()) if "def report(year)" in block)
    module = ModuleType("shop")
    module.__file__ = _FILE
    linecache.cache[_FILE] = (len(source), None, source.splitlines(keepends=True), _FILE)
    sys.modules["shop"] = module
    try:
        exec(compile(source, _FILE, "exec"), module.__dict__)
        app = module.app
        app.wsgi_app = RequestTimeoutMiddleware(
            app.wsgi_app, observers=observers, timeout_for={"/reports": LIMIT}
        )
        app.wsgi_app = app_of(CanonicalHostMiddleware(app.wsgi_app, CANONICAL, observers=observers))
        yield app
    finally:
        del sys.modules["shop"], linecache.cache[_FILE]


def _block_class(name, **names):
    """A class that the page shows."""
    block = next(each for each in _BLOCK.findall(PAGE.read_text()) if f"class {name}:" in each)
    exec(compile(block, str(PAGE), "exec"), names)
    return names[name]


def _of_the_app(stack):
    """Without Flask's frames, which come first, and are another version's tomorrow."""
    return stack[stack.index(f'  File "{_FILE}"') :]


def _of_the_log():
    lines = []

    class Handler(logging.Handler):
        def emit(self, record):
            if hasattr(record, "state"):  # of a request
                line = f"{record.levelname:5} {record.getMessage()}"
                lines.append((PATHS.index(record.path), len(lines), line))

    handler, level = Handler(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with shop("log") as app:
            ask_for_one_of_each(app)
            assert eventually(lambda: any("state=timed_out" in line for _, _, line in lines))
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    # By their requests, for it is another thread that writes of the timeout.
    return "\n".join(line for _, _, line in sorted(lines))


def _of_prometheus():
    registry = CollectorRegistry()
    with shop(PrometheusObserver(registry)) as app:
        ask_for_one_of_each(app)
        assert eventually(lambda: b"timed_out_total{" in generate_latest(registry))
    lines = generate_latest(registry).decode().splitlines()
    # In this order, for it is another thread that tells of the timeout.
    return "\n".join(sorted(line for line in lines if not re.match(r"#|\w+_(bucket|created)\b", line)))


def _of_opentelemetry_metrics():
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader])
    points = {}

    def are_told():
        data = json.loads(reader.get_metrics_data().to_json())
        for resource in data["resource_metrics"]:
            for metric in resource["scope_metrics"][0]["metrics"]:
                for point in metric["data"]["data_points"]:
                    kept = {key: point[key] for key in ("count", "sum", "value") if key in point}
                    line = {"name": metric["name"], "attributes": point["attributes"], **kept}
                    points[metric["name"], json.dumps(point["attributes"])] = line
        return any(name == "hostline.request.timed_out" for name, _ in points)

    with shop(OpenTelemetryObserver(provider)) as app:
        ask_for_one_of_each(app)
        assert eventually(are_told)
    provider.shutdown()
    return "\n".join(json.dumps(points[key]) for key in sorted(points))


def _of_opentelemetry_events():
    exporter, tracers, meters = InMemorySpanExporter(), TracerProvider(), MeterProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    instrumented = lambda app: OpenTelemetryMiddleware(app, tracer_provider=tracers, meter_provider=meters)  # noqa: E731
    with shop(OpenTelemetryObserver(meters), app_of=instrumented) as app:
        ask_for_one_of_each(app)
        events = [
            event for span in exporter.get_finished_spans() for event in json.loads(span.to_json())["events"]
        ]
    tracers.shutdown()
    meters.shutdown()
    events[0]["attributes"]["code.stacktrace"] = _of_the_app(events[0]["attributes"]["code.stacktrace"])
    return "\n".join(json.dumps(event, indent=2) for event in events)


class _Kept(Transport):
    def __init__(self, options=None):
        super().__init__(options)
        self.events = []

    def capture_envelope(self, envelope):
        self.events += [item.payload.json for item in envelope.items]


def _of_sentry():
    transport = _Kept({"dsn": "http://key@127.0.0.1:9/1"})
    sentry_sdk.init(
        "http://key@127.0.0.1:9/1",
        transport=transport,
        default_integrations=False,
        auto_enabling_integrations=False,
        project_root="/app",
    )
    try:
        with shop(SentryObserver()) as app:
            ask_for_one_of_each(app)
            assert eventually(lambda: len(transport.events) == 2)
    finally:
        sentry_sdk.get_global_scope().set_client(None)
    shown = ("transaction", "fingerprint", "exception", "request", "tags", "contexts")
    expired, timed_out = (
        {key: event[key] for key in shown if key in event}
        for event in sorted(transport.events, key=lambda each: each["fingerprint"])
    )
    for event in (expired, timed_out):
        event["contexts"] = {"hostline": event["contexts"]["hostline"]}
    stacktrace = timed_out["exception"]["values"][0]["stacktrace"]
    stacktrace["frames"] = [
        frame for frame in stacktrace["frames"] if frame["in_app"]
    ]  # Flask's come before it
    return f"{json.dumps(timed_out, indent=2)}\n{json.dumps(expired, indent=2)}"


@contextmanager
def _tracker():
    """A server of an error tracker's, and what it has been sent."""
    received = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            body = b'{"err": 0, "id": "1", "result": {}}'
            self.send_response(200 if "item" in self.path else 201)  # Rollbar, Honeybadger
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _of_rollbar():
    with _tracker() as (url, received):
        rollbar.init("token", "production", endpoint=f"{url}/api/1/", handler="blocking")
        try:
            with shop(_block_class("RollbarObserver")()) as app:
                ask_for_one_of_each(app)
                assert eventually(lambda: len(received) == 2)
        finally:
            rollbar._initialized = False
    sent = sorted((each["data"] for each in received), key=lambda each: each["fingerprint"])
    kept = ("level", "context", "fingerprint", "body")
    expired, timed_out = ({key: each[key] for key in kept if key in each} for each in sent)
    timed_out["body"]["message"]["stack"] = _of_the_app(timed_out["body"]["message"]["stack"])
    return f"{json.dumps(timed_out, indent=2)}\n{json.dumps(expired, indent=2)}"


def _of_honeybadger():
    with _tracker() as (url, received):
        honeybadger.configure(api_key="key", endpoint=url, force_report_data=True, force_sync=True)
        with shop(_block_class("HoneybadgerObserver")()) as app:
            ask_for_one_of_each(app)
            assert eventually(lambda: len(received) == 2)
    shown = []
    for each in received:
        error = {key: each["error"][key] for key in ("class", "message")}
        shown.append({"error": error, "context": each["request"]["context"]})
    expired, timed_out = sorted(shown, key=lambda each: each["context"]["stack"] is not None)
    timed_out["context"]["stack"] = _of_the_app(timed_out["context"]["stack"])
    return f"{json.dumps(timed_out, indent=2)}\n{json.dumps(expired, indent=2)}"


def _of_statsd():
    spec = importlib.util.spec_from_file_location("statsd_observer", ROOT / "examples" / "statsd_observer.py")
    statsd = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(statsd)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(20)
        observer = statsd.StatsdObserver(*server.getsockname())
        with shop(observer) as app:
            ask_for_one_of_each(app)
        packets = [server.recv(1_000).decode() for _ in range(4)]
        observer.socket.close()
    order = ("completed", "timed_out", "expired", "redirected")  # one thread for each guard tells of them
    return "\n".join(sorted(packets, key=lambda each: [word in each for word in order].index(True)))


SINKS = {
    "log": _of_the_log,
    "prometheus": _of_prometheus,
    "opentelemetry metrics": _of_opentelemetry_metrics,
    "opentelemetry events": _of_opentelemetry_events,
    "sentry": _of_sentry,
    "rollbar": _of_rollbar,
    "honeybadger": _of_honeybadger,
    "statsd": _of_statsd,
}


def _masked(text):
    """Without what differs from run to run: times."""
    text = re.sub(r"\d+\.\d{2,}(e-?\d+)?", "#", text)
    text = re.sub(r"_sum\{(.*)\} .*", r"_sum{\1} #", text)
    text = re.sub(r":[\d.]+\|ms", ":#|ms", text)
    text = re.sub(r"\b(wait|service)=\d+ms", r"\1=#ms", text)
    text = re.sub(r"\d+ frames", "# frames", text)  # another version's of Flask
    return re.sub(r'"timestamp": ".*?"', '"timestamp": "#"', text)


def test_each_output_of_the_page_is_made_here():
    assert [name for _, name, _, _ in _SHOWN.findall(PAGE.read_text())] == list(SINKS)


@pytest.mark.slow
@pytest.mark.parametrize("name", SINKS)
def test_the_page_shows_what_the_sink_tells(name):
    shown = {each: text for _, each, text, _ in _SHOWN.findall(PAGE.read_text())}
    assert _masked(SINKS[name]()) == _masked(shown[name].rstrip("\n"))


if __name__ == "__main__":
    PAGE.write_text(_SHOWN.sub(lambda match: f"{match[1]}{SINKS[match[2]]()}\n{match[4]}", PAGE.read_text()))
