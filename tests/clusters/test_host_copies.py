"""A host's copy, without a cluster: its lock, its pieces, and the tree by which hosts fill.

* One process of a host fills at a time; its death gives the lock to another, which goes on with the
  pieces that are there. A child that it has forked holds nothing up.
* Who waits without progress gets an error that names the one who fills.
* A source that fails is left for another one, which sends what is missing.
* The tree has no circle, and no host gives to more than `CHILDREN` others as long as one is free.
"""

import asyncio
import os
import pickle
import random
import signal
import sys
import threading

import conftest
import numpy as np
import pytest
from local_hosts import PATIENCE

import shared_numpy as snp
from shared_numpy.integrations._dask import array, copies, host_memory, scheduler
from shared_numpy.integrations._dask import filling as filling_module
from shared_numpy.integrations._dask.image import PIECE, Image, offsets_of, size_of

NBYTES = 2 * PIECE + 5


@pytest.fixture
def identifier():
    found = os.urandom(16)
    yield found
    left = [name for name in os.listdir("/dev/shm") if found.hex() in name]
    assert not left


def piece(number):
    return bytes([number + 1]) * min(PIECE, NBYTES - number * PIECE)


def opened(identifier, fill, seconds=PATIENCE, name="somebody"):
    return host_memory.open_image(
        identifier, NBYTES, fill, name, seconds, lambda: None, lambda image: None
    )


def fill(image):
    for number in image.missing():
        image.store(number, piece(number))


def test_the_second_finds_what_the_first_has_filled(identifier):
    image = opened(identifier, fill)
    other = opened(identifier, None)
    assert other.is_complete() and other.data.tobytes() == b"".join(map(piece, range(3)))
    other.data[0] = 9
    assert image.data[0] == 9
    del image, other
    # With its last user it is gone, and can be made anew.
    with pytest.raises(LookupError):
        opened(identifier, None)


def test_a_death_gives_the_lock_to_one_that_goes_on(identifier):
    ready = os.pipe()
    filler = os.fork()
    if filler == 0:

        def stop(image):
            image.store(1, piece(1))
            if os.fork() == 0:
                # A child of the filler, which outlives it: the lock is not its.
                os.write(ready[1], b"x")
                signal.pause()
            signal.pause()

        opened(identifier, stop)
    group, todo = [], []
    try:
        assert os.read(ready[0], 1) == b"x"
        group = [int(pid) for pid in children_of(filler)]

        def go_on(image):
            todo.append(image.missing())
            fill(image)

        found = []
        waiter = threading.Thread(target=lambda: found.append(opened(identifier, go_on)))
        waiter.start()
        # (It has found the image, so that it stays when the filler dies.)
        conftest.eventually(lambda: is_waiting(waiter), PATIENCE)
        assert not todo
        os.kill(filler, signal.SIGKILL)
        waiter.join(PATIENCE)
        assert todo == [[0, 2]]
        assert found[0].data.tobytes() == b"".join(map(piece, range(3)))
        del found[:]
    finally:
        for pid in [filler] + group:
            os.kill(pid, signal.SIGKILL)
        os.waitpid(filler, 0)
        for each in ready:
            os.close(each)
    conftest.eventually(lambda: not any(map(conftest.is_running, group)))
    snp.clean()


def children_of(pid):
    with open("/proc/{0}/task/{0}/children".format(pid)) as file:
        return file.read().split()


def is_waiting(thread):
    """Tell whether a thread has looked at the image, and waits for the lock."""
    frame = sys._current_frames().get(thread.ident)
    while frame is not None:
        if frame.f_code.co_name == "_wait":
            return frame.f_locals.get("image") is not None
        frame = frame.f_back
    return False


def test_who_waits_is_told_who_fills(identifier):
    begun, end = threading.Event(), threading.Event()

    def wait(image):
        image.store(0, piece(0))
        begun.set()
        end.wait()
        fill(image)

    thread = threading.Thread(target=opened, args=(identifier, wait), kwargs={"name": "the filler"})
    thread.start()
    try:
        assert begun.wait(PATIENCE)
        told = r"the filler \(PID {}\).* no progress .* 1 pieces".format(os.getpid())
        with pytest.raises(TimeoutError, match=told):
            opened(identifier, fill, seconds=0.2)
        with pytest.raises(KeyError, match="ended"):
            host_memory.open_image(
                identifier, NBYTES, fill, "", PATIENCE, lambda: {}["ended"], lambda image: None
            )
    finally:
        end.set()
        thread.join(PATIENCE)


def test_another_version_s_image_is_refused(identifier):
    image = opened(identifier, fill)
    image.memory[0] = 0
    with pytest.raises(RuntimeError, match="another version"):
        opened(identifier, fill)


def test_buffers_lie_behind_each_other():
    assert offsets_of([10, 0, 64, 65]) == ([0, 64, 64, 128], 193)
    image = Image(np.ones(size_of(NBYTES), "u1"), NBYTES)
    image.begin()
    assert (image.pieces, image.count(), image.missing()) == (3, 0, [0, 1, 2])
    image.store(2, piece(2))
    assert image.has(2) and not image.is_complete() and image.data[-5:].tobytes() == piece(2)
    assert Image(np.ones(size_of(0), "u1"), 0).is_complete()


def test_threads_wait_for_one_another_and_for_the_end():
    """Of threads that need a copy at once, one fetches it; all learn of its error."""
    mine = copies.Copies()
    share = copies.Share(os.urandom(16).hex(), NBYTES, False, "the share")

    class Member:
        timeout, calls = PATIENCE, []
        wanted, let_go = threading.Event(), threading.Event()

        def is_here(self):
            return False

        runs_this = is_here

        def knows(self, share):
            return True

        def name_here(self):
            return "here"

        def has_copy(self, share):
            pass

        def fill(self, share, image):
            self.calls.append(image)
            self.wanted.set()
            assert self.let_go.wait(PATIENCE)
            if len(self.calls) == 1:
                raise OSError("lost")
            fill(image)

    mine.members = [Member()]
    found = []

    def get():
        try:
            found.append(mine.get(share))
        except OSError as error:
            found.append(str(error))

    for round in (1, 2):
        threads = [threading.Thread(target=get) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert Member.wanted.wait(PATIENCE)
        if round == 1:
            conftest.eventually(lambda: sum(map(in_result, threads)) == 3, PATIENCE)
        Member.let_go.set()
        for thread in threads:
            thread.join(PATIENCE)
        if round == 1:
            assert found == ["lost"] * 4 and len(Member.calls) == 1
            del found[:]
    assert len(Member.calls) == 2 and all(each is found[0] for each in found)
    mine.end(share.id)
    del found[:], Member.calls[:]
    with pytest.raises(snp.StaleHandleError, match="the share has ended"):
        mine.get(share)
    assert not [name for name in os.listdir("/dev/shm") if share.id in name]


def test_who_is_not_told_of_the_end_keeps_nothing():
    """A forked child, as any process without a worker: the memory goes with what uses it."""
    owner = copies.Share(os.urandom(16).hex(), 8, False, "the share")

    def in_shm():
        return [name for name in os.listdir("/dev/shm") if owner.id in name]

    def write(image):
        image.data[...] = 1

    copies.here.put(owner, write)
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        data = array.PerHostArray(owner.id, (8,), "u1", 0)
        ok = copies.here.open_image(owner.id) is None and data.sum() == 8
        ok = ok and copies.here.open_image(owner.id) is None and data[0] == 1
        del data
        os.write(ready[1], b"y" if ok else b"n")
        os.read(go[0], 1)
        os._exit(0)
    try:
        assert os.read(ready[0], 1) == b"y"
        assert in_shm()
        copies.here.end(owner.id)
        # (The child lives.)
        conftest.eventually(lambda: not in_shm(), PATIENCE, in_shm)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for each in ready + go:
            os.close(each)


def in_result(thread):
    frame = sys._current_frames().get(thread.ident)
    while frame is not None and frame.f_code.co_name != "result":
        frame = frame.f_back
    return frame is not None


def test_the_lock_is_taken_between_bytes_and_flag(identifier):
    """See `image`: there a processor that reorders could show a flag too early."""
    seen = []

    def fill_in_order(image):
        order = image.order

        def look():
            seen.append((image.data.any(), image.count()))
            order()

        image.order = look
        image.store(0, piece(0))
        image.data[PIECE:] = 2
        image.complete()

    image = opened(identifier, fill_in_order)
    assert seen == [(True, 0), (True, 1)] and image.is_complete() and image.order is None


def test_the_tree_of_sources():
    """Random workers come, fail and go: see the last property above."""
    chance = random.Random(3)
    for _ in range(200):
        share, there = scheduler.Known("client"), []
        for step in range(60):
            if not there or chance.random() < 0.5:
                worker = "worker %d" % step
                there.append(worker)
                source = share.source_for(worker, [], worker[:-1])
                others = [each for each in there if each != worker]
                assert (source in others) if others else source == scheduler.CLIENT
            else:
                worker = chance.choice(there)
                act = chance.choice(["again", "complete", "leave"])
                if act == "complete":
                    share.complete(worker, worker[:-1])
                elif act == "leave":
                    there.remove(worker)
                    share.remove(worker)
                elif not share.has[worker]:
                    failed = [share.sources.get(worker, "")]
                    source = share.source_for(worker, failed, worker[:-1])
                    assert source not in failed + [worker] or failed == [""]
            for worker in there:
                way = [worker]
                while share.sources.get(way[-1], scheduler.CLIENT) != scheduler.CLIENT:
                    way.append(share.sources[way[-1]])
                    assert len(way) <= len(there) + 60 and way[-1] != worker
    share = scheduler.Known("client")
    sources = [share.source_for("worker %d" % number, [], "host %d" % number) for number in range(15)]
    assert sources.count(scheduler.CLIENT) == 1
    assert max(sources.count(each) for each in sources if each) == scheduler.CHILDREN


def test_workers_of_a_host_are_one_source():
    share, first = scheduler.Known("client"), ["first %d" % number for number in range(8)]
    for worker in first:
        share.complete(worker, "first")
    sources = [share.source_for("host %d" % number, [], "host %d" % number) for number in range(15)]
    assert sum(each in first for each in sources) == scheduler.CHILDREN
    assert max(sources.count(each) for each in sources) <= scheduler.CHILDREN
    # Another worker of a host is tried when one has failed there.
    share = scheduler.Known("client")
    for worker in first[:2]:
        share.complete(worker, "first")
    assert share.source_for("another", first[:1], "another") == first[1]


class FakeScheduler:
    """A scheduler with workers that answer, as far as `Registry` looks at it."""

    def __init__(self, answers):
        self.workers, self.answers, self.sent = dict(answers), answers, []

    def rpc(self, address):
        return self.Worker(self.answers[address])

    class Worker:
        def __init__(self, answer):
            self.answer = answer

        async def shared_numpy_fill(self, share):
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer


def test_errors_of_workers_that_are_there_are_told():
    registry = scheduler.Registry()
    answers = {"left": OSError("gone"), "lost": OSError("no way"), "wrong": KeyError("x"), "good": None}
    registry.scheduler = FakeScheduler(answers)
    del registry.scheduler.workers["left"]
    workers = registry.scheduler.workers

    class Left(list):
        """The workers when they are asked, and after that."""

        def __contains__(self, address):
            return address in workers

    registry.scheduler.workers = Left(answers)
    errors = [pickle.loads(each) for each in asyncio.run(registry.fill_all(b""))]
    assert [repr(each) for each in errors] == ["OSError('no way')", "KeyError('x')"]


def test_a_worker_that_has_left_gets_no_source():
    registry, share = scheduler.Registry(), scheduler.Known("client")
    registry.scheduler, registry.shares = FakeScheduler({"there": None}), {"id": share}
    share.complete("there", "host")
    assert asyncio.run(registry.source("id", "left", [], "another")) is None
    assert not share.sources and "left" not in share.has
    assert asyncio.run(registry.known("id", "left")) and not share.users
    assert asyncio.run(registry.known("id", "there")) and share.users == {"there"}


class Sources:
    """The worker that fills, with sources that fail."""

    address, timeout = "here", 9

    def __init__(self, *sources):
        self.sources, self.asked, self.counts = list(sources), [], {}

    async def source(self, share, failed):
        self.asked.append(list(failed))
        return self.sources.pop(0) if self.sources else ""

    async def ask(self, address, operation, **wanted):
        number = wanted["piece"]
        if address == "empty":
            return None
        if address == "dying" and number:
            raise OSError("dead")
        if address == "wrong":
            raise KeyError("what its handler raises")
        if address == "stopped":
            await asyncio.sleep(PATIENCE)
        return piece(number)

    def count(self, name, nbytes):
        self.counts[name] = self.counts.get(name, 0) + nbytes


def filled(member, client=None):
    """Fill an image from sources; return it."""
    image = Image(np.ones(size_of(NBYTES), "u1"), NBYTES)
    image.begin()
    share = copies.Share(os.urandom(16).hex(), NBYTES, False, "the share")

    async def run():
        filling = filling_module.Filling(member, share, image)
        beside = asyncio.ensure_future(client(filling)) if client else None
        await filling.run()
        if beside:
            await beside

    asyncio.run(run())
    return image


async def push(filling):
    """Send pieces as a client does, once it is wanted."""
    wanted = None
    while wanted is None:
        await asyncio.sleep(0.001)
        wanted = filling.take(None, None) if len(filling.member.asked) > 4 else None
    while wanted is not None:
        wanted = filling.take(wanted, piece(wanted))


def test_sources_that_fail_are_left_for_others():
    member = Sources("empty", "wrong", "dying", "stopped")
    image = filled(member, push)
    assert image.data.tobytes() == b"".join(map(piece, range(3)))
    # When bytes have come, those that failed before are asked again.
    wanted = [[], ["empty"], ["empty", "wrong"], ["dying"], ["dying", "stopped"]]
    assert member.asked[:5] == wanted
    # What the one that died had given was not fetched again.
    assert sum(member.counts.values()) == NBYTES
    assert member.counts["bytes_from_workers"] == PIECE


def test_nobody_gives_anything(monkeypatch):
    monkeypatch.setattr(filling_module, "_REMINDER", 0.05)
    told = "the share cannot be copied to worker here: no byte has come for 0.2 s, 0 of 3 pieces .*dying: OSError"
    member = Sources("dying")
    member.ask, member.timeout = lambda *arguments, **options: fails(), 0.2
    with pytest.raises(TimeoutError, match=told):
        filled(member)

    async def ended(share, failed):
        return None

    member.source = ended
    with pytest.raises(snp.StaleHandleError, match="the share has ended"):
        filled(member)


async def fails():
    raise OSError("no way")
