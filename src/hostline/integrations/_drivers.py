"""How a query that runs is cancelled, on the server, from a thread that is not its own.

Knows drivers by what their connections can do, and imports none of them.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from math import ceil
from typing import Any

from hostline._deadline_api import interruptible, remaining

#: How long psycopg may take to tell the server; the query's thread waits for that.
_CANCEL_TIMEOUT = 5.0


def cancel_of(connection: Any) -> Callable[[], object] | None:
    """What cancels the query that this driver's connection runs; None: nothing does."""
    if hasattr(connection, "cancel_safe"):  # psycopg from 3.2 on: without blocking on a dead network
        return partial(connection.cancel_safe, timeout=_CANCEL_TIMEOUT)
    # psycopg2, psycopg 3.1, oracledb; sqlite3. pymysql and mysqlclient have none of their own.
    cancel: Callable[[], object] | None = getattr(connection, "cancel", None)
    return cancel or getattr(connection, "interrupt", None)


def cancelled_at_the_deadline(connection: Any) -> AbstractContextManager[object]:
    """The block in which this driver's connection runs a query."""
    cancel = cancel_of(connection)
    return nullcontext() if cancel is None else interruptible(cancel)


def limiting_statement() -> str | None:
    """The statement that has PostgreSQL stop the next ones at the deadline; None: there is no limit.

    For the transaction alone: the connection goes back to its pool as it was.
    """
    left = remaining()
    return None if left is None else f"SET LOCAL statement_timeout = {max(1, ceil(left * 1000))}"


#: And the one that takes that back within its transaction.
NO_STATEMENT_TIMEOUT = "SET LOCAL statement_timeout TO DEFAULT"
