"""Computes what one copy per host costs on many hosts, from what was measured on one machine.

    python dev/scale.py [--check] [--hosts 100] [--workers 64]

It reads `benchmarks/results/dask.json`, which `benchmarks/dask.py --out` writes, and writes the marked
tables of `docs/scale.md`. With other numbers of hosts and workers it prints them instead. With
``--check`` nothing is written, and a page that is out of date is an error.

The model, for an array of S bytes, H hosts, W workers on each:

* The root gets the array from the client through the scheduler, every other host from one that has it
  or is getting it. At most `CHILDREN` pull from the same, so that a link of R bytes a second gives
  each of them R / `CHILDREN`.
* A piece is given on as soon as it is there. So the last host has all of it when its last piece has
  come down all levels of the tree: (pieces + levels - 1) times the time of one piece.
* Each worker sends the scheduler two requests for an array, each host one more, and these take
  their turns.
"""

import argparse
import collections
import json
import os
import re
import sys

import results
from results import lines, read, time

ROOT = results.ROOT
FIGURES = os.path.join(ROOT, "benchmarks", "results", "dask.json")
PAGE = os.path.join(ROOT, "docs", "scale.md")
MARK = re.compile(r"<!-- scale: (\w+) -->.*?<!-- / -->", re.DOTALL)

# As in `shared_numpy.integrations._dask`: `image.PIECE`, `scheduler.CHILDREN` and
# `host_memory.PROCESSES`.
PIECE = 8 << 20
CHILDREN = 2
SLOTS = 1024
GB = 10**9
SIZES = [1 * GB, 10 * GB, 100 * GB]
# Bytes a second of a host's link.
NETWORKS = {"1 Gbit/s": 0.125 * GB, "10 Gbit/s": 1.25 * GB}
OURS = "shared_numpy on Dask"
PEERS = [OURS, "Dask", "Ray"]

Costs = collections.namedtuple("Costs", "wire fill memory requests")


def levels(hosts):
    """Return how many levels a tree of hosts has, whose root is filled by the client."""
    count, width = 0, 1
    while hosts > 0:
        hosts -= width
        width *= CHILDREN
        count += 1
    return count


class Model:
    """What was measured, and what follows for other numbers of hosts.

    Parameters
    ----------
    run : dict
        What `benchmarks/dask.py` has written.
    """

    def __init__(self, run):
        self.run = run
        hosts = run["two hosts"]
        found = hosts["per host"]
        self.bytes = hosts["bytes"]
        # The slower of two hosts, of which one was filled from the other, over TLS.
        self.rate = self.bytes / found["seconds"]
        self.overhead = max(found["received"]) / self.bytes
        self.workers = hosts["workers"]
        self.private = max(found["private"]) / self.workers
        self.tables = max(hosts["used"]) - self.bytes
        self.request = self.median("dask small", "request", OURS)

    def median(self, scenario, label, peer):
        return self.run["scenarios"][scenario]["figures"][label][peer]["median"]

    def costs(self, size, hosts, workers, link):
        """Return the `Costs` of an array of `size` bytes.

        Parameters
        ----------
        size, hosts, workers : int
            Bytes, hosts, and workers on each.
        link : float
            Bytes a second between two hosts.
        """
        rate = min(link, self.rate * CHILDREN) / CHILDREN
        pieces = -(-size // PIECE)
        fill = (pieces + levels(hosts) - 1) * PIECE / rate
        requests = hosts * (2 * workers + 1)
        return Costs(
            wire=hosts * size * self.overhead,
            fill=fill,
            memory=size + self.tables + workers * self.private,
            requests=requests * self.request,
        )


def amount(count):
    """Return a number of bytes, in powers of ten."""
    for unit, factor in (("TB", 10**12), ("GB", GB), ("MB", 10**6), ("kB", 1000)):
        if count >= factor:
            return "{} {}".format(results.number(count / factor), unit)
    return "{:.0f} B".format(count)


def measured(model):
    """The table of what the model starts from."""
    small = lambda label: time(model.median("dask small", label, OURS))  # noqa: E731
    return [
        ["an array of {} on two hosts, until all workers have used it".format(amount(model.bytes)),
         time(model.bytes / model.rate)],
        ["what a host gets over the wire, beside the array's size", "{:.3f}".format(model.overhead)],
        ["private memory of a worker for it", amount(max(model.private, 0))],
        ["what a host's copy takes beside the items", amount(model.tables)],
        ["a request to the scheduler and its answer", small("request")],
        ["`share` of 8 bytes", small("share")],
        ["the first use of it by a worker of the host, as a task", small("first use")],
        ["a second use, as a task", small("second use")],
    ]  # fmt: skip


def beside(model):
    """The table of what was measured beside others; what was not measured is empty."""
    scenarios = model.run["scenarios"]
    for name in ("dask transfer", "dask all to all", "dask first use", "dask memory"):
        what, unit = scenarios[name]["what"], scenarios[name]["unit"]
        shown = time if unit == "s" else amount
        for label, rows in scenarios[name]["figures"].items():
            # (The label of a transfer tells the size, and what is timed.)
            found = ["{}: {}".format(what, label) if label else what]
            yield found + [shown(rows[peer]["median"]) if peer in rows else "" for peer in PEERS]


def scaled(model, hosts, workers):
    """The table of what follows."""
    for size in SIZES:
        found = {name: model.costs(size, hosts, workers, link) for name, link in NETWORKS.items()}
        first = next(iter(found.values()))
        yield [amount(size), amount(first.wire), amount(hosts * workers * size)] + [
            time(each.fill) for each in found.values()
        ] + [amount(first.memory), amount(workers * size)]  # fmt: skip


HEAD = ["array", "over the wire", "to each worker instead"]
HEAD += ["filled, {}".format(name) for name in NETWORKS]
HEAD += ["memory of a host", "a copy for each worker instead"]


def tables(model, hosts=100, workers=64):
    """Return {mark: lines} of the page."""
    one = model.costs(GB, hosts, workers, GB)
    return {
        "measured": list(lines(["measured on one machine", ""], measured(model))),
        "beside": list(lines(["one machine, 4 workers"] + PEERS, beside(model))),
        "scaled": list(lines(HEAD, scaled(model, hosts, workers))),
        "control": list(
            lines(
                ["of {} hosts with {} workers each".format(hosts, workers), ""],
                [
                    ["levels of the tree", str(levels(hosts))],
                    ["requests to the scheduler for an array", "{:,}".format(hosts * (2 * workers + 1))],
                    ["time of the scheduler for them, if all workers use it at once", time(one.requests)],
                    ["process slots of a host's copy that are used, of {:,}".format(SLOTS), str(workers)],
                ],
            )
        ),
    }


def render(text, model):
    """Return the page with the tables of a model."""
    made = tables(model)
    return MARK.sub(
        lambda match: "<!-- scale: {} -->\n\n{}\n\n<!-- / -->".format(
            match.group(1), "\n".join(made[match.group(1)])
        ),
        text,
    )


def load(path=FIGURES):
    with open(path, encoding="utf-8") as file:
        return Model(json.load(file))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--hosts", type=int)
    parser.add_argument("--workers", type=int)
    options = parser.parse_args()
    model = load()
    if options.hosts or options.workers:
        for each in tables(model, options.hosts or 100, options.workers or 64).values():
            print("\n".join(each) + "\n")
        return
    before = read(PAGE)
    text = render(before, model)
    if options.check:
        sys.exit("docs/scale.md is out of date: run python dev/scale.py" if text != before else 0)
    with open(PAGE, "w", encoding="utf-8") as file:
        file.write(text)


if __name__ == "__main__":
    main()
