"""Read an authority, ``host[:port]``, into the one form in which hosts are compared.

Pure and total: malformed input is the answer ``None``, never an exception. The normal
form of a host is lower case, IDNA 2008 A-labels (UTS 46 mapping first, as browsers do),
without the root's trailing dot, an IPv6 address compressed and in brackets.

May import nothing of hostline.
"""

import re
import socket
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

import idna

# RFC 3986's reg-name admits more ("!$&'()*+,;=" and percent-encoding), but no resolver
# does, and each of them has served somebody to confuse two parsers. The underscore is
# in use (service names inside container networks).
_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*", re.ASCII)
_ENDS_IN_A_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)", re.ASCII)
# RFC 3986 allows any number of zeros before it; what is remembered of a header is to be short.
_PORT = re.compile(r"0{0,32}([0-9]{0,5})", re.ASCII)

# A name of 253 octets cannot be written in more characters than this, and idna's cost
# grows faster than its input.
_LONGEST_NAME = 255


#: Of each scheme, where none is named.
DEFAULT_PORTS = {"http": 80, "https": 443}


class Authority(NamedTuple):
    """A host in its normal form and the port that was named, if one was."""

    host: str
    port: int | None

    @property
    def text(self) -> str:
        """As it is written: ``host`` or ``host:port``."""
        return self.host if self.port is None else f"{self.host}:{self.port}"

    @property
    def is_ip(self) -> bool:
        """Whether the host is an IP literal."""
        return self.host[0] == "[" or _ENDS_IN_A_NUMBER.fullmatch(self.host) is not None


def parse_authority(text: str) -> Authority | None:
    """Read ``host``, ``host:port`` or ``host:``; None where it is malformed."""
    if text.startswith("["):
        literal, bracket, rest = text[1:].partition("]")
        host, colon, port = _ipv6(literal) if bracket else None, rest[:1], rest[1:]
        if rest and colon != ":":
            return None
    else:
        name, colon, port = text.partition(":")
        host = _name(name)
    match = _PORT.fullmatch(port)
    if host is None or match is None:
        return None
    number = int(match[1] or "0") if port else None
    if number is not None and not 0 < number < 65536:
        return None
    return Authority(host, number)


def decode_header(value: bytes) -> str:
    """The text of a ``Host`` header: UTF-8, else ISO-8859-1, which decodes anything."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _name(text: str) -> str | None:
    """The normal form of a registered name or an IPv4 address."""
    if not text.isascii():
        if len(text) > _LONGEST_NAME:
            return None
        try:
            text = idna.encode(text, uts46=True).decode("ascii")
        except (idna.IDNAError, UnicodeError):
            return None
    name = text.lower().removesuffix(".")
    if _NAME.fullmatch(name) is None:
        return None
    if _ENDS_IN_A_NUMBER.fullmatch(name) is not None:
        # WHATWG URL: a host that ends in a number is an IPv4 address or an error. The
        # short and hexadecimal forms that browsers expand are never sent in a header.
        return _ipv4(name)
    return name


def _ipv4(text: str) -> str | None:
    try:
        return str(IPv4Address(text))
    except ValueError:
        return None


def _ipv6(text: str) -> str | None:
    if "%" in text:  # a zone id means something only to the host that wrote it
        return None
    try:
        # Not str(): CPython 3.13 began to write IPv4-mapped addresses another way.
        return f"[{socket.inet_ntop(socket.AF_INET6, IPv6Address(text).packed)}]"
    except ValueError:
        return None
