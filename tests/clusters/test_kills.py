"""Processes that die: results stay right, the others go on, and nothing is left on any host."""

import contextlib
import os
import random
import signal

import conftest
import numpy as np
import pytest
from local_hosts import PATIENCE, dask, hosts

import shared_numpy as snp
from shared_numpy.integrations import dask as snp_dask

# (Clusters begin slowly on a loaded machine.)
pytestmark = [pytest.mark.slow, pytest.mark.limit(600)]

MIB = 1 << 20
KILLS = 10 * conftest.MORE


@pytest.fixture(scope="module")
def two():
    """Two hosts with two workers each."""
    with hosts(2, 2, settings={"DASK_SHARED_NUMPY__TIMEOUT": "{}s".format(PATIENCE)}) as made:
        yield made


def total(array, *beside):
    return int(np.asarray(array).sum(dtype="i8"))


def numbers(seed, nbytes):
    return np.random.RandomState(seed).randint(0, 255, nbytes, dtype="u1")


def die_at_piece(number):
    """Have this worker kill itself when it has so many pieces of a copy."""
    from shared_numpy.integrations._dask.filling import Filling

    store = Filling.store

    def deadly(self, piece, data):
        store(self, piece, data)
        if self.image.count() == number:
            os.kill(os.getpid(), signal.SIGKILL)

    Filling.store = deadly


def settle(two):
    """Wait until all workers are there again, with a registered plugin."""
    conftest.eventually(lambda: len(two.workers()) == 4, PATIENCE, two.workers)
    conftest.eventually(lambda: len(snp_dask.stats(two.client)) == 4, PATIENCE)


def test_a_worker_is_killed_while_it_fills(two):
    """Others take its work; its host gets a new copy, since nobody had a part of the old one."""
    settle(two)
    array = numbers(1, 40 * MIB)
    with two.share(array) as data:
        first, second = two.workers(0)
        two.client.run(die_at_piece, 3, workers=[first])
        dying = two.on(first, total, data, retries=3, allow_other_workers=True)
        conftest.eventually(lambda: first not in two.workers(), PATIENCE)
        assert two.on(second, total, data).result(PATIENCE) == total(array)
        assert dying.result(PATIENCE) == total(array)
    two.nothing_is_left()


def test_the_one_that_waits_goes_on(two):
    """A worker that has waited for the dead one fetches only what is missing."""
    settle(two)
    array = numbers(2, 40 * MIB)
    with two.share(array) as data:
        first, second = two.workers(1)
        two.client.run(wait_at_piece, 3, workers=[first])
        before = snp_dask.stats(two.client)[second]
        one = two.on(first, total, data, retries=3, allow_other_workers=True)
        conftest.eventually(lambda: os.path.exists(stopped(first)), PATIENCE)
        other = two.on(second, total, data)
        conftest.eventually(lambda: two.client.run(waits, workers=[second])[second], PATIENCE)
        os.kill(int(open(stopped(first)).read()), signal.SIGKILL)
        os.unlink(stopped(first))
        assert other.result(PATIENCE) == one.result(PATIENCE) == total(array)
        after = snp_dask.stats(two.client)[second]
        fetched = after["bytes_from_client"] - before["bytes_from_client"]
        assert fetched == array.nbytes - 3 * 8 * MIB
    two.nothing_is_left()


def stopped(worker):
    return "/dev/shm/snptest-stopped-{}-{}".format(os.getuid(), worker.rpartition(":")[2])


def wait_at_piece(number, dask_worker):
    """Have this worker tell when it has so many pieces of a copy, and take no more."""
    from shared_numpy.integrations._dask.filling import Filling

    store, path = Filling.store, stopped(dask_worker.address)

    def slow(self, piece, data):
        if self.image.count() >= number:
            if not os.path.exists(path):
                with open(path + "+", "w") as file:
                    file.write(str(os.getpid()))
                os.rename(path + "+", path)
            raise OSError("no more")
        store(self, piece, data)

    Filling.store = slow


def waits(dask_worker):
    """Tell whether a thread of this worker waits for another process."""
    import sys

    names = set()
    for frame in sys._current_frames().values():
        while frame is not None:
            names.add((frame.f_code.co_filename.rpartition("/")[2], frame.f_code.co_name))
            frame = frame.f_back
    return ("host_memory.py", "_wait") in names


def test_all_workers_of_a_host_are_killed(two):
    settle(two)
    array = numbers(3, 10 * MIB)
    with two.share(array, hosts="now") as data:
        gone = two.workers(1)
        for worker in gone:
            two.kill(worker)
        conftest.eventually(lambda: not set(gone) & set(two.workers()), PATIENCE)
        settle(two)
        assert two.each(total, data) == [total(array)] * 4
    two.nothing_is_left()


def test_random_kills(two):
    """While workers compute over a share, and fetch another one."""
    settle(two)
    chance = random.Random(int(os.environ.get("SNP_SEED", "1")))
    one = numbers(4, 10 * MIB)
    with two.share(one) as data:
        for kill in range(KILLS):
            other = numbers(5 + kill, 20 * MIB)
            with two.share(other) as more:
                futures = [
                    two.client.submit(total, each, number, pure=False, retries=10)
                    for number in range(8)
                    for each in (data, more)
                ]
                conftest.eventually(
                    lambda: chance.random() < 0.2 or all(each.done() for each in futures), PATIENCE
                )
                pids = [pid for pid in two.pids().values() if isinstance(pid, int)]
                if pids:
                    os.kill(chance.choice(pids), signal.SIGKILL)
                found = two.client.gather(futures)
                assert found == [total(one), total(other)] * 8
    two.nothing_is_left()


def returns_shared(length):
    return snp.ones(length)


def die_when_loaded():
    """Have this worker die while it loads an array that was sent by handle."""
    from shared_numpy.integrations._dask import results

    results.pickler.loads = lambda stream: os.kill(os.getpid(), signal.SIGKILL)


def handles():
    return snp.Arena.default().stats()["handles"]


def test_handles_end_with_their_receiver(two):
    """The receiver dies with the message in its hands."""
    settle(two)
    sender, receiver = two.workers(0)
    made = two.on(sender, returns_shared, 100000)
    made.result(PATIENCE)
    before = two.client.run(handles, workers=[sender])[sender]
    two.client.run(die_when_loaded, workers=[receiver])
    used = two.on(receiver, total, made, retries=5, allow_other_workers=True)
    conftest.eventually(lambda: receiver not in two.workers(), PATIENCE)
    assert used.result(PATIENCE) == 100000
    conftest.eventually(
        lambda: two.client.run(handles, workers=[sender])[sender] == before, 20
    )


def test_a_scheduler_that_ends():
    """Workers end with it; nothing is left. A new client shares anew."""
    with contextlib.ExitStack() as after, hosts(1, 1) as made:
        data = made.share(np.ones(MIB), hosts="now")
        made.cluster.sync(made.cluster.scheduler.close)
        # (Nobody answers there any more: what ends need not try for long.)
        after.enter_context(dask.config.set({"distributed.comm.timeouts.connect": "3s"}))
        conftest.eventually(lambda: made.client.status != "running", PATIENCE)
        data.close()
        made.nothing_is_left()


def test_workers_that_are_restarted(two):
    """``client.restart()`` takes the workers, not the shares."""
    settle(two)
    array = numbers(6, MIB)
    with two.share(array, hosts="now") as data:
        before = set(two.workers())
        two.client.restart(timeout=PATIENCE)
        settle(two)
        assert not before & set(two.workers())
        assert two.each(total, data) == [total(array)] * 4
    two.nothing_is_left()
