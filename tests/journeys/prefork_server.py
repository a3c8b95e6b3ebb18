"""A server loads its model, forks its workers as gunicorn does, and replaces one that is killed."""
# methods: none
# prints: answers: [10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0]
# prints: requests counted by all workers: 8
# prints: a killed worker was replaced, and another answer is 90.0

import os
import signal
import socket

import shared_numpy as snp


def serve(listener, model, requests):
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    while True:
        connection, _ = listener.accept()
        with connection:
            value = float(connection.recv(100))
            requests[os.getpid() % len(requests)] += 1
            connection.sendall(b"%f" % (model * value).sum())


def fork(*arguments):
    pid = os.fork()
    if pid == 0:
        serve(*arguments)
    return pid


def ask(address, value):
    with socket.create_connection(address, timeout=30) as connection:
        connection.sendall(b"%d" % value)
        return float(connection.recv(100))


if __name__ == "__main__":
    model, requests = snp.ones(10), snp.zeros(1000, int)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        address = listener.getsockname()
        workers = [fork(listener, model, requests) for _ in range(3)]
        print("answers:", [ask(address, value) for value in range(1, 9)])
        print("requests counted by all workers:", requests.sum())
        os.kill(workers[0], signal.SIGKILL)
        os.waitpid(workers[0], 0)
        workers[0] = fork(listener, model, requests)
        print("a killed worker was replaced, and another answer is", ask(address, 9))
        for worker in workers:
            os.kill(worker, signal.SIGTERM)
            os.waitpid(worker, 0)
