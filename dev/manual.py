"""Builds the manual from ``docs``, and checks the pages that come out.

Sphinx checks the links between sources, and that each page is in a table of contents. Here is checked
what it does not see: links in the built pages, and that a page loads nothing from elsewhere.
"""

import os
import re
import shutil
from html.parser import HTMLParser
from urllib.parse import unquote, urldefrag

import builds
import environments
from environments import ROOT
from jobs import Failed

SITE = os.path.join(builds.BUILD, "manual")
# A warning is an error, so that a newer version of these may fail where an older one passes.
PACKAGES = ["numpy", "sphinx>=7,<10", "furo", "numpydoc>=1.8,<2", "myst-parser>=4,<6"]
# The reference imports the integration.
PACKAGES += ["dask", "distributed"]
# The oldest interpreter for which all of these have releases.
OLDEST = (3, 10)

# Attributes from which a browser loads something when it shows a page.
LOADS = {("img", "src"), ("script", "src"), ("link", "href"), ("source", "srcset"), ("iframe", "src")}
# What a ``link`` says about the page, and no browser loads.
RELATIONS = {"next", "prev", "canonical", "index", "search", "alternate"}


class Page(HTMLParser):
    """The names, links and loads of a page."""

    def __init__(self, text):
        super().__init__()
        self.names, self.links, self.loads = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.names.update(found[key] for key in ("id", "name") if found.get(key))
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if tag == "link" and found.get("rel") in RELATIONS:
            return
        self.loads += [found[key] for of, key in LOADS if of == tag and found.get(key)]


def is_remote(address):
    return bool(re.match(r"([a-z]+:)?//", address))


def faults(folder):
    """Return what is wrong with the pages of a site, as one text each.

    Parameters
    ----------
    folder : str
        It has the site's HTML and CSS files.
    """
    pages, found = {}, []
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            if name.endswith((".html", ".css")):
                with open(path, encoding="utf-8") as file:
                    text = file.read()
                if name.endswith(".html"):
                    pages[os.path.relpath(path, folder)] = Page(text)
                elif re.search(r"(@import|url\()\s*[\"']?(https?:)?//", text):
                    found.append("{} loads something from elsewhere".format(name))
    for path, page in sorted(pages.items()):
        for address in page.loads + page.links:
            if is_remote(address):
                if address in page.loads:
                    found.append("{} loads {}".format(path, address))
                continue
            if re.match(r"(mailto|data|javascript):", address):
                continue
            there, name = urldefrag(address)
            there = there.partition("?")[0]
            target = os.path.normpath(os.path.join(os.path.dirname(path), unquote(there)))
            if not there:
                target = path
            if not os.path.exists(os.path.join(folder, target)):
                found.append("{} links to {}, which is not there".format(path, address))
            elif name and target in pages and unquote(name) not in pages[target].names:
                found.append("{} links to {}, whose page has no such place".format(path, address))
    return found


def build(version, executable, wheel, job):
    """Build the manual with an interpreter, about the package of a wheel.

    Parameters
    ----------
    version : str
        The interpreter's, as "3.13".
    executable : str
        The interpreter.
    wheel : callable
        Returns the wheel's path.
    job : jobs.Job
        For its output.
    """
    if tuple(map(int, version.split("."))) < OLDEST:
        return "skipped: Sphinx needs CPython %d.%d or later" % OLDEST
    python = environments.make("manual", executable, PACKAGES)
    environments.install_once(python, wheel())
    shutil.rmtree(SITE, ignore_errors=True)
    doctrees = os.path.join(builds.BUILD, "manual-doctrees")
    shutil.rmtree(doctrees, ignore_errors=True)
    sphinx = [python, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    job.run(sphinx + ["-d", doctrees, os.path.join(ROOT, "docs"), SITE])
    # The page of a package index shows these, under addresses that stay the same.
    shutil.copytree(os.path.join(ROOT, "docs", "pictures"), os.path.join(SITE, "pictures"))
    found = faults(SITE)
    if found:
        raise Failed("\n".join(found))
    return os.path.relpath(os.path.join(SITE, "index.html"), ROOT)
