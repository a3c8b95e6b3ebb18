"""A ShareableList is a machine's status board: workers report in it, the main program reads."""
# prints: ['done', 'done', 'done'] [10, 20, 30]

import multiprocessing
import sys

from shared_numpy.shared_memory import ShareableList


def work(number, board):
    board = ShareableList(name=board)
    for step in range(1, 11):
        board[2 * number + 1] = step * (number + 1)
    board[2 * number] = "done"
    board.shm.close()


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    board = ShareableList(["waits", 0] * 3)
    workers = [multiprocessing.Process(target=work, args=(n, board.shm.name)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(list(board)[::2], list(board)[1::2])
    board.shm.close()
    board.shm.unlink()
