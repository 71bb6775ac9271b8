"""FastAPI with SQLAlchemy's pools on a real PostgreSQL, and a service that calls another one.

``DATABASE_URL`` names the server, ``DATABASE_APPLICATION`` this client of it, and ``NEXT_PORT`` the
service that ``/through`` calls. ``/good/N`` and ``/slow/SECONDS/N`` answer N, by way of the database, on
a thread; the same below ``/async`` on the event loop.
"""

import os
from typing import Annotated

import httpx
from fastapi import FastAPI, Header, Response
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine

from hostline.asgi import RequestTimeoutMiddleware
from hostline.integrations.httpx import HEADER, AsyncDeadlineTransport, DeadlineTransport
from hostline.integrations.sqlalchemy import attach

URL = os.environ["DATABASE_URL"]
NEXT = f"http://127.0.0.1:{os.environ.get('NEXT_PORT', '9')}"

engine = create_engine(URL, pool_size=4, max_overflow=0)
async_engine = create_async_engine(
    URL.partition("&application_name")[0].replace("+psycopg", "+asyncpg"),
    pool_size=4,
    max_overflow=0,
    connect_args={"server_settings": {"application_name": os.environ["DATABASE_APPLICATION"]}},
)
attach(engine)
attach(async_engine)
client = httpx.Client(transport=DeadlineTransport(httpx.HTTPTransport(), header=HEADER), base_url=NEXT)
async_client = httpx.AsyncClient(
    transport=AsyncDeadlineTransport(httpx.AsyncHTTPTransport(), header=HEADER), base_url=NEXT
)

query = text("SELECT pg_sleep(:seconds)::text, CAST(:number AS integer)")
site = FastAPI()


@site.get("/good/{number}")
@site.get("/slow/{seconds}/{number}")
def ask(number: int, seconds: float = 0.0):
    with engine.begin() as connection:
        return connection.execute(query, {"seconds": seconds, "number": number}).one()[1]


@site.get("/async/good/{number}")
@site.get("/async/slow/{seconds}/{number}")
async def ask_async(number: int, seconds: float = 0.0):
    async with async_engine.begin() as connection:
        return (await connection.execute(query, {"seconds": seconds, "number": number})).one()[1]


@site.get("/pool")
def pool():
    return {"checked_out": engine.pool.checkedout(), "status": engine.pool.status()}


@site.get("/async/pool")
async def async_pool():
    return {"checked_out": async_engine.pool.checkedout(), "status": async_engine.pool.status()}


@site.get("/through")
def through(x_request_id: Annotated[str, Header()]):
    answer = client.get("/slow/30.0/7", headers={"X-Request-ID": x_request_id})
    return Response(answer.content, answer.status_code)


@site.get("/async/through")
async def through_async(x_request_id: Annotated[str, Header()]):
    answer = await async_client.get("/slow/30.0/7", headers={"X-Request-ID": x_request_id})
    return Response(answer.content, answer.status_code)


@site.get("/ready")
async def ready():
    """The first connection of all is slow: SQLAlchemy learns about the server."""
    with engine.begin() as connection:
        connection.execute(text("SELECT 1"))
    async with async_engine.begin() as connection:
        await connection.execute(text("SELECT 1"))
    return "ready"


app = RequestTimeoutMiddleware(site)
