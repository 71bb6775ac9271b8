"""The canonical-host guard through every adapter: the same request, the same exchange."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from exchanges import SENDERS, Exchange, Request, passed
from hostline.observers import HostEvent, HostState
from timeouts import Recorder, eventually

HTML = "text/html; charset=utf-8"
TEXT = "text/plain; charset=utf-8"
VECTORS = [
    json.loads(line)
    for line in (Path(__file__).parent / "vectors" / "canonical_host.jsonl").read_text().splitlines()
]
Send = Callable[..., Exchange]


@pytest.fixture(params=SENDERS)
def send(request: pytest.FixtureRequest) -> Send:
    return SENDERS[request.param]


def _settings(vector: dict[str, Any]) -> dict[str, Any]:
    settings = dict(vector["settings"])
    for name in {"ignore", "only"} & settings.keys():
        settings[name] = [_pattern(each) for each in settings[name]]
    return settings


def _pattern(written: Any) -> Any:
    if isinstance(written, str):
        return written
    return re.compile(written["regex"], re.IGNORECASE if written.get("ignorecase") else 0)


def _same_location(location: str) -> str:
    """Hex digits in upper case, and nothing encoded that need not be."""
    free = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+,;="
    location = re.sub("%..", lambda match: match[0].upper(), location)
    return re.sub("%..", lambda match: unquote(match[0]) if unquote(match[0]) in free else match[0], location)


def _redirect(request: Request, status: int, location: str, **headers: str) -> Exchange:
    """The whole redirect of a client that does not say what it reads."""
    titles = {301: "Moved Permanently", 302: "Found", 307: "Temporary Redirect", 308: "Permanent Redirect"}
    body = f"{status} {titles[status]}\n\nThis page is at {location}\n".encode()
    headers |= {
        "content-type": TEXT,
        "content-length": str(len(body)),
        "location": location,
        "vary": "Accept",
    }
    return Exchange(status, headers, b"" if request.method == "HEAD" else body)


def _rejection(request: Request) -> Exchange:
    body = b"400 Bad Request\n\nThe Host header of this request is no name of a host.\n"
    headers = {"content-type": TEXT, "content-length": str(len(body)), "cache-control": "no-store"}
    return Exchange(400, headers, b"" if request.method == "HEAD" else body)


def _expected(vector: dict[str, Any], request: Request, got: Exchange) -> Exchange:
    answer = vector["hostline"]
    if answer["outcome"] == "pass":
        return passed(request)
    if answer["outcome"] == "reject":
        return _rejection(request)
    # Two spellings of one location are both right: the test takes the one that it got.
    location = got.headers.get("location", "")
    if _same_location(location) != _same_location(answer["location"]):
        location = answer["location"]
    cache_control = vector["settings"].get("cache_control")
    headers = {} if cache_control is None else {"cache-control": cache_control}
    return _redirect(request, answer["status"], location, **headers)


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["id"] for vector in VECTORS])
def test_vector(vector, send):
    request = Request(**vector["request"])
    got = send(request, **_settings(vector))
    if send is SENDERS["django-asgi"] and not _is_utf8(request.query):
        assert (got.status, got.reached) == (400, False)  # by Django, before any middleware
    else:
        assert got == _expected(vector, request, got)


def _is_utf8(text: str) -> bool:
    try:
        text.encode("latin-1").decode()
    except UnicodeDecodeError:
        return False
    return True


# Answers


@pytest.mark.parametrize(
    ("accept", "content_type"),
    (
        ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8", HTML),
        ("text/html", HTML),
        ("TEXT/HTML; q=0.5", HTML),
        ("text/plain;q=0.2, text/html;q=0.3", HTML),
        ("text/html, */*", HTML),
        ("*/*", TEXT),
        ("text/*", TEXT),
        ("text/plain, text/html", TEXT),
        ("text/html;q=0.1, text/plain", TEXT),
        ("text/html;q=0, */*", TEXT),
        ("text/html;q=0", TEXT),
        ("application/json", TEXT),
        ("", TEXT),
        (",;,/;=", TEXT),
        ("text/html; a*=no-charset'x'y", None),
        ("\xff" * 50, TEXT),
    ),
)
def test_page_is_what_the_client_prefers(send, accept, content_type):
    got = send(Request(headers={"accept": accept}), host="example.com")
    assert got.status == 301
    assert got.headers["content-type"] in ({HTML, TEXT} if content_type is None else {content_type})


def test_html_page_is_escaped(send):
    request = Request(path="/a'b", query='a=1&lt="<script>', headers={"accept": "text/html"})
    got = send(request, host="example.com")
    assert got.headers["location"] == "http://example.com/a'b?a=1&lt=%22%3Cscript%3E"
    assert b'<a href="http://example.com/a&#x27;b?a=1&amp;lt=%22%3Cscript%3E">' in got.body
    assert got.headers["content-length"] == str(len(got.body))
    assert b"<title>301 Moved Permanently</title>" in got.body


def test_html_page_of_a_rejection(send):
    got = send(Request(host="<x>", headers={"accept": "text/html"}), host="example.com")
    assert (got.status, got.headers["content-type"]) == (400, HTML)
    assert b"<x>" not in got.body


@pytest.mark.parametrize("host", ("www.example.com", "<x>"))
@pytest.mark.parametrize("accept", ("text/html", "*/*"))
def test_head_is_told_the_length_of_the_body_that_get_has(send, host, accept):
    def ask(method: str) -> Exchange:
        return send(Request(host=host, method=method, headers={"accept": accept}), host="example.com")

    assert ask("HEAD") == Exchange(ask("GET").status, ask("GET").headers, b"")


def test_cache_control_of_the_redirect(send):
    request = Request()
    got = send(request, host="example.com", cache_control="max-age=60")
    assert got == _redirect(request, 301, "http://example.com/", **{"cache-control": "max-age=60"})


# Which requests


@pytest.mark.parametrize(
    ("exempt", "root", "path", "passes"),
    (
        ("/healthz", "", "/healthz", True),
        ("/healthz", "", "/healthz/", True),
        ("/healthz", "", "/healthz/live", True),
        ("/healthz", "", "/healthzz", False),
        ("/healthz", "", "/x/healthz", False),
        ("/healthz", "", "/health%7A", True),
        ("/healthz", "", "/HEALTHZ", False),
        ("/acme/", "", "/acme/token", True),
        ("/acme/", "", "/acme/", True),
        ("/acme/", "", "/acme", False),
        ("/", "", "/anything", True),
        ("/app/healthz", "/app", "/healthz", True),
        ("/healthz", "/app", "/healthz", False),
        ("/app", "/app", "/", True),
        ("/caf\u00e9", "", "/caf%C3%A9", True),
        ("/caf\u00e9", "", "/caf%E9", False),
        ("/a b", "", "/a%20b", True),
    ),
)
def test_exempt_path(send, exempt, root, path, passes):
    got = send(Request(root=root, path=path), host="example.com", exempt_paths=[exempt])
    assert got.reached is passes


def test_exempt_path_passes_with_a_malformed_host(send):
    assert send(Request(host="<x>", path="/healthz"), host="example.com", exempt_paths="/healthz").reached


@pytest.mark.parametrize(
    ("host", "path", "reached"),
    (("example.com", "/", True), ("www.example.com", "/app/x", False), ("www.example.com", "/x", True)),
)
def test_callable_pattern_is_given_the_split_url(send, host, path, reached):
    seen = []

    def is_internal(url):
        seen.append(url)
        return url.path.startswith("/x")

    got = send(Request(host=f"{host}:8000", path=path, query="a=b"), host="example.com", ignore=is_internal)
    assert got.reached is reached
    if host != "example.com":
        assert [url.geturl() for url in seen] == [f"http://{host}:8000{path}?a=b"]


@pytest.mark.parametrize("only", ([re.compile("^$")], lambda url: not url.hostname))
@pytest.mark.parametrize("host", ("", None))
def test_missing_host_where_only_says_so(send, only, host):
    request = Request(host=host, path="/x")
    assert send(request, host="example.com", only=only) == _redirect(request, 301, "http://example.com/x")


def test_only_a_name_does_not_say_so_of_a_missing_host(send):
    assert send(Request(host=None), host="example.com", only="www.example.com").reached


def test_several_host_headers_are_malformed(send):
    # As WSGI servers join them; the ASGI adapters' own form is tested with their scopes.
    request = Request(host="example.com, www.example.com")
    assert send(request, host="example.com") == _rejection(request)


def test_rightmost_of_all_forwarded_hosts(send):
    request = Request(host="proxy.test", headers={"x-forwarded-host": "evil.test, example.com"})
    assert send(request, host="example.com", trust_forwarded_host=True).reached
    assert not send(request, host="example.com").reached


def test_forwarded_host_is_known_without_a_decision(send):
    asked = []
    request = Request(host="proxy.test", headers={"x-forwarded-host": "example.com"})
    assert send(request, host="example.com", trust_forwarded_host=True, ignore=asked.append).reached
    assert asked == []


# Scheme


@pytest.mark.parametrize(
    ("scheme", "forwarded", "trust", "location"),
    (
        ("http", None, False, "https://example.com/p"),
        ("https", None, False, None),
        ("http", "https", False, "https://example.com/p"),
        ("http", "https", True, None),
        ("https", "http", True, "https://example.com/p"),
        ("https", None, True, None),
        ("https", "http, https", True, None),
        ("http", "HTTPS ", True, None),
        ("https", "javascript", True, None),
    ),
)
def test_canonical_scheme_of_the_canonical_host(send, scheme, forwarded, trust, location):
    headers = {} if forwarded is None else {"x-forwarded-proto": forwarded}
    request = Request(host="example.com", scheme=scheme, path="/p", headers=headers)
    got = send(request, host="example.com", scheme="https", trust_forwarded_proto=trust)
    assert got == (passed(request) if location is None else _redirect(request, 301, location))


@pytest.mark.parametrize(
    ("host", "asked", "location"),
    (
        ("example.com", "example.com:8000", "https://example.com/"),
        ("example.com", "www.example.com:8000", "https://example.com/"),
        ("example.com:8443", "example.com:8000", "https://example.com:8443/"),
        ("example.com:443", "example.com", "https://example.com/"),
    ),
)
def test_port_where_the_scheme_changes(send, host, asked, location):
    request = Request(host=asked)
    assert send(request, host=host, scheme="https") == _redirect(request, 301, location)


@pytest.mark.parametrize(
    ("asked", "scheme", "location"),
    (
        ("example.com:8080", "http", None),
        ("example.com:8080", "https", None),
        ("example.com", "http", "http://example.com:8080/"),
        ("example.com:80", "http", "http://example.com:8080/"),
        ("www.example.com:81", "https", "https://example.com:8080/"),
    ),
)
def test_port_of_the_canonical_host(send, asked, scheme, location):
    request = Request(host=asked, scheme=scheme)
    got = send(request, host="example.com:8080")
    assert got == (passed(request) if location is None else _redirect(request, 301, location))


# host_for


def test_host_for_wins_over_host(send):
    request = Request(host="example.com")
    got = send(request, host="example.com", host_for=lambda source: "other.example:81")
    assert got == _redirect(request, 301, "http://other.example:81/")


def test_host_for_alone(send):
    assert send(Request(), host_for=lambda source: "www.example.com").reached
    assert not send(Request(), host_for=lambda source: "example.com").reached
    assert send(Request(), host_for=lambda source: None).reached


def test_host_for_that_does_not_know_leaves_it_to_host(send):
    request = Request()
    assert send(request, host="example.com", host_for=lambda source: None) == _redirect(
        request, 301, "http://example.com/"
    )


def test_host_for_is_given_what_the_adapter_has(send):
    seen = []
    send(Request(path="/seen"), host_for=seen.append)
    [source] = seen
    path = source.path if hasattr(source, "path") else source.get("PATH_INFO") or source["path"]
    assert path == "/seen"


@pytest.mark.parametrize(
    ("request_", "options"),
    (
        (Request(path="/healthz"), {"exempt_paths": ["/healthz"]}),
        (Request(host="api.example.com"), {"ignore": ["api.example.com"]}),
        (Request(host="api.example.com"), {"only": ["www.example.com"]}),
        (Request(host="10.0.0.1"), {}),
        (Request(host=None), {}),
        (Request(host="<x>"), {}),
    ),
    ids=("exempt", "ignored", "not in only", "address", "no host", "malformed"),
)
def test_host_for_is_asked_only_when_needed(send, request_, options):
    asked = []
    send(request_, host_for=asked.append, **options)
    assert asked == []


@pytest.mark.parametrize("answer", ("https://example.com", "", "a b", b"example.com", 1))
def test_host_for_that_gives_no_host_passes_and_is_logged(send, answer, caplog):
    assert send(Request(), host="example.com", host_for=lambda source: answer).reached
    assert [record.levelname for record in caplog.records if record.name == "hostline"] == ["ERROR"]
    assert repr(repr(answer)) in caplog.text


# report_only


@pytest.mark.parametrize(
    ("host", "path", "message"),
    (
        (
            "a.b",
            "/ ",
            "source=hostline id=abc host=a.b location=http://example.com/%20 status=301 state=would_redirect",
        ),
        (
            "<x> \xff",
            "/",
            "source=hostline id=abc host=<x>%20%C3%BF status=400 reason=malformed_host state=would_reject",
        ),
    ),
)
def test_report_only(send, host, path, message, caplog):
    caplog.set_level("INFO", "hostline")
    request = Request(host=host, path=path, headers={"x-request-id": "abc"})
    assert send(request, host="example.com", report_only=True).reached
    assert caplog.messages == [message]


def test_report_cannot_be_forged_nor_fill_a_disk(send, caplog):
    caplog.set_level("INFO", "hostline")
    host = "a\nsource=hostline state=completed" + 10_000 * "x"
    send(Request(host=host, path="/" + 10_000 * "a"), host="example.com", report_only=True)
    [message] = caplog.messages
    assert "\n" not in message
    assert len(message) < 1000


def test_report_only_says_nothing_of_what_passes(send, caplog):
    caplog.set_level("INFO", "hostline")
    assert send(Request(host="EXAMPLE.com"), host="example.com", report_only=True).reached
    assert caplog.messages == []


# Observers


def _told(send, request, **options):
    told = Recorder()
    exchange = send(request, host="example.com", observers=told, **options)
    assert eventually(lambda: told.events), "nobody was told"
    (event,) = told.events
    return exchange, event


@pytest.mark.parametrize("report_only", (False, True))
def test_a_redirect_is_told(send, report_only):
    request = Request(path="/caf%C3%A9", query="q=1", method="POST", headers={"x-request-id": "a b\n\xe9c"})
    exchange, event = _told(send, request, report_only=report_only)
    state = HostState.WOULD_REDIRECT if report_only else HostState.REDIRECTED
    location = "http://example.com/caf%C3%A9?q=1"
    assert event == HostEvent(
        state, "abc", "POST", "/café", "www.example.com", location, status=308, reason=None
    )
    assert exchange.headers.get("location") == (None if report_only else location)


@pytest.mark.parametrize("report_only", (False, True))
def test_a_rejected_host_is_told(send, report_only):
    exchange, event = _told(send, Request(host="a b\x1b[2J"), report_only=report_only)
    state = HostState.WOULD_REJECT if report_only else HostState.REJECTED
    assert (event.state, event.status, event.location) == (state, 400, None)
    assert (event.host, event.reason) == ("a%20b%1B[2J", "malformed_host")
    assert re.fullmatch("[0-9a-f]{32}", event.id)
    assert exchange.reached is report_only


def test_what_passes_is_not_told(send):
    told = Recorder()
    for host in ("example.com", "127.0.0.1", "ignored.test", None):
        assert send(Request(host=host), host="example.com", observers=told, ignore="ignored.test").reached
    assert told.events == []


def test_the_log_tells_of_redirects_and_rejected_hosts(send, caplog):
    caplog.set_level("INFO", "hostline")
    for host in ("a.test", "<x>"):
        send(Request(host=host, headers={"x-request-id": "abc"}), host="example.com")
    redirected, rejected = [record for record in caplog.records if record.name == "hostline"]
    assert (redirected.levelname, redirected.getMessage()) == (
        "INFO",
        "source=hostline id=abc host=a.test location=http://example.com/ status=301 state=redirected",
    )
    assert (rejected.levelname, rejected.getMessage()) == (
        "WARNING",
        "source=hostline id=abc host=<x> status=400 reason=malformed_host state=rejected",
    )
    assert (redirected.request_id, redirected.status, redirected.state) == ("abc", 301, "redirected")


def test_nobody_need_be_told(send, caplog):
    caplog.set_level("INFO", "hostline")
    assert send(Request(), host="example.com", observers=()).status == 301
    assert caplog.messages == []


# Settings


def test_environment(send, monkeypatch):
    monkeypatch.setenv("HOSTLINE_CANONICAL_HOST", "example.com")
    monkeypatch.setenv("HOSTLINE_CANONICAL_STATUS", "302")
    request = Request()
    assert send(request) == _redirect(request, 302, "http://example.com/")
    assert send(request, status=308) == _redirect(request, 308, "http://example.com/")
    assert send(request, host="www.example.com") == passed(request)


def test_without_a_host_nothing_is_looked_at(send):
    assert send(Request(host="<x>")).reached


def test_following_a_redirect_passes(send):
    for host in ("www.example.com:81", "localhost", "b\u00fccher.example".encode().decode("latin-1")):
        location = send(Request(host=host, path="//x%2F", query="a=%"), host="example.com").headers[
            "location"
        ]
        url = urlsplit(location)
        followed = Request(host=url.netloc, path=url.path, query=url.query, scheme=url.scheme)
        assert send(followed, host="example.com").reached
