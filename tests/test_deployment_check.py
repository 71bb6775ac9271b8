"""``hostline check`` against servers that answer by a table, on real sockets, some of them by TLS."""

import json
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler

import pytest

import http_servers
from hostline import _deployment
from hostline._deployment import Address, Deployment, Place, parse_url
from hostline._deployment_report import Check
from hostline.cli import main

pytestmark = pytest.mark.server

Answer = Callable[[BaseHTTPRequestHandler], tuple[int, str | None]]


@contextmanager
def serving(answer: Answer, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server that gives this status and location; its port."""

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self):
            status, location = answer(self)
            self.send_response(status)
            if location is not None:
                self.send_header("Location", location)
                self.send_header("Cache-Control", "max-age=60")
            self.send_header("Content-Length", "0")
            self.end_headers()

    with http_servers.serving(Answering, tls) as port:
        yield port


@pytest.fixture
def check(capsys):
    """The exit status and the report on servers, one for each scheme, that answer so."""
    with ExitStack() as stack:

        def check(*hosts, tls=None, options=(), **answers):
            urls = []
            for scheme, answer in answers.items():
                port = stack.enter_context(serving(answer, tls if scheme == "https" else None))
                urls.append(f"{scheme}://127.0.0.1:{port}/a?b")
            named = [option for host in hosts for option in ("--host", host)]
            status = main(["check", *urls, *named, "--json", *options])
            return status, json.loads(capsys.readouterr().out)

        yield check


def _ids(report):
    return [each["id"] for each in (*report["warnings"], *report["problems"])]


def _canonical(request):
    """As hostline answers for example.com."""
    host = request.headers["Host"]
    if host == "a:b:c":
        return 400, None
    return (200, None) if host == "example.com" else (301, f"http://example.com{request.path}")


def test_all_is_well(check):
    status, report = check("example.com", "www.example.com", http=_canonical)
    assert (status, _ids(report)) == (0, [])
    home, other = report["chains"]
    assert home == {
        "url": "http://example.com/a?b",
        "end": "answered",
        "hops": [
            {
                "url": "http://example.com/a?b",
                "status": 200,
                "location": None,
                "cache_control": None,
                "error": None,
            }
        ],
    }
    assert [(hop["status"], hop["location"], hop["cache_control"]) for hop in other["hops"]] == [
        (301, "http://example.com/a?b", "max-age=60"),
        (200, None, None),
    ]
    assert report["malformed_host"] == [{"scheme": "http", "status": 400, "location": None}]
    assert report["request_start"]["status_if_an_hour_old"] == 200


def test_text(capsys):
    with serving(_canonical) as port:
        assert main(["check", f"http://127.0.0.1:{port}", "--host", "www.example.com"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:5] == [
        "http://www.example.com/",
        "  301  -> http://example.com/  (Cache-Control: max-age=60)",
        "  200",
        "http, Host: a:b:c",
        "  400",
    ]
    assert lines[5].startswith(
        "http://example.com/, with an X-Request-Start that is an hour old, id hostline-check-"
    )
    assert lines[6] == "  200"
    assert "access-logformat" in " ".join(lines)


def test_a_loop(check):
    there_and_back = {"a.example": "b.example", "b.example": "A.example.", "A.example.": "b.example"}

    def answer(request):
        return 302, f"http://{there_and_back.get(request.headers['Host'], 'a.example')}{request.path}"

    status, report = check("a.example", http=answer)
    assert (status, report["chains"][0]["end"]) == (1, "loop")
    assert "loop" in _ids(report)
    assert report["request_start"]["url"] is None


def test_redirects_without_an_end(check):
    def answer(request):
        return 301, f"http://x{request.headers['Host']}{request.path}"

    status, report = check("a.example", http=answer)
    assert (status, report["chains"][0]["end"], len(report["chains"][0]["hops"])) == (1, "endless", 11)


def test_two_redirects_where_one_is_enough(check):
    onwards = {"a.example": "b.example", "b.example": "c.example"}

    def answer(request):
        further = onwards.get(request.headers["Host"])
        return (200, None) if further is None else (301, f"http://{further}{request.path}")

    status, report = check("a.example", http=answer)
    assert (status, _ids(report)) == (0, ["hops", "malformed-host-served"])


@pytest.mark.parametrize(
    "location", ("https://sign-in.example/?next=/a", "mailto:a@b", "http://[", "/elsewhere")
)
def test_a_redirect_to_another_place_is_not_followed(check, location):
    status, report = check("a.example", http=lambda _: (302, location) if _.path == "/a?b" else (200, None))
    end = "answered" if location == "/elsewhere" else "left"
    assert (status, report["chains"][0]["end"]) == (0, end)


def test_several_hosts_are_served(check):
    status, report = check("a.example", "b.example", http=lambda _: (200, None))
    assert (status, _ids(report)) == (0, ["several-hosts", "malformed-host-served"])


def test_an_address_is_asked_where_there_is_no_name(check):
    _, report = check(http=lambda _: (200, None))
    assert report["chains"][0]["url"].startswith("http://127.0.0.1:")
    assert "several-hosts" not in _ids(report)


def test_a_malformed_host_that_is_redirected(check):
    status, report = check(
        "a.example",
        http=lambda _: (301, f"http://{_.headers['Host']}/") if ":b:" in _.headers["Host"] else (200, None),
    )
    assert (status, _ids(report)) == (1, ["malformed-host-redirected"])


def test_a_server_error(check):
    status, report = check("a.example", http=lambda _: (500, None))
    assert (status, _ids(report)) == (1, ["server-error"])


def test_no_answer():
    with serving(_canonical) as port:
        pass
    assert main(["check", f"http://127.0.0.1:{port}", "--json"]) == 1


def test_a_server_that_hangs():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert main(["check", url, "--timeout", "0.05"]) == 1


def test_a_request_start_that_is_believed(check):
    def answer(request):
        return (503 if "X-Request-Start" in request.headers else 200), None

    status, report = check("a.example", http=answer)
    assert (status, _ids(report)) == (0, ["malformed-host-served", "request-start-forgeable"])
    assert report["request_start"]["is_forgeable"] is True


def test_text_of_what_is_wrong(capsys):
    def answer(request):
        if request.headers["Host"] == "a.example":
            return 301, f"http://a.example.{request.path}"
        return (503 if "X-Request-Start" in request.headers else 200), None

    with serving(answer) as port:
        assert main(["check", f"http://127.0.0.1:{port}", "--host", "a.example", "--host", "b.example"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "  (which has been asked already: a loop)" in lines
    assert "Warnings" in lines
    assert lines[-2:] == ["Problems", "- http://a.example/ is redirected in a circle. [loop]"]


def test_what_a_request_line_cannot_hold_is_written_as_browsers_do(capsys):
    asked = set()

    def answer(request):
        asked.add((request.headers["Host"], request.path))
        return 200, None

    with serving(answer) as port:
        url = f"http://127.0.0.1:{port}/b\u00fc cher/%2F[1]?q=\u00e9 a"
        assert main(["check", url, "--host", "b\u00fccher.example", "--json"]) == 0
    assert asked == {
        ("xn--bcher-kva.example", "/b%C3%BC%20cher/%2F[1]?q=%C3%A9%20a"),
        ("a:b:c", "/b%C3%BC%20cher/%2F[1]?q=%C3%A9%20a"),
    }
    assert "xn--bcher-kva.example" in capsys.readouterr().out


@pytest.mark.parametrize("location", ("/b\u00fccher", "/b%C3%BCcher"))
def test_a_redirect_in_raw_utf_8_is_followed(check, location):
    def answer(request):
        raw = location.encode().decode("latin-1")  # what http.server will encode
        return (302, raw) if request.path == "/a?b" else (200, None)

    status, report = check("a.example", http=answer)
    assert (status, report["chains"][0]["hops"][-1]["url"]) == (0, "http://a.example/b%C3%BCcher")


def test_a_host_is_asked_for_as_it_was_written(check):
    _, report = check("A.example.", http=lambda _: (200, None))
    assert report["chains"][0]["url"] == "http://A.example./a?b"


# What is written wrongly, of which nothing is asked

NOWHERE = "http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("arguments", "told"),
    (
        (["http://a.example/1", "http://b.example/2"], "http://a.example/1 and http://b.example/2"),
        (["http://a.example/1", "https://a.example/2"], "http://a.example/1 and https://a.example/2"),
        (
            [NOWHERE, "--host", "https://www.example.com/"],
            "--host: 'https://www.example.com/' is no host. Write",
        ),
        ([NOWHERE, "--host", "www.example.com/path"], "--host: 'www.example.com/path' is no host. Write"),
        ([NOWHERE, "--host", "www.example.com?q"], "--host: 'www.example.com?q' is no host. Write"),
        ([NOWHERE, "--host", ""], "--host: '' is no host. Write"),
        ([NOWHERE, "--host", "u:p@a.example"], "--host: 'u:p@a.example' is no host. Write"),
        ([NOWHERE, "--timeout", "0"], "'0' is not above 0"),
        ([NOWHERE, "--timeout", "1" + 10 * "0"], "'10000000000' is not above 0 and up to 3600 seconds"),
        ([NOWHERE, "--timeout=-1"], "'-1' is no number of seconds"),
        ([NOWHERE, "--timeout", "nan"], "'nan' is no number of seconds"),
        ([NOWHERE, "--timeout", "inf"], "'inf' is no number of seconds"),
        ([NOWHERE, "--cacert", "/nope"], "--cacert /nope: No such file or directory"),
        ([NOWHERE, "--cacert", __file__], f"--cacert {__file__}: "),
        (["http://[::1"], "'http://[::1' is no URL"),
        (["www.example.com"], "'www.example.com' is no URL"),
    ),
    ids=str,
)
def test_what_is_written_wrongly_is_named(arguments, told, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["check", *arguments])
    assert caught.value.code == 2
    assert told in " ".join(capsys.readouterr().err.split())


# Default ports

_TLS = ssl.create_default_context()


@pytest.mark.parametrize(("scheme", "other"), (("http", "https"), ("https", "http")))
def test_the_other_scheme_is_asked_where_the_url_has_no_port(scheme, other):
    def deployment(url):
        return Deployment({scheme: parse_url(url)[1]}, _TLS, 1)

    assert deployment(f"{scheme}://127.0.0.1/").implied == other
    for port in (80, 443, 8000):
        assert deployment(f"{scheme}://127.0.0.1:{port}/").addresses.keys() == {scheme}


def test_each_scheme_has_its_own_port(monkeypatch):
    asked = []

    def refused(address, timeout):
        asked.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(_deployment, "create_connection", refused)
    deployment = Deployment({"http": Address("127.0.0.1", None)}, _TLS, 1)
    for scheme in ("http", "https"):
        deployment.ask(Place(scheme, "example.com", "/"))
    assert asked == [("127.0.0.1", 80), ("127.0.0.1", 443)]


def test_a_scheme_that_nobody_has_named_need_not_be_there():
    with serving(_canonical) as gone:
        pass
    with serving(_canonical) as port:
        addresses = {"http": Address("127.0.0.1", port), "https": Address("127.0.0.1", gone)}
        deployment = Deployment(addresses, _TLS, 1)
        deployment.implied = "https"  # as port 443 would be
        check = Check(deployment, ["example.com"], "/")
    assert [each.id for each in check.warnings] == ["unserved-scheme"]
    assert check.problems == []


# TLS


@pytest.fixture(scope="module")
def authority():
    return pytest.importorskip("trustme", reason="not installed: trustme (extra servers)").CA()


@pytest.fixture
def tls(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("example.com", "www.example.com").configure_cert(context)
    return context


def _to_https(request):
    return 301, f"https://example.com{request.path}"


def test_both_schemes(check, tls, authority, tmp_path):
    authority.cert_pem.write_to_path(tmp_path / "ca")
    trusted = ("--cacert", str(tmp_path / "ca"))
    hosts = ("example.com", "www.example.com")

    def answer(request):
        return _canonical(request) if request.headers["Host"] != "www.example.com" else _to_https(request)

    status, report = check(*hosts, tls=tls, options=trusted, http=_to_https, https=answer)
    assert (status, _ids(report)) == (0, [])
    assert [chain["hops"][-1]["url"] for chain in report["chains"]] == ["https://example.com/a?b"] * 4


def test_a_certificate_that_nobody_trusts(check, tls):
    status, report = check("example.com", tls=tls, https=lambda _: (200, None))
    assert (status, _ids(report)) == (1, ["no-answer"])
    assert "certificate" in report["chains"][0]["hops"][0]["error"]


def test_insecure(check, tls):
    status, _ = check("other.example", tls=tls, options=["--insecure"], https=lambda _: (200, None))
    assert status == 0


def test_a_downgrade(check, tls):
    status, report = check(
        "example.com",
        tls=tls,
        options=["--insecure"],
        http=_canonical,
        https=lambda _: (301, f"http://example.com{_.path}"),
    )
    assert (status, _ids(report)) == (1, ["downgrade"])


def test_both_schemes_are_served(check, tls):
    answers = {"http": _canonical, "https": _canonical}
    status, report = check("example.com", tls=tls, options=["--insecure"], **answers)
    assert (status, _ids(report)) == (0, ["several-schemes"])
