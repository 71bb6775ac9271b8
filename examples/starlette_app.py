"""Starlette behind both guards, in its list of middleware.

The settings are in the code here; arguments and variables may be mixed.

    pip install "hostline[asgi]" uvicorn
    uvicorn --port 8000 --app-dir examples starlette_app:app

    curl -i http://127.0.0.1:8000/         # 301, location: http://localhost:8000/
    curl -i http://127.0.0.1:8000/healthz  # 200, ok
    curl -i http://localhost:8000/         # 200, hello
    curl -i http://localhost:8000/slow     # 504 after 2 s; the log says: in slow
"""

import asyncio
import logging

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from hostline.asgi import CanonicalHostMiddleware, RequestTimeoutMiddleware


async def home(request):
    return PlainTextResponse("hello")


async def healthz(request):
    return PlainTextResponse("ok")


async def slow(request):
    await asyncio.sleep(3600)


logging.basicConfig(level=logging.INFO)
app = Starlette(
    routes=[Route("/", home), Route("/healthz", healthz), Route("/slow", slow)],
    middleware=[  # the first one is the outermost
        # A load balancer's probes come to the address of the machine: they are not redirected.
        Middleware(CanonicalHostMiddleware, "localhost", ip_hosts="redirect", exempt_paths=["/healthz"]),
        Middleware(RequestTimeoutMiddleware, service_timeout=2),
    ],
)
