"""What must hold of any input, however odd: one function for each, and what to try it with.

Each property is a plain function of one drawn value, so that the unit tests try it a few
hundred times and ``tests/trials/fuzz.py`` for as long as one likes.
"""

import logging
import re
from collections.abc import Callable, Mapping
from time import monotonic, time
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from hypothesis import strategies as st
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header
from werkzeug.sansio.utils import get_host
from yarl import URL

from hostline import CanonicalHostSettings, RequestTimeoutSettings, SettingsError
from hostline._authority import Authority, decode_header, parse_authority
from hostline._budget import WaitReader, lowered, parse_request_start, read_timeout, read_wait
from hostline._host_guard import HostGuard
from hostline._hosts import Asked, HostRules, Pass, Redirect, decide
from hostline._requests import RequestEvent, State, clean_request_id
from hostline._responses import TIMEOUT_PAGES, host_response, preferred_type
from hostline._targets import asgi_target, wsgi_target
from hostline.observers.logging import format_line

HOME = "www.example.com"
NOW = 1_800_000_000.0

_ODD = (
    "\x00\t\n\r \"#%&'()*+,-./:;<=>?@[\\]^_`{|}~\x7f\x80\xa0\xad\xdf\xfc\u0130\u017f\u0307\u200b"
    "\u200d\u2024\u2044\u2100\u212a\u3002\uff0e\uff0f\uff1a\uff20\ufeff\U0001d5d0"
)
_PIECES = (
    *(
        "www.example.com",
        "example.com",
        "evil.test",
        "EXAMPLE",
        "localhost",
        "127.0.0.1",
        "0x7f.1",
        "017700000001",
    ),
    *(
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[fe80::1%25eth0]",
        "xn--bcher-kva",
        "xn--",
        "b\xfccher",
        "stra\xdfe",
        "%65",
        "%2e",
    ),
    *(
        ":80",
        ":443",
        ":",
        ":0",
        ":65536",
        ":000080",
        "@",
        "//",
        "\\",
        "http://",
        "/",
        "?",
        "#",
        ".",
        "..",
        ", ",
        ";",
    ),
)
HOSTS = (
    st.lists(st.sampled_from(_PIECES) | st.sampled_from(_ODD), max_size=6).map("".join)
    | st.text(st.sampled_from("aZ09-_.:[]%@/ " + _ODD), max_size=24)
    | st.builds(
        "{}{}".format, st.sampled_from(_PIECES), st.sampled_from(("", ".", ":", ":8000", ":000080", ":080"))
    )
    | st.text(max_size=24)
)
OCTETS = st.binary(max_size=40) | HOSTS.map(lambda text: text.encode("utf-8", "replace"))
_PATH_PIECES = st.sampled_from(
    (
        *(b"/", b"//", b"\\", b"..", b".", b"%", b"%2e", b"%0d%0a", b"%zz", b"\r\n", b"Set-Cookie: a=b"),
        *(
            b"@evil.test",
            b":80",
            b"evil.test",
            b"?",
            b"#",
            b";",
            b" ",
            b"\x00",
            b"\xff",
            b"http://evil.test/",
        ),
        *(b"*", b"a", "\xfc".encode()),
    )
)
PATHS = st.lists(_PATH_PIECES | st.binary(max_size=4), max_size=8).map(b"".join)


class Property(NamedTuple):
    """What to try, and with what."""

    check: Callable[[Any], object]
    tries: st.SearchStrategy[Any]


def _rules(**arguments: Any) -> HostRules:
    return HostRules(CanonicalHostSettings.load({"host": HOME, **arguments}, {}))


_RULES = _rules()
_HTTPS = _rules(scheme="https")
_WITH_PORT = _rules(host=f"{HOME}:8443")
_FORWARDED = _rules(trust_forwarded_host=True, trust_forwarded_proto=True)


def host_is_read_in_one_way(text: str) -> None:
    """An answer for any text; what is written out again is read as the same; no other parser differs."""
    authority = parse_authority(text)
    if authority is None:
        return
    written = authority.host if authority.port is None else f"{authority.host}:{authority.port}"
    assert written.isascii()
    assert written.isprintable()
    assert not set(written) & set("/\\?#@%, \t;<>\"'|^`{}")
    assert parse_authority(written) == authority
    for name, host, port in readings(f"http://{written}/"):
        assert (_normal(host), port) == (authority.host, authority.port or 80), name


def readings(url: str) -> list[tuple[str, str, int]]:
    """Whom others take a URL to lead to, who take it apart by rules of their own."""
    split = urlsplit(url)
    yarl = URL(url)
    every = [
        ("urllib.parse", _bracketed(split.hostname or ""), split.port or 80),
        ("yarl", _bracketed(yarl.raw_host or ""), yarl.port or 80),
    ]
    theirs = get_host("http", url.split("/")[2]).lower()
    if theirs:  # to Werkzeug, an underscore is in no host
        host, _, port = theirs.rpartition(":") if re.search(r":[0-9]*\Z", theirs) else (theirs, "", "")
        every.append(("Werkzeug", host, int(port or 80)))
    return every


def _normal(host: str) -> str:
    """An IPv6 address may be written in several ways, of which we write one."""
    authority = parse_authority(host) if host.startswith("[") else None
    return host if authority is None else authority.host


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def what_passes_is_home(octets: bytes) -> None:
    """A Host that passes as canonical is the canonical host to everybody else who can read it."""
    guard = HostGuard(_RULES.settings)
    asked = Asked("GET", "http", octets, None, None, b"/", b"")
    if guard.refusal(asked, None) is not None or not octets:
        return
    authority = parse_authority(decode_header(octets))
    assert authority is not None
    assert authority.host == HOME or authority.is_ip, authority
    # What needs no decision from now on: nothing but spellings in ASCII of that one host.
    for known in guard.known_octets:
        assert known.lower().startswith(HOME.encode())
        assert not set(known[len(HOME) :]) - set(b".:0123456789")
    if octets.isascii() and authority.host == HOME:
        for name, host, _ in readings(f"http://{octets.decode()}/"):
            assert host.removesuffix(".") == HOME, name


def location_leads_home(drawn: tuple[bytes, bytes, bytes, str, bytes | None, bytes | None]) -> None:
    """Absolute, printable, of the canonical host, with the same path; who follows it passes."""
    path, query, host, scheme, forwarded_host, forwarded_proto = drawn
    for rules in (_RULES, _HTTPS, _WITH_PORT, _FORWARDED):
        asked = Asked("GET", scheme, host, forwarded_host, forwarded_proto, path, query)
        decision = decide(rules, asked)
        if not isinstance(decision, Redirect):
            continue
        location = decision.location
        assert re.fullmatch(r"https?://[!-~]+", location), location
        assert not set(location) & set('\\"<>^`{|} #'), location
        origin, _, rest = location.partition("://")[2].partition("/")
        target, _, query_there = f"/{rest}".partition("?")
        authority = parse_authority(origin)
        assert authority is not None
        assert authority.host == HOME
        assert all(reading[1] == HOME for reading in readings(location)), location
        rooted = path if path.startswith(b"/") else b"/" + path
        assert _decoded(target.encode()) == _decoded(rooted)
        assert _decoded(query_there.encode()) == _decoded(query)
        followed = Asked(
            *("GET", location.partition(":")[0], origin.encode(), None, None),
            *(target.encode(), query_there.encode()),
        )
        assert isinstance(decide(rules, followed), Pass), location
        # Of another host, the same target becomes the same Location: it is in its final form.
        again = decide(_RULES, followed._replace(host=b"evil.test", scheme="http"))
        assert isinstance(again, Redirect)
        assert again.location.partition("://")[2].partition("/")[2] == rest
        for media_type in ("text/html", "text/plain"):
            response = host_response(decision, media_type, None)
            assert all("\r" not in value and "\n" not in value for _, value in response.headers)
            assert b"<script" not in response.body.lower()
            assert b'"' not in location.encode()


def _decoded(octets: bytes) -> bytes:
    """With every well-formed percent-encoding undone, once."""
    return re.sub(rb"%([0-9A-Fa-f]{2})", lambda match: bytes.fromhex(match[1].decode()), octets)


def target_is_read(drawn: tuple[bytes, bytes, bytes]) -> None:
    """Whatever a server hands on of a request line, there is a path that a Location can be made of."""
    root, path, query = drawn
    text = path.decode("latin-1")
    for target in (
        wsgi_target(root, path, query, path),
        wsgi_target(root, path, query, b""),
        asgi_target(root.decode("latin-1"), text, path, query),
        asgi_target(root.decode("latin-1"), text, None, query),
    ):
        decision = decide(_RULES, Asked("GET", "http", b"evil.test", None, None, target.path, target.query))
        assert isinstance(decision, Redirect)
        assert decision.location.startswith(f"http://{HOME}/")


def request_start_is_a_wait_or_nothing(text: str) -> None:
    """Never an exception, never negative, never more than a day."""
    wait = read_wait(text, NOW)
    assert wait is None or 0 <= wait <= 86_400
    stamp = parse_request_start(text)
    assert stamp is None or stamp >= 0
    reader = WaitReader(RequestTimeoutSettings.load({}, {}), bytes)
    reader.renew(monotonic())
    now = time()
    octets = text.encode("latin-1", "replace")
    if reader.oldest <= octets <= reader.newest:
        # The short cut and the whole reading are of one mind: it is far from any limit, or says nothing.
        waited = read_wait(octets.decode("latin-1"), now)
        assert waited is None or waited < 15
    reader.read(text, NOW)


def caller_s_timeout_only_lowers(drawn: tuple[str, str, float | None, float | None]) -> None:
    """Never an exception, never more than the own timeout, never nothing."""
    name, text, timeout, wait = drawn
    asked = read_timeout(name, text)
    assert asked is None or asked > 0
    result = lowered(timeout, (name,), lambda _: text, wait)
    if timeout is not None:
        assert result is not None
        assert 0 < result <= max(timeout, 0.001)


def settings_or_a_settings_error(drawn: tuple[str, str]) -> None:
    """Any text in any variable: settings, or an error that names the variable and shows the value."""
    variable, text = drawn
    for kind in (CanonicalHostSettings, RequestTimeoutSettings):
        try:
            kind.load({"host": "a.example"} if kind is CanonicalHostSettings else {}, {variable: text})
        except SettingsError as error:
            message = str(error)
            assert variable in message
            assert message.isprintable() or "\n" in message
            assert all(line.isprintable() for line in message.split("\n"))
            plain = text.strip()
            if plain.isascii() and plain.isalnum() and len(plain) < 20:
                assert plain in message


def arguments_or_a_settings_error(drawn: tuple[type[Any], str, object]) -> None:
    """Any value as any argument: the same."""
    kind, name, value = drawn
    fault = ""
    try:
        kind.load({name: value}, {})
    except SettingsError as error:
        fault = str(error)
    assert not fault or name in fault


def accept_is_negotiated(drawn: tuple[str, bool]) -> None:
    """An answer for any Accept, and of what Werkzeug can read, none that it calls unacceptable."""
    accept, is_plain = drawn
    chosen = preferred_type(accept, TIMEOUT_PAGES)
    assert chosen is None or chosen in TIMEOUT_PAGES
    if is_plain and accept:
        theirs = parse_accept_header(accept, MIMEAccept)
        if chosen is not None:
            assert theirs.quality(chosen) > 0, (accept, chosen)


def log_holds_one_line(text: str) -> None:
    """Whatever a client says is its id: one line, the fields that we write, in our order."""
    cleaned = clean_request_id(text)
    assert len(cleaned) <= 128
    assert re.fullmatch(r"[!-~]*", cleaned)
    event = _event(cleaned or "made")
    line = format_line(event)
    assert line.splitlines() == [line]
    fields = [field.partition("=")[0] for field in line.split(" ")]
    assert fields == ["source", "id", "wait", "timeout", "service", "state"]


def _event(request_id: str) -> RequestEvent:
    fields: dict[str, Any] = {"state": State.TIMED_OUT, "id": request_id, "method": "GET", "path": "/"}
    fields |= {"wait": 0.1, "service": 1.0, "timeout": 1.0, "term": False}
    fields |= {"stack": None, "route": None, "trace": None}
    return RequestEvent(**{name: fields[name] for name in RequestEvent.__slots__})


_VARIABLES = sorted(
    {
        each.variable
        for kind in (CanonicalHostSettings, RequestTimeoutSettings)
        for each in kind.settings()
        if each.variable
    }
    | {"HOSTLINE_NONSENSE", "RACK_TIMEOUT_SERVICE_TIMEOUT", "CANONICAL_HOST"}
)
_ARGUMENTS = [
    (kind, each.name) for kind in (CanonicalHostSettings, RequestTimeoutSettings) for each in kind.settings()
]
_VALUES = (
    HOSTS
    | st.sampled_from(
        ("15", "15s", "500ms", "1e3", "1_000", "\u0661", "inf", "nan", "-1", "0x10", "on", "OFF", "none")
    )
    | st.sampled_from(
        (
            "/(/",
            "/a/,/b/",
            "/[[/",
            "*.a.example",
            "/" + "(" * 200 + "/",
            "/a{1,99999999999}/",
            "/a=1,/b=off",
            "=",
            ",",
        )
    )
    | st.sampled_from(
        ("SIGKILL", "SIGURG", "64", "301", "504", "99", "text/html", "a b", "x\r\ny: z", "no-store")
    )
)
_ANY = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | _VALUES
    | st.binary(max_size=8)
    | st.lists(_VALUES | st.integers() | st.none(), max_size=3)
    | st.dictionaries(_VALUES, st.floats() | st.none(), max_size=2)
    | st.sampled_from(
        (object(), print, Authority("a", 1), Authority("A B", 0), ..., re.compile("a"), logging)
    )
)
_STAMPS = (
    st.text(max_size=24)
    | st.builds("{}{}".format, st.sampled_from(("", "t=", "T=", " ", "t= ")), st.integers().map(str))
    | st.builds("{}.{}".format, st.integers(0, 10**14), st.integers(0, 10**9))
    | st.floats(NOW - 100_000, NOW + 100_000).map(lambda stamp: f"{stamp * 1000:.0f}")
    | st.text("0123456789_+- .te\u0661", min_size=10, max_size=19)
)
_TIMEOUTS = st.text("0123456789HMSmun. -", max_size=11) | st.text(max_size=12)
_TYPES = st.sampled_from(
    ("text/html", "text/plain", "application/json", "application/problem+json", "image/png", "*/*", "text/*")
)
_QUALITIES = st.sampled_from(("", ";q=0", ";q=1", ";q=0.5", "; q=0.001", ";q=0.000"))
_PLAIN_ACCEPT = st.lists(st.builds("{}{}".format, _TYPES, _QUALITIES), max_size=5).map(", ".join)
_SECONDS = st.none() | st.floats(0.001, 1000)

PROPERTIES: Mapping[str, Property] = {
    "hosts": Property(host_is_read_in_one_way, HOSTS),
    "canonical": Property(what_passes_is_home, OCTETS),
    "locations": Property(
        location_leads_home,
        st.tuples(
            *(PATHS, PATHS, OCTETS, st.sampled_from(("http", "https", "ws", "wss", "", "x"))),
            *(st.none() | OCTETS, st.none() | st.sampled_from((b"https", b"http", b"http, https", b"\xff"))),
        ),
    ),
    "targets": Property(target_is_read, st.tuples(st.sampled_from((b"", b"/app", b"/\xfc")), PATHS, PATHS)),
    "request-start": Property(request_start_is_a_wait_or_nothing, _STAMPS),
    "timeout-headers": Property(
        caller_s_timeout_only_lowers,
        st.tuples(
            st.sampled_from(("grpc-timeout", "x-envoy-expected-rq-timeout-ms")), _TIMEOUTS, _SECONDS, _SECONDS
        ),
    ),
    "variables": Property(
        settings_or_a_settings_error, st.tuples(st.sampled_from(_VARIABLES), _VALUES | st.text(max_size=30))
    ),
    "arguments": Property(
        arguments_or_a_settings_error,
        st.sampled_from(_ARGUMENTS).flatmap(lambda each: st.tuples(*map(st.just, each), _ANY)),
    ),
    "accept": Property(
        accept_is_negotiated,
        st.tuples(_PLAIN_ACCEPT, st.just(True)) | st.tuples(st.text(max_size=40), st.just(False)),
    ),
    "log": Property(
        log_holds_one_line, st.text(max_size=200) | st.text('\r\n\t ="%\u2028\x85abc', max_size=300)
    ),
}
