"""What operations cost, all in one run; figures go into a file.

    python benchmarks/costs.py [--out benchmarks/results/costs.json] [--amount quick|usual|full]
                               [--backport PYTHON ...] [--doors PYTHON]

`make bench-costs` makes the environments and runs this; `dev/results.py` writes the figures into the
page on costs. Each part is a benchmark of its own, in a process of its own: `rings.py`, `blocks.py`,
`arena.rs` (by cargo), `backport.py` with each of some interpreters, and `doors.py` with an interpreter
that has the original packages. An original that cannot be imported there is left out, and that is
printed.

The file has the form of that of `benchmarks/compare.py`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

from measuring import load, machine, summaries, versions

FOLDER = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(FOLDER)
# Rounds of the arena's benchmark and of the doors.
AMOUNTS = {"quick": (1, 1), "usual": (3, 7), "full": (9, 15)}
ORIGINALS = ["pyarraypool", "jztools", "npshmex"]
ARENA = ["cargo", "bench", "-q", "--locked", "--no-default-features", "--bench", "arena", "--"]
# For how many processes arenas are made, and what is added to the condition in the file.
PROCESSES = {256: "", 1024: ", for 1,024 processes"}
# So many seconds a benchmark takes at most.
LIMIT = 900


def show(command, path):
    """Run a benchmark in sight; return what it wrote into a file."""
    print("$ " + " ".join(command), flush=True)
    # Threads of numpy's own would take the workers' CPUs.
    environment = dict(os.environ, OPENBLAS_NUM_THREADS="1")
    subprocess.run(command, env=environment, cwd=ROOT, timeout=LIMIT, check=True)
    with open(path) as file:
        return json.load(file)


def script(name, *options, **settings):
    """Return the function that runs a benchmark in Python, with another interpreter if that is said."""

    def run(amount, path):
        command = [settings.get("python", sys.executable), os.path.join(FOLDER, name + ".py")]
        return show(command + list(options) + ["--out", path], path)

    return run


def doors(python):
    def run(amount, path):
        options = ["--rounds", str(AMOUNTS[amount][1])]
        return script("doors", *options, python=python)(amount, path)

    return run


def rings(amount, path):
    options = ["--only", "rate,many,idle"] + ["--quick"] * (amount == "quick")
    return script("rings", *options)(amount, path)


def arena(amount, path):
    """Run the arena's benchmark by turns with arenas for few and for many processes."""
    figures = {}
    for _ in range(AMOUNTS[amount][0]):
        for number, added in PROCESSES.items():
            options = ["processes={}".format(number), "out=" + path]
            rows = show(ARENA + ["quick"] * (amount == "quick") + options, path)
            for what, found in rows.items():
                for condition, figure in found.items():
                    row = figures.setdefault(what, {})
                    row.setdefault(condition + added, []).append(figure)
    tool = subprocess.check_output(["rustc", "--version"], cwd=ROOT, universal_newlines=True)
    return {"versions": {"Rust": tool.split()[1]}, "figures": summaries(figures)}


def version_of(python):
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    return subprocess.check_output([python, "-c", code], universal_newlines=True).strip()


def scenarios(options):
    """Return {name: (what it is, the unit, the function)}."""
    found = {}
    for python in options.backport or [sys.executable]:
        name = "backport on " + version_of(python)
        what = "the backport and the standard library's shared memory"
        found[name] = what, "s", script("backport", python=python)
    crowd = script("blocks", "--only", "crowd")
    found["rings"] = "queues in one direction, and waiting", "messages a second, or parts", rings
    found["doors"] = "the doors beside the original packages", "s", doors(options.doors)
    found["blocks"] = "arrays beside many blocks", "s", crowd
    found["arena"] = "the arena's operations", "s, or bytes", arena
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--amount", choices=list(AMOUNTS), default="usual")
    parser.add_argument("--out", default=os.path.join(ROOT, "build", "costs.json"))
    parser.add_argument("--only", help="these scenarios alone, with commas between them")
    parser.add_argument("--backport", action="append", help="an interpreter for the backport")
    parser.add_argument("--doors", default=sys.executable, help="one with the original packages")
    options = parser.parse_args()
    begin, found = time.time(), {}
    result = {
        "amount": options.amount,
        "begun": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(begin)),
        "load at the beginning": load(),
        "machine": machine(),
        "versions": versions(["shared-numpy", "numpy"]),
        "left out": [],
    }
    known = scenarios(options)
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only.split(",") if options.only else known:
            what, unit, function = known[name]
            print("\n== {}: {}".format(name, what), flush=True)
            start = time.time()
            part = function(options.amount, os.path.join(folder, "figures"))
            part.update(what=what, unit=unit, seconds=round(time.time() - start, 1))
            found[name] = part
    if "doors" in found:
        there = {peer for rows in found["doors"]["figures"].values() for peer in rows}
        result["left out"] = [name for name in ORIGINALS if name not in there]
    result["load at the end"] = load()
    result["seconds"] = round(time.time() - begin, 1)
    result["scenarios"] = found
    os.makedirs(os.path.dirname(options.out) or ".", exist_ok=True)
    with open(options.out, "w") as file:
        json.dump(result, file, indent=1, ensure_ascii=False)
        file.write("\n")
    for name in result["left out"]:
        print("{} is left out: it is not installed for {}".format(name, options.doors))
    print("\n{} in {:.0f} s".format(os.path.relpath(options.out), result["seconds"]))


if __name__ == "__main__":
    main()
