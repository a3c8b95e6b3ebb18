"""The manual, as Sphinx builds it: ``make docs``."""

import os
import re
import sys

project = "shared_numpy"
author = "The shared_numpy developers"
copyright = "2026, " + author

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "dev"))
from package_page import INCLUDED  # noqa: E402 (pages that include documents of the root)

with open(os.path.join(ROOT, "Cargo.toml"), encoding="utf-8") as manifest:
    release = version = re.search(r'^version = "(.*)"$', manifest.read(), re.M).group(1)

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
myst_heading_anchors = 3

# Docstrings have names of this package in single backticks.
default_role = "py:obj"
autodoc_member_order = "bysource"
# numpydoc's sections tell the types.
autodoc_typehints = "none"
autosummary_generate = False
numpydoc_show_class_members = False
numpydoc_show_inherited_class_members = False
numpydoc_validation_checks = {
    "GL03",  # blank lines
    "GL08",  # no docstring
    "PR01",  # a parameter is missing
    "PR02",  # a parameter that is not there
    "PR03",  # in another order
    "PR10",  # no space before the colon
    "RT02",  # a type is all that a single return value has before its description
    "SS01",  # no summary
    "YD01",  # no section Yields
}

numpydoc_validation_exclude = {
    # Other projects' names, which their own pages explain.
    r"\.compat\.",
    # The signatures are those of the standard library's base class: `*args, **kwargs`.
    r"\.(Array|SharedMemory)Manager$",
    # numpydoc takes a function's first parameter, if it is `cls`, for a class method's.
    r"\.register_type$",
    # `share` makes them.
    r"\.dask\.PerHostArray$",
}

html_theme = "furo"
html_title = "shared_numpy " + release
html_static_path = ["static"]
html_css_files = ["manual.css"]
html_copy_source = False
html_show_sphinx = False
pygments_style = "friendly"
pygments_dark_style = "monokai"


def put_in_documents(app, docname, source):
    """Put a document of the root where a page asks for it, with links as from the folder of pages."""

    def document(match):
        with open(os.path.join(ROOT, match.group(1)), encoding="utf-8") as file:
            text = re.sub(r"\]\(docs/", "](", file.read())
        return re.sub(r"\]\(decisions/\)", "](decisions/README.md)", text)

    source[0] = re.sub(r"<!-- all of (\S+) -->", document, source[0])


def point_to_pages(app, docname, source):
    """Turn links to documents of the root into links to the pages that have them."""
    up = "../" * docname.count("/")
    for name, page in INCLUDED.items():
        for link in (name, "../%s%s" % (up, name)):
            source[0] = source[0].replace("](%s)" % link, "](%s%s.md)" % (up, page))


def put_in_comments(app, docname, source):
    """Put the comments at the heads of Rust's files, which are Markdown, where a page asks for them."""

    def comment(match):
        with open(os.path.join(ROOT, match.group(1)), encoding="utf-8") as file:
            lines = re.match(r"(//!.*\n)*", file.read()).group(0)
        text = re.sub(r"^#", "##", re.sub(r"^//! ?", "", lines, flags=re.M), flags=re.M)
        # What is in brackets is a link for Rust only.
        return re.sub(r"\[(`[^`]+`)\]", r"\1", text)

    source[0] = re.sub(r"<!-- head of (\S+) -->", comment, source[0])


def setup(app):
    app.connect("source-read", put_in_documents)
    app.connect("source-read", put_in_comments)
    app.connect("source-read", point_to_pages)
