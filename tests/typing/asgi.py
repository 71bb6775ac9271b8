"""Type-checked, never run: the ASGI adapter as users write it."""

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Scope

from hostline.asgi import RESPONSES, CanonicalHostMiddleware, RequestTimeoutMiddleware, from_env


def _host_for(scope: Scope) -> str | None:
    return "www.example.com" if scope["path"] == "/" else None


starlette = Starlette(
    middleware=[
        Middleware(CanonicalHostMiddleware, host="www.example.com", scheme="https"),
        Middleware(RequestTimeoutMiddleware, service_timeout=10),
    ]
)
fastapi = FastAPI(responses=RESPONSES)
fastapi.add_middleware(RequestTimeoutMiddleware)
fastapi.add_middleware(CanonicalHostMiddleware, host_for=_host_for)

wrapped: ASGIApp = from_env(fastapi)
wrapped = RequestTimeoutMiddleware(wrapped, service_timeout=10)
wrapped = CanonicalHostMiddleware(wrapped, "www.example.com")

CanonicalHostMiddleware(wrapped, "www.example.com", scheme="ftp")  # type: ignore[arg-type]
