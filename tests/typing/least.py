"""The first lines that a user writes."""

import numpy as np
import shared_numpy as snp

a = snp.zeros(3)
b = np.ones(3)
a += b
with snp.ArrayManager() as m:
    c = m.zeros((2, 3))
    c[0] = a
print(a.sum(), c.shape)
