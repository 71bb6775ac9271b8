"""``hostline check`` against a real deployment: gunicorn, with and without a proxy in front of it."""

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler

import pytest
from launch import until
from server_kind import Kind, module

import http_servers
from hostline.cli import main

pytestmark = [pytest.mark.server, pytest.mark.once]

GUNICORN = Kind(
    "gunicorn gthread",
    "gunicorn",
    module(
        "gunicorn",
        "--bind",
        "127.0.0.1:{port}",
        "--worker-class",
        "gthread",
        "--threads",
        "2",
        "check_app:app",
    ),
    environment={
        "HOSTLINE_CANONICAL_HOST": "www.example.com",
        "HOSTLINE_CANONICAL_EXEMPT_PATHS": "/ready",
        "HOSTLINE_CANONICAL_CACHE_CONTROL": "max-age=3600",
    },
)


@contextmanager
def proxy_to(port: int) -> Iterator[int]:
    """A proxy that sets ``X-Request-Start``, as nginx does when it is told to; its port."""

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self):
            del self.headers["X-Request-Start"]
            self.headers["X-Request-Start"] = f"t={time.time():.3f}"
            upstream = HTTPConnection("127.0.0.1", port, timeout=20)
            upstream.request("GET", self.path, headers=dict(self.headers))
            with upstream.getresponse() as response:
                self.send_response_only(response.status)
                for name, value in response.getheaders():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(response.read())
            upstream.close()

    with http_servers.serving(Proxy) as own_port:
        yield own_port


def _report(port, capsys):
    hosts = ("--host", "example.com", "--host", "www.example.com")
    assert main(["check", f"http://127.0.0.1:{port}/?a", *hosts, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def _ids(report):
    return [each["id"] for each in (*report["warnings"], *report["problems"])]


def test_without_a_proxy(share, capsys):
    server = share(GUNICORN)
    report = _report(server.port, capsys)
    assert _ids(report) == ["request-start-forgeable"]
    redirect = report["chains"][0]["hops"][0]
    assert (redirect["location"], redirect["cache_control"]) == ("http://www.example.com/?a", "max-age=3600")
    assert report["malformed_host"][0]["status"] == 400
    assert server.logs(f"id={report['request_start']['request_id']} wait=3600")


def test_behind_a_proxy(share, capsys):
    server = share(GUNICORN)
    with proxy_to(server.port) as port:
        report = _report(port, capsys)
    assert _ids(report) == []
    # The log has what cannot be seen from outside: the app has understood the proxy's header.
    line = rf"id={report['request_start']['request_id']} wait=\d+ms .*state=completed"
    assert until(lambda: re.search(line, server.log))
