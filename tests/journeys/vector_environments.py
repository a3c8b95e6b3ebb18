"""Reinforcement learning: environments step in processes and observe into one array."""
# prints: (3, 84, 84) after 25 steps: [25, 26, 27]

import multiprocessing
import sys

import numpy as np
import shared_numpy as snp


def environment(number, observations, actions, pipe):
    state = number
    while True:
        command = pipe.recv()
        if command == "close":
            break
        if command == "step":
            state += actions[number]
        observations[number] = state
        pipe.send((float(state), False))


class VectorEnvironments:
    def __init__(self, count):
        self.observations = snp.zeros((count, 84, 84), "f4")
        self.actions = snp.zeros(count, "i8")
        self.pipes, self.processes = [], []
        for number in range(count):
            ours, theirs = multiprocessing.Pipe()
            process = multiprocessing.Process(
                target=environment, args=(number, self.observations, self.actions, theirs)
            )
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)

    def step(self, actions):
        self.actions[:] = actions
        for pipe in self.pipes:
            pipe.send("step")
        rewards = [pipe.recv()[0] for pipe in self.pipes]
        return self.observations, rewards

    def close(self):
        for pipe, process in zip(self.pipes, self.processes):
            pipe.send("close")
            process.join()
            pipe.close()


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    environments = VectorEnvironments(3)
    for _ in range(25):
        observations, rewards = environments.step(np.ones(3))
        assert observations[:, 0, 0].tolist() == rewards
    environments.close()
    print(observations.shape, "after 25 steps:", observations[:, 83, 83].astype(int).tolist())
