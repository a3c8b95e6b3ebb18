"""How long it takes to get frames from another process.

    python examples/timing_comparison.py [FRAMES] [SIDE]

FRAMES (10) images of SIDE x SIDE (3000 x 3000) float32 come through a queue: numpy
arrays through `multiprocessing.Queue`, shared ones through `shared_numpy.Queue`. First
as they are made, when a shared array is nothing but its place; then with every pixel
written by the one process and looked at by the other.
"""

import multiprocessing as mp
import sys
import time

import numpy as np

import shared_numpy as snp


def produce(queue, make, frames, side, written):
    """Say that the process runs, and put frames into a queue."""
    queue.put("ready")
    for number in range(frames):
        frame = make((side, side), "f4")
        if written:
            frame[:] = np.arange(side, dtype="f4") + number
        queue.put(frame)


def consume(queue, frames, side, written):
    """Get frames from a queue and look at them."""
    for number in range(frames):
        frame = queue.get()
        if frame.shape != (side, side):
            raise AssertionError("frame {} has the shape {}".format(number, frame.shape))
        if written and not (frame == np.arange(side, dtype="f4") + number).all():
            raise AssertionError("frame {} is wrong".format(number))


def timed(queue, make, frames, side, written):
    """Return the seconds until the last frame was looked at."""
    producer = mp.Process(target=produce, args=(queue, make, frames, side, written))
    producer.start()
    queue.get()
    start = time.perf_counter()
    consume(queue, frames, side, written)
    seconds = time.perf_counter() - start
    producer.join()
    return seconds


def main(frames=10, side=3000):
    """Print the comparison."""
    for written in (False, True):
        print("written and checked" if written else "as they are made")
        total = {}
        for name, queue, make in [
            ("not shared", mp.Queue(), np.empty),
            ("shared", snp.Queue(), snp.empty),
        ]:
            total[name] = timed(queue, make, frames, side, written)
            print("  {:<12}total time: {:8.4f} s".format(name, total[name]))
        print("  ratio       {:.1f}".format(total["not shared"] / total["shared"]))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
