"""Settings of Sphinx."""

import sys
from pathlib import Path

import hostline

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "hostline"
author = "hostline contributors"
copyright = "2026, hostline contributors"  # noqa: A001 - Sphinx's name
version = release = hostline.__version__

extensions = ["myst_parser", "settings_table", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "hostline"

autodoc_member_order = "bysource"
# Types of the standard library would be links to its documentation, which is not fetched.
autodoc_typehints = "none"
myst_heading_anchors = 3
myst_enable_extensions = ["deflist"]  # the reference of the API
