"""Sends millions of messages and sees whether anything grows.

    python benchmarks/many_messages.py [COUNT]

COUNT (10 million) messages go to a worker and back through two queues: numbers, small
arrays by value, shared arrays by reference and plain ones that are moved, in turns. After
a third of them and at the end memory, descriptors, segments, blocks and handles of both
processes are compared. It fails if the memory of either grew by 1 MiB, or anything else
at all.
"""

import multiprocessing
import os
import sys
import threading
import time

import numpy as np

import shared_numpy as snp
from shared_numpy._core import Arena

WINDOW = 32


def usage():
    """Return bytes of private memory and the number of descriptors."""
    with open("/proc/self/status") as file:
        rows = dict(line.split(":", 1) for line in file)
    return int(rows["RssAnon"].split()[0]) * 1024, len(os.listdir("/proc/self/fd"))


def echo(requests, answers):
    while True:
        message = requests.get()
        if message is None:
            break
        asked = isinstance(message, str)
        answers.put(usage() if asked else message)
        del message


def kinds(count):
    """Yield messages of all kinds in turns."""
    shared = snp.zeros(8)
    small, large = np.zeros(16), np.zeros(4096)
    for i in range(count):
        kind = i % 8
        yield shared if kind == 1 else small if kind == 3 else large if kind == 5 else i


def state(theirs):
    """Return what must not grow: (name, value, tolerance)."""
    ours = usage()
    stats = Arena.default().stats()
    return [
        ("memory of the sender", ours[0], 1 << 20),
        ("memory of the worker", theirs[0], 1 << 20),
        ("descriptors of the sender", ours[1], 0),
        ("descriptors of the worker", theirs[1], 0),
        ("segments", stats["segments"], 0),
        ("blocks", stats["blocks"], 0),
        ("handles", stats["handles"], 0),
    ]


def exchange(requests, answers, count, looks):
    """Send messages, some of them ahead, and take them back.

    After as many as each of `looks` nothing is on its way, and the state is noted.
    """
    places = threading.Semaphore(WINDOW)
    looked = threading.Event()

    def send():
        for number, message in enumerate(kinds(count), 1):
            places.acquire()
            requests.put(message)
            if number in looks:
                requests.put("usage")
                looked.wait()
                looked.clear()

    sender = threading.Thread(target=send)
    sender.start()
    states = []
    for i in range(count):
        answer = answers.get()
        places.release()
        if i % 8 in (1, 3, 5):
            assert answer.shape[0] in (8, 16, 4096)
        else:
            assert answer == i
        del answer
        if i + 1 in looks:
            states.append(state(answers.get()))
            looked.set()
    sender.join()
    return states


def main(count):
    requests, answers = snp.Queue(), snp.Queue()
    worker = multiprocessing.Process(target=echo, args=(requests, answers), daemon=True)
    worker.start()
    start = time.perf_counter()
    before, after = exchange(requests, answers, count, {count // 3, count})
    seconds = time.perf_counter() - start
    requests.put(None)
    worker.join()
    print("{:,} messages there and back in {:.1f} s".format(count, seconds))
    grown = 0
    for (name, was, tolerance), (_, is_now, _) in zip(before, after):
        print("{:<28}{:>14,}{:>14,}{:>+12,}".format(name, was, is_now, is_now - was))
        grown += is_now - was > tolerance
    sys.exit("it grows" if grown else 0)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10000000)
