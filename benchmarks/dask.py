"""Arrays between the workers of one host of a Dask cluster, and one copy for all of them.

    python benchmarks/dask.py [--rounds N] [--out FILE]

1. An array of 16 MB and of 256 MB is made by one worker and looked at by another.
2. All to all: 64 chunks of 4 MB are made, and each of 64 tasks looks at a part of all of them.
3. Memory: an array of 256 MB is given to 4 workers, each of which looks at all of it.
4. Small costs: a request to the scheduler, sharing an array of 8 bytes, its first use by a worker of
   the host, a second one.
5. The same as 3. on two hosts made of namespaces (`tests/clusters/hosts.py`; as root only): what goes over
   the wire, and how long it takes.

Dask is measured with arrays in shared memory, which go by handle or as one copy per host, and with
plain ones, in the same cluster; beside Ray on the same machine where it is installed. All take turns
in each round. With ``--out`` the figures are written as those of `benchmarks/compare.py`.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time

FOLDER = os.path.dirname(os.path.abspath(__file__))
# In this folder, which comes first on the path of its scripts, this file would hide the package.
sys.path[:] = [each for each in sys.path if os.path.abspath(each) != FOLDER] + [FOLDER]

import distributed  # noqa: E402
import numpy as np  # noqa: E402
from dask import config as dask_config  # noqa: E402

import measuring  # noqa: E402
import memory  # noqa: E402
import shared_numpy as snp  # noqa: E402
from measuring import by_turns, load, machine, summary, versions  # noqa: E402
from peers import is_installed  # noqa: E402
from shared_numpy.integrations import dask as snp_dask  # noqa: E402

MB = 10**6
WORKERS = 4
SIZES = {"16 MB": 16 * MB, "256 MB": 256 * MB}
CHUNKS, CHUNK = 64, 4 * MB
SHARED, PLAIN, RAY = "shared_numpy on Dask", "Dask", "Ray"
# Bytes from one item that is looked at to the next: each page is touched.
PAGE = 4096
# A turn of plain Dask takes minutes on a busy machine.
measuring.LIMIT = 300
HOSTS = os.path.join(os.path.dirname(FOLDER), "tests", "clusters")


# ---- what the tasks do -------------------------------------------------------------------------


def plain(number, size):
    return np.full(size // 8, float(number))


def shared(number, size):
    return snp.full(size // 8, float(number))


def look(array, *numbers):
    """Touch each page of an array."""
    return float(np.asarray(array)[:: PAGE // 8].sum())


def look_at_parts(number, chunks):
    """Touch a part of each of some arrays."""
    found = 0.0
    for chunk in chunks:
        length = len(chunk) // len(chunks)
        found += float(chunk[number * length : (number + 1) * length : PAGE // 8].sum())
    return found


def looked(number, size):
    """Return what `look` makes of a whole array."""
    return float(number) * len(range(0, size // 8, PAGE // 8))


def looked_at_parts(number):
    length = CHUNK // 8 // CHUNKS
    return float(sum(range(CHUNKS))) * len(range(0, length, PAGE // 8))


# ---- Dask --------------------------------------------------------------------------------------


class Dask:
    """A cluster of Dask on this machine; arrays are made by `make`."""

    def __init__(self, client, make):
        self.client, self.make = client, make

    def workers(self):
        return sorted(self.client.nthreads())

    def transfer(self, size):
        first, second = self.workers()[:2]
        begin = time.perf_counter()
        made = self.client.submit(self.make, 7, size, workers=[first], pure=False)
        distributed.wait(made)
        start = time.perf_counter()
        result = self.client.submit(look, made, workers=[second], pure=False).result()
        end = time.perf_counter()
        assert result == looked(7, size)
        return {"moved": end - start, "made and moved": end - begin}

    def all_to_all(self):
        start = time.perf_counter()
        submit = self.client.submit
        chunks = [submit(self.make, number, CHUNK, pure=False) for number in range(CHUNKS)]
        calls = [submit(look_at_parts, number, chunks, pure=False) for number in range(CHUNKS)]
        results = self.client.gather(calls)
        seconds = time.perf_counter() - start
        assert results == [looked_at_parts(number) for number in range(CHUNKS)]
        return seconds

    def hold(self, size):
        """Give all workers an array; return what it takes of memory beside itself, and the time."""
        array = plain(7, size)
        before = memory.tree_memory()
        start = time.perf_counter()
        with self.distributed(array) as data:
            calls = [
                self.client.submit(look, data, number, workers=[worker], pure=False)
                for number, worker in enumerate(self.workers())
            ]
            results = self.client.gather(calls)
            seconds = time.perf_counter() - start
            used = memory.tree_memory() - before
        assert results == [looked(7, size)] * WORKERS
        return {"memory": used, "time": seconds}


    def small_costs(self):
        """Return the times of what is done once for each array, or for each worker."""
        client, count = self.client, 100
        worker = self.workers()[0]
        client.submit(look, np.zeros(1), workers=[worker], pure=False).result()
        found, start = {}, time.perf_counter()
        data = snp_dask.share(client, np.ones(1))
        found["share"] = time.perf_counter() - start
        for name in ("first use", "second use"):
            start = time.perf_counter()
            assert client.submit(look, data, workers=[worker], pure=False).result() == 1
            found[name] = time.perf_counter() - start
        start = time.perf_counter()
        for _ in range(count):
            client.sync(client.scheduler.shared_numpy_known, id=data.id)
        found["request"] = (time.perf_counter() - start) / count
        data.close()
        return found


class Plain(Dask):
    @contextlib.contextmanager
    def distributed(self, array):
        yield self.client.scatter(array)


class Shared(Dask):
    @contextlib.contextmanager
    def distributed(self, array):
        with snp_dask.share(self.client, array) as data:
            yield data


# ---- Ray ---------------------------------------------------------------------------------------


class Ray:
    """Ray on this machine, with as many actors as there are workers."""

    def __init__(self):
        import ray

        self.ray = ray
        # (Else Ray writes a token into the home directory.)
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        quiet = dict(log_to_driver=False, include_dashboard=False)
        ray.init(num_cpus=WORKERS, object_store_memory=2 << 30, **quiet)

        @ray.remote(num_cpus=1)
        class Worker:
            def make(self, number, size):
                return plain(number, size)

            def look(self, array):
                return look(array)

            def look_at_parts(self, number, *chunks):
                return look_at_parts(number, chunks)

        self.workers = [Worker.remote() for _ in range(WORKERS)]
        ray.get([worker.look.remote(np.zeros(8)) for worker in self.workers])

    def transfer(self, size):
        first, second = self.workers[:2]
        begin = time.perf_counter()
        made = first.make.remote(7, size)
        self.ray.wait([made], fetch_local=False)
        start = time.perf_counter()
        result = self.ray.get(second.look.remote(made))
        end = time.perf_counter()
        assert result == looked(7, size)
        return {"moved": end - start, "made and moved": end - begin}

    def all_to_all(self):
        start = time.perf_counter()
        workers = [self.workers[number % WORKERS] for number in range(CHUNKS)]
        chunks = [worker.make.remote(number, CHUNK) for number, worker in enumerate(workers)]
        calls = [
            worker.look_at_parts.remote(number, *chunks) for number, worker in enumerate(workers)
        ]
        results = self.ray.get(calls)
        seconds = time.perf_counter() - start
        assert results == [looked_at_parts(number) for number in range(CHUNKS)]
        return seconds

    def hold(self, size):
        array = plain(7, size)
        before = memory.tree_memory()
        start = time.perf_counter()
        data = self.ray.put(array)
        results = self.ray.get([worker.look.remote(data) for worker in self.workers])
        seconds = time.perf_counter() - start
        used = memory.tree_memory() - before
        assert results == [looked(7, size)] * WORKERS
        return {"memory": used, "time": seconds}


# ---- two hosts ---------------------------------------------------------------------------------


def on_two_hosts(mebibytes=256):
    """Return what `tests/clusters/two_hosts.py` finds, or None where there can be no hosts."""
    sys.path.append(HOSTS)
    import hosts

    reason = hosts.why_not()
    if reason:
        print("(two hosts are left out: {})".format(reason), flush=True)
        return None
    words = [sys.executable, os.path.join(HOSTS, "two_hosts.py"), "memory", str(mebibytes)]
    output = subprocess.check_output(hosts.command(words), universal_newlines=True)
    return json.loads(output.splitlines()[-1])


# ---- the run -----------------------------------------------------------------------------------


@contextlib.contextmanager
def peers():
    """Start what is measured; return {name: peer}."""
    with contextlib.ExitStack() as stack:
        # Plain copies stay where they are, so that they can be measured.
        manager = "distributed.scheduler.active-memory-manager.start"
        stack.enter_context(dask_config.set({manager: False}))
        cluster = stack.enter_context(
            distributed.LocalCluster(
                n_workers=WORKERS, threads_per_worker=1, memory_limit=0, dashboard_address=":0"
            )
        )
        client = stack.enter_context(distributed.Client(cluster))
        snp_dask.register(client)
        found = {SHARED: Shared(client, shared), PLAIN: Plain(client, plain)}
        if is_installed("ray", "ray"):
            import ray

            stack.callback(ray.shutdown)
            try:
                found[RAY] = Ray()
            except Exception as error:
                print("(Ray is left out: {!r})".format(error), flush=True)
        yield found


def settle(seconds=30):
    """Wait until no process of this program's grows any more: some are still starting."""
    end, last = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        now = memory.tree_memory()
        if abs(now - last) < MB:
            return
        last = now
        time.sleep(1)


def turns(rounds, found, name, *arguments):
    """Return {label: {peer: figures}} of a method of all peers, which take turns."""
    ways = {peer: lambda each=each: getattr(each, name)(*arguments) for peer, each in found.items()}
    results = by_turns(rounds + 1, ways)
    table = {}
    for peer, figures in results.items():
        for number, figure in enumerate(figures):
            for label, value in (figure if isinstance(figure, dict) else {"": figure}).items():
                # The first round fetches memory and imports what is needed: its times do not count.
                # Its memory does: a store that keeps what it has takes no more in later rounds.
                if number or label == "memory":
                    table.setdefault(label, {}).setdefault(peer, []).append(value)
    return table


def measured(rounds):
    """Return {scenario: (what it is, unit, {label: {peer: figures}})}."""
    moved = {}
    with peers() as found:
        for peer in found.values():
            peer.hold(SIZES["16 MB"])
        settle()
        kept = turns(rounds, found, "hold", SIZES["256 MB"])
        most = {peer: [max(values)] for peer, values in kept["memory"].items()}
        for label, size in SIZES.items():
            for kind, figures in turns(rounds, found, "transfer", size).items():
                moved["{}, {}".format(label, kind)] = figures
        chunks = turns(rounds, found, "all_to_all")
        small = turns(rounds, {SHARED: found[SHARED]}, "small_costs")
    return {
        "dask transfer": ("an array of one worker, looked at by another", "s", moved),
        "dask all to all": ("64 chunks of 4 MB, each looked at by 64 tasks", "s", chunks),
        "dask memory": ("PSS that 256 MB take with 4 workers, at most", "B", {"": most}),
        "dask first use": ("an array of 256 MB, until 4 workers have used it", "s", {"": kept["time"]}),
        "dask small": ("what is done once for each array or worker", "s", small),
    }


def shown(value, unit):
    return "{:8.1f} ms".format(value * 1e3) if unit == "s" else "{:8.1f} MB".format(value / MB)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out")
    options = parser.parse_args()
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    begin = time.time()
    result = {"rounds": options.rounds, "load at the beginning": load(), "machine": machine()}
    result["begun"] = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(begin))
    result["versions"] = versions(["shared-numpy", "numpy", "dask", "distributed", "ray"])
    result["scenarios"] = {}
    for name, (what, unit, table) in measured(options.rounds).items():
        print("{}: {}".format(name, what))
        figures = {}
        for label, rows in table.items():
            figures[label] = {peer: summary(values) for peer, values in rows.items()}
            for peer, found in figures[label].items():
                middle = found["median"]
                ratio = middle / figures[label][SHARED]["median"]
                print("  {:<24}{:<22}{}  {:6.1f}".format(label, peer, shown(middle, unit), ratio))
        result["scenarios"][name] = dict(what=what, unit=unit, figures=figures)
    result["two hosts"] = on_two_hosts()
    print("two hosts: {}".format(result["two hosts"]))
    result["load at the end"], result["seconds"] = load(), round(time.time() - begin, 1)
    if options.out:
        with open(options.out, "w") as file:
            json.dump(result, file, indent=1, ensure_ascii=False)
            file.write("\n")


if __name__ == "__main__":
    main()
