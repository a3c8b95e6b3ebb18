"""A second viewer opens a stream that runs already, and sees it from there on without a gap."""
# prints: then the first viewer saw [6, 7, 8, 9, 10, 11]
# prints: the second one saw all from its first one on: True

import multiprocessing
import sys

import shared_numpy as snp


def view(ring, seen):
    last = False
    while not last:
        with ring.read(timeout=30) as frame:
            seen.put(frame.sequence)
            last = frame[0] == -1


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    ring, first, second = snp.RingBuffer(1000, slots=4), snp.Queue(), snp.Queue()

    def write(value):
        with ring.write(timeout=30) as frame:
            frame[:] = value

    early = multiprocessing.Process(target=view, args=(ring, first))
    early.start()
    for number in range(6):
        write(number)
    assert [first.get(timeout=30) for _ in range(6)] == [0, 1, 2, 3, 4, 5]
    late = multiprocessing.Process(target=view, args=(ring, second))
    late.start()
    write(6)
    begin = second.get(timeout=30)
    for number in range(7, 11):
        write(number)
    write(-1)
    early.join()
    late.join()
    print("then the first viewer saw", first.get_many(100))
    seen = [begin] + second.get_many(100)
    print("the second one saw all from its first one on:", seen == list(range(begin, 12)))
