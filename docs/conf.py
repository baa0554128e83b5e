"""Sphinx configuration of the docs: Markdown pages by MyST-Parser, furo's theme, nothing from the network.

.venv/bin/python -m sphinx -W --keep-going -b html docs build/docs
"""

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
