"""Django's connections to a database of one test's own. Importing this configures Django."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.apps import apps
from django.core.signals import request_finished, request_started
from django.db import connections
from django.db.backends.signals import connection_created

import exchanges  # noqa: F401 - configures Django
from hostline.integrations import django_db


@contextmanager
def attached(database: dict[str, Any], **options: Any) -> Iterator[Any]:
    """Those of each thread, as ``attach`` finds them; no other test's, before or behind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connections, "settings", connections.configure_settings({"default": database}))
        _forget()
        apps.populate(())
        django_db.attach(**options)
        try:
            yield connections
        finally:
            _forget()
            connection_created.disconnect(dispatch_uid="hostline")
            request_started.disconnect(dispatch_uid="hostline")
            request_finished.disconnect(dispatch_uid="hostline")


def _forget() -> None:
    """Close this thread's, and have it make others."""
    for connection in connections.all(initialized_only=True):
        connection.close()
        del connections[connection.alias]
