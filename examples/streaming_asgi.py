"""Server-sent events under ASGI: one source that goes on, and one that falls silent and is cut.

    pip install "hostline[asgi]" sse-starlette uvicorn
    HOSTLINE_SERVICE_TIMEOUT=2 HOSTLINE_STREAM_TIMEOUT=2 \
        uvicorn --port 8000 --app-dir examples streaming_asgi:app

    curl -iN http://localhost:8000/        # 200, hello
    curl -iN http://localhost:8000/clock   # 200 after 3 s, data: 14
    curl -iN http://localhost:8000/silent  # 200, cut off after 2 s; the log says: state=timed_out
"""

import asyncio
import logging

from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from hostline.asgi import from_env


async def home(request):
    return PlainTextResponse("hello")


async def clock(request):
    """Three seconds, which is longer than the service timeout; but never two without an event."""

    async def ticks():
        for number in range(15):
            yield {"data": number}
            await asyncio.sleep(0.2)

    return EventSourceResponse(ticks())


async def silent(request):
    async def events():
        yield {"data": "wait for it"}
        await asyncio.Event().wait()

    return EventSourceResponse(events())


logging.basicConfig(level=logging.INFO)
app = from_env(Starlette(routes=[Route("/", home), Route("/clock", clock), Route("/silent", silent)]))
