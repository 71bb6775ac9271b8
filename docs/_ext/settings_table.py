"""The directive ``settings-table``: a table of all settings of a class, read from its fields.

Made anew by every build, so there is no second copy that could grow old.
"""

from importlib import import_module

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

from hostline.settings import Setting

_HEAD = ("setting", "default", "variable", "meaning")


class SettingsTable(SphinxDirective):
    """``settings-table:: hostline.settings.CanonicalHostSettings``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Write the table in Markdown and have it parsed."""
        module, _, name = self.arguments[0].rpartition(".")
        settings = getattr(import_module(module), name).settings()
        rows = [_HEAD, ["---"] * len(_HEAD), *(_row(each) for each in settings)]
        return self.parse_text_to_nodes("\n".join(f"| {' | '.join(row)} |" for row in rows))


def _row(setting: Setting) -> tuple[str, ...]:
    names = (setting.variable, setting.ruby_variable)
    variables = ", else ".join(f"`{name}`" for name in names if name)
    return f"`{setting.name}`", _default(setting), variables or "none", setting.doc.replace("|", r"\|")


def _default(setting: Setting) -> str:
    if setting.unit and not setting.default:
        return "off"
    # An enum's member says more by its name: SIGURG, not 23.
    text = getattr(setting.default, "name", None) or repr(setting.default)
    return f"`{text}` {setting.unit or ''}".rstrip()


def setup(app: Sphinx) -> ExtensionMetadata:
    """Tell Sphinx of the directive."""
    app.add_directive("settings-table", SettingsTable)
    return {"parallel_read_safe": True}
