"""Which memory of a worker counts for it: not what it shares with others.

Dask compares the resident memory of each worker with its limit, pauses it at 80 % of that, and has
its nanny restart it at 95 %. The pages of a shared array are resident in each process that uses it:
four workers with 1 GB between them seem to have 4 GB.

Here a worker's own monitor, which spills and pauses, counts its private memory, plus its part of
the shared memory: each page divided by the number of processes that have touched it, as the kernel
tells (``Pss_Shmem``). The copies of shares count for no worker: nothing that a worker does, spills or
pauses makes them smaller, and until others touch a copy all of it is the part of the one that has
filled it. A nanny counts the private memory alone: that is what a restart frees.

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
    from typing import Any, Callable, Iterable, Tuple

# The kernel goes through all pages of a process to tell its part: at most one of so many parts of the
# time is spent on that, and more while the shared memory grows or shrinks.
_RARELY, _CHANGING = 100, 10
# So many seconds pass at least, unless that happens.
_INTERVAL = 0.5


class Measure:
    """Measures the memory of a process that counts for it.

    Parameters
    ----------
    pid : int
        The process.
    apart : callable
        Returns texts; a mapped file whose path has one of them does not count.
    """

    def __init__(self, pid: int, apart: "Callable[[], Iterable[str]]" = tuple) -> None:
        self.pid, self.apart = pid, apart
        # The part of the shared memory that counts, of how much that was found, when, and for how long
        # that has taken.
        self._own, self._of, self._at, self._cost = 0, 0, 0.0, 0.0

    def __call__(self) -> int:
        """Return the number of bytes.

        Raises
        ------
        ProcessLookupError
            There is no such process.
        """
        resident, shared = self._resident()
        return resident - shared + min(self._part_of(shared), shared) if shared else resident

    def private(self) -> int:
        """Return the number of bytes that no other process can have; raise as `__call__`."""
        resident, shared = self._resident()
        return resident - shared

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

    def _part_of(self, shared):
        """Return which part of its shared memory counts for the process, in bytes.

        Memory that has come since the kernel was asked counts for nothing until then: a share that is
        new to a worker must not get it restarted.
        """
        start = time.monotonic()
        changed = abs(shared - self._of) > shared // 8
        pause = _CHANGING * self._cost if changed else max(_RARELY * self._cost, _INTERVAL)
        if start >= self._at + pause:
            try:
                (own,) = self._read("smaps_rollup", "Pss_Shmem")
                self._own = max(own - self._part_apart(), 0)
            except OSError:
                self._own = 0  # It may not be read: nothing of the shared memory counts.
            self._of, self._at = shared, time.monotonic()
            self._cost = self._at - start
        return self._own

    def _part_apart(self):
        """Return which part of files that do not count is the process's, in bytes."""
        texts, part, counts = list(self.apart()), 0, False
        if texts:
            with open("/proc/{}/smaps".format(self.pid)) as lines:
                for line in lines:
                    # (A mapping begins with its addresses, in small letters.)
                    if line[0] in "0123456789abcdef":
                        counts = any(text in line for text in texts)
                    elif counts and line.startswith("Pss:"):
                        part += int(line.split()[1]) << 10
        return part


def install_in_worker(worker: "Any", apart: "Callable[[], Iterable[str]]") -> "Any":
    """Have a worker's monitor count the memory that counts for it; return the `Measure`."""
    measure = Measure(os.getpid(), apart)
    worker.monitor.get_process_memory = measure
    return measure


class NannyMemory(NannyPlugin):  # type: ignore[misc]
    """Has a nanny count private memory alone when it decides to restart its worker."""

    name = "shared-numpy-nanny"
    idempotent = True

    def setup(self, nanny: "Any") -> None:
        callback = nanny.periodic_callbacks.get("memory_monitor")
        # (Without a limit there is none.)
        if callback is not None and not isinstance(callback.callback, _Monitor):
            callback.callback = _Monitor(callback.callback, nanny, nanny.memory_manager)


class _Monitor:
    """Calls Dask's monitor when the worker's private memory is over the limit."""

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
            memory = self.measure.private()
        except (ProcessLookupError, PermissionError):
            return
        fraction, limit = self.manager.memory_terminate_fraction, self.manager.memory_limit
        if fraction and limit and memory > fraction * limit:
            self.original()
