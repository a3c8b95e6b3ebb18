"""What documents link to, and the files that they name, are there."""

import glob
import os
import re

import pytest

from conftest import ROOT

DOCUMENTS = [
    os.path.relpath(path, ROOT)
    for pattern in ("*.md", "docs/*.md", "docs/decisions/*.md")
    for path in sorted(glob.glob(os.path.join(ROOT, pattern)))
    # It tells of files as they were.
    if os.path.basename(path) != "CHANGELOG.md"
]
# In backticks, from the root of the checkout on; options and node ids may follow.
NAMED = re.compile(r"`((?:src|tests|dev|docs|benchmarks|examples|fuzz|include)/[^`\s:]*)")
LINKS = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")


def missing(document, text):
    """Return the paths in a document's text at which nothing is."""
    folder = os.path.dirname(document)
    paths = [os.path.join(folder, link) for link in LINKS.findall(text) if "://" not in link]
    paths += [path for path in NAMED.findall(text) if not re.search(r"[*<]|[A-Z]{3}", path)]
    return [path for path in paths if not os.path.exists(os.path.join(ROOT, path))]


def test_what_is_not_there_is_found():
    assert missing("docs/x.md", "[a](none.md#b) `tests/none.py::test`, `src/`") == [
        "docs/none.md",
        "tests/none.py",
    ]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_are_there(document):
    with open(os.path.join(ROOT, document), encoding="utf-8") as file:
        assert missing(document, file.read()) == []


@pytest.mark.parametrize("document, most", [("ARCHITECTURE.md", 250), ("README.md", 150)])
def test_what_one_reads_first_is_short(document, most):
    with open(os.path.join(ROOT, document), encoding="utf-8") as file:
        assert len(file.readlines()) <= most


def test_each_decision_is_listed():
    folder = os.path.join(ROOT, "docs", "decisions")
    with open(os.path.join(folder, "README.md"), encoding="utf-8") as file:
        listed = LINKS.findall(file.read())[1:]
    assert listed == sorted(set(os.listdir(folder)) - {"README.md"})
