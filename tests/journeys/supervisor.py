"""A supervisor kills a worker that hangs and starts another one, for hours: nothing may add up."""
# prints: round 0: 8.0
# prints: ...
# prints: round 11: 8.0

import multiprocessing
import os
import signal
import sys

import numpy as np
import shared_numpy as snp


def work(requests, answers):
    while True:
        kind, image = requests.get()
        if kind == "hang":
            answers.put("hung")
            signal.pause()
        answers.put(image + 7)


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    requests, answers = snp.Queue(), snp.Queue()
    for number in range(12):
        worker = multiprocessing.Process(target=work, args=(requests, answers))
        worker.start()
        requests.put(("work", np.ones((1000, 1000))))
        result = answers.get(timeout=30)
        requests.put(("hang", np.ones((1000, 1000))))
        answers.get(timeout=30)
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
        print("round %d: %s" % (number, result.max()), flush=True)
