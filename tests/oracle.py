"""Runs operations on an implementation of `shared_memory` and tells what it saw.

The same code drives the package, in the tests' process, and the standard
library, in a process of its own and possibly of another version: as a script
it serves the module that the running interpreter has in `multiprocessing`.

A program is a list of tuples, an operation and its arguments. Objects are kept
in named slots. Names of segments in a program are short; a prefix makes them
unique. The outcome of each operation is ``("value", what)`` or ``("error",
type, message, errno, filename)``, both with the prefix taken out again, and
with it come size and bytes of every named segment, read from the file system.
"""

import os
import pickle
import struct
import subprocess
import sys

NAMES = ("n0", "n1", "n2")


class Machine:
    """Executes operations on the module `shared_memory`."""

    def __init__(self, shared_memory, prefix):
        self.module = shared_memory
        self.prefix = prefix
        self.slots = {}
        self.made = []

    def name(self, short):
        return self.prefix + short if short in NAMES else short

    def path(self, short):
        return "/dev/shm/" + self.prefix + short

    def plain(self, value):
        """Make a result comparable and free of names and classes."""
        if isinstance(value, str):
            text = value.replace(self.prefix, "")
            for path in self.made:
                text = text.replace(path[1:], "<automatic>")
            return text
        if isinstance(value, (list, tuple)):
            return [self.plain(item) for item in value]
        if isinstance(value, dict):
            return {key: self.plain(item) for key, item in value.items()}
        if isinstance(value, type):
            return value.__name__
        if isinstance(value, memoryview):
            return bytes(value)
        return value

    def run(self, operations):
        return [self.step(operation) for operation in operations]

    def step(self, operation):
        before = {short for short in NAMES if os.path.exists(self.path(short))}
        try:
            outcome = ("value", self.plain(getattr(self, operation[0])(*operation[1:])))
        except Exception as error:
            outcome = (
                "error",
                "struct.error" if isinstance(error, struct.error) else type(error).__name__,
                self.plain(str(error)),
                getattr(error, "errno", None),
                self.plain(getattr(error, "filename", None)),
            )
        leaked = []
        if outcome[0] == "error":
            # Known of the standard library; mended, so that the two go on alike.
            for short in NAMES:
                if short not in before and os.path.exists(self.path(short)):
                    os.unlink(self.path(short))
                    leaked.append(short)
        return outcome, leaked, [self.content(short) for short in NAMES]

    def content(self, short):
        try:
            with open(self.path(short), "rb") as file:
                return file.read(4096)
        except FileNotFoundError:
            return None

    def finish(self):
        for value in list(self.slots.values()):
            try:
                getattr(value, "shm", value).close()
            except Exception:
                pass
        self.slots.clear()
        for path in [self.path(short) for short in NAMES] + [
            "/dev/shm" + name for name in self.made
        ]:
            if os.path.exists(path):
                os.unlink(path)

    # Operations on SharedMemory.

    def create(self, slot, short, size):
        self.slots[slot] = self.module.SharedMemory(self.name(short), True, size)
        return self.slots[slot].size

    def attach(self, slot, short, size=0):
        self.slots[slot] = self.module.SharedMemory(self.name(short), size=size)
        return self.slots[slot].size

    def drop(self, slot):
        self.slots.pop(slot, None)

    def close(self, slot):
        return self.slots[slot].close()

    def unlink(self, slot):
        return self.slots[slot].unlink()

    def get(self, slot, at):
        return self.slots[slot].buf[at]

    def put(self, slot, at, value):
        self.slots[slot].buf[at] = value

    def fill(self, slot, data):
        buf = self.slots[slot].buf
        buf[: len(data)] = data

    def view(self, slot, source):
        self.slots[slot] = self.slots[source].buf[1:]
        return len(self.slots[slot])

    def about(self, slot):
        shm = self.slots[slot]
        return repr(shm), shm.name, shm.size, shm.buf is None, shm.__reduce__()

    def pickled(self, slot, source, protocol):
        self.slots[slot] = pickle.loads(pickle.dumps(self.slots[source], protocol))

    # Operations on ShareableList.

    def new_list(self, slot, short, items):
        self.slots[slot] = self.module.ShareableList(items, name=self.name(short))
        return list(self.slots[slot])

    def attach_list(self, slot, short):
        self.slots[slot] = self.module.ShareableList(name=self.name(short))
        return list(self.slots[slot])

    def item(self, slot, position):
        return self.slots[slot][position]

    def set_item(self, slot, position, value):
        self.slots[slot][position] = value

    def about_list(self, slot):
        items = self.slots[slot]
        return repr(items), items.format, len(items), list(items)

    def reduce_list(self, slot):
        function, arguments = self.slots[slot].__reduce__()
        return function.func, function.keywords, list(arguments)

    def find(self, slot, value):
        items = self.slots[slot]
        return value in items, items.count(value), items.index(value)

    def close_list(self, slot):
        return self.slots[slot].shm.close()

    def unlink_list(self, slot):
        return self.slots[slot].shm.unlink()


def recorded(shared_memory, machine):
    """Let `machine` know the automatic names that the module makes."""
    original = shared_memory._make_filename

    def make():
        machine.made.append(original())
        return machine.made[-1]

    return make


class Process:
    """A machine on the standard library of another interpreter."""

    def __init__(self, executable):
        self.process = subprocess.Popen(
            [executable, os.path.abspath(__file__)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def ask(self, *request):
        pickle.dump(request, self.process.stdin, protocol=2)
        self.process.stdin.flush()
        return pickle.load(self.process.stdout)

    def start(self, prefix):
        return self.ask("start", prefix)

    def run(self, operations):
        return self.ask("run", operations)

    def finish(self):
        return self.ask("finish")

    def stop(self):
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()


def serve():
    """Answer requests from stdin until it ends."""
    import warnings
    from multiprocessing import resource_tracker, shared_memory

    # What it would remove is removed here.
    resource_tracker.register = resource_tracker.unregister = lambda *_: None
    warnings.simplefilter("ignore")
    original = shared_memory._make_filename
    machine = None
    while True:
        try:
            request = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        answer = None
        if request[0] == "start":
            machine = Machine(shared_memory, request[1])
            shared_memory._make_filename = original
            shared_memory._make_filename = recorded(shared_memory, machine)
        elif request[0] == "run":
            answer = machine.run(request[1])
        else:
            machine.finish()
        pickle.dump(answer, sys.stdout.buffer, protocol=2)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    serve()
