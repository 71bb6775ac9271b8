"""Django's databases: a query that runs at the deadline is cancelled on its server.

    # settings.py, or the ready() of an AppConfig
    hostline.integrations.django_db.attach()

Every connection of every thread, from when it is opened, runs its queries in a block of
ours. PostgreSQL (psycopg, psycopg2) and SQLite can be cancelled. A connection in whose
query an abort was raised is closed, for nobody knows its state; Django opens another one
for the next query, and an ``atomic`` block around it is rolled back.
"""

from collections.abc import Callable
from typing import Any

from django.db.backends.signals import connection_created

from hostline._deadline_api import current
from hostline.errors import RequestTimeoutException
from hostline.integrations._drivers import NO_STATEMENT_TIMEOUT, cancelled_at_the_deadline, limiting_statement

__all__ = ["attach"]


class _Wrapper:
    """An ``execute_wrapper`` of one connection."""

    def __init__(self, *, limits: bool) -> None:
        self._limits = limits
        self._has_limited = False

    def __call__(
        self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]
    ) -> Any:
        if current() is None:
            return execute(sql, params, many, context)
        connection = context["connection"]
        try:
            with cancelled_at_the_deadline(connection.connection):
                if self._limits and connection.in_atomic_block:
                    self._limit(context["cursor"])
                return execute(sql, params, many, context)
        except RequestTimeoutException:
            connection.close()
            raise

    def _limit(self, cursor: Any) -> None:
        statement = limiting_statement()
        if statement is not None:
            self._has_limited = True
            cursor.cursor.execute(statement)
        elif self._has_limited:
            self._has_limited = False
            cursor.cursor.execute(NO_STATEMENT_TIMEOUT)


def attach(*, statement_timeout: bool = False) -> None:
    """Have the queries of all connections that are opened from now on stop at the deadline.

    With ``statement_timeout``, PostgreSQL is told before each statement in an ``atomic``
    block how long is left, at the price of one more round trip for each.
    """

    def wrap(connection: Any, **_: object) -> None:
        if not any(isinstance(each, _Wrapper) for each in connection.execute_wrappers):
            limits = statement_timeout and connection.vendor == "postgresql"
            connection.execute_wrappers.append(_Wrapper(limits=limits))

    connection_created.connect(wrap, weak=False, dispatch_uid="hostline")
