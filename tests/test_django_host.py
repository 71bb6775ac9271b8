"""What only Django has, for the canonical-host guard."""

import asyncio
import importlib
import re
import subprocess
import sys

import pytest
from asgiref.sync import iscoroutinefunction
from django.core.exceptions import MiddlewareNotUsed
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse
from django.test import Client, RequestFactory, override_settings
from hypothesis import given
from hypothesis import strategies as st

from exchanges import PASSED, Request, django, exchange_wsgi, send_django_asgi, send_django_wsgi
from hostline import SettingsError
from hostline.django import CanonicalHostMiddleware, RequestTimeoutMiddleware


def _ok(request):
    return HttpResponse(b"ok")


async def _async_ok(request):
    return HttpResponse(b"ok")


def test_not_used_without_a_host():
    with pytest.raises(MiddlewareNotUsed):
        CanonicalHostMiddleware(_ok)


def test_settings_win_over_the_environment(monkeypatch):
    monkeypatch.setenv("HOSTLINE_CANONICAL_HOST", "env.example")
    monkeypatch.setenv("HOSTLINE_CANONICAL_STATUS", "308")
    got = send_django_wsgi(Request(), host="example.com")
    assert (got.status, got.headers["location"]) == (308, "http://example.com/")


def test_settings_can_unset_what_the_environment_sets(monkeypatch):
    monkeypatch.setenv("HOSTLINE_CANONICAL_HOST", "env.example")
    assert send_django_wsgi(Request(), host=None) == PASSED


def test_settings_take_what_an_argument_takes():
    options = {"host_for": lambda request: f"{request.path_info[1:]}.example", "ignore": re.compile("^api")}
    assert send_django_wsgi(Request(path="/x"), **options).headers["location"] == "http://x.example/x"
    assert send_django_wsgi(Request(host="api.test"), **options) == PASSED


def test_all_problems_at_once():
    wrong = {"HOSTLINE_CANONICAL_HOST": "https://example.com/", "HOSTLINE_CANONICL_STATUS": 302}
    with override_settings(**wrong), pytest.raises(SettingsError) as caught:
        CanonicalHostMiddleware(_ok)
    assert len(caught.value.problems) == 2
    assert "HOSTLINE_CANONICAL_STATUS" in str(caught.value)
    assert "https://example.com/" in str(caught.value)


@pytest.mark.parametrize("entry", (CanonicalHostMiddleware, RequestTimeoutMiddleware))
def test_any_entry_tells_the_problems_of_both_by_the_names_in_the_settings(entry):
    wrong = {"HOSTLINE_CANONICAL_HOST": "https://x", "HOSTLINE_TIMEOUT_STATUS": 200}
    with override_settings(**wrong), pytest.raises(SettingsError) as caught:
        entry(_ok)
    assert caught.value.problems == (
        (
            "HOSTLINE_CANONICAL_HOST='https://x' is no host: it has a scheme. "
            "Write HOSTLINE_CANONICAL_HOST='x' and HOSTLINE_CANONICAL_SCHEME='https'."
        ),
        "HOSTLINE_TIMEOUT_STATUS=200 is no status of an error. Write a number from 400 to 599.",
    )


def test_names_of_the_other_guard_are_known():
    with override_settings(HOSTLINE_CANONICAL_HOST="example.com", HOSTLINE_SERVICE_TIMEOUT=5):
        CanonicalHostMiddleware(_ok)


def test_sync_and_async():
    with django(False, {"host": "example.com"}):
        assert not iscoroutinefunction(CanonicalHostMiddleware(_ok))
        middleware = CanonicalHostMiddleware(_async_ok)
    assert iscoroutinefunction(middleware)
    for host, status in (("example.com", 200), ("www.example.com", 301)):
        request = RequestFactory().get("/", headers={"host": host})
        assert asyncio.run(middleware(request)).status_code == status


def test_host_that_is_not_allowed_is_redirected():
    with override_settings(ALLOWED_HOSTS=["example.com"]):
        assert send_django_wsgi(Request(host="evil.test"), host="example.com").status == 301


def test_client_of_tests_passes():
    # It sends no Host header, and so goes on working in projects that set a canonical host.
    with django(False, {"host": "example.com"}):
        assert Client().get("/").content == b"app"
        assert Client().get("/", headers={"host": "localhost"}).status_code == 301


def test_secure_proxy_ssl_header():
    request = Request(host="example.com", headers={"x-proto": "https"})
    with override_settings(SECURE_PROXY_SSL_HEADER=("HTTP_X_PROTO", "https")):
        assert send_django_wsgi(request, host="example.com", scheme="https") == PASSED
        assert send_django_asgi(request, host="example.com", scheme="https") == PASSED


@pytest.mark.parametrize(
    ("path", "raw", "location"),
    (
        ("/a%2Fb", "/a%2Fb", "/a%2Fb"),
        ("/a%2Fb", "", "/a/b"),
        ("/caf%C3%A9", "", "/caf%C3%A9"),
        ("/caf%E9", "/caf%E9", "/caf%E9"),
        ("/%E6%97%A5", "", "/%E6%97%A5"),
        ("", "", "/"),
    ),
)
def test_path_that_django_has_decoded(path, raw, location):
    environ = Request(path=path).environ() | {"REQUEST_URI": raw}
    with django(False, {"host": "example.com"}):
        assert exchange_wsgi(WSGIHandler(), environ).headers["location"] == f"http://example.com{location}"


def test_forced_script_name():
    environ = Request(path="/x%2Fy").environ()
    with django(False, {"host": "example.com"}), override_settings(FORCE_SCRIPT_NAME="/app"):
        assert exchange_wsgi(WSGIHandler(), environ).headers["location"] == "http://example.com/app/x%2Fy"


def test_known_host_needs_no_decision():
    asked = []
    with django(False, {"host": "example.com", "ignore": asked.append}):
        handler = WSGIHandler()
        for host, count in (("example.com", 0), ("example.com:81", 1), ("example.com:81", 1)):
            assert exchange_wsgi(handler, Request(host=host).environ()) == PASSED
            assert len(asked) == count


with django(False, {"host": "example.com"}):
    _MIDDLEWARE = CanonicalHostMiddleware(_ok)


@given(
    st.text(alphabet=st.characters(max_codepoint=255), max_size=80)
    | st.text("text/hml,;q*='01 \"\\", max_size=80)
)
def test_any_accept_is_answered(accept):
    request = RequestFactory().get("/", headers={"host": "www.example.com", "accept": accept})
    assert _MIDDLEWARE(request).status_code == 301


def test_needs_django_alone():
    script = "import sys, hostline.django; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"werkzeug", "starlette", "django.core.handlers.asgi"} & set(run.stdout.split())


def test_missing_django_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "django.http", None)
    for module in ("hostline.django", "hostline.django.canonical_host"):
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(ImportError, match=re.escape('pip install "hostline[django]"')):
        importlib.import_module("hostline.django")
