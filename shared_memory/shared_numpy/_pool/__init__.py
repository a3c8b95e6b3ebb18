"""The parts of `ProcessPoolExecutor`; `executor` opens with a picture of how they work together.

`light_future`     futures that cost little until a thread waits for them
`task`             a call, its state, and its future
`settings`         the arguments of a pool
`worker_main`      the code of a worker process, and its messages
`worker_process`   a worker process as its pool sees it, and the calls that it has
`at_exit`          pools at process exit
`exit_watch`       a thread that sleeps until a worker process exits
`scheduler`        which worker does which call: bookkeeping under one lock
`supervisor`       starts, watches, joins and ends worker processes, without that lock
`pool`             the dispatcher's thread, which drives both; the interface for an executor

Imports point up in this list. A thread that holds `Scheduler.lock` does not wait, pickle, settle a
future, or start, join or signal a process.
"""
