"""The directive ``public-api``: what each module lets others import, from ``__all__`` and the docstrings.

Made anew by every build: a name that is added to some ``__all__``, and a module that has
one, are in the reference without another word.
"""

import inspect
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

import hostline

_PACKAGE = Path(hostline.__file__).parent
# Modules that users name, whole folders of them, and what is described on pages of its own.
_PLACES = ("*.py", "*/__init__.py", "integrations/*.py", "observers/*.py", "testing/*.py")
_ELSEWHERE = {"hostline.settings"}


class PublicApi(SphinxDirective):
    """``public-api::`` and the names that are described elsewhere."""

    optional_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Write a section for each module and have it parsed."""
        left_out = set(self.arguments[0].split()) if self.arguments else set()
        text = "\n".join(line for module in _modules() for line in _section(module, left_out))
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def _modules() -> Iterator[ModuleType]:
    """The public modules of the package, the root first."""
    paths = {path for place in _PLACES for path in _PACKAGE.glob(place)}
    names = {".".join(path.relative_to(_PACKAGE.parent).with_suffix("").parts) for path in paths}
    for name in sorted(name.removesuffix(".__init__") for name in names):
        if "._" not in name and name not in _ELSEWHERE and _declares_names(name):
            yield import_module(name)


def _declares_names(module: str) -> bool:
    path = _PACKAGE.parent / module.replace(".", "/")
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return "\n__all__ = [" in source.read_text()


def _section(module: ModuleType, left_out: set[str]) -> Iterator[str]:
    yield from (f"## {module.__name__}", "", "```{eval-rst}", f".. py:module:: {module.__name__}", "")
    for name in module.__all__:
        if name not in left_out and not name.startswith("__"):
            value = getattr(module, name)
            yield f".. auto{_kind(value)}:: {module.__name__}.{name}"
            if inspect.isclass(value):
                yield "   :members:"
            yield ""
    yield from ("```", "")


def _kind(value: object) -> str:
    if inspect.isclass(value):
        return "exception" if issubclass(value, BaseException) else "class"
    return "function" if callable(value) else "data"


def setup(app: Sphinx) -> ExtensionMetadata:
    """Tell Sphinx of the directive."""
    app.add_directive("public-api", PublicApi)
    return {"parallel_read_safe": True}
