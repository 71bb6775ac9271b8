"""What a setting that names hosts may be: the canonical host, and patterns of hosts.

Owns what is said of a value that is neither, above all which host was probably meant:
the one in ``https://www.example.com/``.

May import ``_authority``, ``_environment`` and ``_kinds`` of hostline.
"""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias, cast
from urllib.parse import SplitResult

from hostline._authority import Authority, parse_authority
from hostline._environment import Given, Kind, read_patterns
from hostline._kinds import check_each

Pattern: TypeAlias = str | re.Pattern[str] | Callable[[SplitResult], bool]

# Whatever was taken for a host, in its parts; matches any text.
_LOOSE_URL = re.compile(
    r"(?P<scheme>(?:[^:/?#]*:)?//|https?:/?)?(?:(?P<userinfo>[^/?#]*)@)?(?P<authority>[^/?#]*)"
    r"(?P<path>/[^?#]*)?(?P<query>\?[^#]*)?(?P<fragment>#.*)?",
    re.DOTALL | re.IGNORECASE,
)


class _Misread(NamedTuple):
    """A text that is no authority: why not, and which one was probably meant."""

    fault: str
    meant: str | None
    is_https: bool


def _misread(text: str) -> _Misread:
    match = cast("re.Match[str]", _LOOSE_URL.fullmatch(text))
    authority = match["authority"].strip().removeprefix("*.")
    parts = [part for part, value in match.groupdict().items() if value and part != "authority"]
    parts += [part for part, found in _strangers(text.rpartition("@")[2]) if found]
    meant = parse_authority(authority) or parse_authority(f"[{authority}]")
    if "@" in text[match.end("authority") :]:
        meant = None  # it may be the beginning of a password that has a slash in it
    fault = f"it has a {' and a '.join(parts)}" if parts else _fault_of_name(authority)
    is_https = (match["scheme"] or "").lower().startswith("https:")
    return _Misread(fault, meant.text if meant else None, is_https)


def _strangers(text: str) -> Iterator[tuple[str, bool]]:
    yield "blank", " " in text
    yield "character that cannot be printed", not text.isprintable()
    yield "wildcard", "*" in text
    yield "comma", "," in text


def _fault_of_name(authority: str) -> str:
    if not authority:
        return "it is empty"
    if parse_authority(f"[{authority}]") is not None:
        return "an IPv6 address stands in brackets"
    if parse_authority(authority.rpartition(":")[0]) is not None:
        return "its port is no number from 1 to 65535"
    return "such a name cannot exist"


def _check_host(given: Given, value: object) -> Authority | None:
    if value is None:
        return None
    # One that was made by hand may hold anything.
    text = value.text if isinstance(value, Authority) else value
    if not isinstance(text, str):
        raise given.refusal("is no host")
    authority = parse_authority(text)
    if authority is None:
        misread = _misread(text)
        raise given.refusal(f"is no host: {misread.fault}", _host_remedy(given, misread))
    return authority


def _host_remedy(given: Given, misread: _Misread) -> str | None:
    if misread.meant is None:
        return None
    remedy = f"Write {given.name}={given.spelled(misread.meant)}"
    if not misread.is_https:
        return remedy
    return f"{remedy} and {given.sibling('scheme')}={given.spelled('https')}"


def _check_pattern(given: Given, item: object) -> Pattern:
    if isinstance(item, str):
        return _host_pattern(given, item)
    if isinstance(item, re.Pattern):
        regex = cast("re.Pattern[str]", item)
        if isinstance(cast("object", regex.pattern), bytes):
            raise given.refusal_of(regex, "is a regular expression for bytes, but hosts are text")
        return regex
    if callable(item):
        return cast("Callable[[SplitResult], bool]", item)
    raise given.refusal_of(item, "is no pattern of hosts")


def _host_pattern(given: Given, item: str) -> str:
    if item == "*":
        return item
    name = item.removeprefix("*.")
    authority = parse_authority(name)
    if authority is None:
        misread = _misread(item)
        remedy = f"Write {given.spelled(misread.meant)}" if misread.meant else None
        raise given.refusal_of(item, f"is no pattern of hosts: {misread.fault}", remedy)
    if name == item:
        return authority.host if authority.port is None else item
    if authority.is_ip:
        raise given.refusal_of(item, "is no pattern of hosts: an IP address has no subdomains")
    if authority.port is not None:
        remedy = f"Write {given.spelled(f'*.{authority.host}')}: patterns hold for every port"
        raise given.refusal_of(item, "is no pattern of hosts: it has a port", remedy)
    return f"*.{authority.host}"


def _check_patterns(given: Given, value: object) -> tuple[Pattern, ...]:
    return check_each(_check_pattern, given, value)


def matches_nothing(pattern: Pattern) -> bool:
    """Whether it is one of those that rack-canonical-host takes, too, and that are no host's name."""
    if not isinstance(pattern, str) or pattern.startswith("*."):
        return False
    return pattern == "*" or parse_authority(pattern) != Authority(pattern, None)


HOST = Kind(
    _check_host,
    "one host such as 'www.example.com' or 'localhost:8000', or None",
    "one host such as www.example.com or localhost:8000, or off",
    can_be_off=True,
)
PATTERNS = Kind(
    _check_patterns,
    "hosts such as 'api.example.com' and '*.example.com', compiled regular expressions or callables",
    "hosts such as api.example.com and *.example.com, or regular expressions such as /^api[0-9]+[.]/",
    read_patterns,
    can_be_off=True,
)
