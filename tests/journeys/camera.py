"""A camera fills frames where they lie; a display and a recorder each look at every one of them."""
# prints: the display saw 30 frames in a row, each of one brightness
# prints: the recorder saw 30 frames in a row, each of one brightness

import multiprocessing
import queue
import sys

import shared_numpy as snp


def watch(who, ring, reports):
    seen = []
    while len(seen) < 30:
        with ring.read(timeout=30) as frame:
            assert frame.min() == frame.max() == frame.sequence % 256
            seen.append(frame.sequence)
    assert seen == list(range(seen[0], seen[0] + 30))
    reports.put("the %s saw 30 frames in a row, each of one brightness" % who)


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    ring, reports = snp.RingBuffer((480, 640, 3), "u1", slots=4), snp.Queue()
    watchers = [
        multiprocessing.Process(target=watch, args=(who, ring, reports))
        for who in ("display", "recorder")
    ]
    for each in watchers:
        each.start()
    while any(each.is_alive() for each in watchers):
        try:
            with ring.write(timeout=0.1) as frame:
                frame[:] = ring.written % 256
        except queue.Full:
            pass  # The watchers have not come yet, or have gone.
    print("\n".join(sorted(reports.get_many(2))))
