"""The sinks by their names: imported when asked for, once for the process, or an error that helps."""

import os
import re
import subprocess
import sys

import pytest

from hostline import observers
from hostline.wsgi import RequestTimeoutMiddleware
from timeouts import hello

_BY_NAME = """
import hostline.wsgi as guards
made = [guards.RequestTimeoutMiddleware(print), guards.CanonicalHostMiddleware(print, "www.example.com")]
from prometheus_client import generate_latest
print(generate_latest().decode())
"""


def test_by_name_there_is_one_for_the_process():
    run = subprocess.run(
        [sys.executable, "-c", _BY_NAME],
        env={
            **os.environ,
            "HOSTLINE_TIMEOUT_OBSERVERS": "log,prometheus",
            "HOSTLINE_CANONICAL_OBSERVERS": "prometheus",
        },
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("# TYPE hostline_host_requests_total counter") == 1


_BY_NAME_AND_BY_HAND = """
import hostline.wsgi as guards
from hostline.observers.prometheus import PrometheusObserver
guards.CanonicalHostMiddleware(print, "www.example.com", observers=PrometheusObserver())
guards.RequestTimeoutMiddleware(print, observers="prometheus")
"""


def test_one_by_name_beside_one_s_own_is_told():
    run = subprocess.run(
        [sys.executable, "-c", _BY_NAME_AND_BY_HAND], capture_output=True, text=True, timeout=30
    )
    last = run.stderr.splitlines()[-1]
    assert last.startswith("hostline.errors.SettingsError: There is a PrometheusObserver in this registry")


@pytest.mark.parametrize(
    ("name", "library"),
    (("prometheus", "prometheus_client"), ("opentelemetry", "opentelemetry"), ("sentry", "sentry_sdk")),
)
def test_without_its_library_a_sink_names_its_extra(monkeypatch, name, library):
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"hostline.observers.{name}", raising=False)
    observers._built_in.cache_clear()
    with pytest.raises(ImportError, match=re.escape(f'pip install "hostline[{name}]"')):
        RequestTimeoutMiddleware(hello, observers=["log", name])


_ASKED_FOR = """
import sys
import hostline.wsgi, hostline.asgi
hostline.wsgi.RequestTimeoutMiddleware(print)
loaded = {"prometheus_client", "opentelemetry", "sentry_sdk"} & set(sys.modules)
assert not loaded, loaded
"""


def test_no_sink_is_imported_unasked():
    subprocess.run([sys.executable, "-c", _ASKED_FOR], check=True, timeout=30)
