"""Two local functions that share a list are sent together, and still share it in the worker."""
# needs: cloudpickle
# prints: [1, 2]
# prints: (True, True)
# prints: True

import sys

import shared_numpy as snp


def make_counter():
    values = []

    def add(value):
        values.append(value)

    def read():
        return list(values)

    return add, read


def use(add, read):
    add(1)
    add(2)
    return read()


def compare(kind, thing):
    return isinstance(thing, kind), type(thing) is kind


def main(method):
    class Local(object):
        pass

    def even(number):
        return number == 0 or odd(number - 1)

    def odd(number):
        return number != 0 and even(number - 1)

    with snp.ProcessPoolExecutor(1, method) as pool:
        print(pool.submit(use, *make_counter()).result())
        print(pool.submit(compare, Local, Local()).result())
        print(pool.submit(even, 10).result())


if __name__ == "__main__":
    main(sys.argv[1])
