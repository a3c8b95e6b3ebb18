"""Ctrl-C in a capture program: the camera and its viewer both end by themselves."""
# prints: ready
# prints: stopped
# signal: SIGINT after ready within 0.5

import itertools
import multiprocessing
import sys

import shared_numpy as snp


def view(ring, started):
    try:
        while True:
            with ring.read() as frame:
                frame.mean()
            started.set()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    ring, started = snp.RingBuffer((480, 640), "u1", slots=3), multiprocessing.Event()
    viewer = multiprocessing.Process(target=view, args=(ring, started))
    viewer.start()
    try:
        for number in itertools.count():
            with ring.write() as frame:
                frame[:] = number % 256
            if number == 0 and started.wait():
                print("ready", flush=True)
    except KeyboardInterrupt:
        viewer.join()
        print("stopped")
