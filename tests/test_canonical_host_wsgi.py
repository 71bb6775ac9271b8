"""What only WSGI has, for the canonical-host guard."""

import importlib
import re
import sys
from wsgiref.validate import validator

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from exchanges import PASSED, Request, exchange_wsgi, wsgi_app
from hostline import SettingsError
from hostline.wsgi import CanonicalHostMiddleware


def _location(environ, **options):
    app = CanonicalHostMiddleware(wsgi_app, "example.com", **options)
    return exchange_wsgi(app, environ).headers["location"]


def test_without_a_host_it_is_the_app():
    assert CanonicalHostMiddleware(wsgi_app) is wsgi_app
    assert CanonicalHostMiddleware(wsgi_app, None) is wsgi_app
    assert CanonicalHostMiddleware(wsgi_app, scheme="https") is wsgi_app


def test_wrapping_twice_changes_nothing_of_the_first():
    inner = CanonicalHostMiddleware(wsgi_app, "example.com")
    assert CanonicalHostMiddleware(inner) is inner
    outer = CanonicalHostMiddleware(inner, "www.example.com", only="example.net")
    assert exchange_wsgi(outer, Request(host="example.com").environ()) == PASSED
    assert (
        exchange_wsgi(outer, Request(host="example.net").environ()).headers["location"]
        == "http://www.example.com/"
    )


def test_wrong_settings():
    with pytest.raises(SettingsError, match=r"https://example\.com/"):
        CanonicalHostMiddleware(wsgi_app, "https://example.com/")
    with pytest.raises(TypeError, match="ignore"):
        CanonicalHostMiddleware(wsgi_app, ignored="example.com")


def test_body_is_one_chunk_and_the_status_has_its_words():
    started = []
    app = CanonicalHostMiddleware(wsgi_app, host="example.com")
    body = app(Request().environ(), lambda status, headers: started.append(status))
    assert started == ["301 Moved Permanently"]
    assert len(list(body)) == 1


def test_raw_target():
    environ = Request(path="/a%2Fb", query="c=%2F").environ()
    assert _location(environ) == "http://example.com/a%2Fb?c=%2F"
    environ["RAW_URI"] = environ.pop("REQUEST_URI")  # as gunicorn calls it
    assert _location(environ) == "http://example.com/a%2Fb?c=%2F"
    del environ["RAW_URI"]
    assert _location(environ) == "http://example.com/a/b?c=%2F"


def test_query_string_that_is_not_there():
    environ = Request().environ()
    del environ["QUERY_STRING"]  # bjoern, where it is empty; wsgiref warns of it
    started = []
    app = CanonicalHostMiddleware(wsgi_app, host="example.com")
    app(environ, lambda status, headers: started.append(dict(headers)["Location"]))
    assert started == ["http://example.com/"]


def test_absolute_form_in_path_info():
    app = CanonicalHostMiddleware(wsgi_app, host="example.com")
    started = []
    environ = Request().environ() | {"PATH_INFO": "http://www.example.com/p", "REQUEST_URI": ""}
    app(environ, lambda status, headers: started.append(dict(headers)["Location"]))
    assert started == ["http://example.com/p"]


def test_text_that_no_server_may_give_is_no_reason_to_fail():
    environ = Request(host="b\u65e5.example").environ()
    app = CanonicalHostMiddleware(wsgi_app, host="example.com")
    assert exchange_wsgi(app, environ).status == 400
    environ |= {"HTTP_HOST": "www.example.com", "PATH_INFO": "/\u65e5", "REQUEST_URI": "/\u65e5"}
    assert _location(environ) == "http://example.com/%3F"


def test_known_host_needs_no_decision():
    asked = []
    app = CanonicalHostMiddleware(validator(wsgi_app), host="example.com", ignore=asked.append)
    assert exchange_wsgi(app, Request(host="example.com").environ()) == PASSED
    assert exchange_wsgi(app, Request(host="example.com:81").environ()) == PASSED
    assert len(asked) == 1
    assert exchange_wsgi(app, Request(host="example.com:81").environ()) == PASSED
    assert len(asked) == 1


def test_known_host_with_the_right_scheme_needs_no_decision():
    asked = []
    app = CanonicalHostMiddleware(
        wsgi_app, host="example.com", scheme="https", trust_forwarded_proto=True, ignore=asked.append
    )
    request = Request(host="example.com", headers={"x-forwarded-proto": "https"})
    assert exchange_wsgi(app, request.environ()) == PASSED
    assert asked == []


@given(
    st.text(alphabet=st.characters(max_codepoint=255), max_size=80)
    | st.text("text/hml,;q=*01 \"\\'", max_size=80)
)
def test_any_accept_is_answered(accept):
    environ = Request(headers={"accept": accept}).environ()
    app = CanonicalHostMiddleware(wsgi_app, host="example.com")
    assert app(environ, lambda status, headers: None)


def test_under_a_mount_prefix():
    mounted = DispatcherMiddleware(wsgi_app, {"/app": CanonicalHostMiddleware(wsgi_app, host="example.com")})
    got = exchange_wsgi(mounted, Request(path="/app/x%2Fy", query="a").environ())
    assert got.headers["location"] == "http://example.com/app/x%2Fy?a"
    assert exchange_wsgi(mounted, Request(path="/x").environ()) == PASSED


def test_flask():
    flask = Flask("flask")
    flask.wsgi_app = CanonicalHostMiddleware(
        flask.wsgi_app, host="example.com", ignore=re.compile("^localhost$")
    )
    flask.add_url_rule("/<path:path>", view_func=lambda path: path, endpoint="path")
    client = flask.test_client()
    got = client.get("/a/b?c=d", base_url="http://www.example.com:8000")
    assert got.headers["Location"] == "http://example.com:8000/a/b?c=d"
    assert client.get("/a/b", base_url="http://example.com").text == "a/b"
    assert client.get("/a/b").text == "a/b"


def test_missing_werkzeug_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "werkzeug.datastructures", None)
    for module in ("hostline.wsgi",):
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(ImportError, match=re.escape('pip install "hostline[wsgi]"')):
        importlib.import_module("hostline.wsgi")
