"""An ASGI app without a framework, behind both guards, on hypercorn.

    pip install "hostline[asgi]" hypercorn
    HOSTLINE_CANONICAL_HOST=localhost HOSTLINE_CANONICAL_IP_HOSTS=redirect HOSTLINE_SERVICE_TIMEOUT=2 \
        hypercorn --bind 127.0.0.1:8000 examples/plain_asgi:app

    curl -i http://127.0.0.1:8000/      # 301, location: http://localhost:8000/
    curl -i http://localhost:8000/      # 200, hello
    curl -i http://localhost:8000/slow  # 504 after 2 s; the log says: in slow
"""

import asyncio
import logging

from hostline.asgi import from_env


async def hello(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])  # as a server expects it of an app without a lifespan
    if scope["path"] == "/slow":
        await slow()
    headers = [(b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"hello\n"})


async def slow():
    await asyncio.Event().wait()  # nobody will ever set it


logging.basicConfig(level=logging.INFO)
app = from_env(hello)
