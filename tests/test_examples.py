"""The examples, with the settings that they tell to use (only faster)."""

import importlib.util
import sys
from pathlib import Path

import pytest
from starlette.testclient import TestClient

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

    def load(name):
        spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module.app

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
