/* A network file system whose server is gone, at the path in the variable DEAD: a process that asks
   for the status of a file there, or opens one, would wait without end. Here it exits with 99. What
   only reads the links of /proc touches no file. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static void touch(int folder, const char *path, int flags) {
    static const char said[] = "a file of the dead network is asked for its status\n";
    const char *dead = getenv("DEAD");
    char target[4096];
    if (!dead || !path || flags & AT_SYMLINK_NOFOLLOW)
        return;
    ssize_t length = readlinkat(folder, path, target, sizeof target - 1);
    const char *place = path;
    if (length > 0) {
        target[length] = 0;
        place = target;
    }
    if (!strncmp(place, dead, strlen(dead))) {
        (void)!write(2, said, sizeof said - 1);
        _exit(99);
    }
}

int statx(int folder, const char *path, int flags, unsigned mask, struct statx *found) {
    touch(folder, path, flags);
    return (int)syscall(SYS_statx, folder, path, flags, mask, found);
}

int fstatat64(int folder, const char *path, struct stat64 *found, int flags) {
    touch(folder, path, flags);
    return (int)syscall(SYS_newfstatat, folder, path, found, flags);
}

int stat64(const char *path, struct stat64 *found) {
    return fstatat64(AT_FDCWD, path, found, 0);
}

int fstatat(int folder, const char *path, struct stat *found, int flags) {
    touch(folder, path, flags);
    return (int)syscall(SYS_newfstatat, folder, path, found, flags);
}

int stat(const char *path, struct stat *found) {
    return fstatat(AT_FDCWD, path, found, 0);
}
