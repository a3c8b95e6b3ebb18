"""A cluster of Dask on two hosts, over TLS: what an array costs, and what kills do to it.

    python two_hosts.py memory MEBIBYTES
    python two_hosts.py kills COUNT SEED

Prints JSON. To be run as the head of `hosts`, which `test_hosts.py` does. The client runs on the
head, which has a /dev/shm of its own, too.
"""

import collections
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time

import hosts
import numpy as np
from distributed import Client
from distributed.security import Security

import shared_numpy as snp
from shared_numpy.integrations import dask as snp_dask

PORT = 8786
MIB = 1 << 20
# Workers of a host, each a process of its own under a nanny.
WORKERS = 2
PATIENCE = 120

SETTINGS = {
    # Kills are what is tested: no task is given up for them.
    "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1000",
    # A host without power says nothing.
    "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "15s",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "12s",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "30s",
    # Plain copies stay where they are, so that they can be measured.
    "DASK_DISTRIBUTED__SCHEDULER__ACTIVE_MEMORY_MANAGER__START": "False",
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__GIL__ENABLED": "False",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


def program(name, *words):
    return [sys.executable, "-m", "dask", name, "--no-dashboard"] + list(words)


class Cluster:
    """A scheduler on the head, workers on each host, and TLS between all of them.

    Attributes
    ----------
    hosts : list of hosts.Host
    security : distributed.security.Security
        For a client.
    """

    def __init__(self, folder, count=2):
        self.folder = folder
        os.environ.update(SETTINGS)
        self.certify()
        self.hosts = [hosts.Host(number, folder) for number in range(1, count + 1)]
        self.log = os.path.join(folder, "scheduler.log")
        self.address = "tls://{}:{}".format(hosts.HEAD, PORT)
        words = program("scheduler", "--host", hosts.HEAD, "--protocol", "tls", "--port", str(PORT))
        with open(self.log, "ab") as log:
            self.scheduler = subprocess.Popen(words + self.tls, stdout=log, stderr=log)
        for host in self.hosts:
            self.start_workers(host)

    def certify(self):
        """Make a certificate, which all trust, and put it where all find it."""
        made = Security.temporary()
        texts = {"ca-file": made.tls_ca_file, "cert": made.tls_client_cert, "key": made.tls_client_key}
        self.tls, paths = [], {}
        for name, text in texts.items():
            paths[name] = os.path.join(self.folder, name + ".pem")
            with open(paths[name], "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
                file.write(text)
            self.tls += ["--tls-" + name, paths[name]]
        self.security = Security(
            tls_ca_file=paths["ca-file"],
            tls_client_cert=paths["cert"],
            tls_client_key=paths["key"],
            require_encryption=True,
        )

    def start_workers(self, host):
        space = os.path.join(self.folder, host.name)
        words = ["--host", host.address, "--nworkers", str(WORKERS), "--nthreads", "1"]
        words += ["--local-directory", space, "--memory-limit", "1GiB", "--death-timeout", "60"]
        host.start(program("worker", self.address, *words, *self.tls))

    def programs(self, host):
        """Return the numbers of the programs `dask worker` of a host, as from the head."""
        return [pid for pid in host.processes() if "worker" in hosts.words_of(pid)]

    def look_after(self):
        """Start the workers of a host again whose program has ended: a nanny gives up, and its
        program with it, if its worker is killed while it starts."""
        for host in self.hosts:
            if not self.programs(host):
                host.kill()
                self.start_workers(host)

    def client(self):
        return Client(self.address, security=self.security, timeout=PATIENCE, name="two_hosts")

    def workers(self, host):
        """Return the numbers of the processes in which workers of a host run, as from the head."""
        # A nanny starts its worker by `spawn`; so it does with a tracker of resources.
        return [pid for pid in host.processes() if "spawn_main" in " ".join(hosts.words_of(pid))]

    def said(self):
        """Return what the programs have said, for an error."""
        with open(self.log, errors="replace") as file:
            found = ["scheduler:\n" + "".join(file.readlines()[-40:])]
        return "\n".join(found + ["{}:\n{}".format(host.name, host.said()) for host in self.hosts])

    def end_workers(self):
        """End the programs of all hosts as a user would; the hosts stay."""
        for host in self.hosts:
            for pid in self.programs(host):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
        eventually(lambda: not any(host.processes() for host in self.hosts))

    def end(self):
        self.scheduler.terminate()
        self.scheduler.wait(PATIENCE)


@contextlib.contextmanager
def cluster():
    with tempfile.TemporaryDirectory() as folder:
        made = Cluster(folder)
        try:
            yield made
            made.end()
        except BaseException:
            print(made.said(), file=sys.stderr)
            raise


def eventually(condition, tell=None):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, tell() if tell else condition
        time.sleep(0.05)


def left_by_us(made):
    """Return the names in each /dev/shm, but for semaphores of multiprocessing, which killed nannies
    leave."""
    return {
        host.name: [name for name in host.shm() if not name.startswith("sem.mp-")]
        for host in made.hosts
    }


def by_host(client, made):
    """Return the addresses of the workers of each host."""
    workers = client.nthreads()
    return [[each for each in workers if host.address + ":" in each] for host in made.hosts]


def all_there(client, made):
    made.look_after()
    return [len(each) for each in by_host(client, made)] == [WORKERS] * len(made.hosts)


def eventually_little(client, made, most):
    """Wait until each /dev/shm has less than so many bytes, beside idle pages that workers keep."""

    def little():
        client.run(snp.trim, on_error="ignore")
        return all(host.shm_used() < most for host in made.hosts)

    eventually(little, lambda: [(host.shm_used(), host.shm()) for host in made.hosts])


def total(data, number=0):
    """Look at every item of an array."""
    return float(np.asarray(data).sum())


# ---- what an array costs -----------------------------------------------------------------------


def on_each(client, made, data):
    """Use an array on all workers at once; return what they make of it."""
    workers = [worker for each in by_host(client, made) for worker in each]
    calls = [
        client.submit(total, data, number, workers=[worker], pure=False)
        for number, worker in enumerate(workers)
    ]
    return client.gather(calls)


def measured(client, made, array, distribute):
    """Return what an array costs each host from `distribute` until all workers have used it."""
    eventually(lambda: all_there(client, made))
    on_each(client, made, np.zeros(8))  # What is imported at the first use is there.
    before = [host.memory(made.workers(host)) for host in made.hosts]
    received = [host.received() for host in made.hosts]
    start = time.monotonic()
    data = distribute(array)
    assert on_each(client, made, data) == [array.sum()] * (WORKERS * len(made.hosts))
    seconds = time.monotonic() - start
    after = [host.memory(made.workers(host)) for host in made.hosts]
    found = {
        "seconds": seconds,
        "received": [host.received() - each for host, each in zip(made.hosts, received)],
        "private": [now.private - was.private for now, was in zip(after, before)],
        "shared": [now.shared - was.shared for now, was in zip(after, before)],
    }
    # Of a second use nothing goes over the wire, but for the calls.
    received = [host.received() for host in made.hosts]
    on_each(client, made, data)
    found["again"] = [host.received() - each for host, each in zip(made.hosts, received)]
    return found, data


def memory(mebibytes):
    array = np.arange(int(mebibytes) * MIB // 8, dtype="f8")
    result = {"bytes": array.nbytes, "workers": WORKERS}
    with cluster() as made:
        with made.client() as client:
            result["plain"], data = measured(client, made, array, client.scatter)
            del data
        with made.client() as client:
            share = lambda array: snp_dask.share(client, array)  # noqa: E731
            result["per host"], data = measured(client, made, array, share)
            used = [host.shm_used() for host in made.hosts]
            data.close()
            eventually_little(client, made, array.nbytes / 8)
        made.end_workers()
        result["used"], result["left"] = used, left_by_us(made)
    return result


# ---- kills -------------------------------------------------------------------------------------


def made_there(number, length):
    """A task's result that is in shared memory."""
    return snp.full(length, float(number))


class Load:
    """Tasks that use a shared array and each other's results; each result is checked.

    Parameters
    ----------
    client : distributed.Client
    made : Cluster
    chance : random.Random
    """

    AT_ONCE = 6
    LENGTH = 4 * MIB // 8

    def __init__(self, client, made, chance):
        self.client, self.made, self.chance = client, made, chance
        self.calls, self.done, self.shares = {}, 0, 0
        self.data = None
        self.renew()

    def renew(self):
        """Share another array in place of the one that there is."""

        def all_done():
            self.made.look_after()
            self.collect()
            return not self.calls

        eventually(all_done, lambda: "no result: {}".format(self.calls))
        if self.data is not None:
            self.data.close()
        self.array = np.random.RandomState(self.shares).randint(0, 1 << 20, 4 * MIB).astype("f8")
        self.data = snp_dask.share(self.client, self.array)
        self.shares += 1

    def submit(self):
        number = self.chance.randrange(1 << 20)
        if self.chance.random() < 0.6:
            start = self.chance.randrange(len(self.array))
            call = self.client.submit(part, self.data, start, pure=False)
            self.calls[call] = float(self.array[start:].sum())
        else:
            result = self.client.submit(made_there, number, self.LENGTH, pure=False)
            call = self.client.submit(total, result, pure=False)
            self.calls[call] = float(number * self.LENGTH)

    def collect(self):
        """Check what has come."""
        for call in [call for call in self.calls if call.done()]:
            expected = self.calls.pop(call)
            assert call.result() == expected, (call, expected)
            self.done += 1

    def go_on(self, count):
        """Return when `count` more results have come and were right."""
        wanted = self.done + count

        def more():
            self.made.look_after()
            while len(self.calls) < self.AT_ONCE:
                self.submit()
            self.collect()
            return self.done >= wanted

        eventually(more, lambda: "no result: {}".format(self.calls))


def part(data, start):
    """Look at the items of an array from a place on."""
    return float(data[start:].sum())


def kill_worker(made, host, chance):
    """One worker, which its nanny starts again."""
    workers = made.workers(host)
    if workers:
        host.kill([chance.choice(workers)])


def kill_workers(made, host, chance):
    """All workers of a host at once."""
    host.kill(made.workers(host))


def kill_processes(made, host, chance):
    """All processes of a host, nannies as well. Its /dev/shm stays as they have left it."""
    host.kill()
    made.start_workers(host)


def power_off(made, host, chance):
    """The whole host, with its memory; one time in two the others are not told."""
    host.power_off(cut=chance.random() < 0.5)
    host.up()
    made.start_workers(host)


# How often each kind comes up.
KINDS = [(kill_worker, 14), (kill_workers, 3), (kill_processes, 2), (power_off, 1)]


def kills(count, seed):
    chance = random.Random(int(seed))
    kinds = [kind for kind, times in KINDS for _ in range(times)]
    counts = collections.Counter()
    with cluster() as made:
        with made.client() as client:
            eventually(lambda: all_there(client, made))
            load = Load(client, made, chance)
            load.go_on(4)
            for number in range(int(count)):
                if number % 20 == 19:
                    load.renew()  # The next kill comes while hosts are filled.
                else:
                    load.go_on(1)
                    time.sleep(chance.random() / 4)
                kind = chance.choice(kinds)
                kind(made, chance.choice(made.hosts), chance)
                counts[kind.__name__] += 1
            load.go_on(20)
            eventually(lambda: all_there(client, made))
            load.go_on(20)
            used = [host.shm_used() for host in made.hosts]
            load.renew()
            load.data.close()
            # What the killed had is gone as well.
            eventually_little(client, made, load.array.nbytes / 4)
        made.end_workers()
        left = left_by_us(made)
    result = {"kills": dict(counts), "results": load.done, "arrays": load.shares}
    return dict(result, used=used, left=left)


PROGRAMS = {"memory": memory, "kills": kills}


def main(name, *arguments):
    if name != "client":
        # In a process of its own, after which is seen what it leaves in its /dev/shm.
        hosts.begin()
        code = subprocess.call([sys.executable, __file__, "client", name] + list(arguments))
        left = os.listdir("/dev/shm")
        if left:
            print("left on the head: {}".format(left), file=sys.stderr)
        sys.exit(code or bool(left))
    print(json.dumps(PROGRAMS[arguments[0]](*arguments[1:])))


if __name__ == "__main__":
    main(*sys.argv[1:])
