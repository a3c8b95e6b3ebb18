"""The manual is complete: each page is in a table of contents, each public name in the reference.

`make docs` builds it, and finds links that lead nowhere.
"""

import ast
import fnmatch
import glob
import importlib
import inspect
import os
import re

from conftest import ROOT

import shared_numpy as snp

DOCS = os.path.join(ROOT, "docs")
PAGES = [
    os.path.relpath(path, DOCS)[: -len(".md")]
    for path in glob.glob(os.path.join(DOCS, "**", "*.md"), recursive=True)
]

# Modules with public names, beside the package itself.
MODULES = ["backport", "resource_tracker"]
MODULES += ["integrations." + name for name in ("dask", "joblib", "loky", "multiprocessing")]
MODULES += ["compat." + name for name in ("contextshare", "jztools", "npshmex", "pyarraypool", "sharedarray")]

# What a compatibility module has beside functions and classes: constants, a context manager's other
# name, and modules that users found there.
NOT_SHOWN = {
    "compat.npshmex": {"SharedArray", "concurrent", "np", "pickle", "random", "string"},
    "compat.pyarraypool": {"object_pool"},
    "compat.sharedarray": {"MS_ASYNC", "MS_INVALIDATE", "MS_SYNC"},
}


def text_of(page):
    with open(os.path.join(DOCS, page + ".md"), encoding="utf-8") as file:
        return file.read()


def contents_of(page):
    """Return the pages in the tables of contents of a page, as paths below ``docs``."""
    listed = []
    for table in re.findall(r"^```\{toctree\}\n(.*?)^```", text_of(page), re.M | re.S):
        for line in table.splitlines():
            entry = re.sub(r".*<(.*)>", r"\1", line.strip())
            if entry and not entry.startswith(":"):
                path = os.path.normpath(os.path.join(os.path.dirname(page), entry))
                listed += fnmatch.filter(PAGES, path) if "*" in path else [path]
    return listed


def test_each_page_is_in_one_table_of_contents():
    listed = [entry for page in PAGES for entry in contents_of(page)]
    assert sorted(listed + ["index"]) == sorted(PAGES)


def names_in_the_reference():
    """Return the full names that the pages of the reference describe."""
    found = []
    for page in PAGES:
        if page.startswith("reference/"):
            module = None
            for kind, name in re.findall(r"^\.\. (\w+):: ([\w.]+)", text_of(page), re.M):
                if kind == "currentmodule":
                    module = name
                elif kind.startswith("auto"):
                    found.append(module + "." + name)
    return found


def public_names_of(module):
    """Return the names in a module's ``__all__``; what it is for need not be installed."""
    if module != "integrations.dask":
        return importlib.import_module("shared_numpy." + module).__all__
    path = os.path.join(ROOT, "shared_memory", "shared_numpy", *module.split(".")) + ".py"
    with open(path, encoding="utf-8") as file:
        statements = ast.parse(file.read()).body
    (found,) = [
        ast.literal_eval(each.value)
        for each in statements
        if isinstance(each, ast.Assign) and each.targets[0].id == "__all__"
    ]
    return found


def test_each_public_name_is_in_the_reference_once():
    wanted = {
        "shared_numpy." + name
        for name in dir(snp)
        if not name.startswith("_") and not inspect.ismodule(getattr(snp, name))
    }
    for module in MODULES:
        names = set(public_names_of(module)) - NOT_SHOWN.get(module, set())
        wanted.update("shared_numpy.%s.%s" % (module, name) for name in names)
    shown = names_in_the_reference()
    assert len(shown) == len(set(shown))
    # A new name goes into one of the pages in `docs/reference`.
    assert set(shown) == wanted


def test_each_variable_is_in_the_reference():
    """Those that the package or its core reads, and no others."""
    files = glob.glob(os.path.join(ROOT, "shared_memory", "**", "*.py"), recursive=True)
    files += glob.glob(os.path.join(ROOT, "src", "**", "*.rs"), recursive=True)
    read = set()
    for path in files:
        with open(path, encoding="utf-8") as file:
            read.update(re.findall(r"\bSHARED_NUMPY_[A-Z]+\b", file.read()))
    shown = set(re.findall(r"\bSHARED_NUMPY_[A-Z]+\b", text_of("reference/environment")))
    assert shown == read
