"""The parts of `ProcessPoolExecutor`; `executor` opens with a picture of how they work together.

`light_future`     futures that cost little until a thread waits for them
`task`             a call, its state, and its future
`settings`         what a pool is made with
`worker_main`      what a worker process runs, and the messages that it gets and sends
`worker_process`   a worker process as its pool sees it, and the calls that it has
`at_exit`          pools at process exit
`scheduler`        which worker does which call: bookkeeping under one lock
`supervisor`       starts, watches, joins and ends worker processes, without that lock
`pool`             the dispatcher's thread, which drives both, and what an executor calls

Imports point up in this list. `Scheduler.lock` is the only lock; whoever holds it does not wait,
pickle, settle a future, or start, join or signal a process.
"""
