"""A motion detector keeps the frame before, and compares it with the next."""
# prints: frames that differ from the one before: [3, 7]

import multiprocessing
import sys

import shared_numpy as snp


def detect(ring, moved):
    before = None
    while True:
        with ring.read(timeout=30) as frame:
            number = frame.sequence
            if before is not None and (frame != before).any():
                moved.put(number)
            # The frame is kept beyond its block, under another name, until the next one.
            before = frame
        if number == 9:
            break


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    ring, moved = snp.RingBuffer((240, 320), "u1", slots=3), snp.Queue()
    process = multiprocessing.Process(target=detect, args=(ring, moved))
    process.start()
    for number in range(10):
        with ring.write(timeout=30) as frame:
            frame[:] = (number >= 3) + (number >= 7)
    process.join()
    print("frames that differ from the one before:", moved.get_many(10))
