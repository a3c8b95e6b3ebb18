"""What a queue has brought is the receiver's own: a child that is forked later writes to copies."""
# methods: none
# prints: arrays that the child has changed in its parent: 0

import os

import numpy as np
import shared_numpy as snp

if __name__ == "__main__":
    queue, images = snp.Queue(), []
    for number in range(500):
        queue.put(np.full(4000, number))
        images.append(queue.get())
    pid = os.fork()
    if pid == 0:
        for image in images:
            image[:] = -1
        os._exit(0)
    os.waitpid(pid, 0)
    changed = sum((image != number).any() for number, image in enumerate(images))
    print("arrays that the child has changed in its parent:", changed)
