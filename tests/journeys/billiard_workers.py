"""A Celery worker's kind of processes (billiard) uses named arrays and handles."""
# needs: billiard
# methods: none
# prints: 7.0 3.0

import billiard

import shared_numpy as snp


def work(handle):
    snp.attach("journey-billiard")[:] = snp.receive(handle).sum()


if __name__ == "__main__":
    values, numbers = snp.create("journey-billiard", 3), snp.full(7, 1.0)
    process = billiard.Process(target=work, args=(snp.send(numbers),))
    process.start()
    process.join()
    print(values[0], float(len(values)))
    snp.delete("journey-billiard")
