"""A gevent service, which patches the standard library's threads and sockets, uses a pool."""
# needs: gevent
# methods: spawn
# prints: [2.0, 3.0, 4.0] and 3.0

from gevent import monkey

monkey.patch_all()

import sys  # noqa: E402

import gevent  # noqa: E402
import numpy as np  # noqa: E402
import shared_numpy as snp  # noqa: E402


def add_one(values):
    return values + 1


def handle(pool, number):
    return float(pool.submit(add_one, np.full(10000, number)).result()[0])


if __name__ == "__main__":
    with snp.ProcessPoolExecutor(2, sys.argv[1]) as pool:
        jobs = [gevent.spawn(handle, pool, number) for number in (1, 2, 3)]
        gevent.joinall(jobs)
        queue = snp.Queue()
        queue.put(snp.ones(3))
        print([job.value for job in jobs], "and", queue.get().sum())
