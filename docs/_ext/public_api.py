"""The directive ``public-api``: what a module lets others import, from ``__all__`` and the docstrings.

Made anew by every build. A name that is added to ``__all__`` is in the reference without
another word; a module is added by a line in ``docs/reference/api.md``.
"""

import inspect
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata


class PublicApi(SphinxDirective):
    """``public-api:: hostline.wsgi``; names after the module are left out of it."""

    required_arguments = 1
    optional_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Write autodoc's directives and have them parsed."""
        module = import_module(self.arguments[0])
        left_out = self.arguments[1].split() if len(self.arguments) > 1 else []
        text = "\n".join(["```{eval-rst}", *_directives(module, left_out), "```"])
        return self.parse_text_to_nodes(text)


def _directives(module: ModuleType, left_out: list[str]) -> Iterator[str]:
    # The module's own docstring is for who works on it.
    yield from (f".. py:module:: {module.__name__}", "")
    for name in module.__all__:
        if name not in left_out and not name.startswith("__"):
            value = getattr(module, name)
            yield f".. auto{_kind(value)}:: {module.__name__}.{name}"
            if inspect.isclass(value):
                yield "   :members:"
            yield ""


def _kind(value: object) -> str:
    if inspect.isclass(value):
        return "exception" if issubclass(value, BaseException) else "class"
    return "function" if callable(value) else "data"


def setup(app: Sphinx) -> ExtensionMetadata:
    """Tell Sphinx of the directive."""
    app.add_directive("public-api", PublicApi)
    return {"parallel_read_safe": True}
