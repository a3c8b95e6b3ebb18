"""Threads put and get arrays while the main thread forks: each child uses the same queue."""
# methods: fork
# prints: children: [0, 0, 0, 0, 0]
# prints: sums as expected: True

import multiprocessing
import sys
import threading

import numpy as np
import shared_numpy as snp


def send(queue, number):
    values = snp.full(5000, number)
    queue.put((number, values, values.sum()))


def circulate(stop):
    queue = snp.Queue()
    while not stop.is_set():
        queue.put(np.ones(5000))
        queue.get()


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    stop, queue = threading.Event(), snp.Queue()
    threads = [threading.Thread(target=circulate, args=(stop,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    children = [multiprocessing.Process(target=send, args=(queue, number)) for number in range(5)]
    for child in children:
        child.start()
    right = []
    for _ in children:
        number, values, total = queue.get(timeout=30)
        right.append(values.sum() == total == 5000 * number)
    for child in children:
        child.join()
    stop.set()
    for thread in threads:
        thread.join()
    print("children:", [child.exitcode for child in children])
    print("sums as expected:", all(right))
