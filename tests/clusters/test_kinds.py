"""Clusters and clients of other kinds: in one process, asynchronous, adaptive; and full hosts."""

import asyncio
import os
import sys
import tempfile

import conftest
import numpy as np
import pytest
import small_shm
from local_hosts import PATIENCE

import shared_numpy as snp
from distributed import Client, Nanny, Scheduler, SpecCluster, get_client
from shared_numpy.integrations import dask as snp_dask
from shared_numpy.integrations._dask import host_memory, requirements


# (Clusters begin slowly on a loaded machine.)
pytestmark = pytest.mark.limit(600)


def total(array, *beside):
    return float(np.asarray(array).sum())


def in_shm(data):
    return [name for name in os.listdir("/dev/shm") if data.id in name]


def gone(data):
    conftest.eventually(lambda: not in_shm(data), PATIENCE, lambda: in_shm(data))


def share_in_task():
    """Share from a task, with the worker's own client."""
    with snp_dask.share(get_client(), np.ones(50)) as data:
        return get_client().submit(total, data, pure=False).result(PATIENCE), data.id


def test_workers_that_are_threads():
    options = dict(processes=False, n_workers=2, threads_per_worker=2, dashboard_address=None)
    with Client(**options) as client:
        data = snp_dask.share(client, np.arange(1000.0))
        found = client.gather(client.map(lambda i, data: data[i], range(1000), data=data))
        assert found == list(range(1000))
        assert data.to_dask(100).sum().compute() == 499500
        # A worker that leaves takes nothing from the others.
        client.retire_workers([next(iter(client.scheduler_info()["workers"]))])
        assert client.submit(total, data).result(PATIENCE) == 499500
        assert client.submit(share_in_task).result(PATIENCE)[0] == 50
        assert len(in_shm(data)) == 2
        data.close()
        gone(data)
        other = snp_dask.share(client, np.ones(3), hosts="now")
    # It ends with the client.
    gone(other)
    assert other.closed
    with pytest.raises(snp.StaleHandleError):
        other.sum()
    with pytest.raises(ValueError, match="closed"):
        snp_dask.share(client, np.ones(3))


def test_a_worker_without_its_part(monkeypatch):
    """Where the plugin cannot be set up, the worker stays; the end of a share is not told there."""
    options = dict(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None)
    with Client(silence_logs=60, **options) as client:
        data = snp_dask.share(client, np.ones(10), hosts="now")

        def fails():
            raise FileNotFoundError("/dev/shm")

        with monkeypatch.context() as patch:
            patch.setattr(host_memory, "host", fails)
            client.cluster.scale(2)
            client.wait_for_workers(2, timeout=PATIENCE)
        before = set(client.scheduler_info()["workers"])
        (member,) = snp_dask.stats(client)
        for each in client.cluster.workers.values():
            if each.address != member:
                # (As in a process of its own, where nothing came to be registered.)
                each.stream_handlers.pop("shared_numpy_end", None)
        data.close()
        gone(data)
        for _ in range(3):
            assert set(client.run(os.getpid)) == before


def test_a_client_that_loses_its_connection():
    """The scheduler ends what it has shared; the client knows, and can share anew."""
    options = dict(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None)
    with Client(**options) as client:
        data = snp_dask.share(client, np.ones(10), hosts="now")

        async def cut():
            client.scheduler_comm.comm.abort()

        client.sync(cut)
        conftest.eventually(lambda: data.closed and client.status == "running", PATIENCE)
        gone(data)
        with pytest.raises(snp.StaleHandleError, match="Share it anew"):
            client.submit(total, data, pure=False).result(PATIENCE)
        with snp_dask.share(client, np.ones(10)) as other:
            assert client.submit(total, other).result(PATIENCE) == 10


def test_a_dask_that_is_not_known(monkeypatch):
    from distributed.system_monitor import SystemMonitor

    assert requirements.missing() == []
    requirements.check()
    monkeypatch.delattr(SystemMonitor, "get_process_memory")
    with pytest.raises(RuntimeError, match="no system_monitor.SystemMonitor.get_process_memory"):
        requirements.check()


async def use_asynchronously():
    options = dict(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None)
    async with Client(asynchronous=True, **options) as client:
        await snp_dask.register(client)
        await snp_dask.register(client)
        async with await snp_dask.share(client, np.ones(100), hosts="now") as data:
            assert await client.submit(total, data) == 100
            (counts,) = (await snp_dask.stats(client)).values()
            assert counts["host"]
        assert data.closed
        other = await snp_dask.share(client, np.ones(10))
        await other.close()
        kept = await snp_dask.share(client, np.ones(10))
    return [data, other, kept]


def test_an_asynchronous_client():
    for data in asyncio.run(use_asynchronously()):
        gone(data)
        assert data.closed


async def use_on_the_loop(data):
    return float(data[0])


def item(data, number):
    return float(np.asarray(data)[number])


def test_workers_that_come_and_go():
    """An adaptive cluster of processes; its first worker comes when the share is there."""
    folder = tempfile.mkdtemp(prefix="snptest-", dir="/dev/shm")
    worker = {"cls": Nanny, "options": {"nthreads": 1, "env": {"SHARED_NUMPY_DIR": folder}}}
    scheduler = {"cls": Scheduler, "options": {"dashboard": False, "port": 0}}
    try:
        with SpecCluster(workers={}, worker=worker, scheduler=scheduler) as cluster:
            with Client(cluster, timeout=PATIENCE) as client:
                data = snp_dask.share(client, np.arange(8.0))
                cluster.adapt(minimum=0, maximum=2, interval="100ms", wait_count=2)
                futures = [client.submit(item, data, i, pure=False) for i in range(8)]
                assert client.gather(futures) == list(range(8))
                # On an event loop nobody may wait for what has to be fetched.
                far = snp_dask.share(client, np.arange(8.0))
                with pytest.raises(RuntimeError, match="event loop"):
                    client.submit(use_on_the_loop, far).result(PATIENCE)
                del futures
                conftest.eventually(lambda: not cluster.workers, PATIENCE)
                assert client.submit(total, data).result(PATIENCE) == 28
                data.close()
        gone(data)
    finally:
        snp.clean(folder)
        left = os.listdir(folder)
        for name in left:
            os.unlink(os.path.join(folder, name))
        os.rmdir(folder)
    assert not left


FULL = """
import os, socket, sys
import numpy as np
import shared_numpy as snp
from distributed import Client, Nanny, Scheduler, SpecCluster
from shared_numpy.integrations import dask as snp_dask

def total(array):
    return float(np.asarray(array).sum()), type(array[:1]).__name__, array[:1].is_shared()

if __name__ == "__main__":
    folder = sys.argv[1]
    worker = {"cls": Nanny, "options": {"nthreads": 1, "env": {"SHARED_NUMPY_DIR": folder}}}
    scheduler = {"cls": Scheduler, "options": {"dashboard": False, "port": 0}}
    with SpecCluster(workers={0: worker}, scheduler=scheduler, silence_logs=50) as cluster:
        with Client(cluster, timeout=120) as client:
            snp_dask.register(client)
            array = np.ones(4 << 20)
            data = snp_dask.share(client, array)
            try:
                client.submit(total, data).result(120)
            except snp.ArenaFullError as error:
                assert socket.gethostname() in str(error) and folder in str(error), error
                assert "private_copy" in str(error)
            else:
                raise AssertionError("there was room")
            try:
                snp_dask.share(client, array, hosts="now")
            except snp.ArenaFullError as error:
                assert socket.gethostname() in str(error), error
            else:
                raise AssertionError("there was room")
            private = snp_dask.share(client, array, when_full="private_copy")
            def sum_of(array):
                return float(np.asarray(array).sum())
            assert client.submit(sum_of, private).result(120) == 4 << 20
            small = snp_dask.share(client, np.ones(1000))
            assert client.submit(sum_of, small).result(120) == 1000
            data.close(), private.close(), small.close()
            print("done")
"""


def test_a_full_host(tmp_path):
    if small_shm.namespace() is None:
        pytest.skip("this user may not mount, or not run the interpreter where that is allowed")
    script = tmp_path / "script.py"
    script.write_text(FULL)
    folder = tmp_path / "shm"
    folder.mkdir()
    mount = 'mount -t tmpfs -o size=24m tmpfs "$0" && exec "$@"'
    command = small_shm.namespace() + ["sh", "-c", mount, str(folder), sys.executable, str(script)]
    done = conftest.run_command(command + [str(folder)], timeout=PATIENCE)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
