"""A server makes its arrays as root, then becomes another user, as web and camera servers do."""
# methods: none
# needs: root
# run: python drops_privileges.py; python -c "import shared_numpy as snp; snp.ones(10)"
# prints: 0 a child has changed it: 6.0
# prints: 0 from a child, and larger: 1000000.0
# prints: 0 from a worker: 6.0
# prints: 65534 a child has changed it: 7.0
# prints: 65534 from a child, and larger: 1000000.0
# prints: 65534 from a worker: 7.0

import multiprocessing
import os

import numpy as np
import shared_numpy as snp


def work(image, queue):
    image += 1
    queue.put(np.ones(1000000))


def mean(values):
    return float(values.mean())


def serve(image, queue):
    process = multiprocessing.get_context("fork").Process(target=work, args=(image, queue))
    process.start()
    received = queue.get(timeout=30)
    process.join()
    print(os.getuid(), "a child has changed it:", image.mean())
    print(os.getuid(), "from a child, and larger:", received.sum())
    with snp.ProcessPoolExecutor(1, "fork") as pool:
        print(os.getuid(), "from a worker:", pool.submit(mean, image).result())


if __name__ == "__main__":
    image, queue = snp.full((1000, 1000), 5.0), snp.Queue()
    serve(image, queue)
    os.setgid(65534)
    os.setuid(65534)
    serve(image, queue)
