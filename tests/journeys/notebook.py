"""A notebook: functions, lambdas and classes of a main module that no worker can import."""
# run: exec python -c "$(cat notebook.py)" METHOD
# needs: cloudpickle
# prints: [0.0, 1.0, 4.0, 9.0]
# prints: the worker has changed it: 3.0
# prints: 12.5 m

import sys

import numpy as np
import shared_numpy as snp

pool = snp.ProcessPoolExecutor(2, sys.argv[1])

# A cell with a function of its own.
scale = 2


def squares(values):
    return values**scale


print(pool.submit(squares, np.arange(4.0)).result().tolist())

# One with a lambda, and an array that both sides see.
image = snp.zeros((500, 500))
pool.submit(lambda: image.__setitem__((0, 0), 3)).result()
print("the worker has changed it:", image[0, 0])


# One with a class.
class Length(object):
    def __init__(self, values, unit):
        self.values, self.unit = values, unit

    def __str__(self):
        return "%s %s" % (self.values.sum(), self.unit)


half = pool.submit(lambda it: Length(it.values / 2, it.unit), Length(np.ones(25), "m"))
print(half.result())
pool.shutdown()
