"""The settings of both guards: every field, its default, its variable and what it may be.

Owns the defaults, which are written nowhere else, and the one form in which the rest of
hostline finds each value: a host is parsed, a timeout is a float or None, one pattern is a
tuple of one. An object of these classes is therefore valid, whoever made it; making one
from its own values (:func:`dataclasses.replace`) changes nothing.

Each field names its :class:`Kind`, which says what its values may be. A wrong value is a
whole sentence in a ``SettingsError`` that holds all of them.

Hands on the types of ``_options``. May import ``errors``, ``_authority``, ``_environment``,
``_kinds``, ``_host_kinds`` and ``_options`` of hostline.
"""

import logging
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from types import EllipsisType
from typing import Self, TypeVar, cast

from hostline._authority import Authority
from hostline._environment import Given, Kind, Setting, find, is_on_heroku, nearest, unknown_variables
from hostline._host_kinds import HOST, PATTERNS, Pattern, matches_nothing
from hostline._kinds import (
    BODY,
    CALLABLE,
    CONTENT_TYPE,
    COUNT,
    ERROR_STATUS,
    HEADER,
    HEADER_NAMES,
    HOST_OBSERVERS,
    OBSERVERS,
    PATHS,
    REDIRECT_STATUS,
    SECONDS,
    SIGNAL,
    SWITCH,
    SWITCH_OR_NONE,
    TIMEOUT_FOR,
    one_of,
)
from hostline._options import (
    CanonicalHostKeywords,
    CanonicalHostOptions,
    IpHosts,
    Mode,
    Observer,
    RequestTimeoutOptions,
    Scheme,
    Seconds,
)
from hostline.errors import SettingsError

__all__ = [
    "CanonicalHostKeywords",
    "CanonicalHostOptions",
    "CanonicalHostSettings",
    "IpHosts",
    "Mode",
    "Observer",
    "Pattern",
    "RequestTimeoutOptions",
    "RequestTimeoutSettings",
    "Scheme",
    "Seconds",
    "Setting",
    "check_environment",
]

T = TypeVar("T")

_logger = logging.getLogger("hostline")
_NO_LABELS: Mapping[str, str] = {}


def _setting(default: T, kind: Kind, variable: str | None, doc: str, *, ruby: str | None = None) -> T:
    """A field with its default and all else that a :class:`Setting` says of it."""
    about = {"kind": kind, "variable": variable, "doc": doc, "unit": kind.unit, "ruby": ruby}
    return field(default=default, metadata=about)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Settings:
    """What both classes can do."""

    def __post_init__(self) -> None:
        given = {each.name: Given(each, getattr(self, each.name)) for each in self.settings()}
        values, problems = self._settled(given, os.environ)
        if problems:
            raise SettingsError(problems)
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @classmethod
    def load(
        cls,
        arguments: Mapping[str, object],
        environ: Mapping[str, str] | None = None,
        labels: Mapping[str, str] = _NO_LABELS,
    ) -> Self:
        """The settings from what the user gave, the environment and the defaults, in this order.

        An argument that is ``...`` was not given; ``environ`` is ``os.environ`` unless told otherwise.
        ``labels`` say what a problem calls an argument that its author calls otherwise than the field.
        """
        environ = os.environ if environ is None else environ
        values, problems = cls._settled(cls._given(arguments, environ, labels), environ)
        problems += unknown_variables(environ, _known_variables())
        if problems:
            raise SettingsError(problems)
        build: Callable[..., Self] = cls
        return build(**values)

    @classmethod
    def settings(cls) -> tuple[Setting, ...]:
        """Every field, in order."""
        return tuple(_described(declared) for declared in fields(cls))

    @classmethod
    def sources(
        cls, arguments: Mapping[str, object], environ: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """Where :meth:`load` takes each field from: ``argument``, the variable's name or ``default``."""
        given = cls._given(arguments, os.environ if environ is None else environ)
        named = {name: each.variable or "argument" for name, each in given.items()}
        return {each.name: named.get(each.name, "default") for each in cls.settings()}

    @classmethod
    def _given(
        cls,
        arguments: Mapping[str, object],
        environ: Mapping[str, str],
        labels: Mapping[str, str] = _NO_LABELS,
    ) -> dict[str, Given]:
        """By name, what is not left to its default."""
        settings = cls.settings()
        _refuse_unknown_arguments(cls, arguments, [each.name for each in settings])
        found = (find(each, arguments, environ, labels) for each in settings)
        return {each.setting.name: each for each in found if each is not None}

    @classmethod
    def _settled(
        cls, given: Mapping[str, Given], environ: Mapping[str, str]
    ) -> tuple[dict[str, object], list[str]]:
        """The normal form of every value that has one, and the problems of those that have none."""
        values: dict[str, object] = {}
        problems: list[str] = []
        for name, each in given.items():
            try:
                values[name] = each.settled()
            except SettingsError as error:
                problems += error.problems
        problems += cls._conflicts(given, values)
        cls._complete(values, environ)
        return values, problems

    @classmethod
    def _conflicts(cls, given: Mapping[str, Given], values: Mapping[str, object]) -> Iterator[str]:
        """Problems of values that are right, each for itself."""
        del given, values
        return iter(())

    @classmethod
    def _complete(cls, values: dict[str, object], environ: Mapping[str, str]) -> None:
        """Fill in what depends on where the process runs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CanonicalHostSettings(_Settings):
    """Which requests are redirected to the canonical host, and how."""

    host: Authority | None = _setting(
        None,
        HOST,
        "HOSTLINE_CANONICAL_HOST",
        "The canonical host, `name` or `name:port`. Without one the middleware does nothing.",
        ruby="CANONICAL_HOST",
    )
    host_for: Callable[[object], str | None] | None = _setting(
        None,
        CALLABLE,
        None,
        "Gives the canonical host of one request, from its environ, scope or Django request; its "
        "answer, unless None, wins over `host`.",
    )
    ignore: tuple[Pattern, ...] = _setting(
        (),
        PATTERNS,
        "HOSTLINE_CANONICAL_IGNORE",
        "Requests for these hosts pass: exact names, `*.example.com` for any subdomain, regular "
        "expressions (searched).",
    )
    only: tuple[Pattern, ...] = _setting(
        (),
        PATTERNS,
        "HOSTLINE_CANONICAL_ONLY",
        "Only requests for these hosts are redirected; patterns as in `ignore`.",
    )
    cache_control: str | None = _setting(
        None,
        HEADER,
        "HOSTLINE_CANONICAL_CACHE_CONTROL",
        "`Cache-Control` of the redirect.",
    )
    status: int = _setting(
        301,
        REDIRECT_STATUS,
        "HOSTLINE_CANONICAL_STATUS",
        "Status of the redirect: 301, 302, 307 or 308.",
    )
    preserve_method: bool = _setting(
        True,
        SWITCH,
        "HOSTLINE_CANONICAL_PRESERVE_METHOD",
        "Whether a method other than GET and HEAD is kept, by a 308 (or 307).",
    )
    scheme: Scheme | None = _setting(
        None,
        one_of("http", "https", can_be_off=True),
        "HOSTLINE_CANONICAL_SCHEME",
        "The canonical scheme, put right in the same redirect. Unset: that of the request is kept.",
    )
    exempt_paths: tuple[str, ...] = _setting(
        (),
        PATHS,
        "HOSTLINE_CANONICAL_EXEMPT_PATHS",
        "Requests whose path begins with one of these pass: health checks, ACME challenges.",
    )
    ip_hosts: IpHosts = _setting(
        "pass",
        one_of("pass", "redirect"),
        "HOSTLINE_CANONICAL_IP_HOSTS",
        "What happens to requests for an IP address, such as a load balancer's probes.",
    )
    trust_forwarded_host: bool = _setting(
        False,
        SWITCH,
        "HOSTLINE_CANONICAL_TRUST_FORWARDED_HOST",
        "Whether `X-Forwarded-Host` counts as the host. Only behind a proxy that sets it.",
    )
    trust_forwarded_proto: bool = _setting(
        cast("bool", None),
        SWITCH_OR_NONE,
        "HOSTLINE_CANONICAL_TRUST_FORWARDED_PROTO",
        "Whether `X-Forwarded-Proto` counts as the scheme. Unset: on Heroku only (`DYNO` is set "
        "and `CI` is not).",
    )
    report_only: bool = _setting(
        False,
        SWITCH,
        "HOSTLINE_CANONICAL_REPORT_ONLY",
        "Whether redirects are only logged.",
    )
    observers: tuple[str | Callable[[object], object], ...] = _setting(
        ("log",),
        HOST_OBSERVERS,
        "HOSTLINE_CANONICAL_OBSERVERS",
        "Who is told of each request that is redirected or rejected: `log`, `prometheus`, `opentelemetry`.",
    )

    def __post_init__(self) -> None:
        _Settings.__post_init__(self)
        for name, patterns in (("ignore", self.ignore), ("only", self.only)):
            for pattern in filter(matches_nothing, patterns):
                _logger.warning("%r in %s matches no request: a pattern is a host's name", pattern, name)

    @classmethod
    def _complete(cls, values: dict[str, object], environ: Mapping[str, str]) -> None:
        if values.get("trust_forwarded_proto") is None:
            values["trust_forwarded_proto"] = is_on_heroku(environ)


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestTimeoutSettings(_Settings):
    """How long requests may wait and run, and what happens to those that take longer."""

    service_timeout: float | None = _setting(
        15,
        SECONDS,
        "HOSTLINE_SERVICE_TIMEOUT",
        "How long a request may run.",
        ruby="RACK_TIMEOUT_SERVICE_TIMEOUT",
    )
    wait_timeout: float | None = _setting(
        30,
        SECONDS,
        "HOSTLINE_WAIT_TIMEOUT",
        "How long a request may have waited before it reaches the app, by its `X-Request-Start`.",
        ruby="RACK_TIMEOUT_WAIT_TIMEOUT",
    )
    wait_overtime: float | None = _setting(
        60,
        SECONDS,
        "HOSTLINE_WAIT_OVERTIME",
        "How much longer a request with a body may have waited.",
        ruby="RACK_TIMEOUT_WAIT_OVERTIME",
    )
    service_past_wait: bool = _setting(
        False,
        SWITCH,
        "HOSTLINE_SERVICE_PAST_WAIT",
        "Whether a request may run for all of its service timeout when its wait limit ends earlier.",
        ruby="RACK_TIMEOUT_SERVICE_PAST_WAIT",
    )
    term_on_timeout: int = _setting(
        0,
        COUNT,
        "HOSTLINE_TERM_ON_TIMEOUT",
        "After how many timeouts the process is asked to end, so that it is replaced.",
        ruby="RACK_TIMEOUT_TERM_ON_TIMEOUT",
    )
    stream_timeout: float | None = _setting(
        0,
        SECONDS,
        "HOSTLINE_STREAM_TIMEOUT",
        "How long a response that has begun may pause between two chunks.",
    )
    warn_after: float | None = _setting(
        0,
        SECONDS,
        "HOSTLINE_WARN_AFTER",
        "After how long a running request is logged as slow, with its stack.",
    )
    mode: Mode = _setting(
        "respond",
        one_of("respond", "raise", "report"),
        "HOSTLINE_TIMEOUT_MODE",
        "`respond`: answer 504 or 503; `raise`: raise an error to what wraps us; `report`: only observe.",
    )
    timeout_for: Callable[[object], Seconds | EllipsisType] | tuple[tuple[str, float | None], ...] | None = (
        _setting(
            None,
            TIMEOUT_FOR,
            "HOSTLINE_TIMEOUT_FOR",
            "The service timeouts of some requests: what their paths begin with and seconds, 0 for no limit; "
            "the longest path counts. Where a proxy sends `X-Request-Start`, `wait_timeout` bounds them too, "
            "unless `service_past_wait` is on.",
        )
    )
    trust_timeout_header: tuple[str, ...] = _setting(
        (),
        HEADER_NAMES,
        "HOSTLINE_TIMEOUT_TRUST_TIMEOUT_HEADER",
        "Headers in which callers say how long they wait, and which lower a request's limit: "
        "`hostline-timeout`, `x-envoy-expected-rq-timeout-ms` (milliseconds), `grpc-timeout`. Only where "
        "your own services call this one.",
    )
    exempt_paths: tuple[str, ...] = _setting(
        (),
        PATHS,
        "HOSTLINE_TIMEOUT_EXEMPT_PATHS",
        "Requests whose path begins with one of these are not timed.",
    )
    status: int = _setting(
        504,
        ERROR_STATUS,
        "HOSTLINE_TIMEOUT_STATUS",
        "Status of the answer to a request that ran too long.",
    )
    body: str | bytes | Callable[[object], str | bytes] | None = _setting(
        None,
        BODY,
        "HOSTLINE_TIMEOUT_BODY",
        "Body of that answer. Unset: HTML, JSON or text, as the client accepts.",
    )
    content_type: str | None = _setting(
        None,
        CONTENT_TYPE,
        "HOSTLINE_TIMEOUT_CONTENT_TYPE",
        "`Content-Type` of `body`.",
    )
    observers: tuple[str | Callable[[object], object], ...] = _setting(
        ("log",),
        OBSERVERS,
        "HOSTLINE_TIMEOUT_OBSERVERS",
        "Who is told of each request's states: `log`, `prometheus`, `opentelemetry`, `sentry`.",
    )
    signal: int = _setting(
        getattr(signal, "SIGURG", 0),
        SIGNAL,
        "HOSTLINE_TIMEOUT_SIGNAL",
        "The signal by which code in the main thread is interrupted. Where there is no SIGURG (Windows) "
        "the default is 0: none.",
    )
    deferral_limit: float | None = _setting(
        1,
        SECONDS,
        "HOSTLINE_TIMEOUT_DEFERRAL_LIMIT",
        "How long an abort is put off while the code is where an exception would break state: closing, in "
        "a lock's or a pool's bookkeeping; ten times as long while it imports a module.",
    )
    shield_limit: float | None = _setting(
        5,
        SECONDS,
        "HOSTLINE_TIMEOUT_SHIELD_LIMIT",
        "How long behind the deadline `hostline.shield()` can put an abort off. 0: not at all.",
    )

    @classmethod
    def _conflicts(cls, given: Mapping[str, Given], values: Mapping[str, object]) -> Iterator[str]:
        body_is_wrong = "body" in given and "body" not in values
        if values.get("content_type") is None or values.get("body") is not None or body_is_wrong:
            return
        each = given["content_type"]
        remedy = f"Give {each.sibling('body')} as well, or leave this out"
        yield from each.refusal("has no body to describe", remedy).problems


def _described(declared: "Field[object]") -> Setting:
    about = declared.metadata
    return Setting(
        declared.name, declared.default, about["doc"], about["variable"], about["ruby"], about["kind"]
    )


def _refuse_unknown_arguments(
    cls: type[_Settings], arguments: Mapping[str, object], known: list[str]
) -> None:
    unknown = [f"{name} (the nearest is {nearest(name, known)})" for name in arguments if name not in known]
    if unknown:
        raise TypeError(f"{cls.__name__} has no setting called {' or '.join(unknown)}")


def _known_variables() -> frozenset[str]:
    every = (*CanonicalHostSettings.settings(), *RequestTimeoutSettings.settings())
    return frozenset(each.variable for each in every if each.variable is not None)


def check_environment(environ: Mapping[str, str] | None = None) -> None:
    """Raise one ``SettingsError`` for all that is wrong with the variables of both guards."""
    check_all(
        lambda: CanonicalHostSettings.load({}, environ), lambda: RequestTimeoutSettings.load({}, environ)
    )


def check_all(*checks: Callable[[], object]) -> None:
    """Raise one ``SettingsError`` for those of all of these."""
    problems: dict[str, None] = {}  # an unknown variable is a problem of both guards, and told once
    for check in checks:
        try:
            check()
        except SettingsError as error:
            problems.update(dict.fromkeys(error.problems))
    if problems:
        raise SettingsError(problems)
