"""HTTP clients that never wait longer than their request may, over a real socket."""

import asyncio
import pickle
import socket
import threading
from contextlib import closing, contextmanager, suppress
from functools import partial
from wsgiref.simple_server import WSGIRequestHandler, make_server

import httpx
import httpx2
import pytest
import requests

import hostline
from hostline._requests import State
from hostline.integrations import _budgets
from hostline.integrations.httpx import HEADER, AsyncDeadlineTransport, DeadlineTransport
from hostline.integrations.requests import DeadlineAdapter
from hostline.wsgi import RequestTimeoutMiddleware
from loops import run  # noqa: F401 - a fixture
from test_deadline_api import ask_async
from timeouts import LONG, Recorder, hello, in_thread, linger, serve, slow

pytestmark = pytest.mark.timed

HTTPX = (httpx, httpx2)


@pytest.mark.parametrize(
    "make", (partial(DeadlineTransport, None), partial(AsyncDeadlineTransport, None), DeadlineAdapter)
)
@pytest.mark.parametrize("header", (5, "", "a b", "a\n"))
def test_a_header_has_a_name(make, header):
    with pytest.raises(
        hostline.SettingsError, match=r"^header=.+ is no name of a header\. Write the name of a header"
    ):
        make(header=header)


@contextmanager
def service(answer=b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"):
    """A server that remembers what it was asked; without an answer it keeps silent."""
    asked, held = [], []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run():
            try:
                while True:
                    connection, _ = listener.accept()
                    held.append(connection)
                    asked.append(connection.recv(65536).decode().lower())
                    if answer:
                        connection.sendall(answer)
                        connection.close()
            except OSError:
                return

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/", asked
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in held:
                connection.close()


def ask(function, timeout=LONG):
    """What a function answers or raises as a request."""
    results = []

    def app(environ, start_response):
        try:
            results.append(function())
        except Exception as error:
            results.append(error)
        return hello(environ, start_response)

    in_thread(lambda: serve(RequestTimeoutMiddleware(app, service_timeout=timeout, observers=())))
    return results[0]


def budget(asked, header=HEADER):
    lines = dict(line.split(": ", 1) for line in asked.split("\r\n")[1:] if line)
    return lines.get(header)


def by_requests(url, header=None, **options):
    with requests.Session() as session:
        session.mount("http://", DeadlineAdapter(header=header))
        return session.get(url, **options).text


def by_httpx(library):
    def get(url, header=None, **options):
        transport = DeadlineTransport(library.HTTPTransport(), header=header)
        with library.Client(transport=transport) as client:
            return client.get(url, **options).text

    return get


CLIENTS = {"requests": by_requests, "httpx": by_httpx(httpx), "httpx2": by_httpx(httpx2)}


@pytest.fixture(params=CLIENTS)
def get(request):
    return CLIENTS[request.param]


def test_a_call_in_time(get):
    with service() as (url, asked):
        assert get(url, header=HEADER) == "ok"
        assert budget(asked[0]) is None
        assert ask(lambda: get(url, header=HEADER)) == "ok"
        assert 0 < int(budget(asked[1])) <= LONG * 1000
        assert ask(lambda: get(url)) == "ok"
        assert budget(asked[2]) is None
        assert ask(lambda: get(url, header=HEADER), timeout=None) == "ok"
        assert budget(asked[3]) is None


def test_what_the_caller_says_itself_counts(get):
    with service() as (url, asked):
        assert ask(lambda: get(url, header=HEADER, headers={HEADER: "7"})) == "ok"
    assert budget(asked[0]) == "7"


def test_a_shorter_timeout_is_kept(get):
    with service(answer=b"") as (url, _):
        assert "timed out" in str(ask(lambda: get(url, timeout=0.05)))


def nearly_over(call):
    """Without a watchdog, so that it is the client that gives up."""

    def work():
        hostline.set_timeout(None)
        request = hostline.current()
        request.deadline = request.started + 0.2
        return call()

    return work


@pytest.mark.parametrize("timeout", (None, LONG))
def test_no_client_waits_longer_than_is_left(get, timeout):
    with service(answer=b"") as (url, _):
        assert "timed out" in str(ask(nearly_over(lambda: get(url, timeout=timeout))))


def test_requests_has_two_timeouts():
    with service(answer=b"") as (url, _):
        assert "timed out" in str(ask(nearly_over(lambda: by_requests(url, timeout=(None, LONG)))))


def test_what_goes_to_requests_adapter_by_position():
    with service(answer=b"") as (url, _), closing(DeadlineAdapter()) as adapter:
        prepared = requests.Request("GET", url).prepare()
        assert "timed out" in str(ask(nearly_over(lambda: adapter.send(prepared, False, LONG))))


def test_urllib3_s_own_timeouts_are_left_alone():
    from urllib3.util import Timeout  # noqa: PLC0415 - requests brings it

    with service() as (url, _):
        assert ask(lambda: by_requests(url, timeout=Timeout(LONG))) == "ok"


def test_an_adapter_can_be_pickled():
    adapter = pickle.loads(pickle.dumps(DeadlineAdapter(header=HEADER)))
    assert adapter._header == HEADER


@pytest.mark.parametrize("library", HTTPX)
def test_async_clients(run, library):  # noqa: F811
    async def get(url, **options):
        transport = AsyncDeadlineTransport(library.AsyncHTTPTransport(), header=HEADER)
        async with library.AsyncClient(transport=transport) as client:
            return (await client.get(url, **options)).text

    async def hurried(url):
        hostline.set_timeout(None)
        request = hostline.current()
        request.deadline = request.started + 0.2
        with pytest.raises(library.TimeoutException):
            await get(url, timeout=None)
        return "gave up"

    with service() as (url, asked):
        assert run(ask_async(lambda: get(url)))[0] == "ok"
        assert 0 < int(budget(asked[0])) <= LONG * 1000
    with service(answer=b"") as (url, _):
        assert run(ask_async(lambda: hurried(url)))[0] == "gave up"


@pytest.mark.parametrize("library", HTTPX)
def test_transports_are_closed_by_hand(library):
    DeadlineTransport(library.HTTPTransport()).close()
    asyncio.run(AsyncDeadlineTransport(library.AsyncHTTPTransport()).aclose())


@pytest.mark.parametrize(
    ("header", "seconds", "text"),
    (
        (HEADER, 1.2345, "1235"),
        (HEADER, 0, "1"),
        ("grpc-timeout", 2, "2000m"),
        ("gRPC-Timeout", 1e9, "99999999m"),
        ("x-envoy-expected-rq-timeout-ms", 15, "15000"),
    ),
)
def test_what_a_header_says(header, seconds, text):
    assert _budgets.written(header, seconds) == text


class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass


def test_a_deadline_travels(get):
    """Two services in a row: the second stops at the first one's deadline."""
    seen = Recorder()
    second = RequestTimeoutMiddleware(
        slow, service_timeout=LONG, trust_timeout_header=HEADER, observers=[seen]
    )
    with make_server("127.0.0.1", 0, second, handler_class=Quiet) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/"

        def first(environ, start_response):
            with suppress(Exception):  # its client may give up in the very moment of its abort
                get(url, header=HEADER)
            linger()

        guarded = RequestTimeoutMiddleware(first, service_timeout=1, observers=())
        assert in_thread(lambda: serve(guarded)).status == 504
        thread.join()
    assert seen.states == [State.READY, State.TIMED_OUT]
    assert seen.events[-1].timeout <= 1
    assert seen.events[-1].service < LONG / 2
