"""A map of names to arrays is renewed for days: created, replaced, attached and deleted."""
# methods: none
# prints: round 0 ...
# prints: ...
# prints: round 29 29.0 28.0

import numpy as np
import shared_numpy as snp

if __name__ == "__main__":
    name = "journey-map"
    old = snp.create(name, (500, 500))
    for number in range(30):
        new = snp.create(name, (500, 500), replace=True, fill=np.full((500, 500), number))
        seen = snp.attach(name, readonly=True)
        print("round", number, seen.mean(), old.mean(), flush=True)
        old = new
        segment = snp.SharedMemory(create=True, size=1000000)
        segment.close()
        segment.unlink()
    snp.delete(name)
