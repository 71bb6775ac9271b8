"""What observers are told of requests that are not for the canonical host.

Imports nothing of hostline.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import quote


class HostState(StrEnum):
    """What has become of a request that was not for the canonical host."""

    REDIRECTED = "redirected"  #: sent to the canonical host
    REJECTED = "rejected"  #: answered 400: no host can have such a name
    WOULD_REDIRECT = "would_redirect"  #: passed on by ``report_only``, else redirected
    WOULD_REJECT = "would_reject"  #: passed on by ``report_only``, else rejected


#: Why a request is rejected.
MALFORMED_HOST = "malformed_host"


@dataclass(frozen=True, slots=True)
class HostEvent:
    """What an observer is told: what has become of a request, and why.

    ``host`` is the one that was asked for, percent-encoded where it could forge a line of a
    log, and cut where it is long. ``location`` is None where there is nowhere to go. ``reason``
    is one of a closed set; None where a request is not rejected.
    """

    state: HostState
    id: str
    method: str
    path: str
    host: str
    location: str | None
    status: int
    reason: str | None


_NOT_IN_A_LINE = re.compile(r"[^!-~]+")
_LONGEST = 300


def fit_for_a_line(text: str) -> str:
    """Anybody's text without blanks, line ends and whatever else is no printable ASCII; capped."""
    fit = _NOT_IN_A_LINE.sub(lambda match: quote(match[0], safe="", errors="replace"), text[:_LONGEST])
    return fit if len(fit) <= _LONGEST and len(text) <= _LONGEST else f"{fit[:_LONGEST]}..."
