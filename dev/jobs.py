"""A scheduler for the jobs of a test run.

Each job is a name, a function and the names of the jobs that it needs. Jobs start in
the order in which they are listed, as soon as what they need has passed and a lane is
free; there is one lane more than there are processors. A job that mostly waits takes no lane.

What a job prints goes into a file of its own under ``build/logs``. A line tells when a
job has ended; the output of a job that failed is shown at once, and as one block, so
that outputs never mix.
"""

import collections
import os
import signal
import subprocess
import sys
import threading
import time

from environments import ROOT

LOGS = os.path.join(ROOT, "build", "logs")

# How much of a failed job's output is shown; the whole is in its file.
LINES_SHOWN = 400

Ended = collections.namedtuple("Ended", "name state seconds tell")


class Failed(Exception):
    """A job that cannot go on; the text says why."""


class Job:
    """One unit of work.

    Parameters
    ----------
    name : str
        What is printed, and names the file with the output.
    work : callable
        Called with the job. It fails by raising `Failed`; a text that it returns is
        shown beside the job's name.
    needs : sequence of str
        The jobs that have to pass before; unknown names are errors.
    waits : bool
        The job mostly waits, so it takes no lane.
    """

    def __init__(self, name, work, needs=(), waits=False):
        self.name, self.work, self.needs, self.waits = name, work, tuple(needs), waits
        self.log = os.path.join(LOGS, name.replace(" ", "-").replace(",", "") + ".txt")
        self._process = None
        self._stopped = False
        self._lock = threading.Lock()

    def run(self, command, seconds=1800, fails=True, **options):
        """Run a command; what it prints is added to the job's log.

        Parameters
        ----------
        command : list of str
            The program and its arguments. It starts in the root of the checkout.
        seconds : float
            After that time the command is killed with all processes of its group.
        fails : bool
            Whether an exit code other than 0 fails the job.
        **options
            As for `subprocess.Popen`.

        Returns
        -------
        int
            The exit code.

        Raises
        ------
        Failed
            The command failed, or took too long.
        """
        options.setdefault("cwd", ROOT)
        with open(self.log, "a") as log:
            log.write("$ {}\n".format(" ".join(command)))
            log.flush()
            with self._lock:
                if self._stopped:
                    raise Failed("stopped")
                # A session of its own: what it leaves behind can be killed with it.
                self._process = process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    **options
                )
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._kill()
            process.wait()
            raise Failed("{} took over {:.0f} s".format(command[0], seconds))
        finally:
            with self._lock:
                self._process = None
        if code and fails:
            raise Failed("{} ended with {}".format(os.path.basename(command[0]), code))
        return code

    def output(self):
        """Return what the job has printed so far."""
        try:
            with open(self.log, errors="replace") as log:
                return log.read()
        except FileNotFoundError:
            return ""

    def stop(self):
        """Kill what runs, and start nothing more."""
        with self._lock:
            self._stopped = True
            running = self._process is not None
        if running:
            self._kill()

    def _kill(self):
        with self._lock:
            if self._process is not None:
                try:
                    os.killpg(self._process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass  # It has just ended.


def processors_here():
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def lanes_here():
    """Return how many jobs that compute run at a time: one more than there are processors, since
    tests of processes wait for each other for a third of their time."""
    return processors_here() + 1


class Run:
    """Runs jobs and keeps how each ended.

    Parameters
    ----------
    jobs : list of Job
        In the order in which they are to start.
    lanes : int
        How many jobs that compute run at a time.
    waiting : int
        How many jobs that wait run beside them.
    """

    def __init__(self, jobs, lanes, waiting=1):
        names = [job.name for job in jobs]
        assert len(set(names)) == len(names), names
        unknown = {need for job in jobs for need in job.needs} - set(names)
        assert not unknown, unknown
        self.jobs, self.lanes, self.waiting = jobs, lanes, waiting
        self.ended = collections.OrderedDict()
        self._running = []
        self._change = threading.Condition()
        self._start = time.monotonic()

    def go(self):
        """Run all jobs; return whether every one passed."""
        os.makedirs(LOGS, exist_ok=True)
        todo = list(self.jobs)
        try:
            with self._change:
                while todo or self._running:
                    for job in [job for job in todo if self._is_lost(job)]:
                        todo.remove(job)
                        lost = [need for need in job.needs if self._state(need) != "passed"]
                        self._end(job, "not run", 0, "needs " + ", ".join(lost))
                    ready = [job for job in todo if self._is_ready(job)]
                    if ready:
                        todo.remove(ready[0])
                        self._running.append(ready[0])
                        threading.Thread(target=self._work, args=(ready[0],), daemon=True).start()
                    elif self._running:
                        self._change.wait(1)
        except BaseException:
            for job in self._running:
                job.stop()
            raise
        return all(ended.state == "passed" for ended in self.ended.values())

    def _state(self, name):
        return self.ended[name].state if name in self.ended else None

    def _is_lost(self, job):
        return any(self._state(need) in ("failed", "not run") for need in job.needs)

    def _is_ready(self, job):
        if any(self._state(need) != "passed" for need in job.needs):
            return False
        beside = sum(other.waits == job.waits for other in self._running)
        return beside < (self.waiting if job.waits else self.lanes)

    def _work(self, job):
        start = time.monotonic()
        if os.path.exists(job.log):
            os.remove(job.log)
        try:
            tell, state = job.work(job) or "", "passed"
        except Failed as error:
            tell, state = str(error), "failed"
        except BaseException as error:  # A defect here must not look like a success.
            tell, state = "{}: {}".format(type(error).__name__, error), "failed"
        with self._change:
            self._running.remove(job)
            self._end(job, state, time.monotonic() - start, tell)
            self._change.notify()

    def _end(self, job, state, seconds, tell):
        self.ended[job.name] = Ended(job.name, state, seconds, tell)
        clock = time.monotonic() - self._start
        line = "[{:2}/{}] {:5.0f} s  {}: {}".format(
            len(self.ended), len(self.jobs), clock, job.name, state
        )
        if seconds >= 1:
            line += " in {:.0f} s".format(seconds)
        print(line + (" ({})".format(tell) if tell else ""), flush=True)
        if state == "failed":
            lines = job.output().splitlines()[-LINES_SHOWN:]
            print("\n".join(["=== output of " + job.name] + lines + ["=== end of output"]), flush=True)


def interrupted(*arguments):
    """Leave the program when it is told to end, so that its jobs are killed."""
    sys.exit("interrupted")
