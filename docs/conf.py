"""Sphinx configuration of the docs: Markdown pages by MyST-Parser, furo's theme, nothing from the network.

.venv/bin/python -m sphinx -W --keep-going -b html docs build/docs
"""

import re
import sys
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

sys.path.insert(0, str(Path(__file__).parent))

import generated

project = "s1_jax"
author = "the s1_jax authors"
copyright = author

extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3  # links such as page.md#a-heading
exclude_patterns = ["drawings"]

html_theme = "furo"
html_title = "s1_jax"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}

MADE = re.compile(r"<!-- generated: (\w+) -->")


def put_in_generated(app: Sphinx, docname: str, source: list[str]) -> None:
    """Replace each mark by the text that is made from the code."""
    source[0] = MADE.sub(lambda match: generated.PARTS[match[1]](), source[0])


def with_generated(app: Sphinx, env: BuildEnvironment, *_: set[str]) -> list[str]:
    """List the pages that are read again although their files have not changed."""
    return [name for name in env.found_docs if MADE.search(Path(env.doc2path(name)).read_text())]


def setup(app: Sphinx) -> None:
    """Connect the two functions above; Sphinx calls this."""
    app.connect("source-read", put_in_generated)
    app.connect("env-get-outdated", with_generated)
