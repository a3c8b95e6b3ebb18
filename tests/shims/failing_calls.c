/* System calls that fail: `fail_calls(nth, lasts, error)` has the nth call from now on fail with an
   error, and those that follow if `lasts`; `count_calls()` tells how many were made since.
   Only calls that take memory, files or locks count, not those that give them back. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>
#include <unistd.h>

#include "interpose.h"

static volatile long made, failing = -1;
static volatile int lasting, number;

void fail_calls(long nth, int lasts, int error) {
    made = 0;
    failing = nth;
    lasting = lasts;
    number = error;
}

long count_calls(void) { return made; }

static int fails(void) {
    long n = made++;
    return failing >= 0 && (n == failing || (lasting && n > failing));
}

#define FAIL_WITH(result) \
    if (fails()) { \
        errno = number; \
        return result; \
    }

int shm_open(const char *name, int flags, mode_t mode) {
    FAIL_WITH(-1);
    return NEXT(int (*)(const char *, int, mode_t), "shm_open")(name, flags, mode);
}

/* Of files in shared memory, and of those that are open already. */
static int open_again(const char *path, int flags, mode_t mode) {
    if (!strncmp(path, "/dev/shm", 8) || !strncmp(path, "/proc/self/fd", 13)) FAIL_WITH(-1);
    return NEXT(int (*)(const char *, int, ...), "open")(path, flags, mode);
}

int open(const char *path, int flags, ...) { WITH_ARGUMENT(mode_t, flags, open_again(path, flags, argument)); }

static int control(int fd, int command, void *argument) {
    if (command == F_SETLK || command == F_GETLK || command == F_OFD_SETLK) FAIL_WITH(-1);
    return NEXT(int (*)(int, int, ...), "fcntl")(fd, command, argument);
}

FCNTL_BY(control)

/* They return the error. Half of a larger range is taken before they fail. */
static int reserve(const char *name, int fd, off_t offset, off_t length) {
    int (*next)(int, off_t, off_t) = NEXT(int (*)(int, off_t, off_t), name);
    if (fails()) {
        if (length > 8192) next(fd, offset, length / 2);
        return number;
    }
    return next(fd, offset, length);
}

FALLOCATE_BY(reserve)

/* (The C library has threads' stacks and its heap by calls of its own. No signal interrupts
   this one.) */
static void *map(void *place, size_t length, int protection, int flags, int fd, off_t offset) {
    if (fd >= 0 && flags & MAP_SHARED && number != EINTR) FAIL_WITH(MAP_FAILED);
    return NEXT(void *(*)(void *, size_t, int, int, int, off_t), "mmap")(
        place, length, protection, flags, fd, offset);
}

MMAP_BY(map)

int madvise(void *place, size_t length, int advice) {
    if (advice == MADV_REMOVE) FAIL_WITH(-1);
    return NEXT(int (*)(void *, size_t, int), "madvise")(place, length, advice);
}

#define FILE_CALL(name, type) \
    ssize_t name(int fd, type *bytes, size_t count, off_t offset) { \
        FAIL_WITH(-1); \
        return NEXT(ssize_t (*)(int, type *, size_t, off_t), #name)(fd, bytes, count, offset); \
    }
FILE_CALL(pread, void)
FILE_CALL(pread64, void)
FILE_CALL(pwrite, const void)
FILE_CALL(pwrite64, const void)

int fchmod(int fd, mode_t mode) {
    FAIL_WITH(-1);
    return NEXT(int (*)(int, mode_t), "fchmod")(fd, mode);
}

int fstatvfs(int fd, struct statvfs *system) {
    FAIL_WITH(-1);
    return NEXT(int (*)(int, struct statvfs *), "fstatvfs")(fd, system);
}
int fstatvfs64(int fd, struct statvfs64 *system) {
    FAIL_WITH(-1);
    return NEXT(int (*)(int, struct statvfs64 *), "fstatvfs64")(fd, system);
}
