"""What hostline answers in the app's place: status, headers and body, ready to be sent.

A :class:`Response` is a plain value that each adapter writes in its protocol.

May import ``settings``, ``_hosts`` and ``_requests`` of hostline.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from http.client import responses
from typing import Self, cast

from hostline._hosts import Redirect, Reject
from hostline._requests import RequestDetails, logger
from hostline.settings import RequestTimeoutSettings

HTML = "text/html"
TEXT = "text/plain"
#: The kinds of page, the one for those who do not mind first.
PAGES = (TEXT, HTML)

JSON = "application/json"
PROBLEM = "application/problem+json"
#: The kinds of page about time, which API clients meet too.
TIMEOUT_PAGES = (TEXT, HTML, PROBLEM, JSON)

# Seconds: about what a router's queue takes to empty once the load is gone.
_RETRY_AFTER = "10"

_QUALITY = re.compile(r"[ \t]*q=([01](?:\.[0-9]{0,3})?)[ \t]*", re.IGNORECASE | re.ASCII)

_HTML_PAGE = """\
<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>{title}</title></head>
<body><h1>{title}</h1><p>{text}</p></body>
</html>
"""
_TEXT_PAGE = "{title}\n\n{text}\n"


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer. ``Content-Length`` is among the headers and right."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def reason(self) -> str:
        """The words that go with the status."""
        return phrase(self.status)

    def to(self, method: str) -> Self:
        """The same answer to this method: HEAD is told the length of a body that does not come."""
        return replace(self, body=b"") if method == "HEAD" else self


def phrase(status: int) -> str:
    """The words that go with a status; for one that nobody has registered, some that fit ours."""
    return responses.get(status, "Timeout")


def host_response(refusal: Redirect | Reject, media_type: str, cache_control: str | None) -> Response:
    """How the canonical-host guard answers; ``media_type`` is one of :data:`PAGES`."""
    if isinstance(refusal, Reject):
        text = "The Host header of this request is no name of a host."
        # Every request for it is as wrong, but the next one may have been sent on rightly.
        return _page(400, {"Cache-Control": "no-store"}, media_type, text)
    # The page differs by Accept, and a redirect without Cache-Control may be cached.
    headers = {"Location": refusal.location, "Vary": "Accept"}
    if cache_control is not None:
        headers["Cache-Control"] = cache_control
    if media_type == HTML:
        text = f'This page is <a href="{escape(refusal.location)}">here</a>.'
    else:
        text = f"This page is at {refusal.location}"
    return _page(refusal.status, headers, media_type, text)


def expired(media_type: str) -> Response:
    """The answer to a request that waited too long. ``media_type`` is one of :data:`TIMEOUT_PAGES`."""
    text = "The server is busy and this request has waited too long. Please try again."
    return _uncached(503, {"Retry-After": _RETRY_AFTER}, media_type, text)


def timed_out(settings: RequestTimeoutSettings, request: RequestDetails, media_type: str) -> Response:
    """The answer to a request that ran too long: as configured, else negotiated."""
    body = settings.body
    if callable(body):
        body = _made_body(body, request)
    if body is None:
        text = "The server took too long to answer this request."
        return _uncached(settings.status, {}, media_type, text)
    octets = body.encode() if isinstance(body, str) else body
    content_type = settings.content_type or "text/plain; charset=utf-8"
    return _whole(settings.status, {"Cache-Control": "no-store"}, content_type, octets)


def _made_body(make: Callable[[RequestDetails], str | bytes], request: RequestDetails) -> str | bytes | None:
    """What the configured callable makes of the request; None where it fails."""
    try:
        body = cast("object", make(request))  # the user's word for it is not enough
    except Exception:  # noqa: BLE001 - the user's, and there is a response to be sent
        logger.exception("The configured body of the timeout response failed; the plain one is sent.")
        return None
    if isinstance(body, (str, bytes)):
        return body
    logger.error("The configured body of the timeout response is no str or bytes, but %r.", body)
    return None


def _uncached(status: int, headers: dict[str, str], media_type: str, text: str) -> Response:
    """One of the pages about time, which are true of this moment only."""
    headers = {"Cache-Control": "no-store", **headers}
    if media_type not in (JSON, PROBLEM):
        return _page(status, headers, media_type, text)
    # RFC 9457; without a type of its own, the title is the status's phrase.
    problem = {"title": phrase(status), "status": status, "detail": text}
    return _whole(status, headers, PROBLEM, json.dumps(problem).encode())


def _page(status: int, headers: dict[str, str], media_type: str, text: str) -> Response:
    """``text`` is of the media type: HTML is escaped by whoever made it."""
    title = f"{status} {phrase(status)}"
    page = _HTML_PAGE if media_type == HTML else _TEXT_PAGE
    body = page.format(title=title, text=text).encode()
    return _whole(status, headers, f"{media_type}; charset=utf-8", body)


def _whole(status: int, headers: dict[str, str], content_type: str, body: bytes) -> Response:
    own = {"Content-Type": content_type, "Content-Length": str(len(body))}
    return Response(status, tuple({**own, **headers}.items()), body)


def preferred_type(accept: str, offers: Sequence[str]) -> str | None:
    """Which of the offers a client prefers by its ``Accept`` (RFC 9110, 12.5.1); None: none of them.

    Among equals the one that the client names more precisely wins, then the first one. What
    is malformed is skipped; an empty header accepts anything, as a missing one does.
    """
    ranges = list(_media_ranges(accept)) or [("*/*", 1.0)]
    ranked = [(_quality(offer, ranges), offer) for offer in offers]
    (quality, _), best = max(ranked, key=lambda each: each[0])
    return best if quality > 0 else None


def _media_ranges(accept: str) -> Iterator[tuple[str, float]]:
    for part in accept.split(","):
        media_range, *parameters = part.split(";")
        qualities = [match for match in map(_QUALITY.fullmatch, parameters) if match]
        if "/" in media_range:
            yield media_range.strip(" \t").lower(), float(qualities[-1][1]) if qualities else 1.0


def _quality(offer: str, ranges: Sequence[tuple[str, float]]) -> tuple[float, int]:
    """The quality that the most precise matching range gives, and how precise it is."""
    spellings = ("*/*", f"{offer.partition('/')[0]}/*", offer)
    matching = [(spellings.index(name), quality) for name, quality in ranges if name in spellings]
    precision, quality = max(matching, default=(0, 0.0))
    return quality, precision
