"""Prometheus's multi-process mode on a real gunicorn: one scrape tells of all its workers."""

import os
import signal
import threading

import pytest
from launch import Server, until
from prometheus_client.parser import text_string_to_metric_families
from server_kind import module

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]

_GUNICORN = module("gunicorn", "--config=python:prometheus_conf", "--bind=127.0.0.1:{port}", "--workers=2")
SERVERS = {
    "gevent": (*_GUNICORN, "--worker-class=gevent", "prometheus_app:app"),
    "sync": (*_GUNICORN, "prometheus_app:app"),
    "gthread": (*_GUNICORN, "--worker-class=gthread", "--threads=4", "prometheus_app:app"),
    "gthread, preload": (
        *_GUNICORN,
        "--worker-class=gthread",
        "--threads=4",
        "--preload",
        "prometheus_app:app",
    ),
}


@pytest.fixture(params=SERVERS)
def server(request, tmp_path):
    if request.param == "gevent":
        pytest.importorskip("gevent")
    server = Server(SERVERS[request.param], {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)})
    yield server
    server.stop()


def value(server, name, **labels):
    """What Prometheus would read, from whichever worker it reaches; 0 where there is nothing yet."""
    text = server.get("/metrics").body.decode()
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return next((each.value for each in samples if each.name == name and each.labels == labels), 0)


def test_one_scrape_tells_of_all_workers(server):
    completed = {"route": "/process/<int:number>", "method": "GET", "state": "completed"}
    served = []

    def ask_many():
        """At once, so that one worker cannot serve them all."""
        threads = [threading.Thread(target=lambda: served.append(server.get("/process/1"))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return len({answer.body for answer in served}) >= 2

    assert until(ask_many, 60), "one worker has served them all"
    assert [answer for answer in served if answer.status != 200] == []
    count = "hostline_request_service_seconds_count"
    assert [value(server, count, **completed) for _ in range(4)] == [len(served)] * 4

    timed_out = {"route": "/late", "method": "GET"}
    assert [server.get("/late").status for _ in range(4)] == [504] * 4
    assert until(lambda: value(server, "hostline_requests_timed_out_total", **timed_out) == 4)

    for _ in range(4):
        assert server.get("/process/1", {"Host": "example.com"}).status == 301
    assert value(server, "hostline_host_requests_total", state="redirected", method="GET") == 4


def test_in_flight_is_right_though_a_worker_is_killed(server):
    held = [threading.Thread(target=server.get, args=(f"/held/{name}",)) for name in ("one", "two")]
    for thread in held:
        thread.start()
    holder = server.folder / "one.holder"
    assert until(lambda: holder.exists() and holder.read_text())
    if "gthread" in str(server.process.args) or "gevent" in str(server.process.args):
        assert until(lambda: value(server, "hostline_requests_in_flight") == 2)
    else:  # its other worker is the one that is scraped, once it is free
        (server.folder / "two.go").touch()
        assert until(lambda: value(server, "hostline_requests_in_flight") == 1)
    os.kill(int(holder.read_text()), signal.SIGKILL)
    (server.folder / "one.go").touch()
    (server.folder / "two.go").touch()
    for thread in held:
        thread.join()
    assert until(lambda: value(server, "hostline_requests_in_flight") == 0)
