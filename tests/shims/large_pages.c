/* A kernel with pages of 64 KiB, as many Arm and POWER machines have, on one with smaller
   pages: what it is given must begin with a page, and it rounds lengths up. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 65536ul

static size_t whole(size_t length) { return (length + PAGE - 1) / PAGE * PAGE; }

static int begins_a_page(const void *place) { return (uintptr_t)place % PAGE == 0; }

static void *call(void *place, size_t length, int protection, int flags, int fd, off_t offset) {
    return (void *)syscall(SYS_mmap, place, length, protection, flags, fd, offset);
}

void *mmap(void *place, size_t length, int protection, int flags, int fd, off_t offset) {
    if (offset % PAGE != 0 || ((flags & MAP_FIXED) && !begins_a_page(place))) {
        errno = EINVAL;
        return MAP_FAILED;
    }
    if (!(flags & MAP_FIXED)) {
        char *room = call(NULL, whole(length) + PAGE, PROT_NONE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (room == MAP_FAILED) return MAP_FAILED;
        size_t before = -(uintptr_t)room % PAGE;
        if (before) syscall(SYS_munmap, room, before);
        if (before < PAGE) syscall(SYS_munmap, room + before + whole(length), PAGE - before);
        place = room + before;
    }
    return call(place, whole(length), protection, flags | MAP_FIXED, fd, offset);
}

void *mmap64(void *place, size_t length, int protection, int flags, int fd, off_t offset) {
    return mmap(place, length, protection, flags, fd, offset);
}

int munmap(void *place, size_t length) {
    if (!begins_a_page(place)) {
        errno = EINVAL;
        return -1;
    }
    return syscall(SYS_munmap, place, whole(length));
}

int madvise(void *place, size_t length, int advice) {
    if (!begins_a_page(place)) {
        errno = EINVAL;
        return -1;
    }
    return syscall(SYS_madvise, place, whole(length), advice);
}

int getpagesize(void) { return PAGE; }

long sysconf(int name) {
    long (*next)(int) = (long (*)(int))dlsym(RTLD_NEXT, "sysconf");
    return name == _SC_PAGESIZE ? (long)PAGE : next(name);
}
