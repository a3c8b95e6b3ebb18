"""A program counts time by a signal while it waits for a worker: no signal is lost in a wait."""
# prints: the worker is done, and the clock has ticked: True

import multiprocessing
import signal
import sys
import time

import shared_numpy as snp


def work(results):
    time.sleep(0.2)
    results.put("the worker is done")


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    ticks = snp.zeros(1, int)

    def tick(*_):
        ticks[0] += 1

    signal.signal(signal.SIGALRM, tick)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    results = snp.Queue()
    process = multiprocessing.Process(target=work, args=(results,))
    process.start()
    done = results.get()
    signal.setitimer(signal.ITIMER_REAL, 0)
    process.join()
    print("%s, and the clock has ticked: %s" % (done, ticks[0] > 0))
