"""How the reports of the command line are laid out: the same on every terminal, and in a file.

Imports nothing of hostline.
"""

import textwrap
from collections.abc import Iterable, Iterator

_WIDTH = 100


def wrapped(text: str, first: str = "", further: str = "") -> list[str]:
    """The text in lines; ``first`` and ``further`` are what they begin with."""
    # Names and ids have hyphens, and are to be found by who searches for them.
    return textwrap.wrap(
        text, _WIDTH, initial_indent=first, subsequent_indent=further, break_on_hyphens=False
    )


def bullets(title: str, items: Iterable[str]) -> Iterator[str]:
    """The items below their title; nothing where there are none."""
    for number, item in enumerate(items):
        if not number:
            yield f"\n{title}"
        yield from wrapped(item, "- ", "  ")
