"""Writes the numbers of the benchmarks' files into README and docs, and draws the charts.

    python dev/results.py [--check] [--no-charts]

`make bench` and `make bench-costs` do so after each run. In Markdown, places are marked by comments, which no reader
sees; what stands between them is written anew:

    <!-- figure: ratio echo; 64 MiB; multiprocessing.Queue / shared_numpy.Queue -->41<!-- / -->
    <!-- figure: time small; median; shared_numpy.Queue -->2.7 µs<!-- / -->
    <!-- figure: value kills; survived; joblib -->0<!-- / -->
    <!-- figure: number rings; messages of 64 B from 1 to 1; shared_numpy.Queue -->920,000<!-- / -->
    <!-- figure: percent rings; CPU of a process that waits for 5 s; shared_numpy.Queue -->0.20 %<!-- / -->
    <!-- figure: fact versions; numpy -->2.4.0<!-- / -->
    <!-- figure: fact costs; machine; CPUs -->2<!-- / -->
    <!-- table: echo -->
    ...
    <!-- / -->

A figure names the scenario, the label and the peer, as they stand in
``benchmarks/results/compare.json`` or ``benchmarks/results/costs.json``, and is the median of all
rounds. It stands on one line, and not at a line's beginning, where Markdown would take the whole line
for HTML. With ``--check`` nothing is written, and the places that are out of date are printed.
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
COSTS = os.path.join(ROOT, "benchmarks", "results", "costs.json")
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


def percent(part):
    return "{:.2f} %".format(100 * part)


def written(how, value):
    """Return a figure as a table has it, which may be None."""
    return MISSING if value is None else how(value)


# How figures are written, by the word that their marks begin with.
KINDS = {
    "ratio": lambda above, below: number(above / below),
    "time": time,
    "value": lambda value: "{:,}".format(int(value)),
    "number": number,
    "percent": percent,
}


# ---- what is in a file -----------------------------------------------------------------------


class Results:
    """The figures of a run, and of that of what operations cost.

    Parameters
    ----------
    path, costs : str, optional
        The files that `benchmarks/compare.py` and `benchmarks/costs.py` wrote. The facts of the second
        one are those of "costs".
    """

    def __init__(self, path=RESULTS, costs=COSTS):
        with open(path, "rb") as file:
            data = file.read()
        self.digest = hashlib.sha256(data).hexdigest()
        self.run = json.loads(data.decode())
        self.run["costs"] = json.loads(read(costs))
        scenarios = self.run["costs"].pop("scenarios")
        assert not set(scenarios) & set(self.run["scenarios"])
        self.run["scenarios"].update(scenarios)

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
        if scenario not in self.run["scenarios"] or kind not in KINDS:
            raise KeyError("{} {}".format(kind, what))
        found = [self.median(scenario, label, each.strip()) for each in peer.split(" / ")]
        if None in found:
            return MISSING
        return KINDS[kind](*found)

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
    return about(results.run)


def machine_of_costs(results):
    return about(results.run["costs"])


def about(run):
    """Yield the lines of the table that tells of a run."""
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


def with_sizes(label):
    """Return a label with its numbers of bytes in their unit."""
    return re.sub(r"(\d+) bytes", lambda found: size(int(found.group(1))), label)


def backport(results):
    """Return the table of both on each interpreter, and how many times as long theirs takes."""
    scenarios = [name for name in results.run["scenarios"] if name.startswith("backport on ")]
    head, rows = [""], []
    for scenario in scenarios:
        version = scenario.rpartition(" ")[2]
        head += ["ours, " + version, "the standard one, " + version, "ratio"]
    for label in results.labels(scenarios[0]):
        cells = [with_sizes(label)]
        for scenario in scenarios:
            both = [results.median(scenario, label, peer) for peer in ("ours", "theirs")]
            cells += [written(time, each) for each in both]
            cells.append(MISSING if None in both else number(both[1] / both[0]))
        rows.append(cells)
    return lines(head, rows)


def rates(results):
    """Return the table of messages a second."""
    labels = [label for label in results.labels("rings") if label.startswith("messages of ")]
    peers = {peer: None for label in labels for peer in results.rows("rings", label)}
    rows = []
    for peer in peers:
        found = [results.median("rings", label, peer) for label in labels]
        rows.append([named(peer)] + ["" if each is None else number(each) for each in found])
    return lines([""] + [label[len("messages of ") :] for label in labels], rows)


def doors(results):
    """Return the table of the modules for other packages' users, with the packages themselves."""
    rows = []
    for label in results.labels("doors"):
        for package in ("pyarraypool", "jztools", "npshmex"):
            ours = results.median("doors", label, "compat." + package)
            if ours is None:
                continue  # It is measured by the other one.
            theirs = results.median("doors", label, package)
            rows.append([package + ": " + label, time(ours)])
            rows[-1] += [MISSING] * 2 if theirs is None else [time(theirs), number(theirs / ours)]
    return lines(["", "ours", "the original", "ratio"], rows)


# As in `benchmarks/costs.py`.
MANY = ", for 1,024 processes"


def of_arena(labels, conditions):
    """Return the table of some of the arena's operations, with a column for each condition."""

    def made(results):
        rows = []
        for label in labels:
            found = [results.median("arena", label, each) for each in conditions]
            rows.append([with_sizes(label)] + [written(time, each) for each in found])
        return lines([""] + conditions, rows)

    return made


def blocks(results):
    """Return the table of what depends on the number of blocks."""
    labels = ["recovery", "reap", "check", "bytes of table"]
    rows = []
    for condition in results.rows("arena", "recovery"):
        found = [results.median("arena", label, condition) for label in labels]
        cells = [written(time, each) for each in found[:-1]] + [written(number, found[-1])]
        rows.append([condition] + cells)
    return lines(["", "recovery", "reaping", "checking", "bytes of tables, a block"], rows)


TABLES = {
    "machine": machine,
    "machine of costs": machine_of_costs,
    "backport": backport,
    "rates": rates,
    "doors": doors,
    "arena": of_arena(
        ["two locked instructions", "lock + unlock"]
        + ["allocate + free, {} bytes".format(each) for each in (64, 4096, 65536, 1 << 20)]
        + ["send + receive", "a `Block` of 4096 bytes", "a `Handle` sent and received"]
        + ["clone + drop of a reference", "fork"],
        [each + added for added in ("", MANY) for each in ("no blocks", "100,000 blocks")],
    ),
    "arena by blocks": blocks,
    "arena by members": of_arena(
        ["look for the dead"], ["100 members", "250 members"] + ["900 members" + MANY]
    ),
    "fresh and warm": of_arena(["64 MiB filled"], ["a segment of its own", "warm memory"]),
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
