"""The documentation as a site: `make docs` builds it into build/docs, offline, with every warning as an error."""

from __future__ import annotations

import re

import quantum_diffusion

project = "quantum_diffusion"
author = "the quantum_diffusion contributors"
project_copyright = author
version = release = quantum_diffusion.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
default_role = "code"

html_theme = "furo"
html_title = "quantum_diffusion"
html_show_sphinx = False
html_copy_source = False

myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # docstrings say shape, dtype and range, which types do not
autodoc_class_signature = "separated"
napoleon_numpy_docstring = False
napoleon_use_ivar = True

PAGES = {"RESULTS.md": "results.md", "CHANGELOG.md": "changes.md", "CONTRIBUTING.md": "contributing.md"}
"""Files beside this folder that are pages of the site; all others are offered for download."""


def link_outside(app, name: str, source: list[str]) -> None:
    """Make links out of this folder, which are for readers of the repository, links that the site has."""

    def replaced(link: re.Match[str]) -> str:
        up, path = link.groups()
        page = PAGES.get(path)
        return f"](path:{up}{path})" if page is None else f"]({'../' * (up.count('../') - 1)}{page})"

    source[0] = re.sub(r"\]\(((?:\.\./)+)([A-Za-z][^)#]*\.[a-z]+)\)", replaced, source[0])


def escape(app, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Keep reStructuredText from taking the bars of kets, |0...0>, for its own; code and examples stay as they are."""
    for number, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            parts = line.split("`")
            parts[::2] = [part.replace("|", "\\|") for part in parts[::2]]
            lines[number] = "`".join(parts)


def setup(app) -> None:
    """Connect the two hooks above."""
    app.connect("source-read", link_outside)
    app.connect("autodoc-process-docstring", escape)
