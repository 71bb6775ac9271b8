"""Settings of Sphinx."""

import sys
from pathlib import Path

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

import hostline

sys.path[:0] = [str(Path(__file__).parent / "_ext"), str(Path(__file__).parent.parent)]

project = "hostline"
author = "hostline contributors"
copyright = "2026, hostline contributors"  # noqa: A001 - Sphinx's name
version = release = hostline.__version__

extensions = ["measured", "myst_parser", "public_api", "settings_table", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "hostline"

autodoc_member_order = "bysource"
# Types of the standard library would be links to its documentation, which is not fetched.
autodoc_typehints = "none"
nitpick_ignore_regex = [("py:.*", r"time\..*")]
myst_heading_anchors = 3
myst_enable_extensions = ["deflist"]  # the reference of the API


def setup(app: Sphinx) -> None:
    """GitHub knows HAProxy's configuration, and Pygments does not."""
    app.add_lexer("haproxy", TextLexer)
