"""Both guards around a Flask app, by its config, by arguments, by the environment."""

import importlib
import re
import sys
import time

import pytest
from fastapi import FastAPI
from flask import Flask, current_app, g

import hostline
from hostline import SettingsError
from hostline.flask import Hostline
from timeouts import SHORT, linger


@pytest.fixture
def app():
    app = Flask("app")
    app.config["HOSTLINE_CANONICAL_HOST"] = "example.com"

    @app.get("/")
    def home():
        g.remaining = hostline.remaining()
        return {"remaining": g.remaining}

    @app.get("/slow")
    def slow():
        linger()

    return app


def _get(app, path="/", host="example.com", **options):
    return app.test_client().get(path, base_url=f"http://{host}", **options)


def test_both_guards(app):
    Hostline(app)
    assert 0 < _get(app).json["remaining"] <= 15
    answer = _get(app, host="www.example.com")
    assert (answer.status_code, answer.headers["location"]) == (301, "http://example.com/")


def test_a_late_request_for_another_host_is_redirected_not_refused(app):
    Hostline(app)
    stamp = {"X-Request-Start": f"{time.time() - 60:.3f}"}
    assert _get(app, headers=stamp).status_code == 503
    assert _get(app, host="www.example.com", headers=stamp).status_code == 301


def test_config_beats_the_environment(app, monkeypatch):
    monkeypatch.setenv("HOSTLINE_SERVICE_TIMEOUT", "20")
    monkeypatch.setenv("HOSTLINE_WAIT_TIMEOUT", "20")
    app.config["HOSTLINE_SERVICE_TIMEOUT"] = SHORT
    Hostline(app)
    assert _get(app, "/slow").status_code == 504


def test_arguments_beat_config(app):
    app.config["HOSTLINE_SERVICE_TIMEOUT"] = 20
    Hostline(app, service_timeout=SHORT, canonical_host=None, timeout_status=408, canonical_status=...)
    assert _get(app, "/slow", host="www.example.com").status_code == 408


def test_nothing_switches_one_off(app, monkeypatch):
    monkeypatch.setenv("HOSTLINE_SERVICE_TIMEOUT", "20")
    app.config["HOSTLINE_SERVICE_TIMEOUT"] = None
    Hostline(app)
    assert _get(app).json == {"remaining": None}


def test_app_factory(app):
    extension = Hostline(service_timeout=3)
    other = Flask("other")
    other.add_url_rule("/", view_func=lambda: str(hostline.current().timeout))
    extension.init_app(app)
    extension.init_app(other)
    assert _get(other).text == "3.0"
    assert app.extensions["hostline"] is other.extensions["hostline"] is extension


def test_once_for_each_app(app):
    extension = Hostline(app)
    with pytest.raises(RuntimeError, match="both guards already"):
        extension.init_app(app)
    with pytest.raises(RuntimeError, match="both guards already"):
        Hostline(app)


def test_all_problems_at_once(app, monkeypatch):
    monkeypatch.setenv("HOSTLINE_WAIT_TIMEOUT", "long")
    app.config |= {"HOSTLINE_SERVICE_TIMEOUT": "15", "HOSTLINE_CANONICAL_HOST": "a/b", "HOSTLINE_SERVCE": 1}
    before = app.wsgi_app
    with pytest.raises(SettingsError) as caught:
        Hostline(app)
    assert len(caught.value.problems) == 4
    assert app.wsgi_app == before
    assert "hostline" not in app.extensions


def _problems(app, **options):
    with pytest.raises(SettingsError) as caught:
        Hostline(app, **options)
    return caught.value.problems


def test_problems_use_the_names_that_were_written(app):
    app.config["HOSTLINE_TIMEOUT_STATUS"] = 200
    problems = _problems(app, canonical_host="https://x", canonical_status=200, timeout_content_type="a/b")
    assert problems == (
        (
            "canonical_host='https://x' is no host: it has a scheme. "
            "Write canonical_host='x' and canonical_scheme='https'."
        ),
        "canonical_status=200 is no status of a redirect. Write 301, 302, 307 or 308.",
        "HOSTLINE_TIMEOUT_STATUS=200 is no status of an error. Write a number from 400 to 599.",
        "timeout_content_type='a/b' has no body to describe. Give timeout_body as well, or leave this out.",
    )
    Hostline(app, canonical_host="x", canonical_scheme="https", timeout_status=408)  # as it says


def test_config_is_called_as_it_was_written(app):
    app.config["HOSTLINE_CANONICAL_HOST"] = "https://x"
    assert _problems(app) == (
        (
            "HOSTLINE_CANONICAL_HOST='https://x' is no host: it has a scheme. "
            "Write HOSTLINE_CANONICAL_HOST='x' and HOSTLINE_CANONICAL_SCHEME='https'."
        ),
    )


def test_an_argument_that_does_not_exist(app):
    with pytest.raises(TypeError, match=re.escape("canonicl_host (the nearest is canonical_host)")):
        Hostline(app, canonicl_host="example.com")
    with pytest.raises(
        TypeError, match=re.escape("HOSTLINE_SERVICE_TIMEOUT (the nearest is service_timeout)")
    ):
        Hostline(app, HOSTLINE_SERVICE_TIMEOUT=5)


@pytest.mark.parametrize("what", (FastAPI(), Flask("app").wsgi_app, Flask, "app"), ids=repr)
def test_what_is_no_flask_app(what):
    with pytest.raises(
        TypeError, match=r"^Hostline guards a Flask app, and .+ is none\. Write Hostline\(app\)"
    ):
        Hostline(what)


def test_a_proxy_of_a_flask_app(app):
    with app.app_context():
        Hostline(current_app)
    assert "hostline" in app.extensions


def test_missing_flask_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "flask", None)
    monkeypatch.delitem(sys.modules, "hostline.flask")
    with pytest.raises(ImportError, match=re.escape('pip install "hostline[flask]"')):
        importlib.import_module("hostline.flask")
