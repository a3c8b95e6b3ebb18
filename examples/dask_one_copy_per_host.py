"""One copy of a large array on each host of a Dask cluster.

    python examples/dask_one_copy_per_host.py [ADDRESS] [--megabytes N]

ADDRESS is that of a scheduler (``tcp://10.0.0.1:8786``); without it a cluster of four workers is
started on this machine. The array goes to each host once, at its first use there. Then the program
shows, for each host, how often the array was fetched, and how much memory its workers have.
"""

import argparse
import contextlib

import numpy as np
from dask.distributed import Client, LocalCluster

from shared_numpy.integrations import dask as snp_dask


def part_of(data, part, parts):
    """Sum up a part of an array; `data` is the copy of the host where this runs."""
    length = len(data) // parts
    return float(data[part * length : (part + 1) * length].sum())


def show(client, size):
    """Print what each host has fetched, and what its workers take."""
    hosts = {}
    for worker in snp_dask.stats(client).values():
        hosts.setdefault(worker["host"], []).append(worker)
    for number, workers in enumerate(hosts.values(), 1):
        fetched = sum(each["bytes_from_workers"] + each["bytes_from_client"] for each in workers)
        took = sum(each["memory"] for each in workers)
        print(
            "host {}: {} workers, array fetched {:.1f} times, memory of all workers {:.0f} MB".format(
                number, len(workers), fetched / size, took / 1e6
            )
        )


def main(address, megabytes):
    """Share an array, use it in many tasks, and show what that took."""
    with contextlib.ExitStack() as stack:
        if address is None:
            workers = dict(n_workers=4, threads_per_worker=1, dashboard_address=":0")
            address = stack.enter_context(LocalCluster(**workers))
        client = stack.enter_context(Client(address))
        array = np.arange(megabytes * 125000, dtype="f8")
        data = stack.enter_context(snp_dask.share(client, array))
        # A task that has `data` among its arguments is sent about 110 bytes for it.
        parts = 40
        sums = client.gather(
            [client.submit(part_of, data, part, parts, pure=False) for part in range(parts)]
        )
        print("sum as expected:", sum(sums) == float(array.sum()))
        # The same through a dask array, whose chunks are views.
        print("mean as expected:", data.to_dask(chunks=len(array) // 8).mean().compute() == array.mean())
        show(client, array.nbytes)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("address", nargs="?")
    parser.add_argument("--megabytes", type=int, default=64)
    options = parser.parse_args()
    main(options.address, options.megabytes)
