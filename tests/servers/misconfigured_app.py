"""A FastAPI app whose guards are configured by the environment, wrongly."""

from fastapi import FastAPI

from hostline.asgi import CanonicalHostMiddleware, RequestTimeoutMiddleware

app = FastAPI()
app.add_middleware(RequestTimeoutMiddleware)
app.add_middleware(CanonicalHostMiddleware)
