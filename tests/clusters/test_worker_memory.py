"""What counts for a worker: its private memory, and its part of what it shares."""

import os
import signal

import conftest
import numpy as np
import pytest
from local_hosts import PATIENCE, hosts

import shared_numpy as snp
from shared_numpy.integrations import dask as snp_dask
from shared_numpy.integrations._dask import copies
from shared_numpy.integrations._dask.memory import Measure

# (Clusters begin slowly on a loaded machine.)
pytestmark = [pytest.mark.slow, pytest.mark.limit(600)]

MIB = 1 << 20


def test_shared_pages_count_in_parts():
    """The parts of two processes add up to the memory; private memory counts as a whole."""
    # (What tests before this one have left mapped would be used again.)
    snp.trim()
    before = Measure(os.getpid())()
    array = snp.ones(64 * MIB // 8)
    assert 40 * MIB < Measure(os.getpid())() - before < 80 * MIB
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        array.sum()
        os.write(ready[1], b"x")
        os.read(go[0], 1)
        os._exit(0)
    try:
        os.read(ready[0], 1)
        parts = [Measure(pid)() for pid in (os.getpid(), child)]
        with open("/proc/{}/status".format(child)) as file:
            (resident,) = [int(line.split()[1]) << 10 for line in file if line.startswith("VmRSS")]
        assert 24 * MIB < parts[0] - before < 44 * MIB
        assert resident - parts[1] > 24 * MIB
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for each in ready + go:
            os.close(each)
    try:
        Measure(child)()
    except ProcessLookupError:
        pass
    else:
        raise AssertionError("a process that has ended was measured")


def test_a_copy_counts_for_no_worker():
    """Neither while it is filled, when all of it is the part of one process, nor after that."""
    share = copies.Share(os.urandom(16).hex(), 64 * MIB, False, "the share")
    snp.trim()
    measures = [Measure(os.getpid(), copies.here.in_arenas)()]

    def write(image):
        copies.here._note(share, image)
        image.data[...] = 1
        measures.append(Measure(os.getpid(), copies.here.in_arenas)())

    copies.here.put(share, write)
    try:
        measures.append(Measure(os.getpid(), copies.here.in_arenas)())
        assert max(measures) - measures[0] < 20 * MIB
        # What else is shared counts as before.
        array = snp.ones(64 * MIB // 8)
        more = Measure(os.getpid(), copies.here.in_arenas)() - measures[-1]
        assert 40 * MIB < more < 80 * MIB and array[-1] == 1
    finally:
        copies.here.end(share.id)


def resident(dask_worker):
    return dask_worker.monitor.proc.memory_info().rss


def hold(array, *beside):
    return float(np.asarray(array).sum())


def test_a_share_beyond_the_limit_of_a_worker():
    """Two workers share more than either may have: neither is restarted, nor stays paused."""
    limit = 500 * MIB
    with hosts(1, 2, memory_limit=limit) as made:
        client = made.client
        base = max(client.run(resident).values())
        # All of it would be over 95 % of the limit, the part of each is far from it.
        array = np.ones(limit - base, "u1")
        with made.share(array, hosts="now") as data:
            pids = set(made.pids().values())
            workers = made.workers()
            assert made.each(hold, data) == [array.size] * 2
            looks = client.run(looks_at_memory)
            assert min(client.run(resident).values()) > 0.95 * limit
            assert set(made.pids().values()) == pids
            # The monitors, also the nannies', look again.
            conftest.eventually(
                lambda: all(
                    client.run(looks_at_memory)[worker] > looks[worker] + 8 for worker in workers
                ),
                PATIENCE,
            )
            assert set(made.pids().values()) == pids
            conftest.eventually(lambda: set(client.run(status).values()) == {"running"}, PATIENCE)
            for counts in snp_dask.stats(client).values():
                assert counts["memory"] < 0.8 * limit


def looks_at_memory(dask_worker):
    return dask_worker.monitor.count


def status(dask_worker):
    return dask_worker.status.name
