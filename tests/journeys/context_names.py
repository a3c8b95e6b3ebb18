"""Systems of equations are solved in workers that have the matrix as a global; a name that is a
function's is refused before anything runs."""
# prints: ['9.0', '4.5', '3.0']
# prints: refused: ...exp...

import sys

import numpy as np
from numpy import exp

import shared_numpy as snp


def solve(scale):
    return np.linalg.solve(matrix * scale, right)


def growth(rate):
    return float(exp(rate))


if __name__ == "__main__":
    data = {"matrix": np.eye(200), "right": np.full(200, 9.0)}
    with snp.SharedContext(data, max_workers=2, mp_context=sys.argv[1]) as context:
        enqueue = context.register(solve)
        for scale in (1, 2, 3):
            enqueue(scale)
        print([str(each.mean()) for each in context.evaluate()])
    with snp.SharedContext({"exp": np.ones(3)}, max_workers=1, mp_context=sys.argv[1]) as context:
        try:
            context.submit(growth, 0.0)
        except ValueError as error:
            print("refused:", error)
