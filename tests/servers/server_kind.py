"""A kind of server to test on: how it is started, and whether it can be here."""

import sys
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from importlib.util import find_spec

from launch import Server


@dataclass(frozen=True, eq=False)
class Kind:
    """A server with the options that decide in what it runs the app."""

    name: str
    package: str  # the distribution
    command: tuple[str, ...]
    _: KW_ONLY
    environment: Mapping[str, str] = field(default_factory=dict)
    requires: tuple[str, ...] = ()  # further modules

    @property
    def missing(self) -> str:
        """Why it cannot be tested here; empty if it can."""
        lacking = [name for name in (self.command[2], *self.requires) if not _is_installed(name)]
        return f"not installed: {', '.join(lacking)} (extra servers)" if lacking else ""

    def start(self, *options: str, **environment: str) -> Server:
        """Start one; the options and variables are added to those that it always has."""
        return Server((*self.command, *options), {**self.environment, **environment})


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # of a module within a package: that is not there
        return False


def module(name: str, *options: str) -> tuple[str, ...]:
    """The command that runs a module of this Python's."""
    return (sys.executable, "-m", name, *options)
