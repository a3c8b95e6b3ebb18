"""A loader of training data: workers fetch batches in any order, the trainer gets them in order."""
# prints: 40 batches of (16, 3, 32, 32) in two epochs, in order: True

import multiprocessing
import sys

import numpy as np
import shared_numpy as snp


def fetch(index):
    """The item number `index` of a data set."""
    return np.full((3, 32, 32), index, "f4")


def work(tasks, batches):
    while True:
        task = tasks.get()
        if task is None:
            break
        number, indices = task
        batches.put((number, np.stack([fetch(index) for index in indices])))


class Loader:
    def __init__(self, size, batch, workers, prefetch=2):
        self.indices = np.arange(size).reshape(-1, batch)
        self.ahead = workers * prefetch
        self.tasks, self.batches = snp.Queue(), snp.Queue()
        self.workers = [
            multiprocessing.Process(target=work, args=(self.tasks, self.batches))
            for _ in range(workers)
        ]
        for worker in self.workers:
            worker.start()

    def __iter__(self):
        todo, early = enumerate(self.indices), {}
        for _ in range(self.ahead):
            self.tasks.put(next(todo))
        for number in range(len(self.indices)):
            while number not in early:
                arrived, batch = self.batches.get(timeout=30)
                early[arrived] = batch
            self.tasks.put_many([task for task in [next(todo, None)] if task])
            yield early.pop(number)

    def close(self):
        for _ in self.workers:
            self.tasks.put(None)
        for worker in self.workers:
            worker.join()


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    loader, right = Loader(size=320, batch=16, workers=3), []
    for _ in range(2):
        for number, batch in enumerate(loader):
            right.append(batch[:, 0, 0, 0].tolist() == list(range(number * 16, number * 16 + 16)))
    loader.close()
    print("%d batches of %s in two epochs, in order: %s" % (len(right), batch.shape, all(right)))
