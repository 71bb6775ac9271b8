"""Django's system checks: one project for each, in which it alone has something to say."""

import subprocess
import sys
from functools import partial

import pytest
from django.apps import AppConfig
from django.core.checks import run_checks
from django.core.wsgi import get_wsgi_application
from django.test import override_settings
from django.utils.decorators import sync_only_middleware

import hostline.django
import hostline.wsgi
from exchanges import django  # noqa: F401 - configures Django
from hostline.django.apps import HostlineConfig
from hostline.django.checks import check_configuration, check_deployment

HOST = "hostline.django.CanonicalHostMiddleware"
TIMEOUT = "hostline.django.RequestTimeoutMiddleware"
COMMON = "django.middleware.common.CommonMiddleware"
SECURITY = "django.middleware.security.SecurityMiddleware"
CANONICAL = {"HOSTLINE_CANONICAL_HOST": "example.com", "ALLOWED_HOSTS": ["example.com"]}


@sync_only_middleware
def sync_only(get_response):
    return partial(get_response)


application = None


def asgi_application():
    raise AssertionError("no check calls it")


def _ids(check, **settings):
    with override_settings(**settings):
        return [message.id.removeprefix("hostline.") for message in check()]


checked = partial(_ids, check_configuration)
deployed = partial(_ids, check_deployment)


@pytest.mark.parametrize("check", (checked, deployed))
def test_nothing_to_say(check):
    assert check(MIDDLEWARE=[]) == []
    assert check(MIDDLEWARE=["their.Own", HOST, TIMEOUT, SECURITY, COMMON], **CANONICAL) == []


@pytest.mark.parametrize(
    ("settings", "ids"),
    (
        ({"HOSTLINE_SERVICE_TIMEOUT": "15", "HOSTLINE_CANONICAL_HOST": "a/b"}, ["E001", "E001"]),
        ({"HOSTLINE_SERVICE_TIMOUT": 15}, ["E002"]),
        ({**CANONICAL, "ALLOWED_HOSTS": ["other.example"]}, ["E003"]),
        ({**CANONICAL, "ALLOWED_HOSTS": [], "DEBUG": True}, []),
        ({**CANONICAL, "ALLOWED_HOSTS": [".example.com"]}, []),
    ),
    ids=str,
)
def test_settings(settings, ids):
    assert checked(MIDDLEWARE=[HOST, TIMEOUT], **settings) == ids


def test_environment(monkeypatch):
    monkeypatch.setenv("HOSTLINE_SERVICE_TIMEOUT", "abc")
    monkeypatch.setenv("HOSTLINE_NONSENSE", "1")
    assert checked(MIDDLEWARE=[TIMEOUT]) == ["E001", "E001"]
    assert deployed(MIDDLEWARE=[TIMEOUT]) == []


@pytest.mark.parametrize(
    ("middleware", "settings", "ids"),
    (
        ([SECURITY, HOST], {}, ["W001"]),
        ([TIMEOUT, HOST], {}, ["W001"]),
        (["whitenoise.middleware.WhiteNoiseMiddleware", HOST], {}, ["W001"]),
        ([COMMON, HOST], {}, ["W001", "W003"]),
        ([SECURITY, HOST], {"SECURE_SSL_REDIRECT": True}, ["W001", "W003"]),
        ([COMMON, HOST], {"ALLOWED_HOSTS": ["*"]}, ["W001"]),
        ([HOST, SECURITY, TIMEOUT], {}, ["W002"]),
    ),
    ids=str,
)
def test_order(middleware, settings, ids):
    assert checked(MIDDLEWARE=middleware, **{**CANONICAL, **settings}) == ids


SYNC_ONLY = f"{__name__}.sync_only"


@pytest.mark.parametrize(
    ("middleware", "settings", "ids"),
    (
        ([TIMEOUT, COMMON, SYNC_ONLY], {}, ["W004"]),
        ([SYNC_ONLY, TIMEOUT, COMMON], {}, []),
        ([TIMEOUT, "not.there"], {}, []),
        ([TIMEOUT, SYNC_ONLY], {"ASGI_APPLICATION": None}, []),
        ([TIMEOUT], {"HOSTLINE_STREAM_TIMEOUT": 55}, ["W005"]),
    ),
    ids=str,
)
def test_under_asgi(middleware, settings, ids):
    settings = {"ASGI_APPLICATION": f"{__name__}.asgi_application", **settings}
    assert checked(MIDDLEWARE=middleware, **settings) == ids


def test_settings_that_nobody_reads():
    assert checked(MIDDLEWARE=[], HOSTLINE_SERVICE_TIMEOUT=15, **CANONICAL) == ["W006", "W006"]


@pytest.mark.parametrize(
    ("middleware", "ids"),
    (
        (["hostline.wsgi.RequestTimeoutMiddleware"], ["E004"]),
        (["hostline.asgi.CanonicalHostMiddleware", "hostline.flask.Hostline"], ["E004", "E004"]),
        ([HOST, TIMEOUT, TIMEOUT], ["W007"]),
        ([HOST, HOST, TIMEOUT], ["W007"]),
        ([HOST, TIMEOUT, "their.Own", "their.Own"], []),
    ),
    ids=str,
)
def test_entries(middleware, ids):
    assert checked(MIDDLEWARE=middleware, **CANONICAL if HOST in middleware else {}) == ids


def test_guarded_twice(monkeypatch):
    with override_settings(MIDDLEWARE=[]):
        guarded = hostline.wsgi.CanonicalHostMiddleware(
            hostline.wsgi.RequestTimeoutMiddleware(get_wsgi_application()), "example.com"
        )
    monkeypatch.setattr(sys.modules[__name__], "application", guarded)
    settings = {"WSGI_APPLICATION": f"{__name__}.application"}
    assert deployed(MIDDLEWARE=[TIMEOUT], **settings) == ["W010"]
    assert deployed(MIDDLEWARE=[], **settings) == []
    assert deployed(MIDDLEWARE=[TIMEOUT], WSGI_APPLICATION="not.there") == []


def test_no_canonical_host():
    assert deployed(MIDDLEWARE=[HOST]) == ["W011"]
    assert deployed(MIDDLEWARE=[HOST], HOSTLINE_CANONICAL_HOST_FOR=lambda request: None) == []


def test_two_redirects():
    settings = {"MIDDLEWARE": [HOST], "SECURE_SSL_REDIRECT": True, **CANONICAL}
    assert deployed(**settings) == ["W012"]
    proto = {"HOSTLINE_CANONICAL_SCHEME": "https", "HOSTLINE_CANONICAL_TRUST_FORWARDED_PROTO": True}
    assert deployed(**settings, **proto) == []


def test_advice(monkeypatch):
    monkeypatch.setenv("DYNO", "web.1")
    assert deployed(MIDDLEWARE=[TIMEOUT], HOSTLINE_SERVICE_TIMEOUT=30) == ["W013"]


def test_a_scheme_that_django_sees_by_a_header():
    settings = {"MIDDLEWARE": [HOST], "HOSTLINE_CANONICAL_SCHEME": "https", **CANONICAL}
    assert deployed(**settings) == ["W013"]
    assert deployed(**settings, SECURE_PROXY_SSL_HEADER=("HTTP_X_PROTO", "https")) == []


def test_the_app_registers_them():
    HostlineConfig("hostline.django", hostline.django).ready()
    with override_settings(MIDDLEWARE=[HOST], HOSTLINE_NONSENSE=1):
        told = {
            deploy: [each.id for each in run_checks(tags=["hostline"], include_deployment_checks=deploy)]
            for deploy in (False, True)
        }
    assert told == {False: ["hostline.E002"], True: ["hostline.E002", "hostline.W011"]}


@pytest.mark.parametrize("name", ("hostline", "hostline.django"))
def test_either_name_of_the_app(name):
    config = AppConfig.create(name)
    assert (type(config), config.name, config.label) == (HostlineConfig, "hostline.django", "hostline")


_PROJECT = """
import sys
from django.conf import settings
from django.core.management import execute_from_command_line
settings.configure(
    SECRET_KEY="x", ROOT_URLCONF="project", USE_TZ=True, HOSTLINE_SERVICE_TIMOUT=15,
    INSTALLED_APPS=["hostline.django"], MIDDLEWARE=["hostline.django.CanonicalHostMiddleware"],
)
urlpatterns = []
execute_from_command_line(["manage.py", "check", *sys.argv[1:]])
"""


@pytest.mark.slow
@pytest.mark.parametrize(("options", "ids"), (([], {"E002"}), (["--deploy"], {"E002", "W011"})))
def test_manage_py_check(options, ids, tmp_path):
    (tmp_path / "project.py").write_text(_PROJECT)
    run = subprocess.run(
        [sys.executable, "project.py", *options, "--tag", "hostline"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1
    found = {
        word.strip("():").removeprefix("hostline.") for word in run.stderr.split() if "(hostline." in word
    }
    assert found == ids
    assert "HOSTLINE_SERVICE_TIMEOUT" in run.stderr
