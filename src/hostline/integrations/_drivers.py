"""How a query that runs is cancelled, on the server, from a thread that is not its own.

Knows drivers by what their connections can do, and imports none of them.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from math import ceil
from typing import Any

from hostline._deadline_api import current, interruptible, remaining
from hostline._requests import RequestDetails

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


class StatementTimeout:
    """The ``statement_timeout`` of one connection to PostgreSQL, which follows the deadline.

    For the transaction alone: the connection goes back to its pool as it was. Rejected: one
    ``SELECT set_config(...)``, which could find the stricter of two limits on the server. It
    would take the transaction's snapshot, which is for the app's ``SET TRANSACTION`` and
    ``LOCK TABLE`` to come before.
    """

    def __init__(self) -> None:
        #: The milliseconds that the connection has come with, 0: no limit; None: nobody has asked yet.
        self._own: int | None = None
        #: The request that has limited it last.
        self._request: RequestDetails | None = None

    def follow(self, cursor: Any) -> None:
        """Tell the server how long is left, or that nothing but its own limit counts any more."""
        left, request = remaining(), current()
        # Once limited, it is told each time: what is rolled back to a savepoint has its limit back.
        if left is None and self._request is not request:
            return
        self._request = request
        if self._own is None:
            cursor.execute("SHOW statement_timeout")
            self._own = in_milliseconds(cursor.fetchone()[0])
        limits = [] if left is None else [max(1, ceil(left * 1000))]
        cursor.execute(f"SET LOCAL statement_timeout = {_strictest(*limits, self._own)}")


def _strictest(*limits: int) -> int:
    """The least, 0 being none."""
    return min((each for each in limits if each), default=0)


_UNITS = {"ms": 1, "s": 1000, "min": 60 * 1000, "h": 3600 * 1000, "d": 24 * 3600 * 1000}


def in_milliseconds(setting: str) -> int:
    """A duration as PostgreSQL shows it: in the largest unit that divides it, and 0 in none."""
    number = setting.rstrip("dhimns")
    return int(number) * _UNITS[setting.removeprefix(number) or "ms"]


#: libpq's PQTRANS_INERROR.
_IN_ERROR = 3


def is_in_failed_transaction(connection: Any) -> bool:
    """Whether PostgreSQL takes nothing from this driver's connection but the end of its transaction.

    By psycopg and psycopg2; asyncpg does not say, and is taken not to be.
    """
    info = getattr(connection, "info", None)
    return info is not None and info.transaction_status == _IN_ERROR
