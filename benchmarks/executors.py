"""Work in other processes, beside what a user would take instead.

    python benchmarks/executors.py [--rounds N]

What is measured, in one run and by turns, with inputs that change in each round and
results that are checked:

* one function over one large array, 160 MB there and back, beside the bare function;
* a thousand calls with arrays of 10 KiB, submitted one by one;
* `multiprocessing.Pool.starmap` over a hundred slices of one array, shared and plain;
* a context whose functions use two large arrays, beside the serial time by the workers;
* the memory of a large array that is sent to two workers, shared and plain.

joblib, ray and SharedArray are measured where they are installed.
"""

import argparse
import concurrent.futures
import multiprocessing
import os
import statistics
import time

import numpy as np

import shared_numpy as snp

WORKERS = 2


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
        print("  {:<28}{:10.1f} {}  {:8.2f} x {}".format(name, median, unit, ratio, base))
    return medians


def large(rounds):
    """One function over one large array."""
    data = np.ones(int(2e7))
    ours = snp.ProcessPoolExecutor(WORKERS)
    in_place = snp.ProcessPoolExecutor(WORKERS, results="in_place")
    theirs = concurrent.futures.ProcessPoolExecutor(WORKERS)
    ways = {
        "bare": lambda: add_one(data),
        "shared_numpy": lambda: ours.submit(add_one, data).result(),
        "shared_numpy, zero copy": lambda: in_place.submit(add_one, data).result(),
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
    for number in range(rounds + 2):
        for name, way in ways.items():
            data[:] = number
            seconds, result = timed(way)
            assert result[0] == result[-1] == number + 1
            del result
            if number >= 2:  # Warm.
                times[name].append(seconds)
    for pool in (ours, in_place, theirs):
        pool.shutdown()
    show("add_one over 2e7 float64", "ms", 1e3, times, "bare")


def small(rounds):
    """A thousand calls, submitted one by one."""
    pools = {
        "shared_numpy": snp.ProcessPoolExecutor(WORKERS),
        "concurrent.futures": concurrent.futures.ProcessPoolExecutor(WORKERS),
    }
    times = {name: [] for name in pools}
    for number in range(2 * rounds + 1):
        for name, pool in pools.items():
            arrays = [np.full(1280, number + i) for i in range(1000)]

            def work(pool=pool, arrays=arrays):
                futures = [pool.submit(add_one, array) for array in arrays]
                return [future.result() for future in futures]

            seconds, results = timed(work)
            assert all(results[i][-1] == number + i + 1 for i in range(1000))
            if number:
                times[name].append(seconds / 1000)
    for pool in pools.values():
        pool.shutdown()
    show("1,000 calls with 10 KiB", "us a call", 1e6, times, "shared_numpy")


def slices(rounds):
    """starmap over slices of one array."""
    arrays = {"shared": snp.empty((100, 100000)), "plain": np.empty((100, 100000))}
    times = {name: [] for name in arrays}
    with multiprocessing.Pool(WORKERS) as pool:
        for number in range(rounds + 1):
            for name, array in arrays.items():
                array[:] = number + 1
                seconds, results = timed(
                    lambda array=array: pool.starmap(total, [(row,) for row in array])
                )
                assert results == [5.0 * (number + 1)] * 100
                if number:
                    times[name].append(seconds)
        pool.close()
        pool.join()
    show("Pool.starmap over 100 slices of 800 kB", "ms", 1e3, times, "shared")


def context(rounds, size=2000):
    """Functions that use two arrays of a context."""
    rng = np.random.RandomState(1)
    arrays = {"D": rng.rand(size, size), "b": rng.rand(size)}
    globals().update(arrays)
    times = {"serial / workers": [], "SharedContext": []}
    with snp.SharedContext(arrays, WORKERS) as ctx:
        registered = ctx.register(solve)
        for number in range(rounds):
            sigmas = 2.0 ** np.arange(1, 13) + number
            seconds, expected = timed(lambda sigmas=sigmas: [solve(each) for each in sigmas])
            times["serial / workers"].append(seconds / WORKERS)

            def parallel(sigmas=sigmas):
                for sigma in sigmas:
                    registered(sigma)
                return ctx.evaluate()

            seconds, results = timed(parallel)
            assert all(np.allclose(a, b) for a, b in zip(results, expected))
            if number:
                times["SharedContext"].append(seconds)
    show("12 kernels of 2000 x 2000, solved", "ms", 1e3, times, "serial / workers")


def touch(array):
    result = float(array[::512].sum())
    time.sleep(2)
    return result


def tree_memory():
    """Return the proportional memory of this process and its children, in bytes."""
    pids = [os.getpid()] + [child.pid for child in multiprocessing.active_children()]
    total = 0
    for pid in pids:
        with open("/proc/{}/smaps_rollup".format(pid)) as file:
            total += sum(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    return total * 1024


def memory(size=1 << 30):
    """One array to two workers: what it costs beside itself."""
    print("memory of an array of {} MiB that two workers have, beside itself".format(size >> 20))
    for name, make in (("shared", snp.zeros), ("plain", np.zeros)):
        array = make(size // 8)
        array[:] = 1
        with snp.ProcessPoolExecutor(WORKERS) as pool:
            list(pool.map(abs, range(10)))
            before = tree_memory()
            futures = [pool.submit(touch, array) for _ in range(WORKERS)]
            samples = []
            while not any(future.done() for future in futures):
                samples.append((time.perf_counter(), tree_memory() - before))
                time.sleep(0.01)
            # When both have it: a look at the processes, one after the other, counts
            # pages twice that come to be shared meanwhile.
            end = samples[-1][0]
            most = statistics.median(used for when, used in samples if end - when < 1)
            assert [future.result() for future in futures] == [size / 8 / 512] * WORKERS
        print("  {:<28}{:10.2f} copies".format(name, most / size))
        del array, futures


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    print("shared_numpy {}, numpy {}, {} workers".format(snp.__version__, np.__version__, WORKERS))
    large(rounds)
    small(rounds)
    slices(rounds)
    context(rounds)
    memory()


if __name__ == "__main__":
    # Threads of numpy's own would take the workers' CPUs.
    if "OPENBLAS_NUM_THREADS" not in os.environ:
        import sys

        os.environ["OPENBLAS_NUM_THREADS"] = "1"
        os.execv(sys.executable, [sys.executable] + sys.argv)
    main()
