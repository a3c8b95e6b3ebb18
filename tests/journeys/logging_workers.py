"""Workers log through one queue into the main process's log, beside the arrays that they send."""
# prints: worker 0: mean 0.0
# prints: worker 1: mean 1.0
# prints: worker 2: mean 2.0
# prints: arrays: [0.0, 1.0, 2.0]

import logging
import logging.handlers
import multiprocessing
import sys

import numpy as np
import shared_numpy as snp


def work(number, log, results):
    logger = logging.getLogger("work")
    logger.addHandler(logging.handlers.QueueHandler(log))
    logger.setLevel(logging.INFO)
    image = np.full((500, 500), number, "f4")
    logger.info("worker %d: mean %s", number, image.mean())
    results.put((number, image))


class List(logging.Handler):
    def __init__(self, lines):
        super(List, self).__init__()
        self.lines = lines

    def emit(self, record):
        self.lines.append(self.format(record))


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    log, results, lines = snp.Queue(), snp.Queue(), []
    listener = logging.handlers.QueueListener(log, List(lines))
    listener.start()
    workers = [multiprocessing.Process(target=work, args=(n, log, results)) for n in range(3)]
    for worker in workers:
        worker.start()
    images = dict(results.get(timeout=30) for _ in workers)
    for worker in workers:
        worker.join()
    listener.stop()
    print("\n".join(sorted(lines)))
    print("arrays:", [float(images[number][0, 0]) for number in range(3)])
