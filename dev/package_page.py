"""The page of a package index: the README, with links that work from there.

The README's links are relative, so that they work in a checkout and on any forge. A package index knows no
checkout: in what is uploaded they lead to the manual, whose address is ``Documentation`` in
``[project.urls]`` of pyproject.toml.
"""

import base64
import hashlib
import os
import re
import shutil
import tarfile
import zipfile
from io import BytesIO

from environments import ROOT

# Documents of the root, and the manual's pages that include them.
INCLUDED = {
    "ARCHITECTURE.md": "architecture",
    "CHANGELOG.md": "changes",
    "CONTRIBUTING.md": "contributing",
}

LINK = re.compile(r"\]\(([^)#\s]*)(#[^)\s]*)?\)")


def address():
    """Return the manual's address, without a slash at its end."""
    with open(os.path.join(ROOT, "pyproject.toml"), encoding="utf-8") as file:
        return re.search(r'^Documentation = "(.*?)/?"$', file.read(), re.M).group(1)


def page_of(path):
    """Return where the manual has a file of the checkout: a page, or a picture as it is."""
    if path in INCLUDED:
        return INCLUDED[path] + ".html"
    if not path.startswith("docs/"):
        raise ValueError("the manual has no page for {}, to which the README links".format(path))
    return re.sub(r"\.md$", ".html", path[len("docs/") :])


def absolute(text):
    """Return a README's text with links that lead to the manual.

    Parameters
    ----------
    text : str
        In Markdown. Links to a place in itself, and those that are absolute, stay.
    """

    def replaced(match):
        path, place = match.group(1), match.group(2) or ""
        if not path or "://" in path:
            return match.group(0)
        return "]({}/{}{})".format(address(), page_of(path), place)

    return LINK.sub(replaced, text)


def with_absolute_links(metadata):
    """Return the bytes of METADATA or PKG-INFO, whose body is the README, with absolute links."""
    head, blank, body = metadata.partition(b"\n\n")
    return head + blank + absolute(body.decode("utf-8")).encode("utf-8")


def row(name, content):
    """Return a file's row in a wheel's RECORD."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return "{},sha256={},{}".format(name, digest, len(content))


def rewrite_wheel(path):
    """Make the links in a wheel's description absolute."""
    with zipfile.ZipFile(path) as wheel:
        members = [(each, wheel.read(each)) for each in wheel.infolist()]
    (name,) = [each.filename for each, _ in members if each.filename.endswith(".dist-info/METADATA")]
    new = dict((each.filename, content) for each, content in members)
    new[name] = with_absolute_links(new[name])
    record = name.replace("METADATA", "RECORD")
    rows = new[record].decode("utf-8").splitlines()
    rows = [row(name, new[name]) if each.startswith(name + ",") else each for each in rows]
    new[record] = ("\n".join(rows) + "\n").encode("utf-8")
    with zipfile.ZipFile(path + ".new", "w", zipfile.ZIP_DEFLATED) as wheel:
        for each, _ in members:
            wheel.writestr(each, new[each.filename])
    os.replace(path + ".new", path)


def rewrite_sdist(path):
    """Make the links in the description of a source distribution absolute."""
    with tarfile.open(path) as old, tarfile.open(path + ".new", "w:gz") as new:
        for member in old:
            content = old.extractfile(member).read() if member.isfile() else b""
            if re.match(r"[^/]+/PKG-INFO$", member.name):
                content = with_absolute_links(content)
                member.size = len(content)
            new.addfile(member, BytesIO(content))
    shutil.copymode(path, path + ".new")
    os.replace(path + ".new", path)
