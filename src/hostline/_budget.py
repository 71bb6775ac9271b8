"""How long may this request run? Headers, settings and the time in, an answer out.

*wait* is how long the request stood in the router's queue, as its ``X-Request-Start``
tells. A request that waited too long is :class:`Expired`: nobody is there any more to
read the answer. Any other gets :class:`Run`, with the service timeout or, where that is
less, what is left of the wait limit.

Times are seconds. Imports: ``settings``, for types alone, ``_kinds`` and ``_targets``.
"""

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from time import time
from types import EllipsisType
from typing import Any

from hostline._kinds import check_seconds
from hostline._targets import PathTable
from hostline.settings import RequestTimeoutSettings, Seconds

logger = logging.getLogger("hostline")

# A proxy's stamp is seconds old, in an outage minutes. One that is a day off is no
# proxy's, but a broken clock's or a client's.
_PLAUSIBLE = 86_400.0
# Between these the times in seconds have ten digits, those in milliseconds thirteen, and so on.
_FIRST, _LAST = 1e9, 1e10

_STAMP = re.compile(r"(?:t=)?([0-9]{1,20})(\.[0-9]{1,20})?", re.ASCII)

# gRPC's timeouts (its protocol over HTTP/2, "Requests"): at most eight digits, and the unit.
_GRPC_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])", re.ASCII)
_GRPC_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_MILLISECONDS_TIMEOUT = re.compile(r"[0-9]{1,10}", re.ASCII)
# What is left for a caller that has waited for all of its time already.
_LEAST = 0.001

# Greater than any text that begins with a digit.
_BEYOND_ALL = "~"

# A stamp of digits alone tells its unit by their number: this holds until the year 2286.
_DIGITS_TO_UNITS_PER_SECOND = {10: 1, 13: 1_000, 16: 1_000_000, 19: 1_000_000_000}


@dataclass(frozen=True, slots=True)
class Run:
    """Run the app; abort it after ``timeout`` seconds (None: never)."""

    wait: float | None
    timeout: float | None


@dataclass(frozen=True, slots=True)
class Expired:
    """Do not run the app: the request has waited ``wait`` seconds of ``timeout``."""

    wait: float
    timeout: float


def parse_request_start(text: str) -> float | None:
    """The Unix time in an ``X-Request-Start``, whatever its unit; None for anything else.

    Heroku sends milliseconds, nginx ``t=${msec}`` seconds with a fraction, Apache
    ``t=%t`` microseconds; nanoseconds are some service meshes'.
    """
    match = _STAMP.fullmatch(text)
    if match is None:
        return None
    digits, fraction = match.groups()
    if fraction is not None:
        return float(digits + fraction)
    units_per_second = _DIGITS_TO_UNITS_PER_SECOND.get(len(digits))
    return None if units_per_second is None else int(digits) / units_per_second


def is_plausible(stamp: float, now_wall: float) -> bool:
    """Whether a proxy can have written this stamp: at most a day off, either way."""
    return abs(now_wall - stamp) <= _PLAUSIBLE


def read_wait(text: str, now_wall: float) -> float | None:
    """How long the request has waited; None where the header says nothing that counts."""
    stamp = parse_request_start(text)
    if stamp is None or not is_plausible(stamp, now_wall):
        return None
    return max(0.0, now_wall - stamp)


class WaitReader:
    """Reads waits for one guard, and logs the first stamp that is too far off to count.

    Nearly every request is *unhurried*: even with what it has waited it has all of its service
    timeout. For that its stamp need not be read: of two Unix times, as digits, the later one
    is the greater text, whatever the units. So each request is spared all but a comparison
    with ``oldest`` and ``newest``. They are texts, or octets as ASGI hands them on, and hold
    for requests that started before ``until``, a second after they were made; a text in
    between that is no stamp has no say anyway.

    May be used from any thread: ``until`` is written last, and bounds that are newer than a
    request are right for it, too.
    """

    def __init__(self, settings: RequestTimeoutSettings, kind: type[str] | type[bytes]) -> None:
        self._has_warned = False
        self._is_text = kind is str
        # A wait below this leaves a request its whole service timeout. None: no wait is too long.
        self._unhurried = settings.wait_timeout
        if self._unhurried is not None and not settings.service_past_wait:
            self._unhurried -= settings.service_timeout or 0.0
        self._ahead = 0.0  # the wall clock, of the monotonic one
        self.oldest: Any = self._as_header("")
        self.newest: Any = self._as_header(_BEYOND_ALL)
        self.until = inf if self._unhurried is None else -inf

    def renew(self, now: float) -> None:
        """Make the bounds for the next second. ``now``: of the monotonic clock."""
        now_wall = time()
        self._ahead = now_wall - now
        self.newest = self._as_header(_milliseconds(now_wall + _PLAUSIBLE - 1))
        unhurried = self._unhurried or 0.0
        # Below 0 no wait leaves it all, not even that of a stamp that is ahead, which is none.
        oldest = _BEYOND_ALL if unhurried < 0 else _milliseconds(now_wall + 1.001 - unhurried)
        self.oldest = self._as_header(oldest)
        self.until = now + 1

    def since(self, stamp: str | bytes, started: float) -> float | None:
        """The wait of a request that started at this instant of the monotonic clock."""
        if self._unhurried is None:
            return None
        return read_wait(stamp if isinstance(stamp, str) else stamp.decode("latin-1"), started + self._ahead)

    def _as_header(self, text: str) -> str | bytes:
        return text if self._is_text else text.encode()

    def read(self, text: str, now_wall: float) -> float | None:
        """As :func:`read_wait`."""
        wait = read_wait(text, now_wall)
        if wait is None and text and not self._has_warned:
            stamp = parse_request_start(text)
            if stamp is not None:
                self._has_warned = True
                logger.warning(
                    "hostline ignores an X-Request-Start that is more than a day off: %r, which is %.0f s "
                    "from now. It is logged once.",
                    text,
                    now_wall - stamp,
                )
        return wait


def _milliseconds(wall: float) -> str:
    """A stamp; one of an instant that no stamp of thirteen digits can tell is beyond all of them."""
    return f"{wall * 1000:.0f}" if _FIRST <= wall < _LAST else _BEYOND_ALL


def announces_body(content_length: str | None, transfer_encoding: str | None) -> bool:
    """Whether a request with these headers has a body (RFC 9112, section 6.3)."""
    if transfer_encoding and transfer_encoding.rpartition(",")[2].strip().lower() == "chunked":
        return True
    length = (content_length or "").strip()
    return length.isascii() and length.isdigit() and length.strip("0") != ""


def judges_each(settings: RequestTimeoutSettings) -> bool:
    """Whether there is something to be decided for each single request, whatever its headers."""
    return bool(
        settings.exempt_paths or settings.timeout_for or settings.warn_after or settings.trust_timeout_header
    )


class ServiceTimeouts:
    """The service timeout of each request: what ``timeout_for`` says of it, else the setting."""

    def __init__(self, settings: RequestTimeoutSettings) -> None:
        timeout_for = settings.timeout_for
        self._default = settings.service_timeout
        self._call: Callable[[object], Seconds | EllipsisType] | None = None
        self._table: PathTable[float | None] | None = None
        if callable(timeout_for):
            self._call = timeout_for
        elif timeout_for is not None:
            self._table = PathTable(timeout_for)
        #: Whether any path makes a difference, here or to ``exempt_paths``.
        self.needs_path = self._table is not None or bool(settings.exempt_paths)

    def of(self, request: object, path: bytes) -> float | None:
        """In seconds; None: unlimited. ``request`` is the environ or scope.

        What the callable raises, or an answer that is no timeout, is an error of the app's
        configuration and raised as such (:class:`hostline.SettingsError`).
        """
        if self._table is not None:
            return self._table.find(path, self._default)
        answer = ... if self._call is None else self._call(request)
        return self._default if answer is ... else check_seconds("the answer of timeout_for", answer)


def read_timeout(name: str, text: str) -> float | None:
    """How long a caller says that it waits; None where it says nothing that counts."""
    if name == "grpc-timeout":
        match = _GRPC_TIMEOUT.fullmatch(text)
        return None if match is None else int(match[1]) * _GRPC_UNITS[match[2]] or None
    match = _MILLISECONDS_TIMEOUT.fullmatch(text)
    return None if match is None else int(match[0]) / 1000 or None  # Envoy's 0: no limit


def lowered(
    timeout: float | None, names: tuple[str, ...], header: Callable[[str], str], wait: float | None
) -> float | None:
    """A service timeout that is no longer than its caller waits, whose clock ran in the queue too."""
    for name in names:
        asked = read_timeout(name, header(name))
        if asked is not None:
            timeout = min(inf if timeout is None else timeout, max(_LEAST, asked - (wait or 0.0)))
    return timeout


def decide(
    settings: RequestTimeoutSettings,
    *,
    wait: float | None,
    has_body: bool,
    service_timeout: float | None,
) -> Run | Expired:
    """Weigh a request's wait and its service timeout (None: unlimited)."""
    if wait is None or settings.wait_timeout is None:
        return Run(wait, service_timeout)
    limit = settings.wait_timeout
    if has_body:
        limit += settings.wait_overtime or 0.0
    if wait >= limit:
        return Expired(wait, limit)
    if service_timeout is None or settings.service_past_wait:
        return Run(wait, service_timeout)
    return Run(wait, min(service_timeout, limit - wait))
