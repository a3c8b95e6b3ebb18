"""A container with Docker's 64 MiB: a service fills it with small arrays, is told that it is full,
frees all and needs one large array; and a stream of frames that does not fit leaves nothing."""
# shm: 64m
# methods: none
# prints: full at 60 MB or more, and the error says who has it
# prints: then in one piece: 2, 8, 16, 30, 50 MB
# prints: 16 frames of 6 MB are refused, 4 are not

import gc

import shared_numpy as snp

MB = 1000000

if __name__ == "__main__":
    pieces = []
    try:
        while True:
            pieces.append(snp.ones(MB, "u1"))
    except snp.ArenaFullError as error:
        said = "in use" in str(error) and "--shm-size" in str(error)
    if len(pieces) >= 60 and said:
        print("full at 60 MB or more, and the error says who has it")
    del pieces[:]
    gc.collect()
    sizes = [2, 8, 16, 30, 50]
    for size in sizes:
        assert snp.ones(size * MB, "u1").min() == 1
    print("then in one piece:", ", ".join(map(str, sizes)), "MB")
    try:
        snp.RingBuffer((1080, 1920, 3), "u1", slots=16)
    except snp.ArenaFullError:
        gc.collect()
        ring = snp.RingBuffer((1080, 1920, 3), "u1", slots=4)
        print("16 frames of 6 MB are refused, 4 are not")
        ring.close()
