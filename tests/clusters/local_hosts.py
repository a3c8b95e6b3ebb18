"""Clusters on this machine whose workers are on several hosts, as far as shared memory goes.

Each host has a folder of its own for arenas, below /dev/shm: workers of different hosts cannot find
each other's. The test itself, with the client, is on a host of its own, too.
"""

import contextlib
import gc
import multiprocessing
import os
import signal
import tempfile

import conftest
import pytest

distributed = pytest.importorskip(
    "distributed", "2023.5", reason="the integration needs distributed 2023.5 (CPython 3.8) or later"
)

import dask  # noqa: E402
from distributed import Client, Nanny, Scheduler, SpecCluster  # noqa: E402

import shared_numpy as snp  # noqa: E402
from shared_numpy._system import process_tree  # noqa: E402
from shared_numpy.integrations import dask as snp_dask  # noqa: E402

# For whatever a loaded machine may take minutes for.
PATIENCE = 120

# A worker that is killed comes back, however long that takes here, and its tasks are tried again.
dask.config.set(
    {"distributed.deploy.lost-worker-timeout": "600s", "distributed.scheduler.allowed-failures": 100}
)


class Hosts:
    """A cluster and its client.

    Parameters
    ----------
    hosts : int
        How many hosts there are.
    workers : int
        How many workers each has, with one thread each.
    settings : dict
        Environment variables for the workers.
    options : dict
        More options for each `Nanny`.
    """

    def __init__(self, hosts, workers, settings=None, **options):
        # (The processes of another host inherit no arena of this one's.)
        snp.Arena.default()
        self.arena = multiprocessing.current_process()._config.pop(process_tree._KEY, None)
        self.before = conftest.names_now()
        self.folders = [tempfile.mkdtemp(prefix="snptest-", dir="/dev/shm") for _ in range(hosts)]
        self.spec = {}
        for host, folder in enumerate(self.folders):
            for number in range(workers):
                env = dict(settings or {}, SHARED_NUMPY_DIR=folder)
                made = dict(options, nthreads=1, env=env, local_directory=tempfile.gettempdir())
                self.spec["{}.{}".format(host, number)] = {"cls": Nanny, "options": made}
        scheduler = {"cls": Scheduler, "options": {"dashboard": False, "port": 0}}
        self.cluster = SpecCluster(workers=self.spec, scheduler=scheduler, silence_logs=50)
        self.client = Client(self.cluster, timeout=PATIENCE)
        self.client.wait_for_workers(hosts * workers, timeout=PATIENCE)
        self.shares = []

    def share(self, array, **options):
        made = snp_dask.share(self.client, array, **options)
        self.shares.append(made.id)
        return made

    def workers(self, host=None):
        """Return the addresses of the workers of a host, or of all, by their names."""
        known = self.client.scheduler_info(n_workers=-1)["workers"] if _ALL else (
            self.client.scheduler_info()["workers"])
        named = {each["name"]: address for address, each in known.items()}
        return [
            named[name] for name in sorted(named) if host is None or name.startswith("%d." % host)
        ]

    def on(self, worker, function, *arguments, **options):
        """Begin to call a function on a worker; return the future."""
        return self.client.submit(function, *arguments, workers=[worker], pure=False, **options)

    def each(self, function, *arguments):
        """Call a function on each worker; return the results."""
        made = [self.on(worker, function, *arguments) for worker in self.workers()]
        return self.client.gather(made)

    def pids(self):
        """Return the PID of each worker, by its address."""
        return self.client.run(os.getpid, on_error="ignore")

    def kill(self, worker):
        """Kill a worker's process; its nanny begins a new one."""
        pid = self.client.run(os.getpid, workers=[worker])[worker]
        os.kill(pid, signal.SIGKILL)
        return pid

    def sum(self, name):
        """Return the sum of a count of `stats` over all workers that there are."""
        return sum(each[name] for each in snp_dask.stats(self.client).values())

    def arenas(self):
        """Return the arenas of shares that there are on any host."""
        gc.collect()
        return [
            name
            for folder in self.folders + ["/dev/shm"]
            for name in os.listdir(folder)
            if any(id in name for id in self.shares)
        ]

    def nothing_is_left(self):
        """Wait until no host has memory of a share."""
        conftest.eventually(lambda: not self.arenas(), PATIENCE, self.arenas)

    def close(self):
        """End all; nothing is left in any folder. (Those that Dask has killed leave arenas, which
        the next start would remove.)"""
        self.client.close()
        self.cluster.close(timeout=PATIENCE)
        process_tree.hand_down(self.arena)
        try:
            self.nothing_is_left()
            for folder in self.folders:
                conftest.eventually(lambda: _empty(folder), PATIENCE, lambda: os.listdir(folder))
        finally:
            for folder in self.folders:
                for name in os.listdir(folder):
                    os.unlink(os.path.join(folder, name))
                os.rmdir(folder)


def _empty(folder):
    snp.clean(folder)
    return not os.listdir(folder)


_ALL = "n_workers" in distributed.Client.scheduler_info.__code__.co_varnames


@contextlib.contextmanager
def hosts(*arguments, **options):
    """A cluster for the time of a block, with `register` called."""
    made = Hosts(*arguments, **options)
    try:
        snp_dask.register(made.client)
        yield made
    finally:
        made.close()
