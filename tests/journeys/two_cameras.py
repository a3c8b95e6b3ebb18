"""Two cameras send pictures to one detector by one queue; every picture is counted."""
# prints: 20 pictures: left 10, right 10
# prints: brightest 19.0

import multiprocessing
import sys

import numpy as np
import shared_numpy as snp


def shoot(side, first, pictures):
    for number in range(10):
        pictures.put((side, np.full((300, 400), first + number, "f4")))


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    pictures = snp.Queue(maxsize=3)
    cameras = [
        multiprocessing.Process(target=shoot, args=("left", 0, pictures)),
        multiprocessing.Process(target=shoot, args=("right", 10, pictures)),
    ]
    for camera in cameras:
        camera.start()
    counts, brightest = {"left": 0, "right": 0}, 0.0
    for _ in range(20):
        side, picture = pictures.get(timeout=30)
        counts[side] += 1
        brightest = max(brightest, float(picture.max()))
    for camera in cameras:
        camera.join()
    print("20 pictures: left %(left)d, right %(right)d" % counts)
    print("brightest", brightest)
