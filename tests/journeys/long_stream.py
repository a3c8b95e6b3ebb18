"""A stream that runs for days: neither the camera's nor the viewer's memory grows, nor /dev/shm."""
# prints: round 0
# prints: ...
# prints: the viewer saw all frames in a row: True

import multiprocessing
import sys

import shared_numpy as snp


def view(ring, result):
    first = last = None
    while last != 1499:
        with ring.read(timeout=30) as frame:
            assert last is None or frame.sequence == last + 1
            first, last = frame.sequence if first is None else first, frame.sequence
            assert frame.mean() == last % 100
    result.put("the viewer saw all frames in a row: %s" % (first == 0))


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    ring, result = snp.RingBuffer((100, 200), "u1", slots=8), snp.Queue()
    viewer = multiprocessing.Process(target=view, args=(ring, result))
    viewer.start()
    for number in range(1500):
        if number % 100 == 0:
            print("round", number, flush=True)
        with ring.write(timeout=30) as frame:
            frame[:] = number % 100
    print(result.get())
    viewer.join()
