/* A system that lacks what the variable LACKS names: "locks" of bytes of files, "reserving" of
   memory, "mappings" that are shared, or "sleeping" on memory. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "interpose.h"

static int lacks(const char *what) {
    const char *lacking = getenv("LACKS");
    return lacking && !strcmp(lacking, what);
}

static int control(int fd, int command, void *argument) {
    int (*next)(int, int, ...) = (int (*)(int, int, ...))dlsym(RTLD_NEXT, "fcntl");
    if (lacks("locks") && (command == F_SETLK || command == F_GETLK || command == F_OFD_GETLK)) {
        errno = ENOLCK;
        return -1;
    }
    return next(fd, command, argument);
}

FCNTL_BY(control)

static int reserve(const char *name, int fd, off_t offset, off_t length) {
    int (*next)(int, off_t, off_t) = (int (*)(int, off_t, off_t))dlsym(RTLD_NEXT, name);
    return lacks("reserving") ? EOPNOTSUPP : next(fd, offset, length);
}

FALLOCATE_BY(reserve)

static void *map(void *place, size_t length, int protection, int flags, int fd, off_t offset) {
    void *(*next)(void *, size_t, int, int, int, off_t) =
        (void *(*)(void *, size_t, int, int, int, off_t))dlsym(RTLD_NEXT, "mmap");
    if (lacks("mappings") && fd >= 0 && flags & MAP_SHARED) {
        errno = ENODEV;
        return MAP_FAILED;
    }
    return next(place, length, protection, flags, fd, offset);
}

MMAP_BY(map)

long syscall(long number, ...) {
    long (*next)(long, ...) = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    long a[6];
    va_list more;
    va_start(more, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(more, long);
    va_end(more);
    if (number == SYS_futex && lacks("sleeping")) {
        errno = ENOSYS;
        return -1;
    }
    return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
