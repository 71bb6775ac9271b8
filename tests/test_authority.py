"""The one form in which hosts are compared."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostline._authority import Authority, decode_header, parse_authority


@pytest.mark.parametrize(
    ("text", "host", "port"),
    (
        ("example.com", "example.com", None),
        ("EXAMPLE.Com", "example.com", None),
        ("example.com.", "example.com", None),
        ("example.com:", "example.com", None),
        ("example.com.:80", "example.com", 80),
        ("example.com:1", "example.com", 1),
        ("example.com:00080", "example.com", 80),
        ("example.com:000080", "example.com", 80),
        ("example.com:" + "0" * 32 + "65535", "example.com", 65535),
        ("[::1]:0000008000", "[::1]", 8000),
        ("example.com:65535", "example.com", 65535),
        ("localhost", "localhost", None),
        ("my_app", "my_app", None),
        ("-www.example.com", "-www.example.com", None),
        ("a" * 63 + ".example", "a" * 63 + ".example", None),
        (".".join(["a" * 49] * 5) + ".abc", ".".join(["a" * 49] * 5) + ".abc", None),
        ("0x.example", "0x.example", None),
        ("b\u00fccher.example", "xn--bcher-kva.example", None),
        ("bu\u0308cher.example:8000", "xn--bcher-kva.example", 8000),
        ("B\u00dcCHER.example", "xn--bcher-kva.example", None),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example", None),
        ("stra\u00dfe.example", "xn--strae-oqa.example", None),
        ("\u4f8b\u3048\u3002\u30c6\u30b9\u30c8", "xn--r8jz45g.xn--zckzah", None),
        ("b\u00fccher.example\u3002", "xn--bcher-kva.example", None),
        ("\uff11\uff10.0.0.1", "10.0.0.1", None),
        ("127.0.0.1", "127.0.0.1", None),
        ("127.0.0.1.:8000", "127.0.0.1", 8000),
        ("[::1]", "[::1]", None),
        ("[::1]:", "[::1]", None),
        ("[0:0:0:0:0:0:0:1]:8000", "[::1]", 8000),
        ("[2001:DB8::1]", "[2001:db8::1]", None),
    ),
)
def test_normal_form(text, host, port):
    assert parse_authority(text) == Authority(host, port)


def test_mapped_ipv4_address():
    # Which of the two is the normal form has changed with CPython 3.13; that they are one has not.
    assert parse_authority("[::ffff:10.0.0.1]") == parse_authority("[::FFFF:a00:1]") is not None


@pytest.mark.parametrize(
    "text",
    (
        "",
        " ",
        ".",
        "..",
        ":",
        ":80",
        "example..com",
        ".example.com",
        "example.com..",
        "example.com:0",
        "example.com:000000",
        "example.com:00065536",
        "example.com:" + "0" * 38 + "80",
        "example.com:65536",
        "example.com:99999",
        "example.com:123456",
        "example.com:http",
        "example.com:-1",
        "example.com:+1",
        "example.com: 80",
        "example.com:\u0668",
        "example.com:80:80",
        "user@example.com",
        "http://example.com",
        "example.com/",
        "example.com?",
        "example.com#",
        "exam ple.com",
        "example.com\n",
        "\texample.com",
        "example\x00.com",
        "ex%61mple.com",
        "*.example.com",
        "a,b",
        "a, b",
        "<x>",
        "[${jndi:ldap://x/y}]",
        "a" * 64 + ".example",
        ".".join(["a" * 49] * 5) + ".abcde",
        "\u00fc" * 300,
        "\u00fc" * 60 + ".example",
        "a\u200bb\u2603.example" + "\u0301" * 80,
        "\u00a0",
        "xn--\u00fc",
        "\ufeff\u00fc..example",
        "1.2.3",
        "1.2.3.4.5",
        "256.0.0.1",
        "01.2.3.4",
        "0x7f.0.0.1",
        "example.0x1f",
        "127.1",
        "2130706433",
        "::1",
        "[::1",
        "::1]",
        "[]",
        "[::1]x",
        "[::1]80",
        "[::1]:x",
        "[::1%eth0]",
        "[::1/]",
        "[127.0.0.1]",
        "[example.com]",
    ),
)
def test_malformed(text):
    assert parse_authority(text) is None


@pytest.mark.parametrize(
    ("text", "is_ip"),
    (("10.0.0.1", True), ("[::1]:80", True), ("example.com", False), ("10.example", False)),
)
def test_is_ip(text, is_ip):
    authority = parse_authority(text)
    assert authority is not None
    assert authority.is_ip is is_ip


@pytest.mark.parametrize(
    ("value", "text"),
    (
        (b"example.com", "example.com"),
        (b"b\xc3\xbccher", "b\u00fccher"),
        (b"b\xfccher", "b\u00fccher"),
        (b"", ""),
    ),
)
def test_header_is_utf8_or_else_latin1(value, text):
    assert decode_header(value) == text


_LABELS = st.text(alphabet="aZ09-_\u00fc\u00df\u5f62\u0915", min_size=1, max_size=5)
_NAMES = st.lists(_LABELS, min_size=1, max_size=4).map(".".join) | st.ip_addresses().map(
    lambda address: f"[{address}]" if address.version == 6 else str(address)
)
_PORTS = st.sampled_from(("", ":")) | st.integers(1, 65535).map(lambda port: f":{port}")
_LIKE_HOSTS = st.text(
    alphabet=st.sampled_from("aZ09-_.:[]%@/ \u00fc\u00df\u3002\u200d\u0301\u0668\uff11"), max_size=30
)


@given(_LIKE_HOSTS | st.builds("{}{}{}".format, _NAMES, st.sampled_from(("", ".")), _PORTS))
def test_normalising_twice_is_normalising_once(text):
    authority = parse_authority(text)
    if authority is None:
        return
    written = authority.host if authority.port is None else f"{authority.host}:{authority.port}"
    assert parse_authority(written) == authority
    assert written.isascii()
    assert written.isprintable()
    assert written == written.lower()


@given(st.text() | _LIKE_HOSTS)
def test_total(text):
    authority = parse_authority(text)
    if authority is not None:
        assert authority.is_ip in (True, False)
        assert authority.port is None or 0 < authority.port < 65536


@given(st.from_regex(r"[a-z]{1,10}(\.[a-z]{1,10}){0,3}", fullmatch=True), st.none() | st.integers(1, 65535))
def test_every_spelling_has_one_normal_form(host, port):
    tail = "" if port is None else f":{port}"
    assert parse_authority(host.upper() + "." + tail) == parse_authority(host + tail) == Authority(host, port)
