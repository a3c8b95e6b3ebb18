"""A pipeline of three stages: each changes the picture where it lies, and hands it on."""
# prints: 8 pictures through 3 stages: [3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]

import multiprocessing
import sys

import shared_numpy as snp


def stage(inbox, outbox):
    while True:
        picture = inbox.get()
        if picture is not None:
            picture += 1
        outbox.put(picture)
        if picture is None:
            break


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    queues = [snp.Queue(maxsize=4) for _ in range(4)]
    stages = [
        multiprocessing.Process(target=stage, args=(inbox, outbox))
        for inbox, outbox in zip(queues, queues[1:])
    ]
    for each in stages:
        each.start()
    for number in range(8):
        queues[0].put(snp.full((200, 200), number, "f4"))
    queues[0].put(None)
    results = []
    while True:
        picture = queues[-1].get()
        if picture is None:
            break
        results.append(float(picture.mean()))
    for each in stages:
        each.join()
    print("8 pictures through 3 stages:", results)
