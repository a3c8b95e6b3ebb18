"""An asyncio service gives its heavy work to processes, and goes on to answer meanwhile."""
# prints: means: [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
# prints: it was never blocked: True

import asyncio
import sys

import numpy as np
import shared_numpy as snp


def mean_of(image):
    return float(image.mean())


async def heartbeat(beats):
    while True:
        beats.append(None)
        await asyncio.sleep(0.001)


async def handle(pool, number):
    image = np.full((1000, 1000), number, "f4")
    return await asyncio.get_event_loop().run_in_executor(pool, mean_of, image)


async def main(pool):
    beats = []
    task = asyncio.ensure_future(heartbeat(beats))
    means = await asyncio.gather(*[handle(pool, number) for number in range(6)])
    task.cancel()
    print("means:", means)
    print("it was never blocked:", len(beats) > 1)


if __name__ == "__main__":
    loop = asyncio.new_event_loop()
    with snp.ProcessPoolExecutor(2, sys.argv[1]) as pool:
        loop.run_until_complete(main(pool))
    loop.close()
