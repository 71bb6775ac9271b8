"""The decision about one request: pass, redirect to the canonical host, or refuse.

Owns the rules and their order. :func:`decide` is pure and total: it is given a request as
octets (:class:`Asked`) and odd input is an answer, never an exception; only the callables
among a user's settings may raise. ``_host_guard`` is what the adapters share.

Invariants: a ``Location`` is printable ASCII, an absolute URL of the canonical host, and
never the URL that was asked for; following it passes.

May import ``settings``, ``_authority`` and ``_targets`` of hostline. Adapters render.
"""

import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, Self
from urllib.parse import SplitResult, quote_from_bytes

from hostline._authority import DEFAULT_PORTS, Authority, decode_header, parse_authority
from hostline._targets import PathPrefixes
from hostline.settings import CanonicalHostKeywords as CanonicalHostKeywords  # noqa: PLC0414 - handed on
from hostline.settings import CanonicalHostSettings, Pattern, Scheme

logger = logging.getLogger("hostline")

_NOWHERE = Authority("", None)
_PRESERVING = {301: 308, 302: 307}

# RFC 3986, section 3.3 and 3.4, less the unreserved characters, which are always safe, and
# with the percent sign: what is encoded stays encoded, as it was.
_SAFE_IN_PATH = "/:@!$&'()*+,;=%"
_SAFE_IN_QUERY = _SAFE_IN_PATH + "?"
_STRAY_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")

_MOST_LOGGED = 300


class Asked(NamedTuple):
    """What a request asked for, as it came: octets wherever HTTP has octets."""

    method: str
    scheme: str  #: the server's word for it; that of a WebSocket handshake is ws or wss
    host: bytes | None  #: None: no such header. Several are joined by commas, as by most servers
    forwarded_host: bytes | None
    forwarded_proto: bytes | None
    path: bytes  #: percent-encoded, with the mount prefix
    query: bytes
    request_id: bytes | None = None


@dataclass(frozen=True, slots=True)
class Pass:
    """The request is the app's business."""


@dataclass(frozen=True, slots=True)
class Redirect:
    """The request belongs to ``location``."""

    location: str
    status: int


@dataclass(frozen=True, slots=True)
class Reject:
    """The request names no host that can exist: 400, and never a redirect."""


Decision = Pass | Redirect | Reject


class _Origin(NamedTuple):
    """Scheme, host and port in the one form in which they are compared and written."""

    scheme: Scheme
    host: str
    port: int | None  #: None where it is the scheme's own

    @classmethod
    def of(cls, scheme: Scheme, host: str, port: int | None) -> Self:
        return cls(scheme, host, None if port == DEFAULT_PORTS[scheme] else port)

    @property
    def netloc(self) -> str:
        return self.host if self.port is None else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}"


class Patterns:
    """``ignore`` or ``only``, sorted by kind so that each kind is tried at once."""

    __slots__ = ("_names", "_regexes", "_suffixes", "_tests")

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        every = tuple(patterns)
        texts = [pattern for pattern in every if isinstance(pattern, str)]
        self._names = frozenset(text for text in texts if not text.startswith("*."))
        self._suffixes = tuple(text[1:] for text in texts if text.startswith("*."))
        self._regexes = tuple(pattern for pattern in every if isinstance(pattern, re.Pattern))
        self._tests = tuple(p for p in every if not isinstance(p, (str, re.Pattern)))

    def match(self, host: str, split_url: Callable[[], SplitResult]) -> bool:
        """Whether the host, in its normal form, or its request matches one of them."""
        if host in self._names or host.endswith(self._suffixes):
            return True
        if any(regex.search(host) for regex in self._regexes):
            return True
        return bool(self._tests) and any(test(split_url()) for test in self._tests)


class HostRules:
    """A ``CanonicalHostSettings`` made ready for many requests; changes only to log once."""

    def __init__(self, settings: CanonicalHostSettings) -> None:
        self.settings = settings
        self.exempt_paths = PathPrefixes(settings.exempt_paths)
        self.ignore = Patterns(settings.ignore)
        self.only = Patterns(settings.only) if settings.only else None
        # Guarded by nothing: two threads may at worst log the same thing twice.
        self._has_complained = False

    def scheme_of(self, scheme: str, forwarded_proto: bytes | None) -> Scheme:
        """The scheme that counts, ``http`` or ``https``."""
        if self.settings.trust_forwarded_proto and forwarded_proto:
            forwarded = _rightmost(forwarded_proto).lower()
            # Traefik calls the scheme of a handshake ws or wss; no other request has it.
            known = ("http", "https", "ws", "wss") if scheme in ("ws", "wss") else ("http", "https")
            scheme = forwarded if forwarded in known else scheme
        return "https" if scheme in ("https", "wss") else "http"

    def host_of(self, asked: Asked) -> str:
        """The text of the host that counts; empty where there is none."""
        if self.settings.trust_forwarded_host and asked.forwarded_host:
            forwarded = _rightmost(asked.forwarded_host)
            if forwarded:
                return forwarded
        return decode_header(asked.host or b"")

    def canonical_for(self, source: object) -> Authority | None:
        """Where the request belongs; ``source`` is what ``host_for`` is given."""
        answer = self.settings.host_for(source) if self.settings.host_for else None
        return self.settings.host if answer is None else self._answered(answer)

    def _answered(self, answer: object) -> Authority | None:
        authority = parse_authority(answer) if isinstance(answer, str) else None
        if authority is None and not self._has_complained:
            self._has_complained = True
            # One bad answer must not take a whole site down: the request passes.
            logger.error("host_for gave %s, which is no host: such requests pass", _shown(repr(answer)))
        return authority

    def status_for(self, method: str) -> int:
        """The redirect's status: with ``preserve_method`` a POST stays a POST."""
        status = self.settings.status
        if not self.settings.preserve_method or method in ("GET", "HEAD"):
            return status
        return _PRESERVING.get(status, status)


_PASS = Pass()
_REJECT = Reject()


def decide(rules: HostRules, asked: Asked, source: object = None) -> Decision:
    """What to do with a request; ``source`` is handed to ``host_for``, if it comes to that."""
    # A target that does not begin with a slash would run into the host before it.
    path = asked.path if asked.path.startswith(b"/") else b"/" + asked.path
    if rules.exempt_paths.match(path):
        return _PASS
    text = rules.host_of(asked)
    here = parse_authority(text) if text else _NOWHERE
    if here is None:
        return _REJECT
    if here is _NOWHERE and rules.only is None:
        return _PASS
    if here is not _NOWHERE and here.is_ip and rules.settings.ip_hosts == "pass":
        return _PASS
    origin = _Origin.of(rules.scheme_of(asked.scheme, asked.forwarded_proto), here.host, here.port)
    if _is_left_alone(rules, origin, path, asked.query):
        return _PASS
    canonical = rules.canonical_for(source)
    home = origin if canonical is None else _home(origin, canonical, rules.settings.scheme)
    if home == origin:
        return _PASS
    return Redirect(f"{home}{_quoted(path, asked.query)}", rules.status_for(asked.method))


def _is_left_alone(rules: HostRules, origin: _Origin, path: bytes, query: bytes) -> bool:
    def split_url() -> SplitResult:
        url_path, _, url_query = _quoted(path, query).partition("?")
        return SplitResult(origin.scheme, origin.netloc, url_path, url_query, "")

    if rules.ignore.match(origin.host, split_url):
        return True
    return rules.only is not None and not rules.only.match(origin.host, split_url)


def _home(origin: _Origin, canonical: Authority, wanted: Scheme | None) -> _Origin:
    """Where a request to this origin belongs; the same origin where it is right."""
    scheme = wanted or origin.scheme
    # Another scheme is served on another port, and nobody has said on which.
    port = canonical.port or (origin.port if scheme == origin.scheme else None)
    return _Origin.of(scheme, canonical.host, port)


def _quoted(path: bytes, query: bytes) -> str:
    """Path and query with all that RFC 3986 does not allow percent-encoded, in linear time."""
    url = quote_from_bytes(_STRAY_PERCENT.sub(b"%25", path), _SAFE_IN_PATH)
    if not query:
        return url
    return f"{url}?{quote_from_bytes(_STRAY_PERCENT.sub(b'%25', query), _SAFE_IN_QUERY)}"


def _rightmost(value: bytes) -> str:
    """The last of a header's values: the one that the nearest proxy has written."""
    return decode_header(value.rpartition(b",")[2].strip(b" \t"))


def _shown(text: str) -> str:
    """Anybody's text in quotes, fit for one line of a log and not too long for it."""
    return ascii(text if len(text) <= _MOST_LOGGED else f"{text[:_MOST_LOGGED]}...")
