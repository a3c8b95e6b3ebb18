/* How the libraries here stand before the C library: the call that comes next, and definitions of
   calls that have two names, by a function that is given all arguments. */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/types.h>

#define NEXT(type, name) ((type)dlsym(RTLD_NEXT, name))

#define WITH_ARGUMENT(type, last, work) \
    va_list more; \
    va_start(more, last); \
    type argument = va_arg(more, type); \
    va_end(more); \
    return work

/* control(fd, command, argument) */
#define FCNTL_BY(control) \
    int fcntl(int fd, int command, ...) { WITH_ARGUMENT(void *, command, control(fd, command, argument)); } \
    int fcntl64(int fd, int command, ...) { WITH_ARGUMENT(void *, command, control(fd, command, argument)); }

/* reserve(name of the next, fd, offset, length) */
#define FALLOCATE_BY(reserve) \
    int posix_fallocate(int fd, off_t offset, off_t length) { \
        return reserve("posix_fallocate", fd, offset, length); \
    } \
    int posix_fallocate64(int fd, off_t offset, off_t length) { \
        return reserve("posix_fallocate64", fd, offset, length); \
    }

/* map(place, length, protection, flags, fd, offset) */
#define MMAP_BY(map) \
    void *mmap(void *place, size_t length, int protection, int flags, int fd, off_t offset) { \
        return map(place, length, protection, flags, fd, offset); \
    } \
    void *mmap64(void *place, size_t length, int protection, int flags, int fd, off_t offset) { \
        return map(place, length, protection, flags, fd, offset); \
    }
