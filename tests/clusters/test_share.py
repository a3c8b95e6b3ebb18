"""One copy per host: what a share is for those who use it, and what it costs.

* Each host fetches the bytes once, however many workers it has; the others attach.
* Where it is used, the proxy is the array, of any dtype, shape and order.
* A share ends with `close`, and with its client; then its memory is gone on each host.
* Shared arrays that tasks return go by handle within a host, by value elsewhere.
"""

import os
import pickle
import subprocess
import sys

import conftest
import numpy as np
import pytest
from local_hosts import PATIENCE, hosts

import shared_numpy as snp
from shared_numpy.integrations import dask as snp_dask

# (Clusters begin slowly on a loaded machine.)
pytestmark = pytest.mark.limit(600)

MIB = 1 << 20


def total(array, *beside):
    return float(np.asarray(array).sum())


def facts(array):
    """What a worker sees of an array, and where that lies."""
    found = np.asarray(array)
    return (
        found.tobytes("A"), found.dtype, found.shape, found.flags.f_contiguous,
        found.flags.writeable, conftest.place_of(found)[:2] if found.size else None,
    )  # fmt: skip


@pytest.fixture(scope="module")
def two():
    """Two hosts with two workers each."""
    with hosts(2, 2, settings={"DASK_SHARED_NUMPY__TIMEOUT": "{}s".format(PATIENCE)}) as made:
        yield made


def test_each_host_fetches_once(two):
    array = np.random.RandomState(1).bytes(20 * MIB + 5)
    array = np.frombuffer(array, "u1")
    names = ("fills", "attaches", "bytes_from_client", "bytes_from_workers", "bytes_given")
    before = {name: two.sum(name) for name in names}
    with two.share(array) as data:
        found = two.each(facts, data)
        assert all(each[0] == array.tobytes() for each in found)
        # Two places for four workers: one for each host.
        assert [found[0][5], found[2][5]] == [found[1][5], found[3][5]] and found[0][5] != found[2][5]
        counts = {name: two.sum(name) - before[name] for name in names}
        assert (counts["fills"], counts["attaches"]) == (2, 2)
        # The second host may have asked while the first had nothing yet, but never for all twice.
        assert counts["bytes_from_client"] + counts["bytes_from_workers"] == 2 * array.nbytes
        assert counts["bytes_from_workers"] == counts["bytes_given"] == array.nbytes
    two.nothing_is_left()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24.0).reshape(2, 3, 4), np.asfortranarray(np.arange(12).reshape(3, 4)),
        np.array(7), np.zeros((0, 3)), np.array([True, False]), np.array(["ab", "c"]),
        np.arange(3).astype("M8[s]"), np.arange(6.0)[::-2], np.arange(4, dtype=">i2"),
        np.array([(1, 2.5)], dtype=[("a", "i2"), ("b", "f8")]),
    ],
    ids=lambda array: "{}-{}".format(array.dtype.kind, array.shape),
)  # fmt: skip
def test_it_is_the_array(two, array):
    with two.share(array) as data:
        assert (data.shape, data.dtype, data.ndim) == (array.shape, array.dtype, array.ndim)
        assert (data.size, data.nbytes) == (array.size, array.nbytes)
        found = two.on(two.workers()[0], facts, data).result(PATIENCE)
        # (Without gaps: in C order, if it is not in Fortran's alone.)
        want = array.copy("A")
        wanted = want.tobytes("A"), want.dtype, want.shape, want.flags.f_contiguous, False
        assert found[:5] == wanted


def use(data, plain):
    """Use a proxy as an array; both must do the same."""
    np.testing.assert_array_equal(data[1:, 2], plain[1:, 2])
    np.testing.assert_array_equal(data + 1, plain + 1)
    np.testing.assert_array_equal(2 / data, 2 / plain)
    np.testing.assert_array_equal(data @ data.T, plain @ plain.T)
    np.testing.assert_array_equal(np.sqrt(data), np.sqrt(plain))
    np.testing.assert_array_equal(np.add.reduce(data, axis=1), plain.sum(1))
    np.testing.assert_array_equal(np.concatenate([data, data]), np.concatenate([plain, plain]))
    np.testing.assert_array_equal(data > 3, plain > 3)
    np.testing.assert_array_equal(np.asarray(data, "i4"), plain.astype("i4"))
    assert (len(data), float(data.sum()), float(np.sum(data))) == (len(plain), plain.sum(), plain.sum())
    assert [row.tolist() for row in data] == plain.tolist() and plain[1, 1] in data
    assert not hasattr(data, "chunks") and not hasattr(data, "name_of_nothing")
    out = np.zeros_like(plain)
    assert np.add(data, 1, out=out) is out
    own = np.array(data)
    own[0] = 0
    for change in (lambda: data.__setitem__(0, 1), lambda: np.add(data, 1, out=data)):
        with pytest.raises(ValueError):
            change()
    return type(data[1:]).__name__, np.asarray(data[1:]).base is not None


def test_it_is_used_as_an_array(two):
    plain = np.arange(1.0, 13).reshape(3, 4)
    with two.share(plain) as data:
        here = use(data, plain)
        there = two.on(two.workers()[0], use, data, plain).result(PATIENCE)
        assert here == there == ("ndarray", True)


def nested(arguments):
    return total(arguments["in"][0][1])


def test_it_travels_as_a_few_bytes(two):
    from dask.base import tokenize

    with two.share(np.ones((MIB, 2), "f4")) as data, two.share(np.ones(3)) as other:
        assert len(pickle.dumps(data)) < 130
        assert tokenize(data) == tokenize(pickle.loads(pickle.dumps(data))) != tokenize(other)
        future = two.on(two.workers()[1], nested, {"in": [(1, data)]})
        assert future.result(PATIENCE) == 2 * MIB


def is_view(chunk):
    return np.array([isinstance(chunk, snp.ndarray) and chunk.is_shared()])


def test_chunks_of_a_dask_array_are_views(two):
    array = np.arange(float(MIB))
    with two.share(array) as data:
        chunks = data.to_dask(chunks=MIB // 8)
        assert len(pickle.dumps(dict(chunks.__dask_graph__()))) < 20000
        assert (chunks + 1).sum().compute() == array.sum() + MIB
        assert chunks.map_blocks(is_view, dtype=bool).compute().all()
        kept = chunks.persist()
        assert kept.mean().compute() == array.mean()
        del chunks, kept


def write(data):
    data[3] = 7
    return os.getpid()


def test_a_writable_share_is_the_host_s(two):
    with two.share(np.zeros(10), readonly=False, hosts="now") as data:
        workers = two.workers()
        two.on(workers[0], write, data).result(PATIENCE)
        assert two.each(total, data) == [7, 7, 0, 0]


def test_now_is_before_it_returns(two):
    before = [two.sum("fills"), two.sum("attaches")]
    with two.share(np.ones(1000), hosts="now"):
        assert [two.sum("fills") - before[0], two.sum("attaches") - before[1]] == [2, 2]


def test_after_close(two):
    data = two.share(np.ones(1000))
    kept = np.asarray(data)
    assert two.each(total, data) == [1000] * 4
    copy = pickle.loads(pickle.dumps(data))
    with pytest.raises(RuntimeError, match="by the client"):
        copy.close()
    data.close()
    data.close()
    assert data.closed and copy.closed and kept.sum() == 1000
    del kept
    two.nothing_is_left()
    for use in (lambda: np.asarray(data), lambda: data[0], lambda: copy.sum()):
        with pytest.raises(snp.StaleHandleError, match="has ended"):
            use()
    for worker in two.workers():
        with pytest.raises(snp.StaleHandleError, match="has ended"):
            two.on(worker, total, copy).result(PATIENCE)


def test_wrong_arguments(two):
    for options in ({"hosts": "soon"}, {"when_full": "ignore"}):
        with pytest.raises(ValueError, match="must be one of"):
            two.share(np.ones(3), **options)
    with pytest.raises(TypeError, match="references"):
        two.share(np.array([None]))


def make(length, readonly=False):
    made = snp.array(np.arange(length))
    return made.readonly() if readonly else made


def kind(array):
    place = conftest.place_of(array)[:2] if isinstance(array, snp.ndarray) else None
    shared = isinstance(array, snp.ndarray) and array.is_shared()
    return shared, int(array.sum()), array.flags.writeable, place


@pytest.mark.parametrize("readonly", [False, True])
def test_results_go_by_handle_within_a_host(two, readonly):
    workers = two.workers()
    before = [two.sum(name) for name in ("results_by_handle", "results_by_value")]
    made = two.on(workers[0], make, 100000, readonly)
    found = [two.on(worker, kind, made).result(PATIENCE) for worker in workers]
    want = (True, 99999 * 50000, not readonly)
    assert [each[:3] for each in found] == [want] * 4
    # The maker's memory, and a copy on the other host, which its second worker gets from anywhere.
    assert found[0][3] == found[1][3] != found[2][3]
    after = [two.sum(name) for name in ("results_by_handle", "results_by_value")]
    assert after[0] - before[0] >= 1 and after[1] - before[1] >= 1
    assert after[0] - before[0] + after[1] - before[1] == 3
    at_client = made.result(PATIENCE)
    assert at_client.tolist() == list(range(100000))
    assert at_client.flags.writeable is not readonly


def test_results_without_the_family_go_by_value(two):
    from distributed.protocol import deserialize, serialize

    header, frames = serialize(snp.ones(1000), serializers=["pickle"])
    assert header["serializer"] == "pickle"
    assert deserialize(header, frames).sum() == 1000
    header, frames = serialize(snp.ones(1000).readonly())
    assert header["serializer"] == "dask"
    loaded = deserialize(header, frames)
    assert loaded.is_shared() and loaded.sum() == 1000 and not loaded.flags.writeable


def handles():
    """How many handles and blocks the arena of this process has."""
    arena = snp.Arena.default()
    stats = arena.stats()
    return stats["handles"], stats["blocks"]


class Connection:
    """A connection, as far as `answering` looks at it."""

    def __init__(self, host):
        self.remote_info = {"shared_numpy-host": host}


def test_handles_end_with_their_transfer(two):
    """Received, lost, or made after the connection was lost: none is left."""
    from distributed.protocol import deserialize, serialize
    from shared_numpy.integrations._dask import host_memory, results

    for end in ("received", "lost", "late"):
        array = snp.ones(100000)
        before = handles()
        comm = Connection(host_memory.host())
        context = {"recipient": comm.remote_info}
        with results.answering(comm):
            transfer = comm.remote_info["shared_numpy-transfer"]
            header, frames = serialize(array, context=context)
            assert handles()[0] == before[0] + 1
            if end == "received":
                assert conftest.place_of(deserialize(header, frames)) == conftest.place_of(array)
        assert handles()[0] == before[0]
        assert comm.remote_info == Connection(host_memory.host()).remote_info
        if end == "late":
            transfer.dumps(array)
            assert handles()[0] == before[0]
        del array
        if end == "lost":
            with pytest.raises(ConnectionError):
                deserialize(header, frames)
    with results.answering(Connection("another host")):
        array, before = snp.ones(100000), handles()
        serialize(array, context={"recipient": Connection("another host").remote_info})
        assert handles()[0] == before[0]


def spill(dask_worker):
    """Have a worker write all its data to disk; return how many there are."""
    while dask_worker.data.fast:
        dask_worker.data.evict()
    return len(dask_worker.data.slow)


def test_spilled_replicated_and_scattered_results(two):
    workers = two.workers()
    made = two.client.scatter(snp.ones(100000), broadcast=True, hash=False)
    assert [each[:2] for each in two.each(kind, made)] == [(True, 100000)] * 4
    spilled = two.on(workers[0], make, 10000)
    spilled.result(PATIENCE)
    assert two.client.run(spill, workers=workers[:1])[workers[0]] >= 1
    assert two.on(workers[1], kind, spilled).result(PATIENCE)[:2] == (True, 9999 * 5000)


CLIENT = """
import os, sys
import numpy as np
from distributed import Client
from shared_numpy.integrations import dask as snp_dask
def total(array):
    return float(np.asarray(array).sum())
if __name__ == "__main__":
    client = Client(sys.argv[1], timeout=120)
    data = snp_dask.share(client, np.ones(100000), hosts="now")
    assert client.submit(total, data).result(120) == 100000
    print(data.id, flush=True)
    sys.stdin.readline()
"""


def test_a_client_that_is_killed(two, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(CLIENT)
    command = [sys.executable, str(script), two.cluster.scheduler_address]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, universal_newlines=True)
    with subprocess.Popen(command, **pipes) as process:
        two.shares.append(process.stdout.readline().strip())
        assert len(two.shares[-1]) == 32 and len(two.arenas()) >= 3
        process.kill()
        process.communicate(timeout=PATIENCE)
    # What a killed program leaves on its own host goes at the next start of another.
    snp.clean()
    two.nothing_is_left()
