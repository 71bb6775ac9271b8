"""The path and query of a request as its client sent them, path prefixes, and tables of them.

Servers differ in what they hand on of the request line: some give it whole, some decode
it, some give the whole URL where only a path belongs. The functions here take the pieces
that an adapter has found and put the original together again. Pure and total; all in
octets, because a path is no text until somebody has decided on its encoding.

May import nothing of hostline.
"""

import re
from collections.abc import Iterable
from typing import Generic, NamedTuple, TypeVar

# RFC 9112, section 3.2.2: clients may send the whole URL to any server, and many servers
# pass it on as if it were the path.
_SCHEME_AND_AUTHORITY = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*+://[^/?#]*+")
_QUERY_OR_FRAGMENT = re.compile(rb"[?#]")

# urllib's unquote_to_bytes raises and catches for each stray percent sign, which a client
# may send by the ten thousand.
_ENCODED_OCTET = re.compile(rb"%([0-9A-Fa-f]{2})")


T = TypeVar("T")
D = TypeVar("D")


class Target(NamedTuple):
    """Path, with the mount prefix, and query, as they were sent: still percent-encoded."""

    path: bytes
    query: bytes


def wsgi_target(root: bytes, path: bytes, query: bytes, request_uri: bytes) -> Target:
    """From SCRIPT_NAME, PATH_INFO, QUERY_STRING and, where the server gives it, the raw target.

    The raw target counts where it is the same path as PATH_INFO. Where it is not, something
    has rewritten the one or the other, and the app answers for PATH_INFO.
    """
    raw = _origin_form(_QUERY_OR_FRAGMENT.split(request_uri, maxsplit=1)[0])
    path = _origin_form(path)
    if raw == root + path or (raw and _gist(raw) == _gist(root + path)):
        return Target(raw, query)
    if raw and _gist(raw) == _gist(path):
        return Target(_encoded(root) + raw, query)
    return Target(_encoded(root + path), query)


def asgi_target(root_path: str, path: str, raw_path: bytes | None, query: bytes) -> Target:
    """From the scope's ``root_path``, ``path``, ``raw_path`` and ``query_string``."""
    root = root_path.rstrip("/").encode("utf-8", "replace")
    # Some test clients leave the query in raw_path.
    raw = raw_path.partition(b"?")[0] if raw_path else _encoded(path.encode("utf-8", "replace"))
    # uvicorn writes the root before whatever was sent, be it a whole URL.
    sent = raw.removeprefix(root)
    if sent != _origin_form(sent):
        raw = _origin_form(sent)
    if not root or _is_below(_decoded(raw), root):
        return Target(raw, query)
    return Target(_encoded(root) + raw, query)


class PathPrefixes:
    """Path prefixes; ``/a`` matches itself and all below, ``/a/`` only what is below it."""

    __slots__ = ("_exact", "_prefixes")

    def __init__(self, paths: Iterable[str]) -> None:
        every = [path.encode("utf-8", "replace") for path in paths]
        self._exact = frozenset(path for path in every if not path.endswith(b"/"))
        self._prefixes = tuple(path if path.endswith(b"/") else path + b"/" for path in every)

    def match(self, path: bytes) -> bool:
        """Whether the path, percent-encoded, is one of them or below one."""
        if not self._prefixes:
            return False
        decoded = _decoded(path)
        return decoded in self._exact or decoded.startswith(self._prefixes)


class PathTable(Generic[T]):
    """Values by path prefixes as in :class:`PathPrefixes`, of which the longest counts."""

    __slots__ = ("_rows",)

    def __init__(self, rows: Iterable[tuple[str, T]]) -> None:
        longest_first = sorted(rows, key=lambda row: len(row[0]), reverse=True)
        self._rows = [(PathPrefixes((path,)), value) for path, value in longest_first]

    def find(self, path: bytes, default: D) -> T | D:
        """The value for the path, percent-encoded."""
        return next((value for prefix, value in self._rows if prefix.match(path)), default)


def _origin_form(target: bytes) -> bytes:
    """The path alone of a target in absolute form; nothing of ``*`` (RFC 9110, section 7.1)."""
    if target.startswith(b"/"):
        return target
    if target == b"*":
        return b""
    match = _SCHEME_AND_AUTHORITY.match(target)
    return target[match.end() :] if match else target


def _encoded(path: bytes) -> bytes:
    """A decoded path with what would look percent-encoded in it encoded again."""
    return path.replace(b"%", b"%25")


def _decoded(path: bytes) -> bytes:
    return _ENCODED_OCTET.sub(lambda match: bytes.fromhex(match[1].decode()), path)


def _gist(path: bytes) -> str:
    """What is left of a path after what servers do to it; equal for two readings of one path.

    cheroot leaves ``%2F`` as it is, Werkzeug replaces what is no UTF-8, waitress drops
    leading slashes, Django adds the last one. None of this makes it another path.
    """
    return _decoded(path).decode("utf-8", "replace").strip("/")


def _is_below(path: bytes, root: bytes) -> bool:
    return path.startswith(root) and path[len(root) : len(root) + 1] in (b"", b"/")
