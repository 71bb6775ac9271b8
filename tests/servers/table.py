"""What the tables of both protocols have in common: the plan, the surroundings, the head."""

import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import postgresql
from peers import SilentPeers

LIMIT = 0.3


@dataclass(frozen=True)
class Plan:
    """How thoroughly to measure."""

    seconds: float  # that a call lasts
    tries: int


THOROUGH, SHORT = Plan(2.0, 5), Plan(1.0, 1)


def plan_of(arguments: list[str]) -> Plan:
    """The plan that the command line asks for."""
    return SHORT if "--short" in arguments else THOROUGH


@contextmanager
def surroundings() -> Iterator[dict[str, str]]:
    """What the requests get stuck in, as environment variables."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        peers = SilentPeers(Path(folder))
        stack.callback(peers.close)
        environment = {"HOSTLINE_SERVICE_TIMEOUT": str(LIMIT), **peers.environment}
        if not postgresql.missing():
            database = postgresql.PostgreSQL()
            stack.callback(database.stop)
            environment["POSTGRESQL"] = database.address
        yield environment


def line(*cells: str) -> str:
    """A row in Markdown."""
    return f"| {' | '.join(cells)} |"


def print_head(plan: Plan, packages: Iterable[str], *headings: str) -> None:
    """Where and how it is measured, and the first two lines of the table."""
    print(
        f"{time.strftime('%Y-%m-%d')}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores, ",
        end="",
    )
    print(f"load {os.getloadavg()[0]:.1f}. {', '.join(_versions(packages))}.")
    print(f"Limit {LIMIT * 1000:.0f} ms; each call lasts {plan.seconds:g} s; median of {plan.tries}.\n")
    print(line(*headings))
    print(line(*["---"] * len(headings)), flush=True)


def _versions(packages: Iterable[str]) -> Iterator[str]:
    yield f"CPython {platform.python_version()}"
    for package in packages:
        try:
            yield f"{package} {version(package)}"
        except PackageNotFoundError:
            pass
    if not postgresql.missing():
        told = subprocess.run(
            ["psql", "--version"], capture_output=True, text=True, check=False
        ).stdout.split()
        yield f"PostgreSQL {told[2]}" if len(told) > 2 else "PostgreSQL"
