"""What is wrong with the pages of a site is found, and its pictures are as drawn."""

import os

import drawings
import manual

PAGE = '<html><head><link rel="stylesheet" href="style.css"></head><body><h1 id="top">x</h1>{}</body>'


def site(tmp_path, body="", style=""):
    (tmp_path / "style.css").write_text(style)
    (tmp_path / "index.html").write_text(PAGE.format(body))
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "page.html").write_text('<a href="../index.html#top">x</a> <p id="part">')
    return manual.faults(str(tmp_path))


def test_a_right_site_has_no_faults(tmp_path):
    links = '<a href="more/page.html#part">x</a> <a href="#top">x</a> <a href="https://example.org">x</a>'
    assert site(tmp_path, links, "p { background: url(picture.png) }") == []


def test_wrong_links_are_found(tmp_path):
    body = '<a href="none.html">x</a> <a href="more/page.html#none">x</a> <img src="none.png">'
    assert sorted(site(tmp_path, body)) == [
        "index.html links to more/page.html#none, whose page has no such place",
        "index.html links to none.html, which is not there",
        "index.html links to none.png, which is not there",
    ]


def test_what_is_loaded_from_elsewhere_is_found(tmp_path):
    body = '<script src="https://example.org/x.js"></script> <img src="//example.org/x.png">'
    style = "@import url('https://example.org/fonts.css')"
    assert sorted(site(tmp_path, body, style)) == [
        "index.html loads //example.org/x.png",
        "index.html loads https://example.org/x.js",
        "style.css loads something from elsewhere",
    ]


def test_the_pictures_are_as_drawn(tmp_path):
    """`python3 dev/drawings.py` was run after the last change to it."""
    drawings.main(str(tmp_path))
    for name in drawings.PICTURES:
        with open(os.path.join(drawings.FOLDER, name + ".svg"), encoding="utf-8") as file:
            assert file.read() == (tmp_path / (name + ".svg")).read_text(encoding="utf-8"), name
