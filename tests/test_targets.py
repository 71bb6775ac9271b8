"""The request line, put together again from what servers hand on of it."""

from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostline._targets import PathPrefixes, Target, asgi_target, wsgi_target


@pytest.mark.parametrize(
    ("root", "path", "raw", "expected"),
    (
        # As PEP 3333 has it, with and without the raw target.
        (b"", b"/a/b", b"/a%2Fb?x=1", b"/a%2Fb"),
        (b"", b"/a/b", b"", b"/a/b"),
        (b"/app", b"/x", b"/app/x", b"/app/x"),
        (b"/app", b"", b"/app", b"/app"),
        (b"/app", b"", b"", b"/app"),
        (b"/app", b"/", b"", b"/app/"),
        (b"", b"", b"", b""),
        # What is decoded and looks encoded was encoded twice.
        (b"", b"/a%2Fb", b"", b"/a%252Fb"),
        (b"", b"/a%2Fb", b"/a%252Fb", b"/a%252Fb"),
        (b"", b"/caf\xc3\xa9", b"", b"/caf\xc3\xa9"),
        # A prefix that a proxy has taken off, or that the app has been told.
        (b"/pre", b"/x", b"/x", b"/pre/x"),
        (b"/pre", b"/", b"/", b"/pre/"),
        (b"/pre", b"/pre/x", b"/pre/x", b"/pre/pre/x"),
        (b"/p%e", b"/x", b"/x", b"/p%25e/x"),
        # Rewritten on the way.
        (b"", b"/new", b"/old", b"/new"),
        (b"", b"/admin", b"/x/../admin", b"/admin"),
        # Absolute form: gunicorn and Werkzeug read it, uWSGI and wsgiref do not.
        (b"", b"/p/q", b"http://h:80/p%2Fq?x", b"/p%2Fq"),
        (b"", b"http://h/p", b"http://h/p?x", b"/p"),
        (b"", b"http://h/p", b"", b"/p"),
        (b"", b"http://h", b"http://h?x", b""),
        (b"", b"http:/h", b"", b"http:/h"),
        # OPTIONS *, which cheroot takes for a path.
        (b"", b"*", b"*", b""),
        (b"", b"/*", b"*", b"/*"),
        # A fragment does not belong into a request; gunicorn cuts it off.
        (b"", b"/a/b", b"/a%2Fb#c?d", b"/a%2Fb"),
        (b"", b"/a#b", b"", b"/a#b"),
        # cheroot leaves %2F, Werkzeug decodes with replacements, waitress drops slashes, Django adds one.
        (b"", b"/a%2Fb", b"/a%2Fb", b"/a%2Fb"),
        (b"", "/\ufffd".encode(), b"/%FF", b"/%FF"),
        (b"", b"/evil.test/x", b"//evil.test/x", b"//evil.test/x"),
        (b"/app", b"/", b"/app", b"/app"),
    ),
)
def test_wsgi(root, path, raw, expected):
    assert wsgi_target(root, path, b"a=b", raw) == Target(expected, b"a=b")


@pytest.mark.parametrize(
    ("root", "path", "raw", "expected"),
    (
        ("", "/a/b", b"/a%2Fb", b"/a%2Fb"),
        ("", "/a/b", b"/a%2Fb?c=d", b"/a%2Fb"),
        ("", "/a%b", None, b"/a%25b"),
        ("", "/caf\u00e9", b"", b"/caf\xc3\xa9"),
        ("", "/\udcff", None, b"/?"),
        # uvicorn puts the prefix into both paths, the others into none.
        ("/pre", "/pre/a", b"/pre/a", b"/pre/a"),
        ("/pre", "/a", b"/a", b"/pre/a"),
        ("/pre", "/prefix", b"/prefix", b"/pre/prefix"),
        ("/pre", "/pre", b"/pre", b"/pre"),
        ("/pre/", "/a", None, b"/pre/a"),
        ("/my app", "/my app/x", b"/my%20app/x", b"/my%20app/x"),
        ("/my app", "/x", b"/x", b"/my app/x"),
        ("/p%e", "/x", b"/x", b"/p%25e/x"),
        # Absolute form, as uvicorn with h11, hypercorn and daphne pass it on.
        ("", "http://h/p", b"http://h/p", b"/p"),
        ("", "HTTP://h/p", None, b"/p"),
        ("/pre", "http://h/a", b"http://h/a", b"/pre/a"),
        ("/pre", "http://h/pre/a", b"http://h/pre/a", b"/pre/a"),
        ("/pre", "/prehttp://h/a", b"/prehttp://h/a", b"/pre/a"),
        ("/pre", "/pre*", b"/pre*", b"/pre"),
        ("", "*", b"*", b""),
        ("", "host:443", b"host:443", b"host:443"),
    ),
)
def test_asgi(root, path, raw, expected):
    assert asgi_target(root, path, raw, b"a=b") == Target(expected, b"a=b")


@given(st.binary(), st.binary(), st.binary(), st.binary())
def test_wsgi_is_total(root, path, query, raw):
    assert wsgi_target(root, path, query, raw).query == query


@given(st.text(), st.text(), st.none() | st.binary(), st.binary())
def test_asgi_is_total(root, path, raw, query):
    assert asgi_target(root, path, raw, query).query == query


@given(st.lists(st.binary().map(lambda part: b"/" + part.replace(b"/", b""))).map(b"".join), st.booleans())
def test_path_that_servers_decode_comes_back(path, has_raw):
    raw = b"".join(b"/" if octet == 47 else b"%%%02X" % octet for octet in path)
    target = wsgi_target(b"", path, b"", raw if has_raw else b"")
    assert unquote_to_bytes(target.path) == path


@pytest.mark.parametrize(
    ("prefixes", "path", "matches"),
    (
        ((), b"/", False),
        (("/a",), b"/a", True),
        (("/a",), b"/a/b", True),
        (("/a",), b"/ab", False),
        (("/a",), b"", False),
        (("/a/",), b"/a", False),
        (("/a/",), b"/a/", True),
        (("/b", "/a/"), b"/a/b", True),
        (("/a b",), b"/a%20b/c", True),
        (("/\u00e9",), b"/%C3%A9", True),
        (("/",), b"/", True),
    ),
)
def test_prefixes(prefixes, path, matches):
    assert PathPrefixes(prefixes).match(path) is matches
