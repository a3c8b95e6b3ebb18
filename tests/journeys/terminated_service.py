"""SIGTERM ends a service at any moment: it ends its workers and exits with 0."""
# prints: ready
# prints: drained, stopped
# signal: SIGTERM after ready within 0.3

import multiprocessing
import signal
import sys

import numpy as np
import shared_numpy as snp


class Stop(Exception):
    pass


def stop(*_):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Stop


def work(requests, answers):
    # Only the service itself is told to end; it sends None to its workers.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    answers.put("started")
    while True:
        image = requests.get()
        if image is None:
            break
        answers.put(image + 1)


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    requests, answers = snp.Queue(), snp.Queue()
    workers = [multiprocessing.Process(target=work, args=(requests, answers)) for _ in range(2)]
    for worker in workers:
        worker.start()
        answers.get()
    signal.signal(signal.SIGTERM, stop)
    try:
        print("ready", flush=True)
        while True:
            requests.put(np.zeros(100000))
            assert answers.get().all()
    except Stop:
        for _ in workers:
            requests.put(None)
        for worker in workers:
            worker.join()
        print("drained, stopped")
