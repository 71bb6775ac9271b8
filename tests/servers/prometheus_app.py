"""What `test_prometheus_servers` scrapes: an app as `docs/how-to/observe.md` has it, on several workers."""

import os
import time
from pathlib import Path

from flask import Flask
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

import hostline
from hostline.observers.prometheus import PrometheusObserver
from hostline.wsgi import CanonicalHostMiddleware, RequestTimeoutMiddleware

flask = Flask(__name__)


@flask.get("/ready")
def ready():
    return ""


@flask.get("/process/<int:number>")
def process(number):
    return str(os.getpid())


@flask.get("/held/<name>")
def held(name):
    """Say who holds it, and do so until it is let go."""
    Path(f"{name}.holder").write_text(str(os.getpid()))
    while not Path(f"{name}.go").exists():
        time.sleep(0.005)
    return ""


@flask.get("/late")
def late():
    hostline.set_timeout(hostline.current().service + 0.1)  # it has been routed
    while True:
        time.sleep(0.005)


@flask.get("/metrics")
def metrics():
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return generate_latest(registry), 200, {"Content-Type": CONTENT_TYPE_LATEST}


observer = PrometheusObserver(in_flight=True)
app = RequestTimeoutMiddleware(
    flask.wsgi_app,
    observers=observer,
    service_timeout=60,
    exempt_paths=["/metrics", "/ready"],
)
app = CanonicalHostMiddleware(app, "localhost", observers=observer, exempt_paths=["/metrics", "/ready"])
