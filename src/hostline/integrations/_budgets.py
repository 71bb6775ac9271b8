"""How long is left, as an HTTP client needs it: for its timeouts, and in a header for the next service.

Imports: ``_deadline_api``, ``_kinds``.
"""

from math import ceil

from hostline._deadline_api import remaining
from hostline._kinds import check_header_name

#: Our own header: milliseconds, as Envoy's.
HEADER = "hostline-timeout"
#: A client's timeout of 0 may mean none, or not to wait at all; this is as good as none left.
_LEAST = 0.001
# gRPC's: digits, at most eight, and the unit.
_GRPC = "grpc-timeout"
_MOST_DIGITS = 99_999_999


def left() -> float | None:
    """Seconds for one more call, never 0; None: as many as it likes."""
    seconds = remaining()
    return None if seconds is None else max(_LEAST, seconds)


def capped(timeout: float | None, limit: float) -> float:
    """A timeout that does not exceed what is left."""
    return limit if timeout is None else min(timeout, limit)


def checked(header: str | None) -> str | None:
    """The name of the header to write, as it is; or a ``SettingsError``."""
    if header is not None:
        check_header_name("header", header)
    return header


def written(header: str, seconds: float) -> str:
    """What this header says of so many seconds."""
    milliseconds = max(1, ceil(seconds * 1000))
    return f"{min(milliseconds, _MOST_DIGITS)}m" if header.lower() == _GRPC else str(milliseconds)
