"""Work in other processes, beside what a user would take instead.

    python benchmarks/executors.py [--rounds N]

What is measured, in one run and by turns, with inputs that change in each round and
results that are checked:

* one function over one large array, 160 MB there and back, beside the bare function;
* a thousand calls with arrays of 10 KiB, submitted one by one;
* `starmap` over a hundred slices of one array, shared and plain;
* a context whose functions use two large arrays, beside the serial time by the workers.

joblib, mpire, ray and SharedArray are measured where they are installed.
"""

import argparse
import concurrent.futures
import contextlib
import multiprocessing
import os
import statistics
import time

import numpy as np

import shared_numpy as snp
from peers import is_installed

WORKERS = 2
SHARED_SLICES = "shared_numpy's array, multiprocessing.Pool"


def add_one(array):
    return array + 1


def add_in_place(name):
    import SharedArray

    array = SharedArray.attach(name)
    array += 1


def total(part):
    return part[:5].sum()


def solve(sigma):
    kernel = np.exp(-0.5 * D / (sigma * sigma))  # noqa: F821 (of the context)
    return np.linalg.solve(kernel, b)  # noqa: F821


def timed(call):
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def show(title, unit, factor, rows, base):
    """Print medians, and each as a ratio to that of `base`."""
    print(title)
    medians = {name: statistics.median(times) * factor for name, times in rows.items()}
    for name, median in medians.items():
        ratio = median / medians[base]
        print("  {:<42}{:10.1f} {}  {:8.2f} x {}".format(name, median, unit, ratio, base))
    return rows


def large(rounds, warm=2):
    """One function over one large array."""
    data = np.ones(int(2e7))
    ours = snp.ProcessPoolExecutor(WORKERS)
    in_place = snp.ProcessPoolExecutor(WORKERS, results="in_place")
    copied = snp.ProcessPoolExecutor(WORKERS, results="copy")
    theirs = concurrent.futures.ProcessPoolExecutor(WORKERS)
    ways = {
        "bare": lambda: add_one(data),
        "shared_numpy": lambda: ours.submit(add_one, data).result(),
        "shared_numpy, in place": lambda: in_place.submit(add_one, data).result(),
        "shared_numpy, copy": lambda: copied.submit(add_one, data).result(),
        "concurrent.futures": lambda: theirs.submit(add_one, data).result(),
    }
    try:
        import joblib
    except ImportError:
        print("(joblib is not installed)")
    else:
        parallel = joblib.Parallel(n_jobs=WORKERS)
        ways["joblib"] = lambda: parallel([joblib.delayed(add_one)(data)])[0]
    try:
        import ray
    except ImportError:
        print("(ray is not installed)")
    else:
        ray.init(num_cpus=WORKERS, log_to_driver=False, include_dashboard=False)
        remote = ray.remote(add_one)
        ways["ray"] = lambda: ray.get(remote.remote(data))
    try:
        import SharedArray
    except ImportError:
        print("(SharedArray is not installed)")
    else:
        hand = concurrent.futures.ProcessPoolExecutor(WORKERS)

        def by_hand():
            name = "shm://shared-numpy-bench-{}".format(os.getpid())
            array = SharedArray.create(name, data.shape)
            try:
                array[:] = data
                hand.submit(add_in_place, name).result()
            finally:
                SharedArray.delete(name)
            return array

        ways["SharedArray by hand"] = by_hand
    times = {name: [] for name in ways}
    for number in range(rounds + warm):
        for name, way in ways.items():
            data[:] = number
            seconds, result = timed(way)
            assert result[0] == result[-1] == number + 1
            del result
            if number >= warm:
                times[name].append(seconds)
    for pool in (ours, in_place, copied, theirs):
        pool.shutdown()
    if "ray" in ways:
        ray.shutdown()
    return show("add_one over 2e7 float64", "ms", 1e3, times, "bare")


def small(rounds):
    """A thousand calls, submitted one by one."""
    pools = {
        "shared_numpy": snp.ProcessPoolExecutor(WORKERS),
        "concurrent.futures": concurrent.futures.ProcessPoolExecutor(WORKERS),
        "multiprocessing.Pool": multiprocessing.Pool(WORKERS),
    }
    times = {name: [] for name in pools}
    for number in range(2 * rounds + 1):
        for name, pool in pools.items():
            arrays = [np.full(1280, number + i) for i in range(1000)]

            def work(pool=pool, arrays=arrays):
                if hasattr(pool, "apply_async"):
                    calls = [pool.apply_async(add_one, (array,)) for array in arrays]
                    return [call.get() for call in calls]
                futures = [pool.submit(add_one, array) for array in arrays]
                return [future.result() for future in futures]

            seconds, results = timed(work)
            assert all(results[i][-1] == number + i + 1 for i in range(1000))
            if number:
                times[name].append(seconds / 1000)
    for pool in pools.values():
        getattr(pool, "shutdown", getattr(pool, "terminate", None))()
    return show("1,000 calls with 10 KiB", "us a call", 1e6, times, "shared_numpy")


def slices(rounds):
    """starmap over slices of one array."""
    shared, plain = snp.empty((100, 100000)), np.empty((100, 100000))
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(multiprocessing.Pool(WORKERS))
        stack.callback(pool.join)
        stack.callback(pool.close)
        ways = {
            "bare": lambda: [total(row) for row in plain],
            SHARED_SLICES: lambda: pool.starmap(total, [(row,) for row in shared]),
            "multiprocessing.Pool": lambda: pool.starmap(total, [(row,) for row in plain]),
        }
        if is_installed("joblib", "joblib"):
            import joblib

            parallel = stack.enter_context(joblib.Parallel(n_jobs=WORKERS))
            ways["joblib"] = lambda: parallel(joblib.delayed(total)(row) for row in plain)
        if is_installed("mpire", "mpire"):
            import mpire

            pool_of_mpire = stack.enter_context(mpire.WorkerPool(WORKERS))
            arguments = lambda: [(row,) for row in plain]  # noqa: E731 (else it unpacks rows)
            ways["mpire"] = lambda: pool_of_mpire.map(total, arguments(), chunk_size=4)
        times = {name: [] for name in ways}
        for number in range(rounds + 1):
            for name, way in ways.items():
                (shared if name == SHARED_SLICES else plain)[:] = number + 1
                seconds, results = timed(way)
                assert list(results) == [5.0 * (number + 1)] * 100
                if number:
                    times[name].append(seconds)
    return show("starmap over 100 slices of 800 kB", "ms", 1e3, times, SHARED_SLICES)


def context(rounds, size=2000):
    """Functions that use two arrays of a context."""
    rng = np.random.RandomState(1)
    arrays = {"D": rng.rand(size, size), "b": rng.rand(size)}
    globals().update(arrays)
    times = {"serial / workers": [], "SharedContext": []}
    with snp.SharedContext(arrays, WORKERS) as ctx:
        registered = ctx.register(solve)
        for number in range(rounds + 1):
            sigmas = 2.0 ** np.arange(1, 13) + number
            seconds, expected = timed(lambda sigmas=sigmas: [solve(each) for each in sigmas])
            if number:
                times["serial / workers"].append(seconds / WORKERS)

            def parallel(sigmas=sigmas):
                for sigma in sigmas:
                    registered(sigma)
                return ctx.evaluate()

            seconds, results = timed(parallel)
            assert all(np.allclose(a, b) for a, b in zip(results, expected))
            if number:
                times["SharedContext"].append(seconds)
    return show("12 kernels of 2000 x 2000, solved", "ms", 1e3, times, "serial / workers")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    print("shared_numpy {}, numpy {}, {} workers".format(snp.__version__, np.__version__, WORKERS))
    large(rounds)
    small(rounds)
    slices(rounds)
    context(rounds)


if __name__ == "__main__":
    # Threads of numpy's own would take the workers' CPUs.
    if "OPENBLAS_NUM_THREADS" not in os.environ:
        import sys

        os.environ["OPENBLAS_NUM_THREADS"] = "1"
        os.execv(sys.executable, [sys.executable] + sys.argv)
    main()
