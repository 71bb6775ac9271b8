"""How a response is cut whose server would not do it. That the real servers are so: tests/servers."""

import asyncio
import sys
from functools import partial
from types import SimpleNamespace

import pytest

from hostline import RequestTimeoutError, _asgi_cuts
from hostline.asgi import RequestTimeoutMiddleware
from timeouts import SHORT, scope


class HTTPStream:
    """hypercorn's, as far as it counts here."""

    stream_id = 7

    def __init__(self, protocol):
        self.send = protocol.stream_send

    async def app_send(self, message):
        pass


class H2Protocol:
    def __init__(self, *, has_data=True):
        self.done = []
        self.connection = SimpleNamespace(reset_stream=lambda *what: self.done.append(("reset", *what)))
        self.stream_buffers = {HTTPStream.stream_id: self} if has_data else {}

    async def handle(self, event):
        self.done.append(("flush", event.data))

    async def close(self):
        self.done.append(("close buffer",))

    async def stream_send(self, event):
        self.done.append(("end", event.stream_id))


class H11Protocol:
    done = ()

    async def stream_send(self, event):
        pass


class WebRequest:
    """daphne's."""

    def __init__(self, channel):
        self.done = []
        self.channel = channel
        self.server = SimpleNamespace(protocol_disconnected=lambda _: self.done.append("disconnected"))

    def loseConnection(self):  # noqa: N802 - Twisted's name
        self.done.append("lost")


@pytest.fixture(autouse=True)
def _servers(monkeypatch):
    for module, names in {
        "hypercorn.events": {"RawData": SimpleNamespace},
        "hypercorn.protocol.events": {"EndBody": SimpleNamespace},
        "hypercorn.protocol.http_stream": {"HTTPStream": HTTPStream},
        "hypercorn.protocol.h2": {"H2Protocol": H2Protocol},
        "daphne.http_protocol": {"WebRequest": WebRequest},
    }.items():
        monkeypatch.setitem(sys.modules, module, SimpleNamespace(**names))


async def _begin_and_stall(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await asyncio.sleep(20)


_guarded = RequestTimeoutMiddleware(_begin_and_stall, service_timeout=SHORT)


async def _handed_on(scope, receive, send):
    async def send_on(message):
        await send(message)

    await _guarded(scope, receive, send_on)


@pytest.fixture(params=(_guarded, _handed_on), ids=("direct", "another middleware between"))
def serve(request):
    """Serve a request to its cut; the app's ``send`` is the server's, or one around it."""

    def serve(send):
        with pytest.raises(RequestTimeoutError):
            asyncio.run(request.param(scope(), None, send))

    return serve


async def _sent(*_):
    await asyncio.sleep(0)


@pytest.mark.parametrize("has_data", (True, False))
def test_hypercorn_s_stream_is_reset(serve, has_data):
    protocol = H2Protocol(has_data=has_data)
    serve(HTTPStream(protocol).app_send)
    cleared = [("close buffer",), ("end", 7)] if has_data else []
    assert protocol.done == [("reset", 7, 2), ("flush", b""), *cleared]


def test_hypercorn_s_connection_by_another_protocol_is_left_to_it(serve):
    protocol = H11Protocol()
    serve(HTTPStream(protocol).app_send)
    assert protocol.done == ()


@pytest.mark.parametrize("version", ("HTTP/1.1", "HTTP/2"))
def test_daphne_s_connection_or_stream_is_closed(serve, version):
    request = WebRequest(SimpleNamespace())
    if version == "HTTP/2":
        request.channel.abortConnection = lambda: request.done.append("reset")
    serve(partial(_sent, request))
    assert request.done == ["reset" if version == "HTTP/2" else "lost", "disconnected"]


@pytest.mark.parametrize("bound", ((), (None,)), ids=("nothing bound", "something bound"))
def test_another_server_is_left_alone(serve, bound):
    serve(partial(_sent, *bound))
    serve(_sent)


def test_a_response_that_has_not_begun_is_not_cut():
    async def stall(scope, receive, send):
        await asyncio.sleep(20)

    protocol = H2Protocol()
    guarded = RequestTimeoutMiddleware(stall, service_timeout=SHORT, mode="raise")
    with pytest.raises(RequestTimeoutError):
        asyncio.run(guarded(scope(), None, HTTPStream(protocol).app_send))
    assert protocol.done == []


def test_a_server_that_has_changed_gets_the_exception_alone(serve, caplog):
    protocol = H2Protocol()
    del protocol.connection
    serve(HTTPStream(protocol).app_send)
    assert "could not be cut" in caplog.text


def test_servers_that_are_not_there(monkeypatch, serve):
    for module in ("hypercorn.protocol.http_stream", "hypercorn.protocol.h2", "daphne.http_protocol"):
        monkeypatch.delitem(sys.modules, module)
    assert list(_asgi_cuts._of_daphne(partial(_sent, WebRequest(None)))) == []
    protocol = H2Protocol()
    serve(HTTPStream(protocol).app_send)
    assert protocol.done == []
