"""What the head of an example tells to type, and what it says will be seen.

Its docstring has indented paragraphs: what to install, the command that starts the server, and
what to ask it for, each with a comment in the one form that is read here:

    curl -i http://localhost:8000/slow  # 504 after 2 s; the log says: in slow
    curl -i http://127.0.0.1:8000/      # 301, location: http://localhost:8000/
    curl -i http://localhost:8000/      # 200, a text in the body

A response may also be "cut off after 2 s". The port in it is 8000 and is replaced.
"""

import ast
import re
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from urllib.parse import urlsplit

EXAMPLES = Path(__file__).parent.parent / "examples"
PORT = "8000"
#: Not those that are a part for an app and no app.
SERVED = [path for path in sorted(EXAMPLES.glob("*.py")) if "\n    curl -i" in path.read_text()]

_PARAGRAPH = re.compile(r"(?:^ {4}.*\n?)+", re.MULTILINE)
_REQUEST = re.compile(
    r"curl -iN? (?P<url>http://\S+) +# (?P<status>\d{3})(?: after (?P<seconds>\d+) s)?(?:, (?P<seen>.+?))?"
    r"(?:; the log says: (?P<logged>.+))?"
)
_CUT = re.compile(r"cut off after (\d+) s")


@dataclass(frozen=True)
class Request:
    """One line: what to ask for and what comes of it."""

    line: str
    path: str
    host: str  # without the port
    status: int
    seconds: int  # after which the answer has come, at the earliest
    is_cut: bool
    header: tuple[str, str] | None
    body: str
    logged: str


@dataclass(frozen=True)
class Instructions:
    """The head of one example."""

    requirements: tuple[str, ...]
    command: str
    requests: tuple[Request, ...]


def instructions(example: Path) -> Instructions:
    """Read the head of an example; a ``ValueError`` where it is not in the form above."""
    text = ast.get_docstring(ast.parse(example.read_text()), clean=False) or ""
    start, asked = (dedent(each).strip() for each in _PARAGRAPH.findall(f"{text}\n"))
    install, _, command = start.partition("\n")
    if not install.startswith("pip install "):
        raise ValueError(f"{example.name} does not begin with what to install: {install!r}")
    return Instructions(
        requirements=tuple(install.replace('"', "").split()[2:]),
        command=command,
        requests=tuple(request_of(line) for line in asked.splitlines()),
    )


def request_of(line: str) -> Request:
    """Read one line; a ``ValueError`` where it is not in the form above."""
    match = _REQUEST.fullmatch(line)
    if match is None:
        raise ValueError(f"{line!r} is no request with its outcome, as tests/instructions.py reads them")
    url, seen = urlsplit(match["url"]), match["seen"] or ""
    cut = _CUT.fullmatch(seen)
    name, colon, value = seen.partition(": ")
    header = (name, value) if colon and name == "location" else None
    return Request(
        line=line,
        path=url.path,
        host=url.hostname or "",
        status=int(match["status"]),
        seconds=int(cut[1] if cut else match["seconds"] or 0),
        is_cut=cut is not None,
        header=header,
        body="" if cut or header else seen,
        logged=match["logged"] or "",
    )


def modules_of(example: Path) -> set[str]:
    """The topmost names of all that an example imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(example.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names
