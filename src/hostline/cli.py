"""The command ``hostline``: what is set, what a deployment answers, and the demo.

Exit status 0: nothing is wrong; 1: something is, and the report says what; 2: the command
itself is written wrongly.
"""

import argparse
import logging
import os
import runpy
import ssl
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import cast

from hostline import __version__
from hostline._configuration import Configuration
from hostline._deployment import Address, Deployment, Place, parse_host, parse_url
from hostline._deployment_report import Check
from hostline._environment import read_seconds

#: Seconds for one answer; a socket takes no number without end.
_LONGEST_TIMEOUT = 3600


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; its exit status."""
    # The settings log what they warn of; here that is part of the report.
    logging.getLogger("hostline").addHandler(logging.NullHandler())
    parser = _parser()
    options, further = parser.parse_known_args(arguments)
    if options.run is None:
        return _demo(further)
    if further:
        parser.error(f"unrecognized arguments: {' '.join(further)}")
    status: int = options.run(options)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hostline", description="One canonical host, and no request without an end."
    )
    parser.add_argument("--version", action="version", version=f"hostline {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_config(commands.add_parser("config", help="print every setting, and warn of what will not work"))
    _add_check(commands.add_parser("check", help="ask a deployment what it answers, host by host"))
    demo = commands.add_parser("demo", help="see both guards at work, on this machine", add_help=False)
    demo.set_defaults(run=None)
    return parser


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Every setting, its value, and the variable that it comes from. Exit status 1 if a value is "
        "malformed or a HOSTLINE_ variable does not exist."
    )
    _add_json(parser)
    parser.set_defaults(run=_config)


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs")


def _config(options: argparse.Namespace) -> int:
    configuration = Configuration.of(os.environ)
    _tell(configuration.as_json() if options.json else configuration.as_text())
    return 1 if configuration.problems else 0


def _tell(report: str) -> None:
    """Print it, to whatever can be printed to, and for as long as anybody reads."""
    cast("TextIOWrapper", sys.stdout).reconfigure(errors="backslashreplace")  # as stderr is
    try:
        print(report, flush=True)  # noqa: T201 - it is a command
    except BrokenPipeError:
        # "Note on SIGPIPE" in the documentation of Python's signal: the interpreter flushes once more. The
        # status stays that of the report, of which `| head` wanted no more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _add_check(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Ask a running deployment where each host and scheme leads: redirects, loops, statuses, what a "
        "malformed Host is answered, and whether a client's X-Request-Start is believed. The addresses are "
        "those of the URLs, whatever the host. Exit status 1 if something is wrong."
    )
    parser.add_argument("url", nargs="+", help="such as https://www.example.com; one for each scheme at most")
    parser.add_argument(
        "--host", type=_host, action="append", default=[], help="another to ask for, at the same address"
    )
    parser.add_argument(
        "--timeout", type=_seconds, default=10, metavar="SECONDS", help="for each answer (10)"
    )
    parser.add_argument("--cacert", metavar="FILE", help="trust this certificate authority")
    parser.add_argument("--insecure", action="store_true", help="trust any certificate")
    _add_json(parser)
    parser.set_defaults(run=_check, parser=parser)


def _host(text: str) -> str:
    try:
        return parse_host(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _seconds(text: str) -> float:
    try:
        seconds = read_seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} {error}") from None
    if not 0 < seconds <= _LONGEST_TIMEOUT:
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0 and up to {_LONGEST_TIMEOUT} seconds")
    return seconds


def _check(options: argparse.Namespace) -> int:
    parser: argparse.ArgumentParser = options.parser
    try:
        asked = _asked(options.url)
        tls = _tls(options)
    except ValueError as error:
        parser.error(str(error))
    # An address is asked for by its own name only where there is no other.
    own = [place.host for place, _ in asked if not options.host or not place.is_ip]
    deployment = Deployment({place.scheme: address for place, address in asked}, tls, options.timeout)
    check = Check(deployment, list(dict.fromkeys([*options.host, *own])), asked[0][0].target)
    _tell(check.as_json() if options.json else check.as_text())
    return 1 if check.problems else 0


def _asked(urls: Sequence[str]) -> list[tuple[Place, Address]]:
    """The URLs: at most one for each scheme, and of one path, for no other would be asked for."""
    asked = [parse_url(url) for url in urls]
    if len({place.scheme for place, _ in asked}) < len(asked):
        raise ValueError(
            f"{' and '.join(urls)} are not each of another scheme. Give one URL for each at most, and --host "
            "for another host at the same address"
        )
    if len({place.target for place, _ in asked}) > 1:
        raise ValueError(f"{' and '.join(urls)} differ in what is behind the host. Check each by itself")
    return asked


def _tls(options: argparse.Namespace) -> ssl.SSLContext:
    try:
        tls = ssl.create_default_context(cafile=options.cacert)
    except OSError as error:  # which does not say the file's name
        raise ValueError(f"--cacert {options.cacert}: {error.strerror}") from None
    if options.insecure:
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    return tls


def _demo(arguments: Sequence[str]) -> int:
    """Run the demo, to which all further arguments are handed on."""
    # As a program, for it is one; and its packages are an extra, which it names itself.
    sys.argv[:] = ["hostline demo", *arguments]
    try:
        runpy.run_module("hostline.demo", run_name="__main__")
    except ImportError as error:
        print(error, file=sys.stderr)  # noqa: T201 - as above
    return 1  # of a program that has not ended by its own status
