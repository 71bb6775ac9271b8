"""Connections to a real PostgreSQL whose query is cancelled at the deadline: usable afterwards, or gone."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from hostline.asgi import RequestTimeoutMiddleware
from timeouts import Client

pytestmark = [pytest.mark.server, pytest.mark.anyio]

LIMIT = 0.1
#: Longer than any test waits: what is not cancelled in the database holds its connection for so long.
ENDLESS = 60
#: How many requests time out with a query each; more than a pool has connections.
REQUESTS = 6
POOL = 2

_STUCK = f"SELECT pg_sleep({ENDLESS})"
_RUNNING = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'"


async def _time_out(query: Callable[[], Any]) -> None:
    """Have all of them at once time out in it."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await query()

    guarded = RequestTimeoutMiddleware(app, service_timeout=LIMIT)
    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    clients = [Client() for _ in range(REQUESTS)]
    await asyncio.wait_for(asyncio.gather(*(client.ask(guarded, scope) for client in clients)), 30)
    assert [client.status for client in clients] == [504] * REQUESTS
    assert [client.error for client in clients] == [None] * REQUESTS


async def _none_runs_on(ask: Callable[[str], Any]) -> bool:
    """Whether the database comes to have no query left that nobody waits for."""
    async with asyncio.timeout(20):
        while await ask(_RUNNING):  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.01)
    return True


@pytest.fixture
def asyncpg():
    return pytest.importorskip("asyncpg", reason="not installed: asyncpg (extra servers)")


@pytest.fixture
def engine(postgresql, asyncpg):
    sqlalchemy = pytest.importorskip("sqlalchemy.ext.asyncio", reason="not installed: sqlalchemy")
    url = f"postgresql+asyncpg://hostline@/postgres?host={postgresql.folder}"
    return sqlalchemy.create_async_engine(url, pool_size=POOL, max_overflow=0, pool_timeout=10)


@pytest.mark.parametrize("is_in_transaction", (False, True), ids=("alone", "in a transaction"))
async def test_asyncpg_s_pool(postgresql, asyncpg, is_in_transaction):
    async with asyncpg.create_pool(
        host=str(postgresql.folder), user="hostline", database="postgres", min_size=POOL, max_size=POOL
    ) as pool:

        async def query() -> None:
            async with pool.acquire() as connection:
                if not is_in_transaction:
                    await connection.execute(_STUCK)
                async with connection.transaction():
                    await connection.execute("CREATE TABLE left_behind ()")
                    await connection.execute(_STUCK)

        await _time_out(query)
        # Each of its connections, at once, does what it is told.
        answers = await asyncio.wait_for(asyncio.gather(*(pool.fetchval("SELECT 1") for _ in range(9))), 20)
        assert answers == [1] * 9
        assert pool.get_idle_size() == pool.get_size()
        assert await _none_runs_on(pool.fetchval)
        assert await pool.fetchval("SELECT to_regclass('left_behind')") is None


@pytest.mark.parametrize("is_written", (False, True), ids=("alone", "after a write"))
async def test_sqlalchemy_s_async_session(engine, is_written):
    from sqlalchemy import text  # noqa: PLC0415 - collecting the tests takes no extra
    from sqlalchemy.ext.asyncio import AsyncSession  # noqa: PLC0415

    async def query() -> None:
        async with AsyncSession(engine) as session, session.begin():
            if is_written:
                await session.execute(text("CREATE TABLE left_behind ()"))
            await session.execute(text(_STUCK))

    async def ask(statement: str) -> Any:
        async with AsyncSession(engine) as session:
            return (await session.execute(text(statement))).scalar()

    try:
        await _time_out(query)
        answers = await asyncio.wait_for(asyncio.gather(*(ask("SELECT 1") for _ in range(9))), 20)
        assert answers == [1] * 9
        assert engine.pool.checkedout() == 0
        assert await _none_runs_on(ask)
        assert await ask("SELECT to_regclass('left_behind')") is None
    finally:
        await engine.dispose()
