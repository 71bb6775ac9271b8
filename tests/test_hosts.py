"""The decision, without any protocol."""

import re
import time
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostline import CanonicalHostSettings
from hostline._host_guard import HostGuard
from hostline._hosts import Asked, HostRules, Pass, Redirect, Reject, decide
from hostline._targets import asgi_target, wsgi_target


def _asked(**fields):
    blank = Asked("GET", "http", b"www.example.com", None, None, b"/", b"")
    return blank._replace(**fields)


def _rules(**arguments):
    return HostRules(CanonicalHostSettings.load({"host": "example.com", **arguments}, environ={}))


def _guard(**arguments):
    return HostGuard(CanonicalHostSettings.load({"host": "example.com", **arguments}, environ={}))


@pytest.mark.parametrize(
    ("path", "query", "target"),
    (
        (b"", b"", "/"),
        (b"@evil.test/", b"", "/@evil.test/"),
        (b":80@evil.test", b"", "/:80@evil.test"),
        (b".evil.test", b"", "/.evil.test"),
        (b"//evil.test/", b"", "//evil.test/"),
        (b"/%2e%2E/%", b"%&%4", "/%2e%2E/%25?%25&%254"),
        (b"/a\r\nb\x00\x7f\xff", b"\r\n", "/a%0D%0Ab%00%7F%FF?%0D%0A"),
        (b"/?#[]", b"?#[]", "/%3F%23%5B%5D??%23%5B%5D"),
        (b"/-._~!$&'()*+,;=:@", b"-._~!$&'()*+,;=:@/", "/-._~!$&'()*+,;=:@?-._~!$&'()*+,;=:@/"),
        (b'/"<>\\^`{|}', b"", "/%22%3C%3E%5C%5E%60%7B%7C%7D"),
    ),
)
def test_location(path, query, target):
    decision = decide(_rules(), _asked(path=path, query=query))
    assert decision == Redirect(f"http://example.com{target}", 301)


@pytest.mark.parametrize(
    ("status", "preserve", "method", "expected"),
    (
        (301, True, "GET", 301),
        (301, True, "HEAD", 301),
        (301, True, "POST", 308),
        (301, True, "", 308),
        (302, True, "POST", 307),
        (307, True, "POST", 307),
        (308, True, "POST", 308),
        (301, False, "POST", 301),
        (302, False, "DELETE", 302),
    ),
)
def test_status(status, preserve, method, expected):
    rules = _rules(status=status, preserve_method=preserve)
    assert decide(rules, _asked(method=method)) == Redirect("http://example.com/", expected)


@pytest.mark.parametrize(
    ("scheme", "forwarded", "trust", "expected"),
    (
        ("http", None, True, "http"),
        ("https", None, True, "https"),
        ("ws", None, True, "http"),
        ("wss", None, True, "https"),
        ("", None, True, "http"),
        ("gopher", None, True, "http"),
        ("http", b"https", True, "https"),
        ("http", b"https", False, "http"),
        ("http", b"https,http", True, "http"),
        ("http", b"wss", True, "http"),
        ("ws", b"wss", True, "https"),
        ("wss", b"ws", True, "http"),
        ("ws", b"https", True, "https"),
        ("https", b"\xff", True, "https"),
        ("https", b"", True, "https"),
    ),
)
def test_scheme(scheme, forwarded, trust, expected):
    assert _rules(trust_forwarded_proto=trust).scheme_of(scheme, forwarded) == expected


@pytest.mark.parametrize(
    ("patterns", "host", "matches"),
    (
        (["api.example.com"], b"API.example.com.:80", True),
        (["*.example.com"], b"a.b.example.com", True),
        (["*.example.com"], b"example.com", False),
        (["*.example.com"], b"xexample.com", False),
        ([re.compile(r"^api\.")], b"API.example.com", True),
        ([re.compile(r"example\.com:80$")], b"api.example.com:80", False),
        ([re.compile("^xn--")], b"b\xc3\xbccher.example", True),
        ([lambda url: url.hostname == "api.example.com"], b"api.example.com", True),
        ([lambda url: url.port == 81], b"api.example.com:81", True),
        ([lambda url: url.port == 80], b"api.example.com:80", False),
        ([lambda url: None], b"api.example.com", False),
        (["x.example", re.compile("x"), lambda url: True], b"api.test", True),
    ),
)
def test_patterns(patterns, host, matches):
    asked = _asked(host=host)
    assert isinstance(decide(_rules(host="other.test", ignore=patterns), asked), Pass) is matches
    assert isinstance(decide(_rules(host="other.test", only=patterns), asked), Redirect) is matches


def test_error_of_a_user_s_callable_is_the_user_s():
    with pytest.raises(ZeroDivisionError):
        decide(_rules(ignore=lambda url: 1 / 0), _asked())
    with pytest.raises(ZeroDivisionError):
        decide(_rules(host_for=lambda source: 1 / 0), _asked())


def test_bad_answer_of_host_for_is_logged_once(caplog):
    rules = _rules(host_for=lambda source: "https://evil.test\n")
    assert [decide(rules, _asked()) for _ in range(3)] == [Pass()] * 3
    assert len(caplog.records) == 1
    assert "\n" not in caplog.messages[0]


# What needs no decision


@pytest.mark.parametrize(
    ("arguments", "known"),
    (
        ({}, {"example.com"}),
        ({"host": "Example.com.:8000"}, {"example.com:8000"}),
        ({"host": "b\u00fccher.example"}, {"xn--bcher-kva.example"}),
        ({"host_for": print}, set()),
        ({"host": None, "host_for": print}, set()),
    ),
)
def test_known_from_the_start(arguments, known):
    guard = _guard(**arguments)
    assert guard.known == known
    assert guard.known_octets == {text.encode() for text in known}


@pytest.mark.parametrize(
    ("host", "header", "is_learned"),
    (
        ("example.com", b"EXAMPLE.com.:8000", True),
        ("example.com:443", b"example.com:443", True),
        ("example.com:443", b"Example.com:443", True),
        ("example.com:443", b"example.com", False),  # right on https only
        ("example.com", b"example.com.evil.test", False),
        ("example.com", b"example.com,example.com", False),
        ("example.com", b"api.test", False),
        ("b\u00fccher.example", b"b\xc3\xbccher.example", False),
        ("example.com", None, False),
    ),
)
def test_learning(host, header, is_learned):
    guard = _guard(host=host, ignore=[re.compile("")])
    for _ in range(2):
        guard.refusal(_asked(host=header, scheme="https"), None)
    known = header is not None and header in guard.known_octets
    assert known is is_learned
    assert {text.encode() for text in guard.known} == guard.known_octets


def test_learns_from_the_header_that_counts():
    guard = _guard(trust_forwarded_host=True)
    assert guard.refusal(_asked(host=b"EXAMPLE.com"), None) is None
    assert guard.refusal(_asked(host=b"example.com", forwarded_host=b"Example.com"), None) is None
    assert guard.known == {"example.com", "Example.com"}


def test_set_of_spellings_is_bounded():
    guard = _guard()
    for port in range(1, 500):
        assert guard.refusal(_asked(host=b"example.com:%d" % port), None) is None
    assert len(guard.known) == len(guard.known_octets) == 64


# Properties

_HOSTS = st.sampled_from(
    (b"example.com", b"EXAMPLE.com.", b"www.example.com", b"example.com:8000", b"www.example.com:443",
     b"10.0.0.1", b"[::1]:80", b"b\xc3\xbccher.example", b"b\xfccher.example", b"<x>", b"", b"a, b"),
)  # fmt: skip
_OCTETS = st.binary(max_size=60)
_HEADERS = st.none() | _HOSTS | _OCTETS
_ASKED = st.builds(
    Asked,
    method=st.sampled_from(("GET", "HEAD", "POST")) | st.text(max_size=5),
    scheme=st.sampled_from(("http", "https", "ws", "wss")) | st.text(max_size=5),
    host=_HEADERS,
    forwarded_host=_HEADERS,
    forwarded_proto=st.none() | st.sampled_from((b"http", b"https", b"wss")) | _OCTETS,
    path=_OCTETS | _OCTETS.map(lambda path: b"/" + path),
    query=_OCTETS,
)
_PATTERNS = st.lists(
    st.sampled_from(
        ("www.example.com", "*.example.com", re.compile("^www"), re.compile(""), lambda url: url.port)
    ),
    max_size=2,
)
_SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "host": st.sampled_from(
            ("example.com", "example.com:8000", "example.com:443", "[::1]", "b\u00fccher.example")
        ),
        "host_for": st.sampled_from(
            (None, lambda source: None, lambda source: "x.test:81", lambda source: "/")
        ),
        "ignore": _PATTERNS,
        "only": _PATTERNS,
        "status": st.sampled_from((301, 302, 307, 308)),
        "preserve_method": st.booleans(),
        "scheme": st.sampled_from((None, "http", "https")),
        "exempt_paths": st.sampled_from(((), ("/a",), ("/a/",), ("/",))),
        "ip_hosts": st.sampled_from(("pass", "redirect")),
        "trust_forwarded_host": st.booleans(),
        "trust_forwarded_proto": st.booleans(),
    },
)
_LOCATION = re.compile(r"https?://(?:[a-z0-9.-]+|\[::1\])(?::[0-9]+)?/[!-~]*")


@given(_SETTINGS, _ASKED)
@settings(max_examples=200)
def test_decision_is_total_and_a_location_safe(arguments, asked):
    rules = _rules(**arguments)
    decision = decide(rules, asked)
    assert isinstance(decision, (Pass, Redirect, Reject))
    if isinstance(decision, Redirect):
        assert _LOCATION.fullmatch(decision.location)
        url = urlsplit(decision.location)
        canonical = rules.canonical_for(None)
        assert url.hostname == canonical.host.strip("[]")
        assert canonical.port in (None, url.port or {"http": 80, "https": 443}[url.scheme])


@given(_SETTINGS, _ASKED)
@settings(max_examples=200)
def test_following_a_redirect_passes(arguments, asked):
    rules = _rules(**arguments)
    decision = decide(rules, asked)
    if isinstance(decision, Redirect):
        scheme, _, rest = decision.location.partition("://")
        host, _, target = rest.partition("/")
        path, _, query = target.partition("?")
        followed = Asked("GET", scheme, host.encode(), None, None, f"/{path}".encode(), query.encode())
        assert decide(rules, followed) == Pass()


@given(_OCTETS, _OCTETS)
def test_quoting_twice_is_quoting_once(path, query):
    location = decide(_rules(), _asked(path=path, query=query)).location
    path, _, query = location.removeprefix("http://example.com").partition("?")
    again = decide(_rules(), _asked(path=path.encode(), query=query.encode()))
    assert again.location == location


@given(_SETTINGS, _ASKED)
def test_what_is_known_passes(arguments, asked):
    guard = _guard(**arguments)
    guard.refusal(asked, None)
    rules = guard.rules
    for header in guard.known_octets:
        known = asked._replace(host=header, forwarded_host=header)
        if rules.settings.scheme in (None, rules.scheme_of(known.scheme, known.forwarded_proto)):
            assert decide(rules, known) == Pass()


@pytest.mark.parametrize(
    "part", (b"/a/..", b"/", b"%", b"%41", b"%C3%A9", b"\xff", b"a", b"a:", b"[", b"?#", b"=;&"), ids=repr
)
def test_time_is_linear(part):
    def cost(size: int) -> float:
        path = (part * size)[:size]
        text = path.decode("latin-1")
        rules = _rules(exempt_paths=["/healthz"], ignore=lambda url: False)
        best = float("inf")
        for _ in range(3):
            begun = time.thread_time()
            for target in (wsgi_target(b"/app", path, path, path), asgi_target("/app", text, path, path)):
                assert isinstance(decide(rules, _asked(path=target.path, query=target.query)), Redirect)
            best = min(best, time.thread_time() - begun)
        return best

    # Ten times the size; a quadratic cost would be a hundred times as much.
    assert cost(100_000) < 40 * cost(10_000)


@pytest.mark.parametrize(
    "text", (b"a" * 100_000, b"a." * 50_000, b"[" * 100_000, b"\xc3\xbc" * 50_000, b":" * 100_000)
)
def test_long_host_is_refused_at_once(text):
    begun = time.thread_time()
    assert decide(_rules(), _asked(host=text)) == Reject()
    assert time.thread_time() - begun < 1
