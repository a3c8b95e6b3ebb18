"""Jobs make further jobs, in a JoinableQueue: the program waits until all are done."""
# prints: tiles filled: 64 of 64

import multiprocessing
import sys

import shared_numpy as snp


def work(jobs, image):
    while True:
        top, left, size = jobs.get()
        if size == 1:
            image[top, left] = 1
        else:
            half = size // 2
            for row in (top, top + half):
                for column in (left, left + half):
                    jobs.put((row, column, half))
        jobs.task_done()


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    jobs, image = snp.JoinableQueue(), snp.zeros((8, 8), int)
    jobs.put((0, 0, 8))
    workers = [
        multiprocessing.Process(target=work, args=(jobs, image), daemon=True) for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    jobs.join()
    for worker in workers:
        worker.terminate()
        worker.join()
    print("tiles filled: %d of %d" % (image.sum(), image.size))
