"""First copies, page faults and random access, without huge pages and with them, in one run.

    python benchmarks/huge_pages.py [--rounds N]

Each figure is of a program of its own, which sees a tmpfs in place of /dev/shm that is mounted with
`huge=never`, `always`, `within_size` or `advise`; rounds alternate, and figures are medians. It needs
root, and a kernel with huge pages for shared memory.
"""

import argparse
import json
import statistics
import subprocess
import sys

OPTIONS = ["never", "always", "within_size", "advise"]
ITEMS = 10 * 1000 * 1000

PROGRAM = """
import json, resource, time
import numpy as np
import shared_numpy as snp
ITEMS = %d
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def measure(name, make):
    before, start = faults(), time.perf_counter()
    array = make()
    seconds = time.perf_counter() - start
    figures[name] = [seconds * 1e3, faults() - before]
    return array
figures = {}
snp.empty(8)
places = np.random.RandomState(1).randint(0, ITEMS, ITEMS // 5)
source = np.ones(ITEMS)
measure("snp.zeros of 80 MB", lambda: snp.zeros(ITEMS))
snp.trim()
array = measure("snp.from_array of 80 MB", lambda: snp.from_array(source))
measure("2,000,000 items of it, at random", lambda: array[places].sum())
del array
snp.trim()
measure("snp.empty of 80 MB, filled", lambda: snp.empty(ITEMS).fill(1))
print(json.dumps(figures))
""" % ITEMS


def measured(option):
    """Return the figures of one program, by what it did: milliseconds and page faults."""
    mount = 'mount -t tmpfs -o huge=%s tmpfs /dev/shm && exec "$@"' % option
    command = ["unshare", "--mount", "sh", "-c", mount, "sh", sys.executable, "-c", PROGRAM]
    return json.loads(subprocess.check_output(command).decode())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="programs for each figure")
    rounds = parser.parse_args().rounds
    runs = {option: [] for option in OPTIONS}
    for _ in range(rounds):
        for option in OPTIONS:
            runs[option].append(measured(option))
    print("ms (page faults), medians of %d programs" % rounds)
    print("%-36s" % "" + "".join("%20s" % ("huge=" + option) for option in OPTIONS))
    for name in runs["never"][0]:
        cells = []
        for option in OPTIONS:
            both = zip(*(run[name] for run in runs[option]))
            milliseconds, faults = (statistics.median(each) for each in both)
            cells.append("%20s" % ("%.1f (%d)" % (milliseconds, faults)))
        print("%-36s" % name + "".join(cells))


if __name__ == "__main__":
    main()
