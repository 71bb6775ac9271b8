"""The ASGI servers under test: how each is started, and on which event loop it runs the app."""

from dataclasses import dataclass

import server_kind
from server_kind import module

#: The app that all of them serve.
APP = "asgi_app:app"


@dataclass(frozen=True, eq=False)
class Kind(server_kind.Kind):
    """An ASGI server."""

    loop: str = "asyncio"
    is_http2: bool = False  # its client speaks HTTP/2, by prior knowledge
    workers: int = 1
    has_lifespan: bool = True


def _uvicorn(*options: str) -> tuple[str, ...]:
    return module("uvicorn", "--host=127.0.0.1", "--port={port}", "--log-level=warning", *options, APP)


def _hypercorn(loop: str) -> tuple[str, ...]:
    return module("hypercorn", "--bind=127.0.0.1:{port}", f"--worker-class={loop}", APP)


_GRANIAN = module("granian", "--interface=asgi", "--host=127.0.0.1", "--port={port}", APP)
_DAPHNE = module("daphne", "--bind=127.0.0.1", "--port={port}", APP)
_GUNICORN = module(
    "gunicorn",
    "--config=python:gunicorn_conf",
    "--bind=127.0.0.1:{port}",
    "--workers=1",
    "--worker-class=asgi",
    APP,
)

UVICORN = Kind("uvicorn (asyncio)", "uvicorn", _uvicorn("--loop=asyncio"))
UVICORN_UVLOOP = Kind(
    "uvicorn (uvloop)", "uvicorn", _uvicorn("--loop=uvloop"), "uvloop", requires=("uvloop",)
)
UVICORN_WORKERS = Kind("uvicorn --workers 2", "uvicorn", _uvicorn("--workers=2"), workers=2)
HYPERCORN = Kind("hypercorn (asyncio)", "hypercorn", _hypercorn("asyncio"))
HYPERCORN_UVLOOP = Kind(
    "hypercorn (uvloop)", "hypercorn", _hypercorn("uvloop"), "uvloop", requires=("uvloop",)
)
HYPERCORN_TRIO = Kind("hypercorn (trio)", "hypercorn", _hypercorn("trio"), "trio", requires=("trio",))
HYPERCORN_HTTP2 = Kind("hypercorn, HTTP/2", "hypercorn", _hypercorn("asyncio"), is_http2=True)
HYPERCORN_TRIO_HTTP2 = Kind(
    "hypercorn (trio), HTTP/2", "hypercorn", _hypercorn("trio"), "trio", is_http2=True, requires=("trio",)
)
GRANIAN = Kind("granian (asgi)", "granian", _GRANIAN)
GRANIAN_HTTP2 = Kind("granian (asgi), HTTP/2", "granian", _GRANIAN, is_http2=True)
DAPHNE = Kind("daphne", "daphne", _DAPHNE, has_lifespan=False)
GUNICORN = Kind("gunicorn -k asgi", "gunicorn", _GUNICORN, requires=("gunicorn.asgi",))

ALL = (
    UVICORN,
    UVICORN_UVLOOP,
    UVICORN_WORKERS,
    HYPERCORN,
    HYPERCORN_UVLOOP,
    HYPERCORN_TRIO,
    HYPERCORN_HTTP2,
    HYPERCORN_TRIO_HTTP2,
    GRANIAN,
    GRANIAN_HTTP2,
    DAPHNE,
    GUNICORN,
)
