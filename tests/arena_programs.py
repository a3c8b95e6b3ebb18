"""Programs of process trees over arenas, run by `test_arena_processes.py`.

    python tests/arena_programs.py PROGRAM METHOD [ARGUMENT ...]

Each checks itself and prints "arena NAME" for each arena that it meets. What is
printed comes in whole lines from several processes at once.
"""

import atexit
import concurrent.futures
import gc
import multiprocessing
import os
import random
import select
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np

import shared_numpy as snp
from shared_numpy._system import process_tree  # noqa: F401 (before any process is forked)
from shared_numpy._core import Arena, receive


def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def meet(arena):
    say("arena", arena.name)
    return arena


def default():
    return meet(Arena.default())


def pattern(seed, length):
    return np.arange(seed, seed + length, dtype="f8")


def make(seed, length=1000):
    """Make an array that anybody can check, and return its handle."""
    arena = default()
    array = arena.empty(length)
    array[:] = pattern(seed, length)
    return arena.send(array.base)


def check(handle, seed, length=1000):
    """Receive what `make` made; return the array."""
    block = receive(handle)
    meet(block.arena)
    array = block.array(length)
    assert (array == pattern(seed, length)).all()
    return array


def change(handle, seed):
    array = check(handle, seed)
    array += 1
    return os.getpid()


def assert_empty(arena):
    gc.collect()
    arena.reap()
    stats = arena.stats()
    assert (stats["blocks"], stats["handles"]) == (0, 0), stats
    assert arena.check() == []


def program_workers(count):
    """Each worker makes one array, returns it by handle, and ends."""
    with multiprocessing.Pool(2, maxtasksperchild=1) as pool:
        for seed, handle in enumerate(pool.imap(make, range(int(count)), chunksize=1)):
            check(handle, seed)
        pool.close()
        pool.join()
    assert_empty(default())


def program_forks(count):
    """Forked children change an inherited array, send one of their own, and end."""
    arena = default()
    shared = arena.empty(10)
    shared[:] = 0
    reader, writer = os.pipe()
    for seed in range(int(count)):
        pid = os.fork()
        if pid == 0:
            shared[seed % 10] += 1
            array = arena.empty(1000)
            array[:] = pattern(seed, 1000)
            os.write(writer, arena.send(array.base))
            if seed % 3 == 0:
                os._exit(0)
            del array
            process_tree.util._exit_function()  # As multiprocessing ends its children.
            os._exit(0)
        check(os.read(reader, 100), seed)
        assert os.waitpid(pid, 0)[1] == 0
    assert shared.sum() == int(count)
    assert arena.stats()["forks"] == int(count)
    del shared
    assert_empty(arena)


def program_without_work(count):
    """Children that never look at the arena cost nothing that lasts."""
    arena = default()
    kept = arena.empty(1000)
    kept[:] = 3
    for _ in range(int(count)):
        process = multiprocessing.Process(target=time.sleep, args=(0,))
        process.start()
        process.join()
        assert process.exitcode == 0
    subprocess.check_call(["true"])
    assert (kept == 3).all()
    del kept
    assert_empty(arena)
    assert arena.stats()["processes"] == 1


def nest(depth, seed, connection):
    if depth:
        child = multiprocessing.Process(target=nest, args=(depth - 1, seed, connection))
        child.start()
        child.join()
        assert child.exitcode == 0
    else:
        connection.send(make(seed))


def program_nested():
    reader, writer = multiprocessing.Pipe(duplex=False)
    for seed in range(3):
        process = multiprocessing.Process(target=nest, args=(3, seed, writer))
        process.start()
        handle = reader.recv()
        process.join()
        assert process.exitcode == 0
        check(handle, seed)
    assert_empty(default())


def program_executor():
    seeds = range(20)
    with concurrent.futures.ProcessPoolExecutor(2) as executor:
        handles = list(executor.map(make, seeds))
        pids = set(executor.map(change, handles, seeds))
    assert os.getpid() not in pids
    # Received once: the arrays are gone with the workers.
    for handle in handles:
        try:
            receive(handle)
        except snp.StaleHandleError:
            pass
        else:
            raise AssertionError("received")
    assert_empty(default())


def program_sent_down():
    """A worker receives what its parent made and changes it."""
    arena = default()
    array = arena.empty(1000)
    array[:] = pattern(5, 1000)
    with multiprocessing.Pool(2) as pool:
        handles = [arena.send(array.base) for _ in range(10)]
        for number, handle in enumerate(handles):
            pool.apply(change, (handle, 5 + number))
        pool.close()
        pool.join()
    assert (array == pattern(15, 1000)).all()
    del array
    assert_empty(arena)


def program_inherited():
    """A process that was made by one that has an arena allocates there."""
    arena = default()
    with multiprocessing.Pool(2) as pool:
        names = set(pool.map(name_of_default, range(4), chunksize=1))
        pool.close()
        pool.join()
    assert names == {arena.name}, names
    arena.unlink()
    assert Arena.default().name != arena.name
    assert Arena.default().name == default().name


def name_of_default(_):
    return Arena.default().name


def program_threads_and_forks():
    """Threads at work while processes are forked beside them."""
    arena = default()
    stop, failures = threading.Event(), []

    def work(seed):
        try:
            while not stop.is_set():
                array = arena.empty(random.randint(1, 5000))
                array[:] = seed
                other = receive(arena.send(array.base)).array(array.shape)
                assert (other == seed).all()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    kept = arena.empty(1000)
    kept[:] = 9
    for _ in range(60):
        pid = os.fork()
        if pid == 0:
            assert (kept == 9).all()
            own = arena.empty(3000)
            own[:] = 1
            os._exit(0 if (own == 1).all() else 1)
        assert os.waitpid(pid, 0)[1] == 0
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    del kept
    assert_empty(arena)


def program_ends():
    """However a child ends, its parent's arrays stay and its own go."""
    arena = default()
    kept = arena.empty(1000)
    kept[:] = 3

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    def execute():
        os.execv(sys.executable, [sys.executable, "-c", "pass"])

    def fail():
        raise SystemExit(1)

    ends = [lambda: os._exit(0), die, execute, fail, lambda: sys.exit(0), os.abort]
    for end in ends:
        pid = os.fork()
        if pid == 0:
            own = [arena.empty(5000) for _ in range(10)]
            own[0][:] = kept[0]
            end()
        os.waitpid(pid, 0)
        arena.reap()
        assert arena.stats()["blocks"] == 1
        assert (kept == 3).all()
    del kept
    assert_empty(arena)


def program_daemon():
    """A daemon that closed all its descriptors keeps what it has."""
    arena = default()
    array = arena.empty(1000)
    array[:] = 3
    link = multiprocessing.Pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        keep = link[1].fileno()
        os.closerange(0, keep)
        os.closerange(keep + 1, 300)
        files = [os.open("/dev/null", os.O_RDWR) for _ in range(20)]
        link[1].recv()
        assert (array == 3).all()
        array[:] = 4
        more = arena.empty(5000000, "u1")
        more[:] = 7
        link[1].send_bytes(arena.send(more.base))
        del more
        link[1].recv()
        del array, files
        os._exit(0)
    os.wait()
    time.sleep(0.2)
    del array
    # The child that forked the daemon is dead, the daemon is not.
    assert arena.reap() == 1
    assert arena.reap() == 0
    assert arena.stats()["blocks"] == 1
    link[0].send("go")
    other = receive(link[0].recv_bytes()).array(5000000, "u1")
    assert (other == 7).all()
    del other
    link[0].send("end")
    while arena.stats()["processes"] > 1:
        time.sleep(0.01)
        arena.reap()
    assert_empty(arena)


def program_strangers():
    """Programs that have nothing in common but a handle."""
    here = os.path.abspath(__file__)
    command = [sys.executable, here]
    made = subprocess.check_output(command + ["make_and_end", METHOD, "7"])
    handle = bytes.fromhex(made.decode().split()[-1])
    # Its maker is gone.
    array = check(handle, 7)
    arena = array.base.arena
    del array
    # The other way round, while this process has it.
    for seed in range(3):
        block = arena.alloc(8000)
        block.array(1000)[:] = pattern(seed, 1000)
        text = arena.send(block).hex()
        subprocess.check_call(command + ["receive_and_end", METHOD, text, str(seed)])
        assert (block.array(1000) == pattern(seed + 1, 1000)).all()
        del block
    assert_empty(arena)


def program_make_and_end(seed):
    say(make(int(seed)).hex())


def program_receive_and_end(text, seed):
    change(bytes.fromhex(text), int(seed))


class Last:
    """Uses an array when it is collected."""

    def __init__(self, array):
        self.array = array

    def __del__(self):
        assert (self.array == 8).all()


def program_shutdown():
    """Arrays in globals, cycles, finalizers, exit handlers and running threads."""
    global KEPT, CYCLE, LAST
    arena = default()
    KEPT = arena.empty(1000)
    KEPT[:] = 8
    CYCLE = [arena.empty(10)]
    CYCLE.append(CYCLE)
    LAST = Last(KEPT[3:])
    sys.modules["numpy"].kept_for_the_end = arena.empty(10)

    def late():
        assert (KEPT == 8).all()
        array = arena.empty(100000)
        array[:] = 1

    atexit.register(late)

    def work():
        while True:
            array = arena.empty(10000)
            array[:] = 1
            array.base.array(100)

    for _ in range(4):
        threading.Thread(target=work, daemon=True).start()
    time.sleep(0.05)


def hang(connection):
    arena = default()
    kept = [arena.empty(10000) for _ in range(10)]
    handles = [arena.send(array.base) for array in kept]
    connection.send((os.getpid(), arena.name))
    time.sleep(600)
    del handles


def program_kill_tree():
    """Print all pids and wait to be killed."""
    arena = default()
    kept = arena.empty(5000000)
    reader, writer = multiprocessing.Pipe(duplex=False)
    pids = [os.getpid()]
    for _ in range(2):
        multiprocessing.Process(target=hang, args=(writer,)).start()
        pid, name = reader.recv()
        pids.append(pid)
        say("arena", name)
    tracker = snp.resource_tracker._resource_tracker._pid
    say("tracker", tracker)
    say("pids", *pids)
    time.sleep(600)
    del kept


def storm_worker(link, seed):
    """Make, send, receive, keep and drop arrays until it is killed."""
    chance = random.Random(seed)
    arena = Arena.default()
    kept = []
    while True:
        length = chance.choice([1, 10, 1000, 50000])
        number = chance.randrange(1 << 20)
        array = arena.empty(length)
        array[:] = pattern(number, length)
        link.send(b"%08d%08d" % (number, length) + arena.send(array.base))
        if select.select([link], [], [], 0)[0]:
            message = link.recv(200)
            number, length = int(message[:8]), int(message[8:16])
            block = receive(message[16:])
            assert (block.array(length) == pattern(number, length)).all()
            kept.append((block, number, length))
        if len(kept) > 5:
            block, number, length = kept.pop(chance.randrange(5))
            assert (block.array(length) == pattern(number, length)).all()


def program_storm(kills, seed):
    """Workers under load are killed at random moments."""
    arena = default()
    chance = random.Random(int(seed))
    workers = {}

    def start():
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            for link in workers:
                link.close()
            ours.close()
            try:
                storm_worker(theirs, chance.random() + os.getpid())
            except (BrokenPipeError, ConnectionResetError):
                os._exit(0)
            except BaseException:
                sys.excepthook(*sys.exc_info())
            os._exit(1)
        theirs.close()
        workers[ours] = pid

    def take(link):
        """Check one message and perhaps hand it on; False at the end."""
        try:
            message = link.recv(200)
        except ConnectionResetError:
            return False
        if not message:
            return False
        number, length = int(message[:8]), int(message[8:16])
        block = receive(message[16:])
        assert (block.array(length) == pattern(number, length)).all()
        if workers and chance.random() < 0.2:
            other = chance.choice(list(workers))
            if select.select([], [other], [], 0)[1]:
                try:
                    other.send(message[:16] + arena.send(block), socket.MSG_DONTWAIT)
                except (BrokenPipeError, BlockingIOError, ConnectionResetError):
                    pass
        return True

    def kill(link):
        pid = workers.pop(link)
        os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
        assert os.WIFSIGNALED(status), "a worker failed"
        received = 0
        while take(link):
            received += 1
        link.close()
        return received

    for _ in range(4):
        start()
    done = total = 0
    while done < int(kills):
        end = time.monotonic() + chance.random() * 0.03
        while time.monotonic() < end:
            for link in select.select(list(workers), [], [], 0.01)[0]:
                total += take(link)
        total += kill(chance.choice(list(workers)))
        done += 1
        start()
        if done % 50 == 0:
            assert arena.check() == []
    while workers:
        kill(next(iter(workers)))
    arena.reap()
    arena.cancel_unreceived(0)
    stats = arena.stats()
    say("received", total, "recoveries", stats["recoveries"])
    assert_empty(arena)


if __name__ == "__main__":
    METHOD = sys.argv[2]
    multiprocessing.set_start_method(METHOD)
    globals()["program_" + sys.argv[1]](*sys.argv[3:])
