"""Ctrl-C while a producer and a consumer exchange arrays: both clean up, and nothing stays."""
# prints: ready
# prints: producer: stopped
# prints: consumer: stopped
# signal: SIGINT after ready within 0.5

import itertools
import multiprocessing
import sys

import numpy as np
import shared_numpy as snp


def produce(pictures, started, done):
    try:
        started.set()
        for number in itertools.count():
            pictures.put((number, np.full((300, 300), number)))
    except KeyboardInterrupt:
        done.put("producer: stopped")


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    pictures, done = snp.Queue(maxsize=3), snp.Queue()
    started = multiprocessing.Event()
    producer = multiprocessing.Process(target=produce, args=(pictures, started, done))
    producer.start()
    started.wait()
    try:
        print("ready", flush=True)
        while True:
            number, picture = pictures.get()
            assert picture[0, 0] == picture[-1, -1] == number
    except KeyboardInterrupt:
        print(done.get(timeout=30))
        producer.join()
        print("consumer: stopped")
