"""A widespread workaround: a subclass of SharedMemory that the resource tracker is not told of."""
# methods: none
# prints: False
# prints: b'hello'

from shared_numpy.shared_memory import SharedMemory


class Untracked(SharedMemory):
    def __init__(self, *args, **kwargs):
        self._track = False
        super(Untracked, self).__init__(*args, **kwargs)


if __name__ == "__main__":
    ours = Untracked(create=True, size=10)
    ours.buf[:5] = b"hello"
    theirs = Untracked(ours.name)
    print(theirs._track)
    print(bytes(theirs.buf[:5]))
    theirs.close()
    ours.close()
    ours.unlink()
