"""The demo's Flask app: ``app``, and ``guarded``, the same behind both guards."""

import logging
from time import monotonic

from flask import Flask

from hostline.wsgi import from_env

logging.basicConfig()  # hostline logs to logging, which would show the bare message alone

app = Flask(__name__)
counts = {"calls": 0, "slow_begun": 0, "slow_ended": 0}


@app.get("/")
def home() -> str:
    """A normal page."""
    counts["calls"] += 1
    return "Hello from Flask.\n"


@app.get("/slow")
def slow() -> dict[str, int]:
    """A view that should have been a background job."""
    counts["slow_begun"] += 1
    try:
        return {"total": add_up(seconds=10)}
    finally:
        counts["slow_ended"] += 1


def add_up(seconds: float) -> int:
    """Keep the processor busy."""
    total, end = 0, monotonic() + seconds
    while monotonic() < end:
        total += sum(range(1_000))
    return total


@app.get("/counts")
def show_counts() -> dict[str, int]:
    """What has reached the app."""
    return counts


guarded = from_env(app)
