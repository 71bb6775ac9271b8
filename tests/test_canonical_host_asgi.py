"""What only ASGI has, for the canonical-host guard."""

import importlib
import inspect
import re
import sys

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from exchanges import PASSED, Messages, Request, asgi_app, no_receive, run_to_end
from hostline import SettingsError
from hostline.asgi import CanonicalHostMiddleware


def _exchange(app, scope):
    messages = Messages()
    run_to_end(app(scope, no_receive, messages.send))
    return messages.exchange


def _location(scope, **options):
    return _exchange(CanonicalHostMiddleware(asgi_app, "example.com", **options), scope).headers["location"]


def _with_headers(*headers, **scope):
    return Request().scope() | {"headers": list(headers)} | scope


def test_without_a_host_it_is_the_app():
    assert CanonicalHostMiddleware(asgi_app) is asgi_app
    assert CanonicalHostMiddleware(asgi_app, None) is asgi_app
    assert CanonicalHostMiddleware(asgi_app, scheme="https") is asgi_app


def test_wrapping_twice_changes_nothing_of_the_first():
    inner = CanonicalHostMiddleware(asgi_app, "example.com")
    assert CanonicalHostMiddleware(inner) is inner
    outer = CanonicalHostMiddleware(inner, "www.example.com", only="example.net")
    assert _exchange(outer, Request(host="example.com").scope()) == PASSED
    assert (
        _exchange(outer, Request(host="example.net").scope()).headers["location"] == "http://www.example.com/"
    )


def test_wrong_settings():
    with pytest.raises(SettingsError, match=r"https://example\.com/"):
        CanonicalHostMiddleware(asgi_app, "https://example.com/")
    with pytest.raises(TypeError, match="ignore"):
        CanonicalHostMiddleware(asgi_app, ignored="example.com")


def test_servers_see_an_asgi_3_app():
    app = CanonicalHostMiddleware(asgi_app, host="example.com")
    assert inspect.iscoroutinefunction(app.__call__)


@pytest.mark.parametrize(
    "hosts",
    (
        (b"example.com", b"www.example.com"),
        (b"www.example.com", b"example.com"),
        (b"example.com", b"example.com"),
        (b"example.com", b"example.com", b"example.com"),
        (b"example.com", b""),
        (b"", b"example.com"),
    ),
)
def test_second_host_header_is_malformed(hosts):
    app = CanonicalHostMiddleware(asgi_app, host="example.com")
    assert _exchange(app, _with_headers(*((b"host", host) for host in hosts))).status == 400


def test_rightmost_of_two_forwarded_host_headers():
    app = CanonicalHostMiddleware(asgi_app, host="example.com", trust_forwarded_host=True)
    forwarded = [(b"x-forwarded-host", b"evil.test, x.test"), (b"x-forwarded-host", b"example.com")]
    assert _exchange(app, _with_headers((b"host", b"proxy"), *forwarded)) == PASSED
    assert _exchange(app, _with_headers((b"host", b"proxy"), *reversed(forwarded))).status == 301


def test_rightmost_of_two_forwarded_proto_headers():
    app = CanonicalHostMiddleware(asgi_app, host="example.com", scheme="https", trust_forwarded_proto=True)
    forwarded = [(b"x-forwarded-proto", b"https"), (b"x-forwarded-proto", b"http")]
    assert _exchange(app, _with_headers((b"host", b"example.com"), *forwarded)).status == 301
    assert _exchange(app, _with_headers((b"host", b"example.com"), *reversed(forwarded))) == PASSED


def test_headers_may_be_lists_and_a_tuple():
    scope = Request().scope() | {"headers": ([b"host", b"www.example.com"], [b"accept", b"text/html"])}
    assert _location(scope) == "http://example.com/"


def test_known_host_needs_no_decision():
    asked = []
    app = CanonicalHostMiddleware(asgi_app, host="example.com", ignore=asked.append)
    assert _exchange(app, Request(host="example.com").scope()) == PASSED
    assert _exchange(app, Request(host="example.com:81").scope()) == PASSED
    assert len(asked) == 1
    assert _exchange(app, Request(host="example.com:81").scope()) == PASSED
    assert len(asked) == 1


def test_known_host_with_the_right_scheme_needs_no_decision():
    asked = []
    app = CanonicalHostMiddleware(
        asgi_app, host="example.com", scheme="https", trust_forwarded_proto=True, ignore=asked.append
    )
    request = Request(host="example.com", headers={"x-forwarded-proto": "https"})
    assert _exchange(app, request.scope()) == PASSED
    assert asked == []


@pytest.mark.parametrize(
    ("changes", "location"),
    (
        ({"raw_path": None}, "http://example.com/a/b%25?q"),
        ({"raw_path": b""}, "http://example.com/a/b%25?q"),
        ({"raw_path": b"/a%2Fb%25?x"}, "http://example.com/a%2Fb%25?q"),
        ({"raw_path": b"http://www.example.com/a%2Fb"}, "http://example.com/a%2Fb?q"),
        ({"raw_path": b"/a#b"}, "http://example.com/a%23b?q"),
        ({"query_string": b""}, "http://example.com/a%2Fb%25"),
        ({"root_path": None}, "http://example.com/a%2Fb%25?q"),
        ({"root_path": "/pre"}, "http://example.com/pre/a%2Fb%25?q"),
        ({"root_path": "/pre/"}, "http://example.com/pre/a%2Fb%25?q"),
        ({"root_path": "/b"}, "http://example.com/b/a%2Fb%25?q"),
        ({"root_path": "/pre", "raw_path": b"/pre/a"}, "http://example.com/pre/a?q"),
        ({"method": "OPTIONS", "path": "*", "raw_path": b"*", "query_string": b""}, "http://example.com/"),
        ({"server": ("127.0.0.1", "8000"), "client": None}, "http://example.com/a%2Fb%25?q"),
    ),
)
def test_request_line(changes, location):
    scope = Request(path="/a%2Fb%25", query="q").scope() | changes
    assert _location(scope, preserve_method=False) == location


@pytest.mark.parametrize("missing", ("raw_path", "root_path", "query_string", "scheme", "server", "client"))
def test_what_a_scope_may_lack(missing):
    scope = Request().scope()
    del scope[missing]
    assert _location(scope) == "http://example.com/"


@pytest.mark.parametrize("kind", ("lifespan", "whatever"))
@pytest.mark.parametrize("headers", ({}, {"headers": [(b"host", b"www.example.com")]}))
def test_other_scopes_are_the_app_s(kind, headers):
    seen = []

    async def app(*arguments):
        seen.append(arguments)

    scope = {"type": kind, **headers}
    run_to_end(CanonicalHostMiddleware(app, host="example.com")(scope, no_receive, print))
    [(got, receive, send)] = seen
    assert got is scope
    assert (receive, send) == (no_receive, print)


# WebSockets


def _handshake(host=b"www.example.com", scheme="ws", **scope):
    return {
        "type": "websocket",
        "scheme": scheme,
        "path": "/chat",
        "raw_path": b"/chat",
        "query_string": b"a=b",
        "headers": [(b"host", host), (b"upgrade", b"websocket")],
    } | scope


async def _accepting(scope, receive, send):
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})


def _shake(scope, first="websocket.connect", **options):
    """What the server is sent, and whether it was asked for anything first."""
    sent = []
    received = []

    async def receive():
        assert not received
        received.append(first)
        return {"type": first}

    async def send(message):
        assert received, "a handshake is answered after it has been read"
        sent.append(message)

    run_to_end(CanonicalHostMiddleware(_accepting, host="example.com", **options)(scope, receive, send))
    return sent


def test_handshake_is_redirected_where_the_server_can():
    scope = _handshake(scheme="wss", extensions={"websocket.http.response": {}})
    start, body = _shake(scope)
    assert start["type"] == "websocket.http.response.start"
    assert start["status"] == 301
    assert dict(start["headers"])[b"location"] == b"https://example.com/chat?a=b"
    assert body["type"] == "websocket.http.response.body"
    assert str(len(body["body"])).encode() == dict(start["headers"])[b"content-length"]


def test_malformed_handshake_is_rejected_where_the_server_can():
    start, _ = _shake(_handshake(host=b"<x>", extensions={"websocket.http.response": {}}))
    assert start["status"] == 400


@pytest.mark.parametrize("extensions", ({}, {"extensions": None}, {"extensions": {}}))
@pytest.mark.parametrize("host", (b"www.example.com", b"<x>"))
def test_handshake_is_refused_where_the_server_cannot(extensions, host):
    [message] = _shake(_handshake(host=host, **extensions))
    assert (message["type"], message["code"]) == ("websocket.close", 1000)


def test_handshake_with_the_canonical_host_is_the_app_s():
    assert _shake(_handshake(host=b"example.com")) == [{"type": "websocket.accept"}]


def test_client_that_leaves_before_the_answer_is_sent_none():
    assert _shake(_handshake(), first="websocket.disconnect") == []


def test_scheme_of_a_handshake():
    assert _shake(_handshake(b"example.com", "wss"), scheme="https") == [{"type": "websocket.accept"}]
    scope = _handshake(b"example.com", "ws", extensions={"websocket.http.response": {}})
    assert dict(_shake(scope, scheme="https")[0]["headers"])[b"location"] == b"https://example.com/chat?a=b"


@pytest.mark.parametrize(
    ("scheme", "location"), ((None, b"http://"), ("http", b"http://"), ("https", b"https://"))
)
def test_handshake_of_daphne_has_no_scheme(scheme, location):
    scope = _handshake(b"example.com")
    del scope["scheme"]
    assert _shake(scope, scheme=scheme) == [{"type": "websocket.accept"}]
    scope |= {"headers": [(b"host", b"www.example.com")], "extensions": {"websocket.http.response": {}}}
    headers = dict(_shake(scope, scheme=scheme)[0]["headers"])
    assert headers[b"location"] == location + b"example.com/chat?a=b"


# Frameworks


async def _hello(request):
    return PlainTextResponse(request.url.path)


async def _chat(websocket):
    await websocket.accept()
    await websocket.close()


def _starlette(**options):
    routes = [Route("/{path:path}", _hello), WebSocketRoute("/chat", _chat)]
    return Starlette(routes=routes, middleware=[Middleware(CanonicalHostMiddleware, **options)])


def test_starlette():
    with TestClient(_starlette(host="example.com"), base_url="http://www.example.com:81") as client:
        got = client.get("/a%2Fb?c=d", follow_redirects=False)
        assert got.headers["location"] == "http://example.com:81/a%2Fb?c=d"
        assert client.get("/x").text == "/x"


def test_starlette_without_a_host():
    assert TestClient(_starlette()).get("/x").text == "/x"


def test_starlette_handshake():
    with TestClient(_starlette(host="example.com")) as client:
        with client.websocket_connect("ws://example.com/chat"):
            pass
        with pytest.raises(WebSocketDisconnect), client.websocket_connect("ws://www.example.com/chat"):
            raise AssertionError("was accepted")


def test_under_a_mount_prefix():
    inner = CanonicalHostMiddleware(_starlette(), host="example.com")
    client = TestClient(Starlette(routes=[Mount("/app", inner)]), base_url="http://www.example.com")
    got = client.get("/app/x%2Fy?a", follow_redirects=False)
    assert got.headers["location"] == "http://example.com/app/x%2Fy?a"


def test_under_a_root_path():
    client = TestClient(_starlette(host="example.com"), root_path="/pre", base_url="http://www.example.com")
    assert client.get("/x", follow_redirects=False).headers["location"] == "http://example.com/pre/x"


def test_missing_starlette_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "starlette.types", None)
    for module in ("hostline.asgi",):
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(ImportError, match=re.escape('pip install "hostline[asgi]"')):
        importlib.import_module("hostline.asgi")
