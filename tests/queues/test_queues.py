"""Queues: messages arrive once and in order, and leave nothing, whoever dies.

What holds: what was put comes out once, in the order of each process that put it; an
error of ``put`` is raised by it and changes nothing; what nobody took is freed with the
queue; a process that is killed at any point stops no other and leaves no memory. All of
it holds of rings and of pipes.
"""

import functools
import pickle
import queue
import sys
import threading
import time
from contextlib import suppress

import numpy as np
import pytest
from conftest import MORE, NOTHING_LEFT, ROOT, counts, run_command, run_program, run_python

import shared_numpy as snp
from shared_numpy import _core
from shared_numpy._channels import pipe_channel
from shared_numpy._core import Arena

METHODS = ["fork", "spawn", "forkserver"]
QUEUES = [snp.SimpleQueue, snp.Queue, snp.JoinableQueue]


PIPE = pytest.param("pipe", marks=pytest.mark.slow)


@pytest.fixture(autouse=True, params=["ring", PIPE])
def transport(request, monkeypatch):
    """What the queues are; pipes where all tests are run."""
    monkeypatch.setenv("SHARED_NUMPY_RING", "01"[request.param == "ring"])
    kind = {"ring": _core.Ring, "pipe": pipe_channel.Channel}[request.param]
    assert type(snp.Queue()._channel) is kind
    return request.param


@pytest.fixture(autouse=True)
def nothing_stays(transport):
    before = counts()  # What a failed test keeps, others need not answer for.
    yield
    end = time.monotonic() + 5
    # (The thread that feeds a pipe may be about to end.)
    while transport == "pipe" and counts() != before and time.monotonic() < end:
        time.sleep(0.01)
    assert counts() == before


@pytest.mark.parametrize("kind", QUEUES)
def test_what_is_put_comes_out_in_order(kind):
    q = kind()
    shared = snp.array([1.0, 2.0])
    things = [None, 1, "x" * 10000, {"a": [shared, (np.arange(5000), b"y")]}, shared[::-1]]
    for thing in things:
        q.put(thing)
    back = [q.get() for _ in things]
    assert back[:3] == things[:3]
    assert (back[3]["a"][1][0] == np.arange(5000)).all()
    back[4][0] = 7
    assert shared[1] == 7 and back[3]["a"][0][1] == 7
    assert q.empty()


def test_the_receiver_s_copy_is_its_own():
    q = snp.Queue()
    plain = np.zeros(100_000)
    q.put(plain)
    plain[0] = 5
    back = q.get()
    assert type(back) is np.ndarray and back[0] == 0 and back.flags.writeable
    back[1] = 6
    # Nor is it sent by reference from there.
    q.put(back)
    back[2] = 7
    again = q.get()
    assert again[1] == 6 and again[2] == 0 and plain[1] == 0


def test_an_array_can_go_after_put():
    q = snp.Queue()
    a = snp.array([1, 2, 3])
    q.put(a)
    a.close()
    a.unlink()
    del a
    assert (q.get() == [1, 2, 3]).all()


@pytest.mark.parametrize("kind", QUEUES)
def test_errors_of_put_change_nothing(kind):
    q = kind(2) if kind is not snp.SimpleQueue else kind()
    for _ in range(5):
        with pytest.raises(Exception, match="pickle|local"):
            q.put([snp.ones(3), np.zeros(10**5), lambda: 0])
    assert counts() == (1, 0) and q.empty()
    q.put(1)
    q.put(2)
    assert (q.get(), q.get()) == (1, 2)
    if kind is snp.JoinableQueue:
        q.task_done()
        q.task_done()
        q.join()


def test_a_full_arena_changes_nothing(monkeypatch):
    q = snp.Queue(1)
    handles = []

    class Full:
        def put(self, stream, those, timeout):
            handles.extend(those)
            raise snp.ArenaFullError("full")

    with monkeypatch.context() as patch:
        patch.setattr(q, "_channel", Full())
        with pytest.raises(snp.ArenaFullError):
            q.put(["x" * 10000, snp.ones(2), np.ones(10000)])
    assert len(handles) == 2 and counts() == (1, 0)
    q.put("x" * 10000, False)
    assert len(q.get()) == 10000


def test_a_function_without_a_name_is_refused_with_what_helps():
    q = snp.Queue()
    for send in (q.put, snp.send, lambda thing: q.put_many([1, thing])):
        for thing in (lambda: 1, [snp.ones(2), lambda: 1]):
            with pytest.raises((AttributeError, pickle.PicklingError), match="top level of a file"):
                send(thing)
    assert q.empty()


def test_a_maxsize_is_a_number():
    for wrong in ("4", 2.5):
        with pytest.raises(TypeError, match="maxsize must be an integer, not %r" % (wrong,)):
            snp.Queue(wrong)
    assert snp.Queue(np.int64(2)).put_many(range(3), False) == 2


def test_bounds_and_times():
    q = snp.Queue(2)
    q.put(1)
    assert not q.full() and q.qsize() == 1
    q.put(2)
    assert q.full() and q.qsize() == 2 and not q.empty()
    held = r": it holds 2 objects \(maxsize is 2\)$"
    for call in (lambda: q.put(3, False), lambda: q.put_nowait(3)):
        with pytest.raises(queue.Full, match="the queue had no room" + held):
            call()
    with pytest.raises(queue.Full, match="no room within 0.01 s" + held):
        q.put(3, timeout=0.01)
    assert (q.get(), q.get_nowait()) == (1, 2) and q.empty()
    now = [lambda: q.get(False), q.get_nowait, lambda: q.get_many(3, False)]
    later = [lambda: q.get(timeout=0.01), lambda: q.get_many(3, timeout=0.01)]
    for calls, within in (now, ""), (later, " within 0.01 s"):
        for call in calls:
            with pytest.raises(queue.Empty) as raised:
                call()
            assert str(raised.value) == "no object came%s: the queue is empty" % within
    start = time.monotonic()
    with pytest.raises(queue.Empty):
        q.get(True, 0.2)
    assert time.monotonic() - start >= 0.2
    assert q.qsize() == 0


@pytest.mark.parametrize("kind", QUEUES)
def test_what_is_closed(kind):
    q = kind()
    q.put(snp.ones(2))
    q.close()
    q.close()
    text = "^this {} is closed in this process$".format(type(q).__name__)
    for call in (lambda: q.put(1), q.get):
        with pytest.raises(ValueError, match=text):
            call()
    if kind is not snp.SimpleQueue:
        q.join_thread()


@pytest.mark.parametrize("kind", QUEUES)
def test_closing_frees_what_nobody_took(kind):
    q = kind()
    before = counts()
    q.put([snp.ones(3), np.ones(10**5)])
    q.close()
    assert counts() == (before[0] - 1, 0)
    del q


def mend(q):
    """Give back the lock that the interpreter has kept.

    Before 3.10 an exception of a signal's handler can come between the end of a ``with``
    statement's body and the lock's release: with a bare lock in a loop, one in fifty.
    """
    if sys.version_info < (3, 10):
        while isinstance(q._channel, pipe_channel.Channel) and q._channel.feeder.lock._is_owned():
            q._channel.feeder.lock.release()


@pytest.mark.parametrize("transport", [PIPE], indirect=True)
def test_a_lock_that_was_kept_does_not_keep_the_program():
    code = """
import shared_numpy as snp
q = snp.Queue()
for i in range(100):
    q.put(bytes(3000))
q._channel.feeder.lock.acquire()  # As the interpreter may have left it.
import threading
reader = threading.Timer(0.3, lambda: [q.get() for _ in range(100)])
reader.daemon = True
reader.start()
"""
    run_python(code, timeout=30)


def test_interruptions_of_a_queue_that_is_full(alarm):
    """The feeder's thread is one, and what waits is sent once."""
    rng = np.random.RandomState(9)
    for _ in range(100):
        q = snp.JoinableQueue()
        for i in range(64):
            q.put(i)
        sent = [
            i
            for i in range(64, 70)
            if alarm(rng.randint(20, 500) * 1e-6, functools.partial(q.put, i))
        ]
        mend(q)
        got = [q.get(timeout=10) for _ in range(64 + len(sent))]
        while True:
            try:
                got.append(q.get(timeout=0.02))
            except queue.Empty:
                break
        assert len(set(got)) == len(got) and set(got) >= set(sent)
        for _ in got:
            q.task_done()
        q.join()
        q.close()
        q.join_thread()


def test_join_thread_wants_a_closed_queue():
    q = snp.Queue()
    with pytest.raises(ValueError, match="close"):
        q.join_thread()


@pytest.mark.parametrize("kind", QUEUES)
def test_only_children_get_it(kind):
    with pytest.raises(RuntimeError, match="inheritance"):
        pickle.dumps(kind())


def test_what_nobody_took_ends_with_the_queue():
    for kind in QUEUES:
        q = kind()
        for _ in range(20):
            q.put([snp.ones(3), np.zeros(10**4)])
        assert counts() == (1 + 20 * 3, 20 * 3)
        del q
        assert counts() == (0, 0)


def test_cancel_unreceived_leaves_what_is_in_a_queue():
    q = snp.Queue()
    q.put(snp.ones(3))
    Arena.default().cancel_unreceived(older_than=0)
    assert q.get().sum() == 3


def test_more_than_the_pipe_holds():
    q = snp.Queue()
    for i in range(3000):
        q.put((i, snp.full(2, i)) if i % 7 == 0 else i)
    assert q.qsize() == 3000
    for i in range(3000):
        thing = q.get()
        assert thing == i if i % 7 else (thing[0] == i and thing[1][1] == i)
    q.close()
    q.join_thread()


def test_a_simple_queue_waits_for_room():
    q = snp.SimpleQueue()
    seen = []
    thread = threading.Thread(target=lambda: seen.extend(q.get() for _ in range(5000)))
    thread.start()
    for i in range(5000):
        q.put(i)
    thread.join()
    assert seen == list(range(5000))


def test_threads():
    q = snp.Queue(50)
    seen = [[] for _ in range(4)]

    def produce(who):
        for i in range(500):
            q.put((who, i, snp.full(1, i)))

    def consume(mine):
        while True:
            thing = q.get()
            if thing is None:
                break
            assert thing[2][0] == thing[1]
            mine.append(thing[:2])

    consumers = [threading.Thread(target=consume, args=(mine,)) for mine in seen]
    producers = [threading.Thread(target=produce, args=(who,)) for who in range(4)]
    for thread in consumers + producers:
        thread.start()
    for thread in producers:
        thread.join()
    for _ in consumers:
        q.put(None)
    for thread in consumers:
        thread.join()
    everything = sorted(each for mine in seen for each in mine)
    assert everything == [(who, i) for who in range(4) for i in range(500)]
    for mine in seen:
        for who in range(4):
            mine_of_one = [i for w, i in mine if w == who]
            assert mine_of_one == sorted(mine_of_one)


def test_an_interrupted_put_and_get(alarm):
    q = snp.Queue(1)
    for call in (q.get, lambda: (q.put(1), q.put(snp.ones(2)))):
        assert not alarm(0.1, call)
    assert q.get() == 1 and q.empty()
    q.put(2, timeout=1)
    assert q.get(timeout=1) == 2


def test_random_interruptions(alarm):
    """A signal's exception at any point: the message is in or not, and nothing stays."""
    q = snp.Queue()
    rng = np.random.RandomState(3)
    put = []

    def work():
        for _ in range(20):
            q.put([snp.ones(2), np.zeros(3000)])
            put.append(1)

    got = 0
    for _ in range(300):
        alarm(rng.randint(1, 400) * 1e-6, work)
        mend(q)
        while True:
            try:
                q.get(False)
                got += 1
            except queue.Empty:
                break
    # One that was interrupted may have been sent.
    assert len(put) <= got <= len(put) + 300
    del q


def test_a_joinable_queue():
    q = snp.JoinableQueue()
    with pytest.raises(ValueError, match="task_done"):
        q.task_done()
    done = []

    def work():
        for _ in range(20):
            q.get()
            done.append(1)
            q.task_done()

    for i in range(20):
        q.put(i)
    thread = threading.Thread(target=work)
    thread.start()
    q.join()
    assert len(done) == 20
    thread.join()


def test_random_interruptions_keep_the_places(alarm):
    """Of a bounded queue: none is lost, and none is there twice."""
    q = snp.JoinableQueue(3)
    rng = np.random.RandomState(5)
    for _ in range(500):
        for call in (lambda: q.put(np.zeros(3000), False), lambda: q.get(False)):
            with suppress(queue.Empty, queue.Full):
                alarm(rng.randint(1, 300) * 1e-6, call)
    mend(q)
    while True:
        try:
            q.get(False)
        except queue.Empty:
            break
    assert q.qsize() == 0
    for i in range(3):
        q.put(i, False)
    assert q.full()
    with pytest.raises(queue.Full):
        q.put(3, False)
    assert [q.get() for _ in range(3)] == [0, 1, 2]


@pytest.mark.parametrize("transport", [PIPE], indirect=True)
def test_a_thread_that_cannot_be_started(monkeypatch):
    q = snp.Queue()
    for i in range(64):
        q.put(i)

    def refuse(*arguments):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(pipe_channel._thread, "start_new_thread", refuse)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="thread"):
            q.put(snp.ones(3))
    monkeypatch.undo()
    assert q.qsize() == 64 and counts() == (1, 0)
    q.put(64)
    assert [q.get() for _ in range(65)] == list(range(65))


@pytest.mark.parametrize("transport", [PIPE], indirect=True)
def test_join_does_not_wait_for_what_waits_for_a_place():
    q = snp.JoinableQueue(1)
    q.put(1)
    q.get()
    q._channel._free_slots.acquire()  # As if somebody else had put.
    thread = threading.Thread(target=lambda: pytest.raises(queue.Full, q.put, 2, timeout=0.5))
    thread.start()
    time.sleep(0.1)
    start = time.monotonic()
    q.task_done()
    q.join()
    assert time.monotonic() - start < 0.3
    thread.join()
    q._channel._free_slots.release()


def test_closing_while_others_use_it():
    for kind in QUEUES:
        for _ in range(50):
            q = kind()
            errors = []

            def use():
                try:
                    while True:
                        q.put(snp.ones(2))
                        q.get() if kind is snp.SimpleQueue else q.get(timeout=1)
                except ValueError as error:
                    errors.append(str(error))

            thread = threading.Thread(target=use)
            thread.start()
            time.sleep(0.0005)
            q.close()
            thread.join()
            assert "closed" in errors[0]
    del q


# Processes.

MANY = """
def produce(q, who, count):
    for i in range(count):
        q.put((who, i, snp.full(3, i), np.full(3000, i)))

def consume(q, results):
    while True:
        thing = q.get()
        if thing is None:
            break
        who, i, shared, plain = thing
        assert (shared == i).all() and (plain == i).all()
        results.put((who, i))

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    q, results = snp.Queue(20), snp.Queue()
    start = lambda target, *args: multiprocessing.Process(target=target, args=args)
    consumers = [start(consume, q, results) for _ in range(3)]
    producers = [start(produce, q, who, 100) for who in range(3)]
    for process in consumers + producers:
        process.start()
    for process in producers:
        process.join()
    for _ in consumers:
        q.put(None)
    seen = sorted(results.get() for _ in range(300))
    for process in consumers + producers:
        process.join()
        assert process.exitcode == 0
    assert seen == [(who, i) for who in range(3) for i in range(100)]
    del q, results, process, consumers, producers
""" + NOTHING_LEFT


@pytest.mark.parametrize("method", METHODS)
def test_many_processes(tmp_path, method):
    run_program(tmp_path, MANY, method)


FORKS = """
def produce(q, depth):
    from multiprocessing import util
    if depth:
        process = multiprocessing.get_context("fork").Process(target=produce, args=(q, depth - 1))
        process.start()
        process.join()
        assert process.exitcode == 0
    else:
        for i in range(500):
            q.put(i)
        assert len(util._afterfork_registry) < 20

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    for depth in (1, 2, 6):
        q = snp.Queue()
        process = multiprocessing.Process(target=produce, args=(q, depth))
        process.start()
        while q.qsize() < 500:
            time.sleep(0.01)
        assert [q.get(timeout=20) for _ in range(500)] == list(range(500))
        process.join()
        assert process.exitcode == 0
        del q, process
""" + NOTHING_LEFT


@pytest.mark.parametrize("method", METHODS)
def test_children_of_children(tmp_path, method):
    run_program(tmp_path, FORKS, method)


FORGOTTEN = """
def consume(q, seen, gone):
    # (Before, the semaphores of `multiprocessing` must not go.)
    seen.put("running")
    assert gone.wait(20)
    seen.put([q.get(timeout=20)[0] for _ in range(300)])

def fill(seen, gone):
    q = snp.Queue()
    process = multiprocessing.Process(target=consume, args=(q, seen, gone))
    process.start()
    assert seen.get(timeout=20) == "running"
    for i in range(300):
        q.put((i, snp.full(2, i), np.zeros(3000)))
    return process

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    seen, gone = snp.Queue(), multiprocessing.Event()
    process = fill(seen, gone)
    gc.collect()  # The queue is gone here, and all that was put waits.
    gone.set()
    assert seen.get(timeout=20) == list(range(300))
    process.join()
    assert process.exitcode == 0
    del seen, gone, process
""" + NOTHING_LEFT


@pytest.mark.parametrize("method", METHODS)
def test_a_queue_that_is_forgotten_sends_what_waits(tmp_path, method):
    run_program(tmp_path, FORGOTTEN, method)


FLUSH = """
def produce(q, waits):
    if not waits:
        q.cancel_join_thread()
    for i in range(500):
        q.put((i, snp.full(1, i)))

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    for waits in (True, False):
        q = snp.Queue()
        process = multiprocessing.Process(target=produce, args=(q, waits))
        process.start()
        if waits:
            while q.qsize() < 500:
                time.sleep(0.01)
            assert [q.get()[0] for _ in range(500)] == list(range(500))
        process.join()
        assert process.exitcode == 0
        if not waits:
            assert q.qsize() == 500 and q.get()[0] == 0
        del q, process
""" + NOTHING_LEFT


@pytest.mark.parametrize("method", METHODS)
def test_a_process_sends_what_waits_before_it_ends(tmp_path, method):
    run_program(tmp_path, FLUSH, method)


KILLED = """
def consume(q, taken):
    while True:
        q.get()
        taken.put(os.getpid())

def hold(q, ready):
    mine = [q.get() for _ in range(3)]
    ready.set()
    time.sleep(1000)

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    q, taken = snp.Queue(), snp.Queue()
    workers = [multiprocessing.Process(target=consume, args=(q, taken)) for _ in range(3)]
    for worker in workers:
        worker.start()
    # One that waits in `get` dies, again and again; the others go on.
    for round in range(3):
        q.put(snp.ones(3))
        taken.get(timeout=20)
        victim = workers.pop()
        os.kill(victim.pid, signal.SIGKILL)
        victim.join()
        workers.append(multiprocessing.Process(target=consume, args=(q, taken)))
        workers[-1].start()
    for _ in range(20):
        q.put([snp.ones(3), np.zeros(10000)])
    for _ in range(20):
        taken.get(timeout=20)
    for worker in workers:
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
    # One that has taken messages dies with them.
    ready = multiprocessing.Event()
    holder = multiprocessing.Process(target=hold, args=(q, ready))
    holder.start()
    for _ in range(5):
        q.put(np.zeros(10000))
    ready.wait(20)
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    assert len(q.get(timeout=20)) == 10000
    del q, taken, workers, worker, victim, holder
""" + NOTHING_LEFT


@pytest.mark.parametrize("method", METHODS)
def test_killed_consumers(tmp_path, method):
    run_program(tmp_path, KILLED, method)


LOST = """
def put(q):
    q._channel._free_slots.acquire()
    os.kill(os.getpid(), signal.SIGKILL)

def get(q):
    q.put(1)
    q._channel._pipe.receive(None, [])
    os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    for die in (put, get):
        q = snp.Queue(2)
        for _ in range(2):
            process = multiprocessing.Process(target=die, args=(q,))
            process.start()
            process.join()
        assert (q.qsize(), q.empty(), q.full()) == (0, True, False)
        q.put(1, timeout=20)
        q.put_nowait(2)
        assert q.full()
        try:
            q.put_nowait(3)
        except queue.Full:
            pass
        else:
            raise AssertionError
        assert (q.get(), q.get(), q.qsize()) == (1, 2, 0)
    # It is not lost.
    channel = q._channel
    held = [channel._free_slots.acquire()]
    while channel._free_slots.get_value() < 2:
        assert q.qsize() == 0
        time.sleep(0.1)
    channel._note(held)
    assert channel._free_slots.get_value() == 2
    del q, process, channel
""" + NOTHING_LEFT


@pytest.mark.parametrize("transport", ["pipe"], indirect=True)
@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_a_killed_process_takes_no_place_with_it(tmp_path, method):
    run_program(tmp_path, LOST, method)


STORM = """
import queue as queues

def produce(q):
    i = 0
    while True:
        q.put((i, snp.full(2, i), np.full(3000, i)))
        i += 1

def consume(q):
    while True:
        i, shared, plain = q.get()
        assert (shared == i).all() and (plain == i).all()

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    rng = np.random.RandomState(int(sys.argv[2]) if len(sys.argv) > 2 else 11)
    q = snp.SimpleQueue()
    def start(target):
        process = multiprocessing.Process(target=target, args=(q,), daemon=True)
        process.start()
        return process
    workers = [[target, start(target)] for target in (produce, produce, consume, consume)]
    for _ in range(40):
        time.sleep(rng.random_sample() * 0.03)
        worker = workers[rng.randint(4)]
        os.kill(worker[1].pid, signal.SIGKILL)
        worker[1].join()
        worker[1] = start(worker[0])
    for _, process in workers:
        assert process.exitcode is None
    # It still works, end to end.
    before = Arena.default().stats()["received"]
    end = time.monotonic() + 20
    while Arena.default().stats()["received"] <= before:
        assert time.monotonic() < end
    for _, process in workers:
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    while True:
        if q.empty():
            break
        q.get()
    del q, workers, process, worker
    gc.collect()
    # What a producer had made and not sent ends half a minute later: not waited for.
    arena = Arena.default()
    arena.reap()
    stats = arena.stats()
    # (A message answers for its two arrays.)
    assert stats["handles"] <= 3 * stats["orphans"], stats
    arena.cancel_unreceived(0)
""" + NOTHING_LEFT


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_kills_under_load(tmp_path, method):
    run_program(tmp_path, STORM, method)


@pytest.mark.slow
def test_hundreds_of_thousands_of_small_messages():
    """Nothing grows: memory, descriptors, segments, blocks, handles."""
    command = [sys.executable, "benchmarks/many_messages.py", str(300000 * MORE)]
    process = run_command(command, timeout=500 * MORE, cwd=ROOT)
    assert process.returncode == 0, process
