"""The types of what users may write: the arguments of the middlewares, before they are normalised.

Owns the names for type checkers and nothing that runs. ``*Options`` are all settings of a
guard, ``*Keywords`` those of them that cannot also stand alone. Users find these names in
``settings``.

May import ``_authority`` and ``_host_kinds`` of hostline.
"""

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import timedelta
from types import EllipsisType
from typing import Any, Literal, TypeAlias, TypedDict

from hostline._authority import Authority
from hostline._host_kinds import Pattern

Scheme: TypeAlias = Literal["http", "https"]
IpHosts: TypeAlias = Literal["pass", "redirect"]
Mode: TypeAlias = Literal["respond", "raise", "report"]
Seconds: TypeAlias = float | timedelta | None
# What users' callables take is said by the adapter that calls them: an environ, a scope, a
# Django request, RequestDetails (a module above this one). Any, and only in what is
# accepted, because a callable that takes one of these does not take every object.
Observer: TypeAlias = Callable[[Any], object]
_HostFor: TypeAlias = Callable[[Any], str | None]
_TimeoutFor: TypeAlias = Callable[[Any], Seconds | EllipsisType]
_Body: TypeAlias = str | bytes | Callable[[Any], str | bytes]


class CanonicalHostKeywords(TypedDict, total=False):
    """The keyword-only arguments of ``CanonicalHostMiddleware``; ``...`` counts as not given."""

    host_for: _HostFor | EllipsisType | None
    ignore: Pattern | Sequence[Pattern] | AbstractSet[Pattern] | EllipsisType | None
    only: Pattern | Sequence[Pattern] | AbstractSet[Pattern] | EllipsisType | None
    cache_control: str | EllipsisType | None
    status: int | EllipsisType
    preserve_method: bool | EllipsisType
    scheme: Scheme | EllipsisType | None
    exempt_paths: str | Sequence[str] | AbstractSet[str] | EllipsisType | None
    ip_hosts: IpHosts | EllipsisType
    trust_forwarded_host: bool | EllipsisType
    trust_forwarded_proto: bool | EllipsisType | None
    report_only: bool | EllipsisType
    observers: str | Observer | Sequence[str | Observer] | EllipsisType | None


class CanonicalHostOptions(CanonicalHostKeywords, total=False):
    """Those and ``host``, which may also stand alone."""

    host: str | Authority | EllipsisType | None


class RequestTimeoutOptions(TypedDict, total=False):
    """The arguments of ``RequestTimeoutMiddleware``, keyword-only all; ``...`` counts as not given."""

    service_timeout: Seconds | EllipsisType
    wait_timeout: Seconds | EllipsisType
    wait_overtime: Seconds | EllipsisType
    service_past_wait: bool | EllipsisType
    term_on_timeout: int | EllipsisType | None
    stream_timeout: Seconds | EllipsisType
    warn_after: Seconds | EllipsisType
    mode: Mode | EllipsisType
    timeout_for: _TimeoutFor | Mapping[str, Seconds] | EllipsisType | None
    exempt_paths: str | Sequence[str] | AbstractSet[str] | EllipsisType | None
    trust_timeout_header: str | Sequence[str] | AbstractSet[str] | EllipsisType | None
    status: int | EllipsisType
    body: _Body | EllipsisType | None
    content_type: str | EllipsisType | None
    observers: str | Observer | Sequence[str | Observer] | EllipsisType | None
    signal: int | str | EllipsisType
    deferral_limit: Seconds | EllipsisType
    shield_limit: Seconds | EllipsisType
