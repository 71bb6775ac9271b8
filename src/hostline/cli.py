"""The command ``hostline``: what is set, what a deployment answers, and the demo.

Exit status 0: nothing is wrong; 1: something is, and the report says what; 2: the command
itself is written wrongly.
"""

import argparse
import logging
import os
import runpy
import sys
from collections.abc import Callable, Sequence
from typing import cast

from hostline import __version__
from hostline._configuration import Configuration


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; its exit status."""
    # The settings log what they warn of; here that is part of the report.
    logging.getLogger("hostline").addHandler(logging.NullHandler())
    parser = _parser()
    options, further = parser.parse_known_args(arguments)
    if options.run is _demo:
        return _demo(further)
    if further:
        parser.error(f"unrecognized arguments: {' '.join(further)}")
    return cast("Callable[[argparse.Namespace], int]", options.run)(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hostline", description="One canonical host, and no request without an end."
    )
    parser.add_argument("--version", action="version", version=f"hostline {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_config(commands.add_parser("config", help="print every setting, and warn of what will not work"))
    demo = commands.add_parser("demo", help="see both guards at work, on this machine", add_help=False)
    demo.set_defaults(run=_demo)
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
    print(configuration.as_json() if options.json else configuration.as_text())  # noqa: T201 - it is a command
    return 1 if configuration.problems else 0


def _demo(arguments: Sequence[str]) -> int:
    """Run the demo, to which all further arguments are handed on."""
    # As a program, for it is one; and its packages are an extra, which it names itself.
    sys.argv[:] = ["hostline demo", *arguments]
    try:
        runpy.run_module("hostline.demo", run_name="__main__")
    except ImportError as error:
        sys.exit(str(error))
    return 0
