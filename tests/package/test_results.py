"""The numbers and charts of README and docs are those of the benchmark's file.

* What stands in the marked places is what `dev/results.py` writes there.
* README and the page on performance state no time and no ratio in any other place, and the page on
  costs no number but the sizes of what is measured.
* Each marked figure stands where Markdown formats its line.
* Each chart was drawn of that very file, is used, loads nothing, and has colours for the dark.
"""

import glob
import os
import re
import subprocess
import sys
from xml.etree import ElementTree

import pytest
import results
from conftest import ROOT

RUN = results.Results()
CHARTS = sorted(glob.glob(os.path.join(results.PICTURES, "*.svg")))
DRAWN = [path for path in CHARTS if "of benchmarks/results" in results.read(path)[:200]]
# A number with a unit of time, or a ratio.
MEASURED = re.compile(r"(?<![\w.])[\d.,]*\d\s*(?:[nµm]s\b|times\b|x\b|×)")

CODE = re.compile(r"`[^`]*`")
# Any number, but one that tells how much of something is measured: of bytes, blocks or processes.
NUMBER = re.compile(
    r"(?<![\w.,])\d(?:[\d.,]*\d)?(?![\d.,]*\d)(?! (?:B|KiB|MiB|MB|(?:live )?blocks|processes)\b)"
)
TENS = "two|three|four|five|six|seven|eight|nine|ten|twenty|fifty|hundred|hundreds|thousands"
IN_WORDS = re.compile(
    r"\b(?:twice|half|(?:{}) times|(?:{}) (?:nano|micro|milli)?seconds|"
    r"a (?:third|quarter|fifth|tenth|twentieth|hundredth))\b".format(TENS, TENS)
)


def unmarked(text):
    """Return what is measured in a text, but not in a marked place."""
    for mark in (results.TABLE, results.FIGURE):
        text = mark.sub("", text)
    return MEASURED.findall(text)


@pytest.mark.parametrize("path", results.pages(), ids=os.path.basename)
def test_marked_places_are_as_measured(path):
    text = results.read(path)
    assert RUN.render(text) == text, "run python dev/results.py"
    # (A package that could not be had is named in the file.)
    assert results.MISSING not in text or RUN.run["costs"]["left out"]


@pytest.mark.parametrize("path", results.pages(), ids=os.path.basename)
def test_no_line_begins_with_a_figure(path):
    """It would be a block of HTML, in which nothing is formatted."""
    assert re.findall(r"^[\s*>\d.-]*<!-- figure.*", results.read(path), re.MULTILINE) == []


@pytest.mark.parametrize("name", ["README.md", "docs/performance.md"])
def test_nothing_is_measured_elsewhere(name):
    text = results.read(os.path.join(ROOT, name))
    assert results.FIGURE.search(text) or results.TABLE.search(text)
    assert unmarked(text) == []


def test_what_is_not_marked_is_found():
    text = "It takes 41 times as long, or 2.7 µs, <!-- figure: time a; b; c -->9 ms<!-- / -->."
    assert unmarked(text) == ["41 times", "2.7 µs"]


def unmarked_numbers(text):
    """Return what looks like a figure on the page on costs, but in marked places and code."""
    for mark in (results.TABLE, results.FIGURE, CODE):
        text = mark.sub("", text)
    return NUMBER.findall(text) + IN_WORDS.findall(text)


def test_costs_are_measured():
    text = results.read(os.path.join(ROOT, "docs", "costs.md"))
    assert results.FIGURE.search(text) and results.TABLE.search(text)
    assert unmarked_numbers(text) == []


def test_costs_that_are_not_marked_are_found():
    text = "It takes 41 times as long, 2.7 µs, 0.2 % or 98 bytes, twice: 1,000, <!-- table: a -->9<!-- / -->"
    assert unmarked_numbers(text) == ["41", "2.7", "0.2", "98", "1,000", "twice"]
    text = "By `rings.py --rounds 3`, 64 B, 1 MiB and 100,000 live blocks of 1,024 processes"
    assert unmarked_numbers(text) == []


def run_of(tmp_path, text, costs=results.COSTS):
    path = tmp_path / "run.json"
    path.write_text(text, encoding="utf-8")
    return results.Results(str(path), str(costs))


SMALL_RUN = """{"versions": {"numpy": "9.9"}, "CPUs": 2, "scenarios": {"echo": {"figures": {"64 B": {
    "ours": {"rounds": [2e-6, 3e-6], "min": 2e-6, "median": 2.5e-6, "max": 3e-6},
    "theirs": {"rounds": [1e-4, 1e-4], "min": 1e-4, "median": 1e-4, "max": 1e-4}}}}}}"""


def test_figures_and_tables_are_written(tmp_path):
    run = run_of(tmp_path, SMALL_RUN)
    for what, expected in [
        ("ratio echo; 64 B; theirs / ours", "40"),
        ("time echo; 64 B; ours", "2.5 µs"),
        ("fact versions; numpy", "9.9"),
        ("fact CPUs", "2"),
        ("time echo; 64 B; nobody", results.MISSING),
    ]:
        old = "a <!-- figure: {} -->old<!-- / --> b <!-- figure: {} --><!-- / -->".format(what, what)
        assert run.render(old).count("-->" + expected + "<!--") == 2
    for what in ("time none; 64 B; ours", "tome echo; 64 B; ours"):
        with pytest.raises(KeyError):
            run.render("<!-- figure: {} --><!-- / -->".format(what))
    table = run.render("<!-- table: echo -->\nold\n<!-- / -->")
    assert "| ours | 2.5 µs |" in table and "| theirs | 100 µs |" in table and "old" not in table
    assert run.render(table) == table


SMALL_COSTS = """{"versions": {"numpy": "9.8"}, "left out": ["theirs"], "scenarios": {
    "rings": {"figures": {"messages of 1 B from 1 to 1": {"ours": {"median": 923456}},
        "idle": {"ours": {"median": 0.00123}}}},
    "backport on 3.9": {"figures": {"make 1048576 bytes": {"ours": {"median": 2e-6},
        "theirs": {"median": 3e-6}}}},
    "doors": {"figures": {"made": {"compat.jztools": {"median": 1e-6}}}}}}"""


def test_costs_are_written(tmp_path):
    path = tmp_path / "costs.json"
    path.write_text(SMALL_COSTS, encoding="utf-8")
    run = run_of(tmp_path, SMALL_RUN, path)
    assert run.figure("number", "rings; messages of 1 B from 1 to 1; ours") == "920,000"
    assert run.figure("percent", "rings; idle; ours") == "0.12 %"
    assert run.figure("ratio", "rings; idle; theirs / ours") == results.MISSING
    assert run.figure("fact", "costs; versions; numpy") == "9.8"
    assert run.figure("ratio", "echo; 64 B; theirs / ours") == "40"
    for name, line in [
        ("rates", "| ours | 920,000 |"),
        ("backport", "| make 1 MiB | 2.0 µs | 3.0 µs | 1.50 |"),
        ("doors", "| jztools: made | 1.0 µs | not measured | not measured |"),
        ("arena", "| fork | not measured | not measured | not measured | not measured |"),
    ]:
        assert line in list(results.TABLES[name](run))


@pytest.mark.parametrize(
    "value, expected",
    [(0.123, "0.12"), (2.04, "2.0"), (9.96, "10"), (41.4, "41"), (940, "940"), (12345, "12,000")],
)
def test_numbers_are_short(value, expected):
    assert results.number(value) == expected


@pytest.mark.parametrize(
    "seconds, expected", [(89e-9, "89 ns"), (2.7e-6, "2.7 µs"), (0.9996e-3, "1.0 ms"), (12, "12 s")]
)
def test_times_have_their_unit(seconds, expected):
    assert results.time(seconds) == expected


@pytest.mark.parametrize(
    "count, expected", [(0, "0"), (512, "512 B"), (4096, "4 KiB"), (67 << 16, "4.2 MiB")]
)
def test_sizes_have_their_unit(count, expected):
    assert results.size(count) == expected


def test_the_run_is_whole():
    for name, scenario in RUN.run["scenarios"].items():
        for rows in scenario["figures"].values():
            assert rows, name
            for figures in rows.values():
                assert figures["min"] <= figures["median"] <= figures["max"]
                assert figures["min"] == min(figures["rounds"])
    for run in (RUN.run, RUN.run["costs"]):
        assert run["load at the beginning"] and run["load at the end"]
        assert run["machine"]["CPUs"] >= 1 and run["versions"]["CPython"]


def test_there_are_charts():
    names = {os.path.basename(path)[: -len(".svg")] for path in DRAWN}
    assert names == {"echo", "echo-by-size", "limits", "call", "memory", "kills"}


@pytest.mark.parametrize("path", DRAWN, ids=os.path.basename)
def test_chart(path):
    text = results.read(path)
    assert RUN.digest in text, "run python dev/results.py"
    assert "prefers-color-scheme: dark" in text
    root = ElementTree.fromstring(text.encode())
    for element in root.iter():
        for name, value in element.attrib.items():
            if name.endswith("href"):
                assert value.startswith("#")
    used = "pictures/" + os.path.basename(path)
    assert used in results.read(os.path.join(ROOT, "docs", "performance.md"))


def test_out_of_date_is_told():
    """The check that tells so runs on every interpreter, without matplotlib."""
    command = [sys.executable, os.path.join(ROOT, "dev", "results.py"), "--check"]
    assert subprocess.call(command) == 0
