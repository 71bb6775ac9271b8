"""The pages of the documentation as a test sees them: fenced blocks, what they set, and what can try them."""

import re
import shlex
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]

_BLOCK = re.compile(r"^```(\S+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_ASSIGNMENT = re.compile(r"""\b((?:HOSTLINE_|RACK_TIMEOUT_)\w+|CANONICAL_HOST)=("[^"]*"|'[^']*'|\S*)""")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int  # of its first line, counted from 1
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def commands(self) -> list[tuple[dict[str, str], list[str]]]:
        """Of a shell block: each command's variables and its words; none for variables alone."""
        every = []
        for line in self.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            count = next((i for i, word in enumerate(words) if not _is_assignment(word)), len(words))
            variables = dict(word.split("=", 1) for word in words[:count])
            if words[count:]:
                every.append((variables, words[count:]))
        return every


def blocks(*languages: str) -> list[Block]:
    """The blocks in these languages of all pages; without any, all blocks."""
    found = [block for page in PAGES for block in blocks_of(page)]
    return [block for block in found if not languages or block.language in languages]


def blocks_of(page: Path) -> list[Block]:
    """All fenced blocks of a page."""
    text = page.read_text()
    return [
        Block(page, text.count("\n", 0, match.start(2)) + 1, match[1], match[2])
        for match in _BLOCK.finditer(text)
    ]


def assignments(text: str) -> dict[str, str]:
    """``HOSTLINE_X=value`` wherever it stands, as a shell would read it."""
    return {name: value.strip("\"'") for name, value in _ASSIGNMENT.findall(text)}


def variables_in(data: Any) -> Iterator[tuple[str, str]]:
    """The variables that a configuration sets: ``NAME: value``, or ``name:``/``key:`` and ``value:``."""
    if isinstance(data, Mapping):
        name = data.get("name", data.get("key"))
        if isinstance(name, str) and "value" in data:
            yield name, str(data["value"])
        for key, value in data.items():
            if isinstance(value, str) and isinstance(key, str):
                yield key, value
            yield from variables_in(value)
    elif isinstance(data, list):
        for each in data:
            yield from variables_in(each)


def proxy(name: str) -> str | None:
    """Where a proxy's program is: on the PATH, among a system's own, or where `tools/nginx` puts it."""
    places = (None, "/usr/local/sbin:/usr/sbin", str(ROOT / "build" / "nginx" / "usr" / "sbin"))
    return next((found for path in places if (found := shutil.which(name, path=path))), None)


def _is_assignment(word: str) -> bool:
    return re.match(r"[A-Z_]+=", word) is not None
