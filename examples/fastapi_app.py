"""FastAPI behind both guards, configured by environment variables.

    pip install "hostline[asgi]" fastapi uvicorn
    HOSTLINE_CANONICAL_HOST=localhost HOSTLINE_CANONICAL_IP_HOSTS=redirect HOSTLINE_SERVICE_TIMEOUT=2 \
        uvicorn --app-dir examples fastapi_app:app

http://127.0.0.1:8000/ goes to http://localhost:8000/. http://localhost:8000/slow answers 504
after 2 s, and the log holds the line below at which it was.
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
