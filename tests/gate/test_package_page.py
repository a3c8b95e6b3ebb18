"""What is uploaded to a package index has links that work there.

The README's links lead to pages that the manual has, and nothing but the description changes.
"""

import os
import tarfile
import zipfile
from io import BytesIO

import package_page
import pytest
from conftest import ROOT

HEAD = "Metadata-Version: 2.1\nName: x\nDescription-Content-Type: text/markdown\n\n"


def readme():
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        return file.read()


def test_links_of_the_readme_lead_to_the_manual():
    found = package_page.LINK.findall(package_page.absolute(readme()))
    base = package_page.address() + "/"
    assert len(found) > 15
    for path, place in found:
        assert path.startswith(base) or (not path and place), path
        page = path[len(base) :]
        sources = {value + ".html" for value in package_page.INCLUDED.values()}
        source = os.path.join(ROOT, "docs", page.replace(".html", ".md"))
        assert not path or page in sources or os.path.exists(source), path


def test_other_links_stay():
    text = "[a](https://example.org/x.md#y) [b](#c) ![d](docs/pictures/x.svg) [e](docs/x.md#y)"
    base = package_page.address()
    assert package_page.absolute(text) == (
        "[a](https://example.org/x.md#y) [b](#c) ![d](%s/pictures/x.svg) [e](%s/x.html#y)" % (base, base)
    )
    with pytest.raises(ValueError, match="src/lib.rs"):
        package_page.absolute("[x](src/lib.rs)")


def test_a_wheel_is_the_same_but_for_its_description(tmp_path):
    path = str(tmp_path / "x.whl")
    old = (HEAD + readme()).encode("utf-8")
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("x/code.py", "pass\n")
        wheel.writestr("x-1.dist-info/METADATA", old)
        rows = [package_page.row("x/code.py", b"pass\n"), package_page.row("x-1.dist-info/METADATA", old)]
        wheel.writestr("x-1.dist-info/RECORD", "\n".join(rows + ["x-1.dist-info/RECORD,,"]) + "\n")
    package_page.rewrite_wheel(path)
    with zipfile.ZipFile(path) as wheel:
        assert wheel.namelist() == ["x/code.py", "x-1.dist-info/METADATA", "x-1.dist-info/RECORD"]
        metadata = wheel.read("x-1.dist-info/METADATA")
        assert metadata.decode("utf-8") == HEAD + package_page.absolute(readme())
        assert wheel.read("x-1.dist-info/RECORD").decode().split("\n") == [
            package_page.row("x/code.py", wheel.read("x/code.py")),
            package_page.row("x-1.dist-info/METADATA", metadata),
            "x-1.dist-info/RECORD,,",
            "",
        ]


def test_a_source_distribution_is_the_same_but_for_its_description(tmp_path):
    path = str(tmp_path / "x.tar.gz")
    contents = [("x-1/PKG-INFO", HEAD + readme()), ("x-1/README.md", readme())]
    with tarfile.open(path, "w:gz") as archive:
        for name, text in contents:
            member = tarfile.TarInfo(name)
            member.size = len(text.encode("utf-8"))
            archive.addfile(member, BytesIO(text.encode("utf-8")))
    package_page.rewrite_sdist(path)
    with tarfile.open(path) as archive:
        found = [(each.name, archive.extractfile(each).read().decode("utf-8")) for each in archive]
    assert found == [("x-1/PKG-INFO", HEAD + package_page.absolute(readme())), contents[1]]
