"""What is configured rightly, each setting for itself, and will not work where it runs.

Pure functions of the settings and the environment, for ``hostline config`` and Django's
checks. What cannot be known from there, such as an argument in the code or which server
this is going to be, is not guessed: the middlewares say it at their start.

Imports: ``_authority``, ``_environment``, ``_host_kinds``, ``_obstacles``, ``settings``.
"""

import shlex
import signal
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from hostline._authority import Authority
from hostline._environment import Setting, is_on_heroku, text_of
from hostline._host_kinds import matches_nothing
from hostline._obstacles import obstacle
from hostline.settings import CanonicalHostSettings, RequestTimeoutSettings

#: Seconds that Heroku's router waits for the first byte of a response, and then for each further one.
ROUTER_TIMEOUT = 30
ROUTER_STREAM_TIMEOUT = 55

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
    rules = (_of_python, _of_variables, _of_host, _of_host_lists, _of_timeouts, _of_heroku, _of_gunicorn)
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


def _of_host(situation: Situation) -> Iterator[Advice]:
    host = situation.host
    if host.host is None and host.host_for is None:
        if host.only or host.ignore or host.scheme or host.exempt_paths:
            yield Advice("no-host", "Nothing is redirected, because no canonical host is set. Set host, too.")
        return
    if host.report_only:
        yield Advice("report-only", "report_only is on: redirects are logged, and none is made.")
    is_blind = not host.trust_forwarded_proto and not situation.environ.get("FORWARDED_ALLOW_IPS")
    if host.scheme == "https" and is_blind:
        yield Advice(
            "https-unseen",
            "scheme is https, but X-Forwarded-Proto is not trusted: behind a proxy that ends TLS each "
            "request looks like http and is redirected to itself for ever. Set trust_forwarded_proto behind "
            "such a proxy, or have the server read the header (FORWARDED_ALLOW_IPS).",
        )
    if host.trust_forwarded_host and is_on_heroku(situation.environ):
        yield Advice(
            "forwarded-host-heroku",
            "trust_forwarded_host is on, but Heroku's router hands on the X-Forwarded-Host of any client: "
            "one who sends it can have a redirect cached that leads in a circle.",
        )


def _of_host_lists(situation: Situation) -> Iterator[Advice]:
    host = situation.host
    for name, patterns in (("ignore", host.ignore), ("only", host.only)):
        for pattern in filter(matches_nothing, patterns):
            yield Advice("pattern", f"{pattern!r} in {name} matches no request: a pattern is a host's name.")
    if host.only and host.host and all(each in _spellings(host.host) for each in host.only):
        yield Advice("only-canonical", "only names the canonical host alone, so nothing is redirected.")


def _spellings(authority: Authority) -> tuple[str, ...]:
    return authority.host, f"{authority.host}:{authority.port}"


def _of_timeouts(situation: Situation) -> Iterator[Advice]:
    timeout = situation.timeout
    service, wait = timeout.service_timeout, timeout.wait_timeout
    if timeout.mode == "report":
        yield Advice("report-mode", "mode is report: requests that run too long are logged, not aborted.")
    if service and wait and service > wait and not timeout.service_past_wait:
        yield Advice(
            "service-beyond-wait",
            f"service_timeout ({service:g} s) is more than wait_timeout ({wait:g} s): a request with an "
            "X-Request-Start is aborted when its wait limit ends. Raise wait_timeout, or set "
            "service_past_wait.",
        )
    if service and timeout.warn_after and timeout.warn_after >= service:
        yield Advice(
            "warn-after",
            f"warn_after ({timeout.warn_after:g} s) warns of nothing, because requests are aborted after "
            f"{service:g} s.",
        )
    if timeout.term_on_timeout:
        yield Advice(
            "term-on-timeout",
            "term_on_timeout does nothing unless the server replaces a process that ends: gunicorn, uvicorn "
            "--workers, uWSGI --master and granian --respawn-failed-workers do. This command does not run in "
            "the server; the server's processes say so when they start.",
        )
    name = signal.Signals(timeout.signal).name if timeout.signal in set(signal.Signals) else ""
    if name in _TAKEN:
        yield Advice("signal-taken", f"signal is {name}, which servers use themselves. Leave it out.")


def _of_heroku(situation: Situation) -> Iterator[Advice]:
    if not is_on_heroku(situation.environ):
        return
    timeout = situation.timeout
    service, wait = timeout.service_timeout, timeout.wait_timeout
    if service is None or service >= ROUTER_TIMEOUT:
        yield Advice("service-timeout-heroku", _too_late_for_the_router("service_timeout", service))
    if wait is None or wait > ROUTER_TIMEOUT:
        yield Advice("wait-timeout-heroku", _too_late_for_the_router("wait_timeout", wait))
    if timeout.stream_timeout and timeout.stream_timeout >= ROUTER_STREAM_TIMEOUT:
        yield Advice(
            "stream-timeout-heroku",
            f"stream_timeout is {timeout.stream_timeout:g} s, but Heroku's router cuts a stream that pauses "
            f"for {ROUTER_STREAM_TIMEOUT} s (H15). Write less.",
        )
    if timeout.trust_timeout_header:
        yield Advice(
            "timeout-header-heroku",
            "trust_timeout_header is set, but Heroku's router hands on the headers of any client: one who "
            "sends it can have its requests aborted early.",
        )


def _too_late_for_the_router(name: str, seconds: float | None) -> str:
    return (
        f"{name} is {_shown(seconds)}, but Heroku's router gives up on a request after {ROUTER_TIMEOUT} s "
        "(H12), and the app works on for nobody. The default is right."
    )


def _of_gunicorn(situation: Situation) -> Iterator[Advice]:
    arguments = _gunicorn_arguments(situation.environ.get("GUNICORN_CMD_ARGS", ""))
    if arguments is None:
        return
    if "eventlet" in arguments.worker_class and situation.timeout.mode != "report":
        yield Advice("eventlet", "GUNICORN_CMD_ARGS has eventlet workers; their requests are not aborted.")
    service = situation.timeout.service_timeout
    is_sync = arguments.worker_class == "sync" and arguments.threads <= 1
    if is_sync and arguments.timeout > 0 and (service is None or arguments.timeout <= service):
        yield Advice(
            "gunicorn-timeout",
            f"GUNICORN_CMD_ARGS has gunicorn kill a sync worker after {arguments.timeout} s, with the "
            f"request that it serves, before service_timeout ({_shown(service)}) is there. Raise "
            "--timeout above it.",
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
