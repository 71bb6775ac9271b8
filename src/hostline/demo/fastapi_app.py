"""The demo's FastAPI app: ``app``, and ``guarded``, the same behind both guards."""

import asyncio
import logging

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

from hostline.asgi import from_env

logging.basicConfig()  # hostline logs to logging, which would show the bare message alone

app = FastAPI()
counts = {"calls": 0, "slow_begun": 0, "slow_ended": 0}


@app.get("/", response_class=PlainTextResponse)
async def home() -> str:
    """A normal page."""
    counts["calls"] += 1
    return "Hello from FastAPI.\n"


@app.get("/slow")
async def slow() -> str:
    """An endpoint that waits for something that does not come."""
    counts["slow_begun"] += 1
    try:
        await asyncio.sleep(10)
    finally:
        counts["slow_ended"] += 1
    return "at last"


@app.get("/counts")
async def show_counts() -> dict[str, int]:
    """What has reached the app."""
    return counts


guarded = from_env(app)
