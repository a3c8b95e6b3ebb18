"""A slow display wants the newest frame; the camera must never wait for it."""
# prints: the camera wrote 200 frames, the display ended with the last one
# prints: it saw fewer than there were: True

import multiprocessing
import sys
import time

import shared_numpy as snp


def display(ring, ready, result):
    seen, last = 0, -1
    ready.set()
    while last < 199:
        with ring.latest(timeout=30) as frame:
            if frame.sequence != last:
                seen, last = seen + 1, frame.sequence
                assert frame[0, 0] == frame[-1, -1] == last
            time.sleep(0.01)
    result.put((seen, last))


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    ring = snp.RingBuffer((600, 800), "u2", slots=4, when_full="drop_oldest")
    ready, result = multiprocessing.Event(), snp.Queue()
    process = multiprocessing.Process(target=display, args=(ring, ready, result))
    process.start()
    ready.wait()
    for number in range(200):
        with ring.write(timeout=5) as frame:
            frame[:] = number
    seen, last = result.get()
    process.join()
    print("the camera wrote %d frames, the display ended with the last one" % (last + 1))
    print("it saw fewer than there were:", seen < 200)
