/* Linux 3.10: no locks of open file descriptions, no getrandom, no renameat2, no files without
   a name. */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "interpose.h"

static long refuse(int error) {
    errno = error;
    return -1;
}

long syscall(long number, ...) {
    long (*next)(long, ...) = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    long a[6];
    va_list more;
    va_start(more, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(more, long);
    va_end(more);
    if (number == SYS_getrandom || number == SYS_renameat2) return refuse(ENOSYS);
    return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

static int control(int fd, int command, void *argument) {
    int (*next)(int, int, ...) = (int (*)(int, int, ...))dlsym(RTLD_NEXT, "fcntl");
    if (command == F_OFD_SETLK || command == F_OFD_SETLKW || command == F_OFD_GETLK)
        return refuse(EINVAL);
    return next(fd, command, argument);
}

FCNTL_BY(control)

static int open_named(const char *path, int flags, mode_t mode) {
    int (*next)(const char *, int, ...) = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open");
    /* What such a kernel sees is O_DIRECTORY. */
    if ((flags & O_TMPFILE) == O_TMPFILE) return refuse(EISDIR);
    return next(path, flags, mode);
}

int open(const char *path, int flags, ...) { WITH_ARGUMENT(mode_t, flags, open_named(path, flags, argument)); }
int open64(const char *path, int flags, ...) { WITH_ARGUMENT(mode_t, flags, open_named(path, flags, argument)); }
