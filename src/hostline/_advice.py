"""What is configured rightly, each setting for itself, and will not work where it runs.

Pure functions of the settings and the environment, for ``hostline config`` and Django's
checks. What cannot be known from there, such as an argument in the code or which server
this is going to be, is not guessed: the middlewares say it at their start. A setting goes
by the name of its variable, which is that among Django's settings, too.

Imports: ``_authority``, ``_environment``, ``_host_kinds``, ``_obstacles``, ``settings``.
"""

import math
import shlex
import signal
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import NamedTuple

from hostline._authority import Authority
from hostline._environment import Setting, is_on_heroku, text_of
from hostline._host_kinds import matches_nothing
from hostline._obstacles import obstacle
from hostline.settings import CanonicalHostSettings, RequestTimeoutSettings

#: Seconds that Heroku's router waits for the first byte of a response, and then for each further one.
ROUTER_TIMEOUT = 30
ROUTER_STREAM_TIMEOUT = 55

#: What each sink imports, which is a package of the extra of the same name.
_LIBRARIES = {
    "prometheus": "prometheus_client",
    "opentelemetry": "opentelemetry.trace",  # others may be in its namespace
    "sentry": "sentry_sdk",
}

_TAKEN = frozenset(
    {"SIGABRT", "SIGCHLD", "SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGTTIN", "SIGTTOU", "SIGUSR1"}
    | {"SIGUSR2", "SIGWINCH"}
)


class Advice(NamedTuple):
    """Something that will not work; ``id`` is for programs, and stays."""

    id: str
    text: str


class Situation(NamedTuple):
    """Both guards' settings, and where they are to work."""

    host: CanonicalHostSettings
    timeout: RequestTimeoutSettings
    environ: Mapping[str, str]


def advice(situation: Situation) -> list[Advice]:
    """All of it, in an order that stays."""
    rules = (
        *(_of_python, _of_variables, _of_libraries, _of_host, _of_host_lists),
        *(_of_timeouts, _of_warnings, _of_heroku, _of_gunicorn),
    )
    return [each for rule in rules for each in rule(situation)]


def _of_python(situation: Situation) -> Iterator[Advice]:
    reason = obstacle()
    if reason is not None and situation.timeout.mode != "report":
        yield Advice("python", f"Requests that run too long are reported, but not aborted: {reason}.")


def _of_variables(situation: Situation) -> Iterator[Advice]:
    for each in (*CanonicalHostSettings.settings(), *RequestTimeoutSettings.settings()):
        if _is_shadowed(each, situation.environ):
            text = f"{each.ruby_variable} counts for nothing, because {each.variable} is set."
            yield Advice("shadowed-variable", text)


def _is_shadowed(setting: Setting, environ: Mapping[str, str]) -> bool:
    return bool(text_of(environ, setting.variable) and text_of(environ, setting.ruby_variable))


def _of_libraries(situation: Situation) -> Iterator[Advice]:
    named = {
        "HOSTLINE_CANONICAL_OBSERVERS": situation.host.observers,
        "HOSTLINE_TIMEOUT_OBSERVERS": situation.timeout.observers,
    }
    for variable, observers in named.items():
        for sink in (each for each in observers if isinstance(each, str)):
            if sink in _LIBRARIES and not _is_installed(_LIBRARIES[sink]):
                yield Advice(
                    "missing-library",
                    f"{variable} has {sink}, whose library is not installed, so the app fails at its start: "
                    f'pip install "hostline[{sink}]"',
                )


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ImportError:  # of the package that it is in
        return False


def _of_host(situation: Situation) -> Iterator[Advice]:
    host = situation.host
    if host.host is None and host.host_for is None:
        if host.only or host.ignore or host.scheme or host.exempt_paths:
            yield Advice(
                "no-host",
                "Nothing is redirected, because no canonical host is set. Set HOSTLINE_CANONICAL_HOST, too.",
            )
        return
    if host.report_only:
        yield Advice(
            "report-only", "HOSTLINE_CANONICAL_REPORT_ONLY is on: redirects are logged, and none is made."
        )
    is_blind = not host.trust_forwarded_proto and not situation.environ.get("FORWARDED_ALLOW_IPS")
    if host.scheme == "https" and is_blind:
        yield Advice(
            "https-unseen",
            "HOSTLINE_CANONICAL_SCHEME is https, but X-Forwarded-Proto is not trusted: behind a proxy that "
            "ends TLS each request looks like http and is redirected to itself for ever. Set "
            "HOSTLINE_CANONICAL_TRUST_FORWARDED_PROTO behind such a proxy, or have the server read the "
            "header (FORWARDED_ALLOW_IPS).",
        )
    if host.trust_forwarded_host and is_on_heroku(situation.environ):
        yield Advice(
            "forwarded-host-heroku",
            "HOSTLINE_CANONICAL_TRUST_FORWARDED_HOST is on, but Heroku's router hands on the "
            "X-Forwarded-Host of any client: one who sends it can have a redirect cached that leads in a "
            "circle.",
        )


def _of_host_lists(situation: Situation) -> Iterator[Advice]:
    host = situation.host
    for name, patterns in (
        ("HOSTLINE_CANONICAL_IGNORE", host.ignore),
        ("HOSTLINE_CANONICAL_ONLY", host.only),
    ):
        for pattern in filter(matches_nothing, patterns):
            yield Advice("pattern", f"{pattern!r} in {name} matches no request: a pattern is a host's name.")
    if host.only and host.host and all(each in _spellings(host.host) for each in host.only):
        yield Advice(
            "only-canonical",
            "HOSTLINE_CANONICAL_ONLY names the canonical host alone, so nothing is redirected.",
        )


def _spellings(authority: Authority) -> tuple[str, ...]:
    return authority.host, f"{authority.host}:{authority.port}"


def _limits(timeout: RequestTimeoutSettings) -> list[tuple[str, float | None]]:
    """The service timeout and those of single paths, each with its name."""
    table = timeout.timeout_for
    rows = () if table is None or callable(table) else table
    paths = [(f"{path} in HOSTLINE_TIMEOUT_FOR", seconds) for path, seconds in rows]
    return [("HOSTLINE_SERVICE_TIMEOUT", timeout.service_timeout), *paths]


def _of_timeouts(situation: Situation) -> Iterator[Advice]:
    timeout = situation.timeout
    wait = timeout.wait_timeout
    if timeout.mode == "report":
        text = "HOSTLINE_TIMEOUT_MODE is report: requests that run too long are logged, not aborted."
        yield Advice("report-mode", text)
    for name, limit in _limits(timeout):
        if limit and wait and limit > wait and not timeout.service_past_wait:
            yield Advice(
                "service-beyond-wait",
                f"{name} ({limit:g} s) is more than HOSTLINE_WAIT_TIMEOUT ({wait:g} s): a request with an "
                "X-Request-Start times out when its wait limit ends. Raise HOSTLINE_WAIT_TIMEOUT, or set "
                "HOSTLINE_SERVICE_PAST_WAIT.",
            )
    if timeout.term_on_timeout:
        yield Advice(
            "term-on-timeout",
            "HOSTLINE_TERM_ON_TIMEOUT does nothing unless the server replaces a process that ends: gunicorn, "
            "uvicorn --workers, uWSGI --master and granian --respawn-failed-workers do. This command does "
            "not run in the server; the server's processes say so when they start.",
        )
    name = signal.Signals(timeout.signal).name if timeout.signal in set(signal.Signals) else ""
    if name in _TAKEN:
        yield Advice(
            "signal-taken", f"HOSTLINE_TIMEOUT_SIGNAL is {name}, which servers use themselves. Leave it out."
        )


def _of_warnings(situation: Situation) -> Iterator[Advice]:
    timeout = situation.timeout
    longest = _longest(timeout)
    if longest and timeout.warn_after and timeout.warn_after >= longest:
        ended = "reported" if timeout.mode == "report" else "aborted"
        yield Advice(
            "warn-after",
            f"HOSTLINE_WARN_AFTER ({timeout.warn_after:g} s) warns of nothing, because requests are {ended} "
            f"after {longest:g} s.",
        )


def _longest(timeout: RequestTimeoutSettings) -> float | None:
    """The limit that no request exceeds; None: there is none, or only a callable knows it."""
    limits = [math.inf if limit is None else limit for _, limit in _limits(timeout)]
    longest = math.inf if callable(timeout.timeout_for) else max(limits)
    return longest if longest < math.inf else None


def _of_heroku(situation: Situation) -> Iterator[Advice]:
    if not is_on_heroku(situation.environ):
        return
    timeout = situation.timeout
    wait = timeout.wait_timeout
    for name, limit in _limits(timeout):
        if limit is None or limit >= ROUTER_TIMEOUT:
            yield Advice("service-timeout-heroku", _too_late_for_the_router(name, limit))
    if wait is None or wait > ROUTER_TIMEOUT:
        yield Advice("wait-timeout-heroku", _too_late_for_the_router("HOSTLINE_WAIT_TIMEOUT", wait))
    if timeout.stream_timeout and timeout.stream_timeout >= ROUTER_STREAM_TIMEOUT:
        yield Advice(
            "stream-timeout-heroku",
            f"HOSTLINE_STREAM_TIMEOUT is {timeout.stream_timeout:g} s, but Heroku's router cuts a stream "
            f"that pauses for {ROUTER_STREAM_TIMEOUT} s (H15). Write less.",
        )
    if timeout.trust_timeout_header:
        yield Advice(
            "timeout-header-heroku",
            "HOSTLINE_TIMEOUT_TRUST_TIMEOUT_HEADER is set, but Heroku's router hands on the headers of any "
            "client: one who sends it can have its requests aborted early.",
        )


def _too_late_for_the_router(name: str, seconds: float | None) -> str:
    return (
        f"{name} is {_shown(seconds)}, but Heroku's router gives up on a request after {ROUTER_TIMEOUT} s "
        "(H12), and the app works on for nobody. Write less, or leave it out."
    )


def _of_gunicorn(situation: Situation) -> Iterator[Advice]:
    arguments = _gunicorn_arguments(situation.environ.get("GUNICORN_CMD_ARGS", ""))
    if arguments is None:
        return
    if "eventlet" in arguments.worker_class and situation.timeout.mode != "report":
        yield Advice("eventlet", "GUNICORN_CMD_ARGS has eventlet workers; their requests are not aborted.")
    if arguments.worker_class != "sync" or arguments.threads > 1 or arguments.timeout <= 0:
        return
    for name, limit in _limits(situation.timeout):
        if limit is None or arguments.timeout <= limit:
            yield Advice(
                "gunicorn-timeout",
                f"GUNICORN_CMD_ARGS has gunicorn kill a sync worker after {arguments.timeout} s, with the "
                f"request that it serves, before {name} ({_shown(limit)}) is there. Raise --timeout above "
                "it.",
            )


def _shown(seconds: float | None) -> str:
    return "off" if seconds is None else f"{seconds:g} s"


def _gunicorn_arguments(text: str) -> Namespace | None:
    """What of gunicorn's own arguments is of interest; None: there are none, or they cannot be read."""
    parser = ArgumentParser(exit_on_error=False, add_help=False, allow_abbrev=False)
    parser.add_argument("-t", "--timeout", type=int, default=30)
    parser.add_argument("-k", "--worker-class", default="sync")
    parser.add_argument("--threads", type=int, default=1)
    try:
        arguments = shlex.split(text)
        return parser.parse_known_args(arguments)[0] if arguments else None
    except (Exception, SystemExit):  # noqa: BLE001 - gunicorn itself will say what is wrong with them
        return None
