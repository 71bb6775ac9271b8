"""The ASGI app that the servers serve: things that take long, behind the guard and not.

What the environment says is read by the guard (``HOSTLINE_*``) and by ``blocking``. Runs on
asyncio and on trio.

=================  ====================================================================
``/...``           behind the guard, as the environment configures it
``/bare/...``      without any guard
``/mounted/...``   behind both guards, under a mount prefix
``/wrapped/...``   behind a middleware that hands its own ``send`` to the guard
``/ready``         behind nothing
=================  ====================================================================

What becomes of a request's code is in its journal, the file ``journal-ID`` in the server's
folder, where ID is its ``X-Request-ID``: of several workers anyone may ask one, and of a
loop that is blocked too.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import anyio
from blocking import CALLS
from fastapi import FastAPI, Request

from hostline.asgi import CanonicalHostMiddleware, RequestTimeoutMiddleware

logging.basicConfig(level=logging.WARNING, format="%(levelname)s:%(name)s:%(process)d:%(message)s")

Query = dict[str, str]


class Journal:
    """Where the code of one request was run, and how it was left."""

    def __init__(self, scope: Any) -> None:
        headers = dict(scope["headers"])
        self._path = Path(f"journal-{headers.get(b'x-request-id', b'none').decode()}")
        self._told: dict[str, Any] = json.loads(self._path.read_text()) if self._path.exists() else {}

    def tell(self, **facts: Any) -> None:
        self._told.update(facts)
        unfinished = self._path.with_suffix(f".{threading.get_native_id()}")
        unfinished.write_text(json.dumps(self._told))
        unfinished.rename(self._path)

    @contextmanager
    def of_code(self) -> Iterator[None]:
        """Tell when it is entered, and how and after how long it is left."""
        began = time.monotonic()
        self.tell(pid=os.getpid(), thread=threading.get_native_id(), calls=self._told.get("calls", 0) + 1)
        left_by = "a return"
        try:
            yield
        except BaseException as error:
            left_by = type(error).__name__
            raise
        finally:
            self.tell(left_by=left_by, left_after=time.monotonic() - began)


async def send_whole(send: Any, answer: object = "ok", status: int = 200) -> None:
    body = json.dumps(answer).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def ok(query: Query, receive: Any, send: Any) -> None:
    await send_whole(send, {"pid": os.getpid()})


async def boom(query: Query, receive: Any, send: Any) -> None:
    raise ValueError("the app's own")


async def wait(query: Query, receive: Any, send: Any) -> None:
    await anyio.sleep(float(query["seconds"]))
    await send_whole(send)


async def read_socket(query: Query, receive: Any, send: Any) -> None:
    async with await anyio.connect_tcp("127.0.0.1", int(os.environ["SILENT_PORT"])) as stream:
        await stream.send(f"{query['seconds']}\n".encode())
        try:
            await stream.receive(1)
        except anyio.EndOfStream:
            pass
    await send_whole(send)


async def swallow(query: Query, receive: Any, send: Any) -> None:
    """Be cancelled, go on as if nothing had been, and answer."""
    end = anyio.current_time() + float(query["seconds"])
    try:
        await anyio.sleep_until(end)
    except anyio.get_cancelled_exc_class():
        with anyio.CancelScope(shield=True):  # trio would cancel each later wait too
            await anyio.sleep_until(end)
    await send_whole(send, "too late")


async def block_loop(query: Query, receive: Any, send: Any) -> None:
    CALLS[query["call"]](float(query["seconds"]))
    await send_whole(send)


async def chunks(query: Query, receive: Any, send: Any) -> None:
    """A body of chunks; before each it waits."""
    headers = [(b"content-type", b"text/plain")]
    if "length" in query:
        headers.append((b"content-length", query["length"].encode()))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for delay in query["delays"].split(","):
        await anyio.sleep(float(delay))
        await send({"type": "http.response.body", "body": b"chunk;", "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def upload(query: Query, receive: Any, send: Any) -> None:
    """Take all of the body, then tell how much it was."""
    taken, is_whole = 0, False
    while not is_whole:
        message = await receive()
        taken += len(message.get("body", b""))
        is_whole = not message.get("more_body", False)
    await send_whole(send, taken)


async def work_on(query: Query, receive: Any, send: Any) -> None:
    """Answer, and have something left to do."""
    await send_whole(send)
    await anyio.sleep(float(query["seconds"]))


ENDPOINTS = {
    each.__name__: each
    for each in (ok, boom, wait, read_socket, swallow, block_loop, chunks, upload, work_on)
}

with_threads = FastAPI()


@with_threads.get("/sync")
def sync(request: Request, call: str, seconds: float) -> str:
    """A ``def`` endpoint: it runs in a thread of anyio's pool."""
    with Journal(request.scope).of_code():
        CALLS[call](seconds)
    return "ok"


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """A WebSocket that says what it is told, and one that closes when it is told nothing more."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


async def live(scope: Any, receive: Any, send: Any) -> None:
    """The lifespan; leaves a trace of each of its events."""
    while True:
        event = (await receive())["type"]
        Path(event).touch()  # noqa: ASYNC240 - no loop notices
        await send({"type": f"{event}.complete"})
        if event == "lifespan.shutdown":
            return


NOT_HTTP = {"websocket": echo, "lifespan": live}


async def endpoints(scope: Any, receive: Any, send: Any) -> None:
    """The app that is guarded."""
    if scope["type"] in NOT_HTTP:
        await NOT_HTTP[scope["type"]](scope, receive, send)
        return
    path = scope["path"].rpartition("/")[2]
    if path == "sync":
        await with_threads({**scope, "path": "/sync", "root_path": ""}, receive, send)
        return
    with Journal(scope).of_code():
        query = dict(parse_qsl(scope["query_string"].decode()))
        await ENDPOINTS[path](query, receive, send)


guarded = RequestTimeoutMiddleware(endpoints)


async def wrapped(scope: Any, receive: Any, send: Any) -> None:
    async def send_on(message: Any) -> None:
        await send(message)

    await guarded(scope, receive, send_on)


async def ready(scope: Any, receive: Any, send: Any) -> None:
    await send_whole(send, "ready")


PREFIXES: dict[str, Any] = {
    "bare": endpoints,
    "wrapped": wrapped,
    "mounted": CanonicalHostMiddleware(guarded, "canonical.test:8080", ip_hosts="redirect"),
    "ready": ready,
}


async def app(scope: Any, receive: Any, send: Any) -> None:
    """What the servers serve."""
    served = guarded
    if scope["type"] != "lifespan":
        served = PREFIXES.get(scope["path"].split("/")[1], guarded)
    await served(scope, receive, send)
