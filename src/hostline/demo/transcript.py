"""How the demo tells what happened: who said what, a line each; in colour on a terminal."""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

_BOLD, _DIM, _RED, _GREEN, _YELLOW, _CYAN = "1", "2", "31", "32", "33", "36"

_FRAME = re.compile(r'  File "(?P<file>.*)", line \d+, in ')
# The first name below a directory of packages, or of the standard library.
_PACKAGE = re.compile(r".*/(?:(?:site|dist)-packages|python3\.\d+)/([^/.]+)")


class Transcript:
    """Writes to one stream."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_coloured = stream.isatty() and "NO_COLOR" not in os.environ

    def title(self, text: str) -> None:
        """Begin a part."""
        self._write(text, _BOLD)

    def scene(self, text: str) -> None:
        """Begin a scene of a part."""
        self._write(f"\n  {text}", _BOLD)

    def note(self, text: str = "") -> None:
        """Explain."""
        self._write(text)

    def sent(self, text: str) -> None:
        """What the client sent."""
        self._write(f"  > {text}", _CYAN)

    def got(self, text: str) -> None:
        """What the client got."""
        self._write(f"  < {text}", _GREEN)

    def measured(self, text: str) -> None:
        """What the demo found out besides."""
        self._write(f"  = {text}", _YELLOW)

    def logged(self, lines: Iterable[str]) -> None:
        """What the server logged."""
        for line in lines:
            self._write(f"  | {line}", _DIM)

    def surprise(self, text: str) -> None:
        """What should not have happened."""
        self._write(f"\nSURPRISE: {text}", _RED)

    def _write(self, text: str, colour: str = "") -> None:
        if self._is_coloured and colour:
            text = f"\033[{colour}m{text}\033[0m"
        # In one piece: the threads of the logs write too. At once: who reads a pipe, watches as well.
        self._stream.write(f"{text}\n")
        self._stream.flush()


def shortened(record: Iterable[str]) -> Iterator[str]:
    """A log record with the frames of its stack that are not the demo's own only counted."""
    foreign: list[str] = []
    is_own = True
    for line in record:
        frame = _FRAME.match(line)
        if frame is not None:
            is_own = "hostline/demo/" in frame["file"]
            if not is_own:
                foreign.append(_package(frame["file"]))
                continue
            yield from _counted(foreign)
            foreign.clear()
        if is_own:
            yield line.replace(f"{Path.cwd()}/", "")
    yield from _counted(foreign)


def _counted(packages: list[str]) -> Iterator[str]:
    if packages:
        frames = "1 frame" if len(packages) == 1 else f"{len(packages)} frames"
        yield f"  ... {frames} in {', '.join(dict.fromkeys(packages))}"


def _package(file: str) -> str:
    match = _PACKAGE.match(file)
    return match[1] if match else Path(file).name
