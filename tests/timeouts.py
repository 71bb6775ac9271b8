"""What the tests of the timeout share: strict servers, slow apps, observers that remember."""

import asyncio
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from io import BytesIO
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

from hostline import _abortable, _deadlines, _native, _requests
from hostline._breaker import Breaker
from hostline._deadlines import watchdog
from hostline._requests import RequestDetails, RequestEvent, State, reporter

LONG = 30.0  # a limit that no test meets
SHORT = 0.03  # one that every slow app meets


def _start_traced_thread(run: Callable[..., object], args: tuple[object, ...]) -> None:
    """Coverage traces the threads that ``threading`` starts, and no others."""

    def run_traced(*args: object) -> None:
        sys.settrace(threading.gettrace())
        run(*args)

    _native.start_native_thread(run_traced, args)


# While an exception is pending for a thread that waits, CPython 3.11 goes round and round in
# any other that begins a traced function: traced, the watchdog would never come to wake it.
if threading.gettrace() is not None and sys.version_info >= (3, 12):
    for module in (_abortable, _deadlines, _requests):
        module.start_native_thread = _start_traced_thread  # type: ignore[attr-defined]


def eventually(holds: Callable[[], object], within: float = 20.0) -> bool:
    """Whether a condition comes to hold; generous, for it costs nothing where it does."""
    end = time.monotonic() + within
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.001)
    return True


class NotStoppedError(BaseException):
    """Nobody has stopped this code. No Exception: a guard would take it for the app's clean-up."""


def linger(seconds: float = 10.0) -> None:
    """Be slow in small steps, as code that can be interrupted anywhere; bounded."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.001)
    raise NotStoppedError


def late(then: Callable[[], Any] = linger) -> Any:
    """Have the deadline come soon, now that the app has got here, however long that took; and run past it."""
    request = _requests.current_request.get()
    assert request is not None
    request.set_timeout(request.service + SHORT)
    return then()


def in_thread(call: Callable[[], Any]) -> Any:
    """What ``call`` answers or raises in a thread of its own."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.extend((call(), None))
        except BaseException as error:
            outcome.extend((None, error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    assert outcome, "still running"
    answer, error = outcome
    if error is not None:
        raise error
    return answer


class BareRequest(RequestDetails):
    """The least that a protocol adds."""

    wait: float | None = None

    def __init__(self, given_id: str = "", method: str = "GET", path: str = "/") -> None:
        super().__init__()
        self.started = time.monotonic()
        self.method = method
        self.given_id = given_id
        self._path = path

    @property
    def path(self) -> str:
        return self._path

    def _raw_id(self) -> str:
        return self.given_id


class Recorder:
    """An observer that remembers."""

    is_immediate = True  # so that a test need not wait for it

    def __init__(self) -> None:
        self.events: list[RequestEvent] = []

    def wants(self, state: StrEnum) -> bool:
        """All but the beats of one that is held up on a machine with much else to do."""
        return state is not State.ACTIVE

    def __call__(self, event: RequestEvent) -> None:
        self.events.append(event)

    @property
    def states(self) -> list[State]:
        """All states so far, those that the reporter's thread still has to tell included."""
        assert reporter.flush(20)
        return [event.state for event in self.events]

    def count(self, state: State) -> int:
        """How many requests have entered it; those that follow one another may be told out of turn."""
        return self.states.count(state)

    def endings(self) -> Counter[str]:
        """How often each request has ended."""
        assert reporter.flush(20)
        return Counter(each.id for each in self.events if each.state not in (State.READY, State.ACTIVE))


def entries_left() -> int:
    """How many requests of threads the watchdog still has on its lists."""
    every = [watchdog._odd, *(lane.entries for lane in list(watchdog._lanes.values()))]
    return sum(isinstance(entry, RequestDetails) for claims in every for entry in list(claims))


def breakers_left() -> int:
    """How many aborts the watchdog still looks after."""
    return sum(isinstance(entry, Breaker) for entry in list(watchdog._odd))


# WSGI


def environ(path: str = "/", method: str = "GET", **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"REQUEST_METHOD": method, "SCRIPT_NAME": "", "PATH_INFO": path}
    made |= {"QUERY_STRING": "", "wsgi.input": BytesIO()}
    setup_testing_defaults(made)
    return {**made, **more}


@dataclass
class Served:
    """What a WSGI server got: ``error`` is what came out of the app or its iterator."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    error: BaseException | None = None
    heads_sent: int = 0


class Server:
    """The server's side of one WSGI call, to the letter of PEP 3333."""

    def __init__(self) -> None:
        self.served = Served()
        self._head: tuple[str, list[tuple[str, str]]] | None = None
        self._head_sent = False

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        if exc_info is not None and self._head_sent:
            try:
                raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        assert exc_info is not None or self._head is None, "a second head"
        self._head = (status, headers)
        return self.write

    def write(self, chunk: bytes) -> None:
        assert self._head is not None, "a body without a head"
        if not self._head_sent:
            self._head_sent = True
            status, headers = self._head
            self.served.status = int(status.partition(" ")[0])
            self.served.headers = {name.lower(): value for name, value in headers}
            assert len(self.served.headers) == len(headers), "a header twice"
            self.served.heads_sent += 1
        self.served.body += chunk

    def run(self, app: Any, environ: dict[str, Any]) -> Served:
        self.environ = environ  # as servers do, so that an environ that holds what is ours is a circle
        try:
            result = app(environ, self.start_response)
            try:
                for chunk in result:
                    if chunk:
                        self.write(chunk)
                if not self._head_sent:
                    self.write(b"")
            finally:
                if hasattr(result, "close"):
                    result.close()
        except BaseException as error:
            # Without the frames, which hold the app's objects.
            self.served.error = error.with_traceback(None)
        return self.served


def serve(app: Any, environ_: dict[str, Any] | None = None, *, validate: bool = True) -> Served:
    """One call of a WSGI app, by a strict server behind wsgiref's validator."""
    served = Server().run(validator(app) if validate else app, environ() if environ_ is None else environ_)
    assert served.heads_sent <= 1
    return served


def hello(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"" if environ["REQUEST_METHOD"] == "HEAD" else b"hello"]


def slow(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    linger()
    return hello(environ, start_response)


# ASGI


def scope(
    path: str = "/", method: str = "GET", headers: Iterable[tuple[bytes, bytes]] = (), **more: Any
) -> Any:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": list(headers),
        **more,
    }


class Client:
    """The server's side of one ASGI call; takes nothing out of order and nothing after the end."""

    def __init__(self, incoming: Iterable[Any] = ({"type": "http.request", "body": b""},)) -> None:
        self.messages: list[dict[str, Any]] = []
        self.complete = asyncio.Event()
        self.error: BaseException | None = None
        self._incoming = list(incoming)

    async def send(self, message: dict[str, Any]) -> None:
        kind = message["type"].removeprefix("http.response.")
        assert not self.is_complete, f"{kind} after the end"
        if kind == "start":
            assert not self.messages, "a second start"
            assert all(type(part) is bytes for pair in message["headers"] for part in pair)
            assert all(name == name.lower() for name, _ in message["headers"])
        elif kind in ("body", "pathsend"):
            assert self.messages, "a body without a start"
            if not message.get("more_body", False):
                self.complete.set()
        self.messages.append(message)
        await asyncio.sleep(0)  # as servers write at once, and then wait for their buffer

    async def receive(self) -> Any:
        if self._incoming:
            message = self._incoming.pop(0)
            return await message() if callable(message) else message
        return await asyncio.Event().wait()

    @property
    def is_complete(self) -> bool:
        return self.complete.is_set()

    @property
    def status(self) -> int:
        return 0 if not self.messages else self.messages[0]["status"]

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode("latin-1") for name, value in self.messages[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages)

    async def ask(self, app: Any, scope_: Any = None) -> "Client":
        """Call the app and keep what it raises; a cancellation from outside comes through."""
        task = asyncio.current_task()
        assert task is not None
        before = task.cancelling()
        try:
            await app(scope() if scope_ is None else scope_, self.receive, self.send)
        except asyncio.CancelledError:
            if task.cancelling() > before:
                raise
            self.error = asyncio.CancelledError("ours, and it has got out")
        except BaseException as error:
            self.error = error.with_traceback(None)
        assert task.cancelling() == before
        return self


async def answer(send: Any, *chunks: bytes, status: int = 200) -> None:
    """The whole of a plain response; each chunk in a message of its own."""
    await send(
        {"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]}
    )
    for number, chunk in enumerate(chunks, 1):
        await send({"type": "http.response.body", "body": chunk, "more_body": number < len(chunks)})


async def hello_asgi(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, b"hello")


async def slow_asgi(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.sleep(20)
    raise NotStoppedError


@contextmanager
def switch_interval(seconds: float) -> Iterator[None]:
    """Have threads take turns more often, so that more interleavings are met."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(seconds)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def in_lower_case(app: Any) -> Any:
    """The app with the names of its headers so, which Django leaves to the server."""

    async def lowered(scope: Any, receive: Any, send: Any) -> None:
        async def send_on(message: Any) -> None:
            headers = [(name.lower(), value) for name, value in message.get("headers", ())]
            await send({**message, "headers": headers})

        await app(scope, receive, send_on)

    return lowered
