"""Django's databases: a query that runs at the deadline is cancelled on its server.

    # settings.py, or the ready() of an AppConfig
    hostline.integrations.django_db.attach()

Every connection of every thread, from when it is opened, runs its queries in a block of
ours. PostgreSQL (psycopg, psycopg2) and SQLite can be cancelled. A connection in whose
query an abort was raised is closed, for nobody knows its state; Django opens another one
for the next query, and an ``atomic`` block around it is rolled back.

An abort may also fall where no query of the app's is run: while a connection is opened and
told its time zone, in a COMMIT, or halfway into or out of an ``atomic`` block. That would
leave a connection that outlives its request (``CONN_MAX_AGE``) half set up, waiting for an
answer that nobody reads, or in a transaction. So a request that follows one that has timed
out begins with a new connection.
"""

from collections.abc import Callable
from typing import Any

from hostline._deadline_api import current
from hostline._requests import RequestDetails, State
from hostline.errors import RequestTimeoutException
from hostline.integrations._drivers import (
    StatementTimeout,
    cancelled_at_the_deadline,
    is_in_failed_transaction,
)

try:
    from django.core.signals import request_started
    from django.db import connections
    from django.db.backends.signals import connection_created
except ImportError as error:
    raise ImportError(
        'hostline.integrations.django_db needs Django: pip install "hostline[django]"'
    ) from error

__all__ = ["attach"]


class _Wrapper:
    """An ``execute_wrapper`` of one connection, which one thread uses."""

    def __init__(self, *, limits: bool) -> None:
        #: The request that it is used for, or was last.
        self._request: RequestDetails | None = current()
        self._limits = limits
        self._statement_timeout = StatementTimeout()

    def __call__(
        self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]
    ) -> Any:
        if current() is None:
            return execute(sql, params, many, context)
        connection = context["connection"]
        try:
            with cancelled_at_the_deadline(connection.connection):
                if self._limits and connection.in_atomic_block:
                    self._limit(connection)
                return execute(sql, params, many, context)
        except RequestTimeoutException:
            connection.close()
            raise

    def begin(self, connection: Any) -> None:
        """A request begins; what an aborted one may have torn is not for its successor."""
        last, self._request = self._request, current()
        if last is not None and last.is_breakable and last.state is State.TIMED_OUT:
            # Else Django would keep to a block that has been left for good.
            connection.in_atomic_block = connection.closed_in_transaction = False
            connection.close()

    def _limit(self, connection: Any) -> None:
        driver_s = connection.connection
        # There, a statement of ours would stand in the way of the ROLLBACK TO SAVEPOINT.
        if is_in_failed_transaction(driver_s):
            return
        # Not the query's own cursor, which may be one on the server, with a query for its name.
        with connection.wrap_database_errors, driver_s.cursor() as cursor:
            self._statement_timeout.follow(cursor)


def attach(*, statement_timeout: bool = False) -> None:
    """Have the queries of all connections that are opened from now on stop at the deadline.

    With ``statement_timeout``, PostgreSQL is told before each statement in an ``atomic``
    block how long is left, at the price of one more round trip for each. A stricter limit
    that the connection has of its own stays.
    """

    def wrap(connection: Any, **_: object) -> None:
        if _wrapper_of(connection) is None:
            limits = statement_timeout and connection.vendor == "postgresql"
            connection.execute_wrappers.append(_Wrapper(limits=limits))

    request_started.connect(_begin, dispatch_uid="hostline")
    connection_created.connect(wrap, weak=False, dispatch_uid="hostline")


def _wrapper_of(connection: Any) -> _Wrapper | None:
    return next((each for each in connection.execute_wrappers if isinstance(each, _Wrapper)), None)


def _begin(**_: object) -> None:
    """Look at the connections of the thread in which a request begins."""
    for connection in connections.all(initialized_only=True):
        wrapper = _wrapper_of(connection)
        if wrapper is not None:
            wrapper.begin(connection)
        elif current() is not None and not connection.in_atomic_block:
            # If it is open, Django has never come to announce that: it was aborted halfway.
            connection.close()
