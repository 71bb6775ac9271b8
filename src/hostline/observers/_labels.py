"""What may label a metric or group errors: values from closed sets, whatever clients send.

A method that HTTP does not define is the word of a client; a path is one too, which is why
only the route counts. A framework's routes are few, as a rule; where they are made at run
time, all that come after :data:`MOST_ROUTES` are ``"other"``.

Imports: ``_environment``, ``_native``, ``errors``.
"""

from hostline._environment import shown
from hostline._native import native_lock
from hostline.errors import SettingsError

#: Those of RFC 9110, and PATCH (RFC 5789).
METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})
MOST_ROUTES = 500
OTHER = "other"


def method_label(method: str, other: str = OTHER) -> str:
    """The method, or ``other`` for one that HTTP does not define."""
    return method if method in METHODS else other


def check_most(name: str, value: object, least: int = 1) -> int:
    """How many of something there may be at most, or a ``SettingsError`` that calls it by this name."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise SettingsError([f"{name}={shown(value)} is no limit. Write a whole number from {least} on."])
    return value


class RouteLabels:
    """The routes seen so far, up to a number. From any thread."""

    def __init__(self, most: int = MOST_ROUTES) -> None:
        self._most = check_most("most_routes", most, least=0)
        self._known: dict[str | None, str] = {None: ""}  # grows only, with the lock held
        self._lock = native_lock()

    def label(self, route: str | None) -> str:
        """The route; ``""`` where it is not known, ``"other"`` for one too many."""
        known = self._known.get(route)
        return self._admit(route) if known is None else known

    def _admit(self, route: str | None) -> str:
        with self._lock:
            if route is None or len(self._known) > self._most:
                return OTHER
            return self._known.setdefault(route, route)
