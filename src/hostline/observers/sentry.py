"""Sentry: one issue for each route and cause, with the slow code as its stack trace.

An event is sent for ``expired`` and ``timed_out``, told by an observer's own thread, and to
nobody twice: the same timeout comes to Sentry's other integrations as the error that is
raised with ``mode="raise"``, as the exception that ends the app's code, and as the line in
the log. Those are dropped, for all of the process, as soon as there is an observer here.

An outage times out every request of a minute. What is beyond a number of events a minute, in
all and for each issue, is not sent; the next event of the issue says how many those were.

Imports: ``_requests``, ``_stacks``, ``errors``, and sentry_sdk 2.
"""

import linecache
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from hostline._requests import RequestEvent, State
from hostline._stacks import library_of
from hostline.errors import RequestExpiryError, RequestTimeoutError, RequestTimeoutException
from hostline.observers._labels import MOST_ROUTES, RouteLabels, check_most, method_label

try:
    import sentry_sdk
    from sentry_sdk.scope import add_global_event_processor
    from sentry_sdk.types import Event, Hint
except ImportError as error:
    raise ImportError('hostline.observers.sentry needs sentry-sdk: pip install "hostline[sentry]"') from error

_CAUSES: Mapping[State, type[RequestExpiryError | RequestTimeoutError]] = {
    State.EXPIRED: RequestExpiryError,
    State.TIMED_OUT: RequestTimeoutError,
}
_MINUTE = 60.0
_LINES_AROUND = 5


class SentryObserver:
    """Sends the requests that expired or timed out to Sentry, as ``sentry_sdk.init`` has set it up.

    ``most_per_issue`` and ``most`` are how many events a minute are sent of one issue, and in
    all. May be called from any thread; two at once may send one more than that.
    """

    def __init__(
        self,
        *,
        most_per_issue: int = 5,
        most: int = 50,
        most_routes: int = MOST_ROUTES,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._routes = RouteLabels(most_routes)
        self._limit = _Limit(check_most("most", most), clock)
        self._most_per_issue = check_most("most_per_issue", most_per_issue)
        self._issues: dict[tuple[str, ...], _Limit] = {}
        self._clock = clock
        _drop_duplicates()

    def wants(self, state: object) -> bool:
        """What an error tracker is for."""
        return state in _CAUSES

    def __call__(self, event: RequestEvent) -> None:
        """Send it, unless there have been too many of late."""
        place = _place(event.trace or ())
        fingerprint = ("hostline", str(event.state), self._routes.label(event.route) or place)
        issue = self._issues.get(fingerprint)
        if issue is None:
            issue = self._issues[fingerprint] = _Limit(self._most_per_issue, self._clock)
        if issue.has_room() and self._limit.has_room():
            left_out = issue.take()
            self._limit.take()
            with sentry_sdk.isolation_scope() as scope:
                scope.clear_breadcrumbs()  # they are of this thread, and not of the request
                sentry_sdk.capture_event(_event(event, fingerprint, left_out))
        else:
            issue.left_out += 1


@dataclass
class _Limit:
    """So many a minute, counted from the first."""

    most: int
    clock: Callable[[], float]
    taken: int = 0
    left_out: int = 0
    began: float = -_MINUTE

    def has_room(self) -> bool:
        """Whether one more may be sent."""
        return self.taken < self.most or self.clock() - self.began >= _MINUTE

    def take(self) -> int:
        """Count one more; how many have been left out before it."""
        now = self.clock()
        if now - self.began >= _MINUTE:
            self.began, self.taken = now, 0
        self.taken += 1
        left_out, self.left_out = self.left_out, 0
        return left_out


def _event(event: RequestEvent, fingerprint: Sequence[str], left_out: int) -> Event:
    """One of Sentry's own, an exception that nobody had to raise."""
    cause = _CAUSES[event.state]
    measured = {"wait": event.wait, "service": event.service, "timeout": event.timeout, "left_out": left_out}
    exception: dict[str, Any] = {
        "type": cause.__name__,
        "module": "hostline",
        "value": str(cause()),
        "mechanism": {"type": "hostline", "handled": True},
    }
    if event.trace:
        exception["stacktrace"] = {"frames": [_frame(*position) for position in event.trace]}
    return {
        "level": "error",
        "logger": "hostline",
        "transaction": event.route or fingerprint[-1],
        "fingerprint": list(fingerprint),
        "exception": {"values": [exception]},
        "request": {"method": event.method, "url": event.path},
        "tags": {
            "hostline.state": str(event.state),
            "hostline.route": event.route or "",
            "http.method": method_label(event.method),
            "request_id": event.id,
        },
        "contexts": {"hostline": {name: value for name, value in measured.items() if value is not None}},
    }


def _frame(path: str, line: int, function: str) -> dict[str, Any]:
    """As the SDK describes the frames of a traceback."""
    module = _module_at(path)
    frame: dict[str, Any] = {
        "abs_path": path,
        "filename": _within(path, module),
        "function": function,
        "lineno": line,
        "module": module,
    }
    library = library_of(path)
    if library == "hostline" or library in sys.stdlib_module_names:
        frame["in_app"] = False  # of all else the SDK says it, by its options
    if sentry_sdk.get_client().options.get("include_source_context", True):
        frame |= _source(path, line)
    return frame


def _source(path: str, line: int) -> dict[str, Any]:
    lines = [each.rstrip("\n") for each in linecache.getlines(path)]
    if not 0 < line <= len(lines):
        return {}
    return {
        "pre_context": lines[max(0, line - 1 - _LINES_AROUND) : line - 1],
        "context_line": lines[line - 1],
        "post_context": lines[line : line + _LINES_AROUND],
    }


def _module_at(path: str) -> str | None:
    """The module that is in this file: what `in_app_include` and `in_app_exclude` name."""
    modules = ((name, getattr(module, "__dict__", {})) for name, module in sys.modules.copy().items())
    return next((name for name, namespace in modules if namespace.get("__file__") == path), None)


def _within(path: str, module: str | None) -> str:
    """The path from the folder that the module's package is in: the same on every machine."""
    depth = 1 if module is None else module.count(".") + 1
    if path.endswith("__init__.py"):
        depth += 1
    return "/".join(Path(path).parts[-depth:])


def _place(trace: Sequence[tuple[str, int, str]]) -> str:
    """The innermost function of the app's own, for requests whose route nobody knows."""
    own = [f"{Path(path).name}:{function}" for path, _, function in trace if library_of(path) is None]
    return own[-1] if own else ""


_drops = False


def _drop_duplicates() -> None:
    global _drops
    if not _drops:
        _drops = True
        add_global_event_processor(_without_duplicates)


def _without_duplicates(event: Event, hint: Hint) -> Event | None:
    """None for what an observer sends by itself."""
    _, error, _ = hint.get("exc_info") or (None, None, None)
    if isinstance(error, (RequestExpiryError, RequestTimeoutError, RequestTimeoutException)):
        return None
    record = hint.get("log_record")
    if record is not None and record.name == "hostline" and getattr(record, "state", None) in _CAUSES:
        return None
    return event
