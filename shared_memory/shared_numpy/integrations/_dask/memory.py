"""Which memory of a worker counts for it: not what it shares with others.

Dask compares the resident memory of each worker with its limit, and restarts a worker at 95 % of
that. The pages of a shared array are resident in each process that uses it: four workers with 1 GB
between them seem to have 4 GB. Here a worker has its private memory, plus its share of the shared
memory: each page divided by the number of processes that have it mapped, as the kernel tells
(``Pss_Shmem``). So the workers of a host add up to what they take together.

Dask has no place for that. On a worker the method is replaced by which its monitor measures
(``worker.monitor.get_process_memory``). A nanny's monitor runs only when the measure here says that
the limit is exceeded: Dask's own measure is never below it.
"""

import os
import time
from weakref import ref

from distributed.diagnostics.plugin import NannyPlugin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Tuple

# The kernel goes through all pages of a process to tell its shares: at most one part of so many of
# the time is spent on that.
_RARELY = 100


class Measure:
    """Measures the memory of a process that counts for it.

    Parameters
    ----------
    pid : int
        The process.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._part, self._next = 0.0, 0.0

    def __call__(self) -> int:
        """Return the number of bytes.

        Raises
        ------
        ProcessLookupError
            There is no such process.
        """
        resident, shared = self._resident()
        if not shared:
            return resident
        return resident - int(shared * (1 - self._part_of_shared(shared)))

    def _read(self, file, *names):
        """Return numbers of a file of /proc in bytes; 0 for one that it has not."""
        found = dict.fromkeys(names, 0)
        try:
            with open("/proc/{}/{}".format(self.pid, file)) as lines:
                for line in lines:
                    name, _, rest = line.partition(":")
                    if name in found:
                        found[name] = int(rest.split()[0]) << 10
        except FileNotFoundError:
            if file == "status":
                raise ProcessLookupError("no process {}".format(self.pid)) from None
        return [found[name] for name in names]

    def _resident(self):
        # type: () -> Tuple[int, int]
        resident, shared = self._read("status", "VmRSS", "RssShmem")
        return resident, shared

    def _part_of_shared(self, shared):
        """Return which part of its shared memory counts for the process, from 0 to 1."""
        start = time.monotonic()
        if start >= self._next:
            try:
                (own,) = self._read("smaps_rollup", "Pss_Shmem")
            except OSError:
                own = 0  # It may not be read: nothing of the shared memory counts.
            self._part = min(own / shared, 1.0)
            end = time.monotonic()
            self._next = end + max(_RARELY * (end - start), 0.5)
        return self._part


def install_in_worker(worker: "Any") -> "Any":
    """Have a worker's monitor count the memory that counts for it; return the `Measure`."""
    measure = Measure(os.getpid())
    worker.monitor.get_process_memory = measure
    return measure


class NannyMemory(NannyPlugin):  # type: ignore[misc]
    """Has a nanny count as `Measure` does when it decides to restart its worker."""

    name = "shared-numpy-nanny"
    idempotent = True

    def setup(self, nanny: "Any") -> None:
        callback = nanny.periodic_callbacks.get("memory_monitor")
        # (Without a limit there is none.)
        if callback is not None and not isinstance(callback.callback, _Monitor):
            callback.callback = _Monitor(callback.callback, nanny, nanny.memory_manager)


class _Monitor:
    """Calls Dask's monitor when the worker's own memory is over the limit."""

    def __init__(self, original, nanny, manager):
        self.original, self.nanny, self.manager = original, ref(nanny), manager
        self.measure = Measure(0)

    def __call__(self):
        nanny = self.nanny()
        pid = getattr(getattr(nanny, "process", None), "pid", None)
        if pid is None:
            return
        if pid != self.measure.pid:
            self.measure = Measure(pid)
        try:
            memory = self.measure()
        except (ProcessLookupError, PermissionError):
            return
        fraction, limit = self.manager.memory_terminate_fraction, self.manager.memory_limit
        if fraction and limit and memory > fraction * limit:
            self.original()
