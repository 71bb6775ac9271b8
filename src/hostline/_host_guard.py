"""One canonical host guard, whatever its protocol: what the adapters share.

Owns the spellings of the canonical host that need no decision, and who is told of the
requests that are not for it.

May import ``settings``, ``_authority``, ``_host_events``, ``_hosts``, ``_requests`` and
``observers`` of hostline.
"""

import uuid
from collections.abc import Mapping
from typing import Self
from urllib.parse import unquote

from hostline import observers
from hostline._authority import parse_authority
from hostline._host_events import MALFORMED_HOST, HostEvent, HostState, fit_for_a_line
from hostline._hosts import Asked, HostRules, Pass, Redirect, Reject, decide
from hostline._requests import clean_request_id
from hostline.settings import CanonicalHostSettings

# Of the canonical host, that is: of one host with ports and in upper and lower case. A
# client that makes up more of them must not grow a set for ever.
_MOST_SPELLINGS = 64


class HostGuard:
    """One ``CanonicalHostMiddleware``, whatever its protocol.

    ``known`` and ``known_octets`` are the spellings of the canonical host met so far in the
    header that counts (``X-Forwarded-Host`` where it is trusted, else ``Host``). A request
    with one of them, and with the right scheme where the settings have one, passes,
    whatever else it asks for. Any thread may add to them and look into them: each of both
    is atomic.
    """

    __slots__ = ("_canonical", "_observers", "known", "known_octets", "rules")

    def __init__(self, settings: CanonicalHostSettings) -> None:
        self.rules = HostRules(settings)
        self._observers = observers.named(settings.observers)
        # What host_for will say of the next request is not known.
        self._canonical = None if settings.host_for else settings.host
        self.known: set[str] = set()
        self.known_octets: set[bytes] = set()
        if self._canonical is not None:
            self._learn(self._canonical.text.encode())

    @classmethod
    def load(cls, arguments: Mapping[str, object]) -> Self | None:
        """The guard that the user has asked for; None where no host is set."""
        settings = CanonicalHostSettings.load(arguments)
        return None if settings.host is None and settings.host_for is None else cls(settings)

    def refusal(self, asked: Asked, source: object) -> Redirect | Reject | None:
        """How to answer instead of the app; None where the app is to answer."""
        decision = decide(self.rules, asked, source)
        if isinstance(decision, Pass):
            self._learn(asked.forwarded_host if self.rules.settings.trust_forwarded_host else asked.host)
            return None
        state = _state_of(decision, report_only=self.rules.settings.report_only)
        self._observers.tell_of(state, lambda: _event(state, decision, asked, self.rules.host_of(asked)))
        return None if self.rules.settings.report_only else decision

    def _learn(self, header: bytes | None) -> None:
        """Remember the header's text where it alone says that the request is at home."""
        canonical = self._canonical
        if canonical is None or header is None or len(self.known) >= _MOST_SPELLINGS:
            return
        # Most of what passes and is not canonical need not be parsed again to be told apart.
        if not header.isascii() or not header.lower().startswith(canonical.host.encode()):
            return
        here = parse_authority(header.decode())
        # A canonical port that the header does not name is right on one scheme only.
        if here is not None and here.host == canonical.host and canonical.port in (None, here.port):
            self.known.add(header.decode())
            self.known_octets.add(header)


def _state_of(decision: Redirect | Reject, *, report_only: bool) -> HostState:
    if isinstance(decision, Redirect):
        return HostState.WOULD_REDIRECT if report_only else HostState.REDIRECTED
    return HostState.WOULD_REJECT if report_only else HostState.REJECTED


def _event(state: HostState, decision: Redirect | Reject, asked: Asked, host: str) -> HostEvent:
    redirect = decision if isinstance(decision, Redirect) else None
    given_id = (asked.request_id or b"").decode("latin-1")
    return HostEvent(
        state=state,
        id=clean_request_id(given_id) or uuid.uuid4().hex,
        method=asked.method,
        path=unquote(asked.path),
        host=fit_for_a_line(host),
        location=redirect.location if redirect else None,
        status=redirect.status if redirect else 400,
        reason=None if redirect else MALFORMED_HOST,
    )
