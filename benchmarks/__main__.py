"""``python -m benchmarks``: measure what hostline costs, and say so."""

import argparse
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import (
    api_cost,
    asgi_cost,
    django_cost,
    due_at_once,
    footprint,
    in_flight,
    lateness,
    servers,
    sinks_cost,
    wsgi_cost,
)
from benchmarks.results import Report, machine, versions
from benchmarks.scale import FULL, SMOKE, Scale

Part = Callable[[Scale, Report, Callable[[str, float], object]], None]

PARTS: dict[str, Part] = {
    "wsgi": wsgi_cost.run,
    "asgi": asgi_cost.run,
    "django": django_cost.run,
    "api": api_cost.run,
    "in-flight": in_flight.run,
    "due-at-once": due_at_once.run,
    "lateness": lateness.run,
    "footprint": footprint.run,
    "sinks": sinks_cost.run,
    "servers": servers.run,
}


def main(arguments: list[str] | None = None) -> None:
    """Run the parts that are asked for."""
    options = _parser().parse_args(arguments)
    _forget_settings()
    began = time.monotonic()
    report = Report(say=partial(print, flush=True))
    report.say(_heading())
    for name in options.part or PARTS:
        PARTS[name](SMOKE if options.smoke else FULL, report, partial(_show, name))
        _clear_progress()
    if options.smoke:
        report.say("Everything runs. These figures say nothing: --smoke counts nothing long enough.")
    else:
        report.say(f"{report.summary()}\n")
    report.say(f"{time.monotonic() - began:.0f} s")
    if options.json:
        report.save(options.json, smoke=options.smoke, seconds=time.monotonic() - began)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure what hostline costs.")
    parser.add_argument("--smoke", action="store_true", help="only see that everything runs, in seconds")
    parser.add_argument("--part", action="append", choices=PARTS, help="only this; may be given repeatedly")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    return parser


def _forget_settings() -> None:
    """What is measured are the defaults, whatever this shell has set."""
    for name in tuple(os.environ):
        if name.startswith(("HOSTLINE_", "RACK_TIMEOUT_")) or name in ("CANONICAL_HOST", "DYNO"):
            del os.environ[name]


def _heading() -> str:
    here = machine()
    load = " ".join(f"{each:.1f}" for each in os.getloadavg())
    return (
        f"hostline {versions()['hostline'] or '(not installed)'}, Python {sys.version.split()[0]}, "
        f"{here['processors']} x {here['processor']}, load {load}"
    )


def _show(part: str, what: str, share: float) -> None:
    """How far it is, in one line that is written over; on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r{part}: {what}: {share:4.0%}\x1b[K", end="", file=sys.stderr, flush=True)


def _clear_progress() -> None:
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
