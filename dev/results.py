"""Writes the numbers of a benchmark's file into README and docs, and draws the charts.

    python dev/results.py [--check] [--no-charts]

`make bench` does so after each run. In Markdown, places are marked by comments, which no reader
sees; what stands between them is written anew:

    <!-- figure: ratio echo; 64 MiB; multiprocessing.Queue / shared_numpy.Queue -->41<!-- / -->
    <!-- figure: time small; median; shared_numpy.Queue -->2.7 µs<!-- / -->
    <!-- figure: value kills; survived; joblib -->0<!-- / -->
    <!-- figure: fact versions; numpy -->2.4.0<!-- / -->
    <!-- table: echo -->
    ...
    <!-- / -->

A figure names the scenario, the label and the peer, as they stand in
``benchmarks/results/compare.json``, and is the median of all rounds. It stands on one line, and not
at a line's beginning, where Markdown would take the whole line for HTML. With ``--check`` nothing is
written, and the places that are out of date are printed.
"""

import argparse
import glob
import hashlib
import io
import json
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
RESULTS = os.path.join(ROOT, "benchmarks", "results", "compare.json")
PICTURES = os.path.join(ROOT, "docs", "pictures")
FIGURE = re.compile(r"<!-- figure: (\w+) ([^>]*?) -->.*?<!-- / -->", re.DOTALL)
TABLE = re.compile(r"<!-- table: ([^>]*?) -->.*?<!-- / -->", re.DOTALL)
MISSING = "not measured"
OURS = "shared_numpy"


# ---- how numbers are written -----------------------------------------------------------------


def number(value):
    """Return a positive number as text, with two or three digits that mean something."""
    if value >= 100:
        digits = len(str(int(value))) - 2
        return "{:,}".format(int(round(value, -digits if value >= 1000 else 0)))
    if value >= 9.95:
        return "{:.0f}".format(value)
    return "{:.1f}".format(value) if value >= 1.95 else "{:.2f}".format(value)


def time(seconds):
    for unit, factor in (("ns", 1e9), ("µs", 1e6), ("ms", 1e3), ("s", 1)):
        if seconds * factor < 999.5 or unit == "s":
            value = seconds * factor
            return "{} {}".format("{:.1f}".format(value) if value < 9.95 else number(value), unit)


def size(count):
    if count == 0:
        return "0"
    for unit, factor in (("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)):
        if count < 1000 * factor or unit == "GiB":
            is_whole = count % factor == 0 and count < 1000 * factor
            return "{} {}".format(count // factor if is_whole else number(count / factor), unit)


# ---- what is in a file -----------------------------------------------------------------------


class Results:
    """The figures of a run.

    Parameters
    ----------
    path : str, optional
        The file that `benchmarks/compare.py` wrote.
    """

    def __init__(self, path=RESULTS):
        with open(path, "rb") as file:
            data = file.read()
        self.digest = hashlib.sha256(data).hexdigest()
        self.run = json.loads(data.decode())

    def rows(self, scenario, label=""):
        """Return {peer: figures} of a label."""
        return self.run["scenarios"].get(scenario, {}).get("figures", {}).get(label, {})

    def labels(self, scenario):
        return list(self.run["scenarios"].get(scenario, {}).get("figures", {}))

    def median(self, scenario, label, peer):
        """Return the median of a peer, or None if that was not measured."""
        found = self.rows(scenario, label).get(peer)
        return None if found is None else found["median"]

    def figure(self, kind, what):
        """Return the text of a marked figure."""
        words = [each.strip() for each in what.split(";")]
        if kind == "fact":
            place = self.run
            for word in words:
                place = place[word]
            return place if isinstance(place, str) else "{:,}".format(place)
        scenario, label, peer = words
        if scenario not in self.run["scenarios"] or kind not in ("ratio", "time", "value"):
            raise KeyError("{} {}".format(kind, what))
        found = [self.median(scenario, label, each.strip()) for each in peer.split(" / ")]
        if None in found:
            return MISSING
        if kind == "ratio":
            return number(found[0] / found[1])
        return time(found[0]) if kind == "time" else "{:,}".format(int(found[0]))

    def render(self, text):
        """Return a Markdown text with the figures of this run."""

        def figure(match):
            kind, what = match.groups()
            return "<!-- figure: {} {} -->{}<!-- / -->".format(kind, what, self.figure(kind, what))

        def table(match):
            name = match.group(1)
            made = "\n".join(TABLES[name](self))
            return "<!-- table: {} -->\n\n{}\n\n<!-- / -->".format(name, made)

        return FIGURE.sub(figure, TABLE.sub(table, text))


# ---- tables ----------------------------------------------------------------------------------


def lines(head, rows):
    """Yield the lines of a table in Markdown."""
    yield "| " + " | ".join(head) + " |"
    yield "|---|" + "---:|" * (len(head) - 1)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def named(peer):
    """Return the name of a peer as a table has it: ours in bold."""
    return "**{}**".format(peer) if peer.startswith(OURS) or peer.startswith("snp.") else peer


def peers_of(results, scenario):
    found = {}
    for label in results.labels(scenario):
        for peer in results.rows(scenario, label):
            found.setdefault(peer)
    return list(found)


def by_label(scenario):
    """Return the table with a row for each peer and a column for each label."""

    def made(results):
        labels = results.labels(scenario)
        rows = []
        for peer in peers_of(results, scenario):
            medians = [results.median(scenario, label, peer) for label in labels]
            rows.append([named(peer)] + ["" if each is None else time(each) for each in medians])
        return lines([""] + labels, rows)

    return made


def beside(scenario, base):
    """Return the table of one label: each time, and its ratio to that of `base`."""

    def made(results):
        rows = []
        for peer, figures in results.rows(scenario).items():
            first = results.median(scenario, "", base)
            times = [time(figures[each]) for each in ("min", "median", "max")]
            rows.append([named(peer)] + times + [number(figures["median"] / first)])
        return lines(["", "least", "median", "greatest", "beside " + base], rows)

    return made


def small(results):
    scenarios = ["small", "small, one CPU", "small, loaded"]
    rows = []
    for peer in peers_of(results, "small"):
        cells = []
        for scenario in scenarios:
            for label in ("median", "99th percentile"):
                found = results.median(scenario, label, peer)
                cells.append("" if found is None else time(found))
        rows.append([named(peer)] + cells)
    head = [""]
    for condition in ("two CPUs", "one CPU", "busy CPUs"):
        head += [condition, "its 99th percentile"]
    return lines(head, rows)


def memory(results):
    counts = results.labels("memory")
    rows = []
    for peer in peers_of(results, "memory"):
        medians = [results.median("memory", count, peer) for count in counts]
        rows.append([named(peer)] + ["" if m is None else size(max(0, int(m))) for m in medians])
    head = [count + (" worker" if count == "1" else " workers") for count in counts]
    return lines([""] + head, rows)


def kills(results):
    rows = []
    for peer in peers_of(results, "kills"):
        count, good, left, last = [
            int(results.median("kills", label, peer)) for label in results.labels("kills")
        ]
        rows.append([named(peer), "{} of {}".format(good, count), size(left), size(last)])
    return lines(["", "survived", "left when it ends", "left after a kill of all"], rows)


def limits(results):
    rows = []
    for name in results.labels("limits"):
        (_, here), (what, limit) = results.rows("limits", name).items()
        spread = "{} – {}".format(time(here["min"]), time(here["max"]))
        ratio = number(here["median"] / limit["median"])
        rows.append([name, time(here["median"]), spread, what, time(limit["median"]), ratio])
    return lines(["", "here", "least – greatest", "the limit", "its time", "ratio"], rows)


def machine(results):
    run = results.run
    facts = run["machine"]
    kinds = ", ".join("{} {}".format(*each) for each in run["versions"].items())
    loads = "{} and {}".format(run["load at the beginning"][0], run["load at the end"][0])
    rows = [
        ["Processor", "{}, {} CPUs".format(facts["processor"], facts["CPUs"])],
        ["Memory, page", size(facts["memory, bytes"]) + ", " + size(facts["page, bytes"])],
        ["Linux, libc", "{}, {}".format(facts["kernel"], facts["libc"])],
        ["Huge pages of shared memory", facts["huge pages of shared memory"]],
        ["Versions", kinds],
        ["Not installed", ", ".join(run["left out"]) or "none of the peers"],
        ["Begun, took, amount", "{begun}, {seconds:.0f} s, {amount}".format(**run)],
        ["Load at the beginning and the end", loads],
    ]
    yield "| | |"
    yield "|---|---|"
    for row in rows:
        yield "| " + " | ".join(row) + " |"


TABLES = {
    "machine": machine,
    "limits": limits,
    "echo": by_label("echo"),
    "echo shared": by_label("echo shared"),
    "small": small,
    "make": by_label("make"),
    "call": beside("call", "bare"),
    "calls": beside("calls", OURS),
    "slices": beside("slices", "shared_numpy's array, multiprocessing.Pool"),
    "context": beside("context", "serial / workers"),
    "frames": beside("frames", "two copies"),
    "memory": memory,
    "kills": kills,
}


# ---- files -----------------------------------------------------------------------------------


def pages():
    """Return the paths of the documents that may have marked places."""
    return [os.path.join(ROOT, "README.md")] + sorted(glob.glob(os.path.join(ROOT, "docs", "*.md")))


def read(path):
    with io.open(path, encoding="utf-8") as file:
        return file.read()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--no-charts", action="store_true", help="without matplotlib")
    options = parser.parse_args()
    results, old = Results(), []
    for path in pages():
        text = read(path)
        rendered = results.render(text)
        if rendered != text:
            old.append(os.path.relpath(path, ROOT))
            if not options.check:
                with io.open(path, "w", encoding="utf-8") as file:
                    file.write(rendered)
    if options.check:
        sys.exit("out of date: " + ", ".join(old) if old else 0)
    print("numbers written into " + (", ".join(old) or "no file: all are as they were"))
    if not options.no_charts:
        import charts

        for path in charts.draw(results):
            print("drawn: " + os.path.relpath(path, ROOT))


if __name__ == "__main__":
    main()
