"""A second viewer opens a stream that runs already, and sees it from there on without a gap."""
# prints: the first viewer saw [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
# prints: the second one saw 6 frames without a gap, up to number 11

import multiprocessing
import sys

import shared_numpy as snp


def view(ring, seen, frames):
    while frames is None or frames > 0:
        with ring.read(timeout=30) as frame:
            seen.put(frame.sequence)
            if frame[0] == -1:
                break
        if frames is not None:
            frames -= 1


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    ring, first, second = snp.RingBuffer(1000, slots=4), snp.Queue(), snp.Queue()

    def write(value):
        with ring.write(timeout=30) as frame:
            frame[:] = value

    early = multiprocessing.Process(target=view, args=(ring, first, None))
    early.start()
    for number in range(6):
        write(number)
    assert [first.get(timeout=30) for _ in range(6)] == [0, 1, 2, 3, 4, 5]
    late = multiprocessing.Process(target=view, args=(ring, second, None))
    late.start()
    write(6)
    # What the late one sees first: no frame before it is missing from then on.
    begin = second.get(timeout=30)
    for number in range(7, 11):
        write(number)
    write(-1)
    early.join()
    late.join()
    print("the first viewer saw", list(range(6)) + first.get_many(100))
    seen = [begin] + second.get_many(100)
    assert seen == list(range(begin, 12)), seen
    print("the second one saw %d frames without a gap, up to number %d" % (len(seen[-6:]), seen[-1]))
