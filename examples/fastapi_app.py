"""FastAPI behind both guards: an endpoint that waits, and one that keeps a thread of the pool busy.

    pip install "hostline[asgi]" fastapi uvicorn
    HOSTLINE_CANONICAL_HOST=localhost HOSTLINE_CANONICAL_IP_HOSTS=redirect HOSTLINE_SERVICE_TIMEOUT=2 \
        uvicorn --port 8000 --app-dir examples fastapi_app:app

    curl -i http://127.0.0.1:8000/      # 301, location: http://localhost:8000/
    curl -i http://localhost:8000/      # 200, hello
    curl -i http://localhost:8000/slow  # 504 after 2 s; the log says: in slow
    curl -i http://localhost:8000/busy  # 504 after 2 s; the log says: in busy
"""

import asyncio
import logging

from fastapi import FastAPI

from hostline.asgi import CanonicalHostMiddleware, RequestTimeoutMiddleware

logging.basicConfig(level=logging.INFO)
app = FastAPI()
# The last one added is the outermost: a wrong host is redirected before anything is timed.
app.add_middleware(RequestTimeoutMiddleware)
app.add_middleware(CanonicalHostMiddleware)


@app.get("/")
async def home():
    return {"hello": "world"}


@app.get("/slow")
async def slow():
    await asyncio.sleep(3600)


@app.get("/busy")
def busy():
    total = 0
    while True:
        total += 1
