"""The package beside other ways, all scenarios in one run; figures go into a file.

    python benchmarks/compare.py [--out benchmarks/results/compare.json] [--amount quick|usual|full]

`make bench` installs the peers and runs this; `dev/results.py` makes tables, charts and the
numbers of README and docs from the file. Each scenario runs in a process of its own, in which all peers take
turns in each round. A peer that is not installed, or fails, is left out, and that is printed.

The file has, for each scenario and each label (mostly a size), the figures of all rounds of each
peer with their least, median and greatest, in seconds, bytes or numbers; the machine, with its load
at the beginning and at the end; and the versions.
"""

import argparse
import functools
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

import blocks
import executors
import kills
import limits
import memory
import peers
import rings
import shared_numpy as snp
from measuring import by_turns, echoed, load, machine, made, summaries, timed, versions, workers
from peers import MIB

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SIZES = {
    "64 B": 64,
    "1 KiB": 1 << 10,
    "16 KiB": 16 << 10,
    "128 KiB": 128 << 10,
    "1 MiB": MIB,
    "8 MiB": 8 * MIB,
    "64 MiB": 64 * MIB,
}
# Rounds of what is short, and of what takes long; seconds for the echoes of a size; kills.
AMOUNTS = {"quick": (1, 1, 0.02, 2), "usual": (5, 3, 0.1, 10), "full": (15, 9, 0.3, 50)}
PACKAGES = ["shared-numpy", "numpy", "joblib", "SharedArray", "iceoryx2", "faster-fifo"]
PACKAGES += ["pyarraypool", "mpire", "ray"]
# So many seconds a scenario takes at most.
LIMIT = 1800


# ---- scenarios -------------------------------------------------------------------------------
# Each returns {label: {peer: figures}}, with a figure of each round.


def turned(results):
    """Make {label: {peer: figures}} of {peer: [{label: figure}, ...]}."""
    found = {}
    for name, rounds in results.items():
        for label in rounds[0]:
            found.setdefault(label, {})[name] = [each[label] for each in rounds]
    return found


def few_if_long(size):
    """Return how many echoes of a size do not count, and how many do at least."""
    return dict(warm=20, fewest=20) if size < MIB else dict(warm=2, fewest=3)


def by_size(requests, answers, numbered, seconds):
    """Return the median times of echoes of arrays by their size; `numbered` makes them."""
    return {
        label: echoed(
            requests, answers, functools.partial(numbered, label), seconds, **few_if_long(size)
        )[0]
        for label, size in SIZES.items()
    }


def plain(rounds, seconds):
    """Echoes of plain arrays, by their size, and two copies of each."""
    arrays = {label: np.ones(size // 8) for label, size in SIZES.items()}
    targets = {label: np.ones(size // 8) for label, size in SIZES.items()}

    def numbered(label, number):
        arrays[label][0] = number
        return arrays[label]

    def turn(factory):
        with made(factory, factory) as (requests, answers):
            with workers((peers.echo, requests, answers)):
                return by_size(requests, answers, numbered, seconds)

    def copies():
        found = {}
        for label, size in SIZES.items():
            call = functools.partial(np.copyto, targets[label], arrays[label])
            times = [timed(call, call) for _ in range(max(9, MIB // size))]
            found[label] = statistics.median(times)
        return found

    channels = peers.for_arrays(max(SIZES.values()))
    ways = {name: functools.partial(turn, factory) for name, factory in channels.items()}
    if wants_ray():
        ways["Ray, an actor"] = functools.partial(by_ray, numbered, seconds)
    ways["two copies"] = copies
    return turned(by_turns(rounds, ways))


def wants_ray():
    return os.environ.get("SHARED_NUMPY_BENCHMARK") == "full" and peers.is_installed("ray", "ray")


def by_ray(numbered, seconds):
    """Return the times of echoes by an actor of Ray."""
    import ray

    ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False)
    try:

        @ray.remote
        class Actor:
            def echo(self, array):
                return array

        actor = Actor.remote()

        class Channel:
            def put(self, message):
                self.answer = actor.echo.remote(message)

            def get(self):
                return ray.get(self.answer)

        channel = Channel()
        return by_size(channel, channel, numbered, seconds)
    finally:
        ray.shutdown()


def shared(rounds, seconds):
    """Echoes of arrays that both sides have in shared memory already."""

    def turn(factory, message):
        with made(factory, factory) as (requests, answers):
            with workers((peers.echo_names, requests, answers, message)):
                times, counts, end = [], [], time.perf_counter() + seconds
                while len(times) < 40 or time.perf_counter() < end:
                    start = time.perf_counter()
                    requests.put(message)
                    array = answers.get()
                    times.append(time.perf_counter() - start)
                    counts.append(array[-1])
                    del array
        # The worker has counted in the memory that both see.
        assert np.diff(counts).tolist() == [1] * (len(counts) - 1)
        return statistics.median(times[20:])

    found = {}
    for label, size in SIZES.items():
        with peers.for_shared(size) as channels:
            ways = {name: functools.partial(turn, *each) for name, each in channels.items()}
            found[label] = by_turns(rounds, ways)
    return found


def small(condition):
    """Return the scenario of echoes of 64 bytes under a condition of `rings`."""

    def scenario(rounds, seconds):
        results = condition(peers.queues(), rounds, seconds, labels=("64 B",))
        found = {}
        for column, what in enumerate(("median", "99th percentile")):
            for name, turns in results.items():
                found.setdefault(what, {})[name] = [each["64 B"][column] for each in turns]
        return found

    return scenario


unhindered = functools.partial(rings.echoes, condition="all CPUs")


def making(rounds, seconds):
    with snp.Arena.create(first=256 << 20) as arena:
        found = blocks.table(arena, rounds, share=10 if rounds == 1 else 2)
    labels = {1 << 10: "1 KiB", MIB: "1 MiB", 64 * MIB: "64 MiB"}
    table = {}
    for (name, size), times in found.items():
        table.setdefault(labels[size], {})[name] = [each * 1e-9 for each in times]
    return table


def of_executors(name):
    """Return the scenario of a function of `executors`."""

    def scenario(rounds, seconds):
        return {"": getattr(executors, name)(rounds)}

    return scenario


def frames(rounds, seconds):
    results = rings.frames(rounds)
    return {"": {name: [each[0] for each in turns] for name, turns in results.items()}}


def held(rounds, seconds):
    return {str(count): rows for count, rows in memory.measured(rounds).items()}


def beside_limits(rounds, seconds):
    """The table of `limits`; its rows are the labels."""
    print(limits.head())
    found = {}
    for row in limits.measured(rounds):
        print(limits.shown(row), flush=True)
        found[row["name"]] = {
            "here": [each * row["factor"] for each in row["here"]],
            row["limit"]: [each * row["factor"] for each in row["there"]],
        }
    return found


def killed(rounds, seconds):
    return kills.measured(AMOUNTS[os.environ["SHARED_NUMPY_BENCHMARK"]][3])


# name: what it is, the unit, whether it takes long, the function
SCENARIOS = {
    "limits": ("each beside its limit", "s", True, beside_limits),
    "echo": ("echo of a plain array", "s", False, plain),
    "echo shared": ("echo of an array that is shared already", "s", False, shared),
    "small": ("echo of 64 B, two CPUs", "s", False, small(unhindered)),
    "small, one CPU": ("echo of 64 B, one CPU", "s", False, small(rings.pinned)),
    "small, loaded": ("echo of 64 B beside busy processes", "s", False, small(rings.loaded)),
    "make": ("an array made and dropped", "s", False, making),
    "call": ("add_one over 160 MB in another process", "s", True, of_executors("large")),
    "calls": ("a call with 10 KiB, of 1,000", "s", False, of_executors("small")),
    "slices": ("starmap over 100 slices of 800 kB", "s", False, of_executors("slices")),
    "context": ("12 kernels of 2000 x 2000, solved", "s", True, of_executors("context")),
    "frames": ("10 frames of 3000 x 3000 float32", "s", True, frames),
    "memory": ("memory beside an array of 64 MiB, by workers that have it", "B", True, held),
    "kills": ("workers killed, and bytes left in /dev/shm", "", True, killed),
}


# ---- the run ---------------------------------------------------------------------------------


def run(name, amount, folder):
    """Run a scenario in a process of its own; return its figures, or None if it failed."""
    path = os.path.join(folder, "figures")
    command = [sys.executable, os.path.abspath(__file__), "--amount", amount]
    command += ["--scenario", name, "--out", path]
    if name == "kills":
        command = kills.apart(command)
    # Threads of numpy's own would take the workers' CPUs.
    environment = dict(os.environ, SHARED_NUMPY_BENCHMARK=amount, OPENBLAS_NUM_THREADS="1")
    # (Else Ray writes a token into the home directory.)
    environment["RAY_AUTH_MODE"] = "disabled"
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        code = process.wait(LIMIT)
    except subprocess.TimeoutExpired:
        code = "no end within {} s".format(LIMIT)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 9)
            process.wait()
    if code:
        print("({} failed: {})".format(name, code), flush=True)
        return None
    with open(path) as file:
        return json.load(file)


def scenario(name, amount, path):
    short, long, seconds, _ = AMOUNTS[amount]
    _, _, takes_long, function = SCENARIOS[name]
    multiprocessing.set_start_method("fork")
    figures = function(long if takes_long else short, seconds)
    with open(path, "w") as file:
        json.dump(summaries(figures), file)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--amount", choices=list(AMOUNTS), default="usual")
    parser.add_argument("--out", default=os.path.join(ROOT, "build", "compare.json"))
    parser.add_argument("--only", help="these scenarios alone, with commas between them")
    parser.add_argument("--left-out", action="append", default=[], help="a peer that is not there")
    parser.add_argument("--scenario", help="run this one, in this process")
    options = parser.parse_args()
    if options.scenario:
        scenario(options.scenario, options.amount, options.out)
        return
    begin, found = time.time(), {}
    result = {
        "amount": options.amount,
        "begun": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(begin)),
        "load at the beginning": load(),
        "machine": machine(),
        "versions": versions(PACKAGES),
        "left out": options.left_out,
    }
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only.split(",") if options.only else SCENARIOS:
            what, unit, _, _ = SCENARIOS[name]
            print("\n== {}: {}".format(name, what), flush=True)
            start = time.time()
            figures = run(name, options.amount, folder)
            if figures is not None:
                seconds = round(time.time() - start, 1)
                found[name] = dict(what=what, unit=unit, seconds=seconds, figures=figures)
    result["load at the end"] = load()
    result["seconds"] = round(time.time() - begin, 1)
    result["scenarios"] = found
    os.makedirs(os.path.dirname(options.out) or ".", exist_ok=True)
    with open(options.out, "w") as file:
        json.dump(result, file, indent=1, ensure_ascii=False)
        file.write("\n")
    print("\n{} in {:.0f} s".format(os.path.relpath(options.out), result["seconds"]))
    missing = [name for name in SCENARIOS if name not in found]
    if missing and not options.only:
        sys.exit("failed: " + ", ".join(missing))


if __name__ == "__main__":
    main()
