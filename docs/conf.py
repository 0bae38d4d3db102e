"""Sphinx settings: ``sphinx-build -W -b html docs docs/_build/html``.

``-b man`` in place of ``-b html`` makes the manual page cachemw(1).
"""

from importlib.metadata import version as version_of

project = "cachemw"
author = "the cachemw maintainers"
project_copyright = "the cachemw maintainers"
release = version = version_of("cachemw")

extensions = ["sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
nitpicky = False

html_theme = "furo"
html_title = f"cachemw {release}"
html_show_sourcelink = False

man_pages = [
    ("reference/commands", "cachemw", "transparent, verified image caching", [author], 1),
]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
