"""Ask a running deployment what it answers, for ``hostline check``.

A :class:`Deployment` is the addresses at which it listens, one for each scheme. It is asked
there for whatever host: the name goes into the ``Host`` header and into TLS, as if a
resolver had given the address. So it can be asked before its names are.

Nothing here judges; ``_deployment_report`` does.

Imports: ``_authority``.
"""

import ssl
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from http.client import HTTPConnection, HTTPException
from socket import create_connection
from typing import NamedTuple
from urllib.parse import quote, urljoin, urlsplit

from hostline._authority import DEFAULT_PORTS, Authority, decode_header, parse_authority

#: How many redirects are followed; browsers give up after 20.
MOST_HOPS = 10
_HEADERS = {"User-Agent": "hostline-check", "Connection": "close"}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class Address(NamedTuple):
    """Where one scheme is served."""

    host: str
    port: int | None  #: None: that of the scheme


class Place(NamedTuple):
    """What is asked for: a URL in its parts, the host as it is to be sent."""

    scheme: str
    host: str
    target: str

    @property
    def url(self) -> str:
        """The URL."""
        return f"{self.scheme}://{self.host}{self.target}"

    @property
    def name(self) -> str:
        """The host without its port, for TLS."""
        authority = parse_authority(self.host)
        return self.host if authority is None else authority.host.strip("[]")

    @property
    def is_ip(self) -> bool:
        """Whether the host is an address."""
        authority = parse_authority(self.host)
        return authority is not None and authority.is_ip

    @property
    def origin(self) -> tuple[str, Authority | None]:
        """What makes it the same place as another, however its host is spelled."""
        return self.scheme, parse_authority(self.host)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; ``status`` is None where nothing did, and ``error`` tells why."""

    status: int | None
    location: str | None = None
    cache_control: str | None = None
    error: str | None = None


class End(StrEnum):
    """How a chain of redirects came to its end."""

    ANSWERED = "answered"
    LOOP = "loop"  #: the last redirect points at where it has been
    ENDLESS = "endless"  #: more redirects than are followed
    LEFT = "left"  #: the last redirect points at something else than this deployment
    FAILED = "failed"  #: no answer


@dataclass(slots=True)
class Chain:
    """One place that was asked for, and where it led."""

    hops: list[tuple[Place, Answer]]
    end: End = End.ANSWERED

    @property
    def start(self) -> Place:
        """What was asked for."""
        return self.hops[0][0]

    @property
    def last(self) -> tuple[Place, Answer]:
        """Where it came to its end."""
        return self.hops[-1]


def parse_url(text: str) -> tuple[Place, Address]:
    """What a URL asks for and where; a ``ValueError`` where it is none that can be asked.

    What no request line can hold is written as browsers do: a blank as ``%20``, a ``ü`` in the
    host as an A-label and elsewhere in percents.
    """
    fault = f"{text!r} is no URL such as https://www.example.com or http://127.0.0.1:8000/path"
    try:
        url = urlsplit(text)
    except ValueError:  # a bracket that does not end, and the like
        raise ValueError(fault) from None
    authority = parse_authority(url.netloc)
    if url.scheme not in DEFAULT_PORTS or authority is None:
        raise ValueError(fault)
    target = f"{url.path or '/'}{f'?{url.query}' if url.query else ''}"
    target = quote(target, safe=string.punctuation, errors="surrogateescape")
    return Place(url.scheme, _sent(url.netloc, authority), target), Address(
        authority.host.strip("[]"), authority.port
    )


def parse_host(text: str) -> str:
    """A host as it is to be sent; a ``ValueError`` where it is none."""
    authority = parse_authority(text)
    if authority is None:
        raise ValueError(
            f"{text!r} is no host. Write its name and, where it has one, its port, such as www.example.com "
            "or www.example.com:8000; scheme and path are those of the URL"
        )
    return _sent(text, authority)


def _sent(text: str, authority: Authority) -> str:
    """As it was written, for it is asked what that leads to, unless no header can hold it."""
    return text if text.isascii() else authority.text


class _Connection(HTTPConnection):
    """A connection to an address, in the name of a host."""

    def __init__(self, host: str, port: int, name: str, tls: ssl.SSLContext | None, timeout: float) -> None:
        super().__init__(host, port, timeout=timeout)
        self._name = name
        self._tls = tls

    def connect(self) -> None:
        self.sock = create_connection((self.host, self.port), self.timeout)
        if self._tls is not None:
            self.sock = self._tls.wrap_socket(self.sock, server_hostname=self._name)


class Deployment:
    """A deployment, by its addresses. Each question has a connection of its own."""

    def __init__(self, addresses: Mapping[str, Address], tls: ssl.SSLContext, timeout: float) -> None:
        self.addresses = dict(addresses)
        #: The scheme that nobody has named: where no port is given, each may be on its own.
        self.implied: str | None = None
        self._tls = tls
        self._timeout = timeout
        for scheme, other in (("http", "https"), ("https", "http")):
            if self.addresses.keys() == {scheme} and self.addresses[scheme].port is None:
                self.addresses[other] = self.addresses[scheme]
                self.implied = other

    def ask(self, place: Place, headers: Mapping[str, str] | None = None, host: str | None = None) -> Answer:
        """GET it, and look at the head of the answer. ``host`` is sent in place of its own. Never raises."""
        tls = self._tls if place.scheme == "https" else None
        address = self.addresses[place.scheme]
        port = address.port or DEFAULT_PORTS[place.scheme]
        connection = _Connection(address.host, port, place.name, tls, self._timeout)
        try:
            connection.putrequest("GET", place.target, skip_host=True)
            connection.putheader("Host", host or place.host)
            for name, value in {**_HEADERS, **(headers or {})}.items():
                connection.putheader(name, value)
            connection.endheaders()
            with connection.getresponse() as response:
                return Answer(
                    response.status, response.getheader("Location"), response.getheader("Cache-Control")
                )
        except (OSError, HTTPException, ValueError) as error:
            return Answer(None, error=str(error) or type(error).__name__)
        finally:
            connection.close()

    def follow(self, place: Place) -> Chain:
        """Ask for it, and for what it redirects to, as long as that is this deployment."""
        chain = Chain([])
        for here in self._places(place, chain):
            chain.hops.append((here, self.ask(here)))
        return chain

    def _places(self, place: Place, chain: Chain) -> Iterator[Place]:
        seen: set[object] = set()
        while True:
            seen.add((place.origin, place.target))
            yield place
            answer = chain.last[1]
            if answer.status is None:
                chain.end = End.FAILED
                return
            if answer.status not in _REDIRECTS or answer.location is None:
                return
            further = _redirected(place, answer.location)
            if further is None or not self._is_own(place, further):
                chain.end = End.LEFT
                return
            if (further.origin, further.target) in seen:
                chain.end = End.LOOP
                return
            if len(chain.hops) > MOST_HOPS:
                chain.end = End.ENDLESS
                return
            place = further

    def _is_own(self, place: Place, further: Place) -> bool:
        """Whether a redirect stays here: to the same host, or of the kind that changes nothing else."""
        is_same = place.origin[1] == further.origin[1] or place.target == further.target
        return is_same and further.scheme in self.addresses


def _redirected(place: Place, location: str) -> Place | None:
    """Where a redirect leads; None where that is no URL that can be asked."""
    location = decode_header(location.encode("latin-1"))  # as http.client has read it
    try:
        return parse_url(urljoin(place.url, location))[0]
    except ValueError:
        return None
