/* Interrupts calls by signals, and says what is reserved. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>

/* Interrupts the first INTERRUPTIONS calls of each function by SIGUSR1. */
static int interrupted(int *count) {
    const char *limit = getenv("INTERRUPTIONS");
    if (!limit || *count >= atoi(limit)) return 0;
    ++*count;
    raise(SIGUSR1);
    return 1;
}

int shm_open(const char *name, int flags, mode_t mode) {
    static int count;
    int (*real)(const char *, int, mode_t) = dlsym(RTLD_NEXT, "shm_open");
    if (interrupted(&count)) { errno = EINTR; return -1; }
    return real(name, flags, mode);
}

int shm_unlink(const char *name) {
    static int count;
    int (*real)(const char *) = dlsym(RTLD_NEXT, "shm_unlink");
    if (interrupted(&count)) { errno = EINTR; return -1; }
    return real(name);
}

/* Says what it is asked for. With SUCCEED it signals, but does its work. */
int posix_fallocate(int fd, off_t offset, off_t length) {
    static int count;
    int (*real)(int, off_t, off_t) = dlsym(RTLD_NEXT, "posix_fallocate");
    printf("%ld+%ld ", (long)offset, (long)length);
    fflush(stdout);
    if (getenv("SUCCEED")) raise(SIGUSR1);
    else if (offset && interrupted(&count)) return EINTR;
    return real(fd, offset, length);
}

int posix_fallocate64(int fd, off_t offset, off_t length) {
    return posix_fallocate(fd, offset, length);
}
