"""The parts of `ProcessPoolExecutor`.

`light_future`     futures that cost little until somebody waits for them
`task`             a call, and its future
`worker_main`      what a worker process runs, and the messages that it gets and sends
`worker_process`   a worker's process as its pool sees it
`scheduler`        which worker does which call, and what becomes of it
"""
