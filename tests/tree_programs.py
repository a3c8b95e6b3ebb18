"""Programs of process trees, run by `test_tracker.py` in processes of their own.

    python tests/tree_programs.py PROGRAM METHOD PREFIX

Each prints what the test asks for, one word a line. Segments have names that
start with PREFIX, or automatic ones, which are printed.
"""

import concurrent.futures
import itertools
import multiprocessing
import os
import signal
import sys
import time

from shared_numpy import resource_tracker, shared_memory
from shared_numpy.shared_memory import ShareableList, SharedMemory


def say(*words):
    """Print whole lines, also from several processes at once."""
    os.write(1, ("\n".join(map(str, words)) + "\n").encode())


def tracker():
    """Identify the tracker that this process uses: the channel's inode."""
    return os.fstat(resource_tracker.getfd()).st_ino


def attach_and_write(name):
    shm = SharedMemory(name)
    shm.buf[0] += 1
    shm.close()


def write_object(shm):
    shm.buf[0] += 1
    shm.close()


def make(name, connection):
    shm = SharedMemory(name, create=True, size=10)
    shm.buf[0] = 42
    shm.close()
    connection.send(tracker())


def nest(depth, connection):
    connection.send(tracker())
    if depth:
        child = multiprocessing.Process(target=nest, args=(depth - 1, connection))
        child.start()
        child.join()


def use_semaphores(lock, connection):
    with lock:
        own = multiprocessing.Lock()
        with own:
            connection.send(tracker())


def make_and_hang(name, connection):
    shm = SharedMemory(name, create=True, size=10)
    shm.buf[0] = 1
    automatic = SharedMemory(create=True, size=10)
    connection.send((os.getpid(), automatic.name))
    time.sleep(600)


def churn(connection, prefix):
    """Make and unlink segments as fast as it goes."""
    name = "/%s%d_" % (prefix, os.getpid())
    numbers = itertools.count()
    shared_memory._make_filename = lambda: name + str(next(numbers))
    connection.send(os.getpid())
    while True:
        shm = SharedMemory(create=True, size=4096)
        shm.close()
        shm.unlink()


def run(target, *args):
    process = multiprocessing.Process(target=target, args=args)
    process.start()
    process.join(60)
    assert process.exitcode == 0, process.exitcode


def pipe():
    return multiprocessing.Pipe(duplex=False)


def program_attach(prefix):
    shm = SharedMemory(prefix + "a", create=True, size=10)
    for _ in range(3):
        run(attach_and_write, shm.name)
        run(write_object, shm)
    say(shm.buf[0])
    shm.close()
    shm.unlink()


def program_child_makes(prefix):
    """The first of the tree to make a segment is a child, which then exits."""
    reader, writer = pipe()
    run(make, prefix + "a", writer)
    one = reader.recv()
    run(make, prefix + "b", writer)
    assert one == reader.recv() == tracker()
    time.sleep(0.3)
    for suffix in "ab":
        shm = SharedMemory(prefix + suffix)
        say(shm.buf[0])
        shm.close()
        shm.unlink()


def program_nested(prefix):
    reader, writer = pipe()
    run(nest, 3, writer)
    found = {reader.recv() for _ in range(4)} | {tracker()}
    say(len(found))


def program_pool(prefix):
    shm = SharedMemory(prefix + "a", create=True, size=10)
    with multiprocessing.Pool(2, maxtasksperchild=1) as pool:
        pool.map(attach_and_write, [shm.name] * 6, chunksize=1)
    say(shm.buf[0] > 0)
    shm.close()
    shm.unlink()


def program_executor(prefix):
    shm = SharedMemory(prefix + "a", create=True, size=10)
    with concurrent.futures.ProcessPoolExecutor(2) as executor:
        list(executor.map(attach_and_write, [shm.name] * 6))
    time.sleep(0.3)
    say(shm.buf[0] > 0)
    shm.close()
    shm.unlink()


def program_semaphores(prefix):
    lock = multiprocessing.Lock()
    reader, writer = pipe()
    for _ in range(2):
        run(use_semaphores, lock, writer)
        assert reader.recv() == tracker()
    say("done")


def program_list(prefix):
    sl = ShareableList([1, "two"], name=prefix + "a")
    run(change_list, sl)
    say(sl[1])
    sl.shm.close()
    sl.shm.unlink()


def change_list(sl):
    sl[1] = "2"
    sl.shm.close()


def program_kill_child(prefix):
    """What a killed child made stays until the tree ends, as everything does."""
    reader, writer = pipe()
    child = multiprocessing.Process(target=make_and_hang, args=(prefix + "a", writer))
    child.start()
    pid, automatic = reader.recv()
    os.kill(pid, signal.SIGKILL)
    child.join()
    time.sleep(0.3)
    for name in (prefix + "a", automatic):
        shm = SharedMemory(name)
        shm.close()
        shm.unlink()
    say("kept")


def program_kill_tree(prefix):
    """Print all pids and names and wait to be killed."""
    reader, writer = pipe()
    own = SharedMemory(prefix + "own", create=True, size=10)
    pids, names = [os.getpid()], [own.name]
    for number in range(3):
        child = multiprocessing.Process(
            target=make_and_hang, args=(prefix + str(number), writer)
        )
        child.start()
        pid, automatic = reader.recv()
        pids.append(pid)
        names += [prefix + str(number), automatic]
    say(" ".join(map(str, pids)), " ".join(names))
    time.sleep(600)


def program_churn(prefix):
    """Print all pids and wait to be killed, while children make segments."""
    SharedMemory(create=True, size=1).unlink()
    reader, writer = pipe()
    pids = [os.getpid()]
    for _ in range(3):
        multiprocessing.Process(target=churn, args=(writer, prefix)).start()
        pids.append(reader.recv())
    say(" ".join(map(str, pids)))
    time.sleep(600)


def program_kill_tracker(prefix):
    """A killed tracker is started again, and what is made then is safe."""
    import warnings

    shm = SharedMemory(prefix + "a", create=True, size=10)
    os.kill(resource_tracker._resource_tracker._pid, signal.SIGKILL)
    time.sleep(0.3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        other = SharedMemory(prefix + "b", create=True, size=10)
        reader, writer = pipe()
        run(make, prefix + "c", writer)
        assert reader.recv() == tracker()
    say(len(caught), "died unexpectedly" in str(caught[0].message))
    resource_tracker.register(shm._name, "shared_memory")
    for each in (shm, other, SharedMemory(prefix + "c")):
        each.close()
        each.unlink()


def program_leak(prefix):
    """End without unlinking: the tracker does it, and says so."""
    SharedMemory(prefix + "a", create=True, size=10).close()
    SharedMemory(prefix + "b", create=True, size=10, track=False).close()


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[2])
    if sys.version_info >= (3, 8):
        resource_tracker.ensure_running()  # Ours needs no such help.
    globals()["program_" + sys.argv[1]](sys.argv[3])
