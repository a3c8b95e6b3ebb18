"""A window that is closed cancels its jobs, while the main program cancels all of them at exit."""
# prints: 100 jobs: all cancelled, nothing logged

import io
import logging
import sys
import threading
import time

import shared_numpy as snp

if __name__ == "__main__":
    log = io.StringIO()
    logging.basicConfig(stream=log)
    sys.setswitchinterval(1e-6)
    with snp.ProcessPoolExecutor(1, sys.argv[1]) as pool:
        running = pool.submit(time.sleep, 600)
        while not running.running():
            time.sleep(0.01)
        jobs = [pool.submit(int) for _ in range(100)]

        def cancel():
            for job in jobs:
                job.cancel()

        threads = [threading.Thread(target=cancel) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        cancelled = sum(job.cancelled() for job in jobs)
        # The one that is running has no other end.
        pool.kill_workers()
    print("%d jobs: all cancelled, nothing logged%s" % (cancelled, log.getvalue()))
