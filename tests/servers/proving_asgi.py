"""The ASGI app of the trials, behind both guards; ``proving`` has what is behind none."""

import json
import queue
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl

import anyio
import anyio.to_thread
import proving

from hostline.asgi import CanonicalHostMiddleware, RequestTimeoutMiddleware

Query = dict[str, str]


async def send_whole(send: Any, text: str) -> None:
    body = text.encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def ok(query: Query, receive: Any) -> str:
    return "ok"


async def wait(query: Query, receive: Any) -> str:
    await anyio.sleep(float(query["seconds"]))
    return "ok"


async def slow(query: Query, receive: Any) -> str:
    """Wait for what never comes."""
    await anyio.sleep(60)
    return "too late"


async def busy(query: Query, receive: Any) -> str:
    """Compute without an end, in a pool's thread."""
    return await anyio.to_thread.run_sync(compute)


async def upload(query: Query, receive: Any) -> str:
    """Take all of the body, then tell how much it was."""
    taken, is_whole = 0, False
    while not is_whole:
        message = await receive()
        taken += len(message.get("body", b""))
        is_whole = not message.get("more_body", False)
    return str(taken)


async def boom(query: Query, receive: Any) -> str:
    raise ValueError("the app's own")


async def gulp(query: Query, receive: Any) -> str:
    return str(proving.gulp())


def compute() -> str:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        sum(range(20))
    return "too late"


def wait_in_thread() -> None:
    queue.Queue[str]().get(timeout=60)


async def stream(query: Query, send: Any) -> None:
    """Chunks, a little apart."""
    for _ in range(int(query.get("chunks", "5"))):
        await send({"type": "http.response.body", "body": b"chunk;", "more_body": True})
        await anyio.sleep(0.001)


async def stall(query: Query, send: Any) -> None:
    """A chunk, and then none for ever so long."""
    await send({"type": "http.response.body", "body": b"chunk;", "more_body": True})
    await anyio.to_thread.run_sync(wait_in_thread)


WHOLE: dict[str, Callable[[Query, Any], Awaitable[str]]] = {
    f"/{each.__name__}": each for each in (ok, wait, slow, busy, upload, boom, gulp)
}
STREAMED = {"/stream": stream, "/stall": stall}


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return  # no lifespan, no WebSockets
    path, query = scope["path"], dict(parse_qsl(scope["query_string"].decode("latin-1")))
    if path in STREAMED:
        head = [(b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await STREAMED[path](query, send)
        await send({"type": "http.response.body", "body": b""})
    else:
        await send_whole(send, await WHOLE[path](query, receive) if path in WHOLE else "nothing here")


guarded = CanonicalHostMiddleware(RequestTimeoutMiddleware(app, observers=proving.observers), proving.HOST)


async def live(scope: Any, receive: Any, send: Any) -> None:
    """The lifespan, in which nothing happens."""
    while True:
        event = (await receive())["type"]
        await send({"type": f"{event}.complete"})
        if event == "lifespan.shutdown":
            return


async def outermost(scope: Any, receive: Any, send: Any) -> None:
    """What the servers serve."""
    if scope["type"] == "lifespan":
        await live(scope, receive, send)
        return
    unguarded = proving.UNGUARDED.get(scope["path"])
    if unguarded is None:
        await guarded(scope, receive, send)
        return
    query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
    await send_whole(send, json.dumps(unguarded(query)))
