"""A camera has a recorder, which opens its file first, and a viewer; the recording is complete."""
# prints: the recording has frames 0 to 49, each with its number in it
# prints: the viewer saw 50 frames from frame 0 on

import multiprocessing
import os
import sys
import tempfile
import time

import numpy as np

import shared_numpy as snp

COUNT, SHAPE = 50, (120, 160)


def capture(ring):
    for number in range(COUNT):
        with ring.write(timeout=30) as frame:
            frame[:] = number * number


def record(ring, path):
    time.sleep(0.5)  # It opens a disk, or imports its encoder.
    with open(path, "wb") as file:
        for _ in range(COUNT):
            with ring.read(timeout=30) as frame:
                file.write(np.uint16(frame.sequence).tobytes() + frame.tobytes())


def view(ring, report):
    ring.join()
    numbers = []
    for _ in range(COUNT):
        with ring.read(timeout=30) as frame:
            numbers.append(frame.sequence)
    report.put((len(numbers), numbers[0]))


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    ring, report = snp.RingBuffer(SHAPE, "u2", slots=4, readers=2), snp.Queue()
    folder = tempfile.mkdtemp()
    path = os.path.join(folder, "recording")
    processes = [
        multiprocessing.Process(target=capture, args=(ring,)),
        multiprocessing.Process(target=view, args=(ring, report)),
        multiprocessing.Process(target=record, args=(ring, path)),
    ]
    for each in processes:
        each.start()
    for each in processes:
        each.join()
    # The file is read without the package.
    rows = np.fromfile(path, "u2").reshape(-1, 1 + SHAPE[0] * SHAPE[1])
    numbers = rows[:, 0].tolist()
    assert numbers == list(range(COUNT)), numbers
    assert (rows[:, 1:] == np.square(rows[:, :1])).all()
    os.remove(path)
    os.rmdir(folder)
    print("the recording has frames %d to %d, each with its number in it" % (numbers[0], numbers[-1]))
    print("the viewer saw %d frames from frame %d on" % report.get(timeout=30))
