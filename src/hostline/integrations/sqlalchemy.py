"""SQLAlchemy: a query that runs at the deadline is cancelled on its server.

    engine = create_engine("postgresql+psycopg://...")
    hostline.integrations.sqlalchemy.attach(engine)

Sync engines cancel by what their driver has: psycopg, psycopg2 and sqlite3 can, drivers of
MySQL cannot. The thread comes back with the abort, and SQLAlchemy discards the connection,
whose state nobody knows, or the driver reports the cancellation in time and it is rolled
back and kept. The drivers of async engines (asyncpg, psycopg) cancel by themselves what
their task is cancelled in.

Without a request everything is as before, at the price of one look at a context variable.
"""

from collections.abc import Callable
from typing import Any

from hostline._deadline_api import current
from hostline.integrations._drivers import (
    StatementTimeout,
    cancelled_at_the_deadline,
    is_in_failed_transaction,
)

try:
    from sqlalchemy import Engine, event
    from sqlalchemy.engine import ExecutionContext
    from sqlalchemy.ext.asyncio import AsyncEngine
except ImportError as error:
    raise ImportError(
        'hostline.integrations.sqlalchemy needs SQLAlchemy: pip install "hostline[sqlalchemy]"'
    ) from error

__all__ = ["attach"]

# Where the `info` of a connection, which lasts as long as that does, has its StatementTimeout.
_STATEMENT_TIMEOUT = "hostline.statement_timeout"
# PostgreSQL's `in_failed_sql_transaction`.
_FAILED = "25P02"


def attach(engine: Engine | AsyncEngine, *, statement_timeout: bool = False) -> None:
    """Have what this engine executes stop at the deadline of the request that asks for it.

    With ``statement_timeout``, PostgreSQL is told before each statement how long is left,
    so that it stops by itself what nobody is there to cancel; that is one more round trip
    for each. A stricter limit that the connection has of its own stays. Outside a
    transaction (``AUTOCOMMIT``) it has no effect.
    """
    sync_engine = engine.sync_engine if isinstance(engine, AsyncEngine) else engine
    limits = statement_timeout and sync_engine.dialect.name == "postgresql"

    def execute(context: Any, run: Callable[[], object]) -> bool | None:
        return _execute(context, run, limits=limits)

    def do_execute(cursor: Any, statement: str, parameters: Any, context: Any) -> bool | None:
        return execute(context, lambda: context.dialect.do_execute(cursor, statement, parameters, context))

    def do_executemany(cursor: Any, statement: str, parameters: Any, context: Any) -> bool | None:
        return execute(
            context, lambda: context.dialect.do_executemany(cursor, statement, parameters, context)
        )

    def do_execute_no_params(cursor: Any, statement: str, context: Any) -> bool | None:
        return execute(context, lambda: context.dialect.do_execute_no_params(cursor, statement, context))

    for listener in (do_execute, do_executemany, do_execute_no_params):
        event.listen(sync_engine, listener.__name__, listener)


def _execute(context: ExecutionContext, run: Callable[[], object], *, limits: bool) -> bool | None:
    """Run a statement in a block of ours; None: SQLAlchemy is to do it, for nothing limits it."""
    if current() is None:
        return None
    connection = context.root_connection.connection
    if context.dialect.is_async:
        if limits:
            _limit(connection)
        run()
        return True
    with cancelled_at_the_deadline(connection.driver_connection):
        if limits:
            _limit(connection)
        run()
    return True


def _limit(connection: Any) -> None:
    """Tell the server how long is left, or that nothing counts any more."""
    try:
        info = connection.info
    except NotImplementedError:  # the very first connection, still being asked who it is
        return
    if getattr(connection.dbapi_connection, "autocommit", False):
        return
    # There, a statement of ours would stand in the way of the ROLLBACK TO SAVEPOINT.
    if is_in_failed_transaction(connection.driver_connection):
        return
    limit = info.setdefault(_STATEMENT_TIMEOUT, StatementTimeout())
    cursor = connection.cursor()
    try:
        limit.follow(cursor)
    except Exception as error:
        if getattr(error, "sqlstate", None) != _FAILED:  # which asyncpg has not told before
            raise
    finally:
        cursor.close()
