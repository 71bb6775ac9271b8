"""The examples, with the settings that they tell to use (only faster)."""

import importlib.util
import socket
import sys
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from sinks import ask, ask_for_one_of_each, shop

EXAMPLES = Path(__file__).parent.parent / "examples"
SETTINGS = {
    "HOSTLINE_CANONICAL_HOST": "localhost",
    "HOSTLINE_CANONICAL_IP_HOSTS": "redirect",
    "HOSTLINE_TIMEOUT_FOR": "/slow=0.1",
}


@pytest.fixture
def example(monkeypatch):
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)

    def load(name, of="app"):
        spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return getattr(module, of)

    return load


def test_flask(example):
    client = example("flask_app").test_client()
    moved = client.get("/?a=1", base_url="http://127.0.0.1:8000")
    assert (moved.status_code, moved.headers["location"]) == (301, "http://localhost:8000/?a=1")
    assert client.get("/", base_url="http://localhost:8000").json == {"hello": "world"}
    assert client.get("/slow", base_url="http://localhost:8000").status_code == 504


def test_fastapi(example):
    app = example("fastapi_app")
    moved = TestClient(app, base_url="http://127.0.0.1:8000").get("/?a=1", follow_redirects=False)
    assert (moved.status_code, moved.headers["location"]) == (301, "http://localhost:8000/?a=1")
    client = TestClient(app, base_url="http://localhost:8000")
    assert client.get("/").json() == {"hello": "world"}
    assert client.get("/slow").status_code == 504


@pytest.fixture
def statsd(example):
    """An observer, and the next packets that its StatsD gets."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(20)
        observer = example("statsd_observer", "StatsdObserver")(*server.getsockname())
        yield observer, lambda count: [server.recv(1_000).decode() for _ in range(count)]
        observer.socket.close()


def test_statsd(statsd):
    observer, packets = statsd
    ask_for_one_of_each(shop(observer))
    lines = [line for packet in packets(4) for line in packet.splitlines()]
    assert "hostline.request.completed:1|c|#method:GET,route:/orders/<int:number>" in lines
    assert "hostline.request.timed_out:1|c|#method:GET,route:/reports/<int:year>" in lines
    assert "hostline.request.expired:1|c|#method:GET,route:" in lines
    assert "hostline.host.redirected:1|c|#method:GET" in lines
    assert sum(line.startswith("hostline.request.wait:") for line in lines) == 3
    assert sum(line.startswith("hostline.request.service:") for line in lines) == 2


def test_statsd_is_told_no_client_s_word(statsd):
    observer, packets = statsd
    app = shop(observer)
    app.add_url_rule("/<any(a,b):x>", "any", lambda x: x)
    ask(app, "/a?|#x")
    ask(app, "/orders/1", method="PURGE")
    first, second = packets(2)
    assert first.startswith("hostline.request.completed:1|c|#method:GET,route:/<any(a_b):x>\n")
    assert second.startswith("hostline.request.completed:1|c|#method:other,route:/orders/<int:number>\n")
