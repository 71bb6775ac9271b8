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
out begins with a new connection. A connection that was in an ``atomic`` block before the
request, as those of Django's ``TestCase`` are, stays.
"""

from collections.abc import Callable, Mapping
from typing import Any

from hostline._deadline_api import current
from hostline._requests import State
from hostline.errors import RequestTimeoutException
from hostline.integrations._drivers import (
    StatementTimeout,
    cancelled_at_the_deadline,
    is_in_failed_transaction,
)

try:
    from django.core.signals import request_finished, request_started
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
        self._limits = limits
        self.opened()

    def opened(self) -> None:
        """The connection is a new one."""
        self._statement_timeout = StatementTimeout()
        #: The request that it is used for, or was last.
        self._request = current()
        #: That request's environ or scope, where an entry of ``MIDDLEWARE`` is yet to leave the request.
        self._source: Mapping[str, Any] = {}
        #: Whether an ``atomic`` block is around the whole request.
        self._was_in_block = False

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

    def begin(self, connection: Any, source: Mapping[str, Any]) -> None:
        """A request begins, which Django tells of before it enters ``MIDDLEWARE``."""
        self.settle(connection)
        self._request, self._source = current(), source
        self._was_in_block = connection.in_atomic_block

    def settle(self, connection: Any) -> None:
        """A request is over; what an aborted one may have torn is not for its successor."""
        request = self._request or self._source.get("hostline.request")
        self._request, self._source = None, {}
        if self._was_in_block or request is None:
            return
        if request.is_breakable and request.state is State.TIMED_OUT:
            # Else Django would keep to blocks that have been left for good.
            connection.in_atomic_block = connection.closed_in_transaction = False
            connection.atomic_blocks = []
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
        wrapper = _wrapper_of(connection)
        if wrapper is not None:
            wrapper.opened()
            return
        limits = statement_timeout and connection.vendor == "postgresql"
        # Not behind the others: who has pushed one for a while pops the last.
        connection.execute_wrappers.insert(0, _Wrapper(limits=limits))

    request_started.connect(_begin, dispatch_uid="hostline")
    request_finished.connect(_finish, dispatch_uid="hostline")
    connection_created.connect(wrap, weak=False, dispatch_uid="hostline")


def _wrapper_of(connection: Any) -> _Wrapper | None:
    return next((each for each in connection.execute_wrappers if isinstance(each, _Wrapper)), None)


def _begin(
    environ: Mapping[str, Any] | None = None, scope: Mapping[str, Any] | None = None, **_: object
) -> None:
    """Look at the connections of the thread in which a request begins."""
    for connection in connections.all(initialized_only=True):
        wrapper = _wrapper_of(connection)
        if wrapper is not None:
            wrapper.begin(connection, environ or scope or {})
        elif not connection.in_atomic_block:
            # If it is open, Django has never come to announce that: it was aborted halfway.
            connection.close()


def _finish(**_: object) -> None:
    """A response is closed. A guard around Django may still abort, and leaves it to the next request."""
    if current() is not None:
        return
    for connection in connections.all(initialized_only=True):
        wrapper = _wrapper_of(connection)
        if wrapper is not None:
            wrapper.settle(connection)
