"""A service makes its arrays, then becomes a daemon: two forks, and every descriptor is closed."""
# methods: none
# run: touch log; python becomes_daemon.py log && while ! grep -q end log; do sleep 0.05; done; cat log
# prints: sum 1000000.0
# prints: from a child 1000.0
# prints: from a worker 2.0
# prints: end

import multiprocessing
import os
import sys

import shared_numpy as snp


def become_daemon(log):
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    os.closerange(0, 1024)
    os.open(os.devnull, os.O_RDONLY)
    os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(1, 2)


def send(queue):
    queue.put(snp.ones(1000))


def add_one(values):
    return values + 1


if __name__ == "__main__":
    values, queue = snp.ones(1000000), snp.Queue()
    become_daemon(sys.argv[1])
    print("sum", values.sum())
    sys.stdout.flush()
    process = multiprocessing.get_context("fork").Process(target=send, args=(queue,))
    process.start()
    print("from a child", queue.get(timeout=30).sum())
    process.join()
    sys.stdout.flush()
    with snp.ProcessPoolExecutor(1, "fork") as pool:
        print("from a worker", pool.submit(add_one, values).result(timeout=30)[0])
    print("end")
