"""Ctrl-C while a pool works: the program cancels the rest, cleans up and ends with 130."""
# prints: ready
# prints: interrupted
# exit: 130
# signal: SIGINT after ready within 0.5

import signal
import sys

import shared_numpy as snp


def ignore_interrupts():
    # The terminal sends Ctrl-C to the workers, too; the main process tells them when to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def smooth(image):
    return (image[1:] + image[:-1]) / 2


if __name__ == "__main__":
    images = snp.ones((20, 200, 200))
    with snp.ProcessPoolExecutor(2, sys.argv[1], initializer=ignore_interrupts) as pool:
        list(pool.map(smooth, images))
        try:
            print("ready", flush=True)
            while True:
                for result in pool.map(smooth, images):
                    assert result.shape == (199, 200)
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            print("interrupted")
            sys.exit(130)
