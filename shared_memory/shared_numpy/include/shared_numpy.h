/* Arrays with a name, which the Python package shared_numpy makes, for C99 and C++11.

       #include <shared_numpy.h>

       snp_array array;
       if (snp_attach("weights", &array) != SNP_OK) {
           fprintf(stderr, "%s\n", array.error);
           return 1;
       }
       const float *items = (const float *)array.data;    (if array.kind is 'f', array.itemsize 4)
       ...
       snp_detach(&array);

   The memory is the one that the Python programs use, mapped read-only. It stays valid until
   snp_detach, also after the array was deleted or replaced. Nothing synchronises a reader with
   writers: they have to agree on that.

   There is no library: include the header and compile, on 64-bit Linux. With -std=c99 or -std=c11
   define _POSIX_C_SOURCE as 200809L; with -std=gnu99 and for C++ nothing is needed.
   `python -c "import shared_numpy; print(shared_numpy.get_include())"` prints the folder for -I.

   The bytes of a file are drawn in the package's _named_layout.py. As there, all that follows from
   other facts is made anew and compared; only the JSON, which tells Python the exact dtype, is
   not looked into. A file of another user, a damaged one, or one of anything else is refused. */

#ifndef SHARED_NUMPY_H
#define SHARED_NUMPY_H

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#if !defined(O_CLOEXEC) || !defined(O_NOFOLLOW)
#error "shared_numpy.h needs POSIX.1-2008: define _POSIX_C_SOURCE as 200809L before any include"
#endif
#if SIZE_MAX < UINT64_MAX
#error "shared_numpy.h needs 64 bits"
#endif

#define SNP_MAX_DIMENSIONS 64

/* What snp_attach returns; snp_array.error says more. */
enum snp_status {
    SNP_OK = 0,
    SNP_BAD_NAME,     /* no array can have this name */
    SNP_NOT_FOUND,    /* there is no array of this name */
    SNP_DENIED,       /* it is another user's */
    SNP_NOT_AN_ARRAY, /* the file is something else, or damaged */
    SNP_OTHER_VERSION, /* an older or newer version of the package has made it */
    SNP_SYSTEM_ERROR  /* memory, or a limit of the process: see errno */
};

typedef struct snp_array {
    const void *data;                      /* the first item */
    size_t nbytes;                         /* of all items */
    size_t itemsize;                       /* bytes of an item; 0 is possible */
    int ndim;                              /* how many dimensions; 0 is possible */
    size_t shape[SNP_MAX_DIMENSIONS];      /* lengths */
    ptrdiff_t strides[SNP_MAX_DIMENSIONS]; /* bytes from an index to the next */
    char order;                            /* 'C' or 'F': which index varies fastest */
    char kind;      /* numpy's dtype.kind: b i u f c m M S U, and V for records and bytes */
    char byteorder; /* '<', '>', or '|' where there is none */
    const char *descr;   /* as in a .npy file: "'<f4'" or "[('x', '<f4'), ('y', '<i2')]"; "" for
                            records that numpy's format cannot express */
    const char *details; /* JSON: "dtype" is whole in any case */
    unsigned char uuid[16]; /* tells it from others that had or will have its name */
    char error[512];        /* after an error: what happened, and to which name */
    void *mapping;          /* for snp_detach */
    size_t mapping_size;
    char *texts;
} snp_array;

/* The rest but snp_attach and snp_detach is internal: names begin with snp__. */

#define SNP__FOOTER 88
#define SNP__LONGEST_TAIL ((uint64_t)1 << 24)
#define SNP__LARGEST ((uint64_t)INT64_MAX)
#define SNP__LONGEST_FOLDER 64

static inline int snp__fail(snp_array *array, int status, const char *name, const char *why)
{
    snprintf(array->error, sizeof array->error, "shm://%.255s: %s", name, why);
    return status;
}

static inline uint32_t snp__u32(const unsigned char *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static inline uint64_t snp__u64(const unsigned char *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

/* Multiplies; returns 0 if the product is too large for any array. */
static inline int snp__multiply(uint64_t *product, uint64_t factor)
{
    if (factor != 0 && *product > SNP__LARGEST / factor) {
        return 0;
    }
    *product *= factor;
    return 1;
}

static inline uint64_t snp__round_up(uint64_t size, uint64_t unit)
{
    return (size + unit - 1) / unit * unit;
}

static inline uint32_t snp__crc32(const unsigned char *bytes, size_t length)
{
    uint32_t crc = 0xffffffffu;
    size_t i;
    int bit;
    for (i = 0; i < length; i++) {
        crc ^= bytes[i];
        for (bit = 0; bit < 8; bit++) {
            crc = (crc >> 1) ^ (0xedb88320u & (0u - (crc & 1u)));
        }
    }
    return ~crc;
}

static inline int snp__all_zero(const unsigned char *bytes, size_t length)
{
    while (length > 0 && bytes[length - 1] == 0) {
        length--;
    }
    return length == 0;
}

/* Reads exactly so many bytes from a place of a file; returns 0 if there are fewer. */
static inline int snp__read(int fd, unsigned char *to, size_t length, uint64_t from)
{
    size_t done = 0;
    while (done < length) {
        ssize_t got = pread(fd, to + done, length - done, (off_t)(from + done));
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return 0;
        }
        done += (size_t)got;
    }
    return 1;
}

/* The descr of a .npy header, as Python's ascii() writes it. Each function reads one thing at *at
   and goes behind it; it returns 0 if that is something else. */

static inline int snp__expect(const char **at, const char *text)
{
    size_t length = strlen(text);
    if (strncmp(*at, text, length) != 0) {
        return 0;
    }
    *at += length;
    return 1;
}

static inline int snp__number(const char **at, uint64_t *value)
{
    *value = 0;
    if (**at < '0' || **at > '9') {
        return 0;
    }
    while (**at >= '0' && **at <= '9') {
        uint64_t digit = (uint64_t)(**at - '0');
        if (*value > (SNP__LARGEST - digit) / 10) {
            return 0;
        }
        *value = *value * 10 + digit;
        *at += 1;
    }
    return 1;
}

/* A name of a field, with all that may be escaped in it. */
static inline int snp__string(const char **at)
{
    char quote = **at;
    if (quote != '\'' && quote != '"') {
        return 0;
    }
    for (*at += 1; **at != quote; *at += 1) {
        if (**at == '\\') {
            *at += 1;
        }
        if (**at == 0) {
            return 0;
        }
    }
    *at += 1;
    return 1;
}

/* A tuple of lengths, by whose product *size is multiplied. */
static inline int snp__lengths(const char **at, uint64_t *size)
{
    uint64_t length;
    int count = 0;
    if (!snp__expect(at, "(")) {
        return 0;
    }
    for (;;) {
        if (!snp__number(at, &length) || !snp__multiply(size, length)) {
            return 0;
        }
        count++;
        if (snp__expect(at, ", ")) {
            continue;
        }
        return count == 1 ? snp__expect(at, ",)") : snp__expect(at, ")");
    }
}

/* What a simple dtype is called: '<f4', '|S10', '<M8[us]'. */
static inline int snp__simple(const char **at, uint64_t *size, char *kind, char *byteorder)
{
    if (!snp__expect(at, "'") || (**at != '<' && **at != '>' && **at != '|')) {
        return 0;
    }
    *byteorder = **at;
    *at += 1;
    if (strchr("biufcmMSUV", **at) == NULL || **at == 0) {
        return 0;
    }
    *kind = **at;
    *at += 1;
    if (!snp__number(at, size) || (*kind == 'U' && !snp__multiply(size, 4))) {
        return 0;
    }
    if (**at == '[' && (*kind == 'm' || *kind == 'M')) {
        while (**at != ']' && **at != '\'' && **at != 0) {
            *at += 1;
        }
        if (!snp__expect(at, "]")) {
            return 0;
        }
    }
    return snp__expect(at, "'");
}

static inline int snp__descr(
    const char **at, uint64_t *size, char *kind, char *byteorder, int depth)
{
    if (depth > 64) {
        return 0;
    }
    if (**at == '\'') {
        return snp__simple(at, size, kind, byteorder);
    }
    if (snp__expect(at, "(")) { /* An array of them. */
        return snp__descr(at, size, kind, byteorder, depth + 1) && snp__expect(at, ", ")
            && snp__lengths(at, size) && snp__expect(at, ")");
    }
    if (!snp__expect(at, "[")) {
        return 0;
    }
    *size = 0;
    *kind = 'V';
    *byteorder = '|';
    if (snp__expect(at, "]")) {
        return 1;
    }
    for (;;) {
        uint64_t field = 0;
        char field_kind, field_order;
        int named;
        if (!snp__expect(at, "(")) {
            return 0;
        }
        if (snp__expect(at, "(")) { /* With a title. */
            named = snp__string(at) && snp__expect(at, ", ") && snp__string(at)
                && snp__expect(at, ")");
        } else {
            named = snp__string(at);
        }
        if (!named || !snp__expect(at, ", ")
            || !snp__descr(at, &field, &field_kind, &field_order, depth + 1)) {
            return 0;
        }
        if (snp__expect(at, ", ") && !snp__lengths(at, &field)) {
            return 0;
        }
        if (!snp__expect(at, ")") || *size > SNP__LARGEST - field) {
            return 0;
        }
        *size += field;
        if (snp__expect(at, "]")) {
            return 1;
        }
        if (!snp__expect(at, ", ")) {
            return 0;
        }
    }
}

/* Writes the header of a .npy file, padded to the 4,096 or 8,192 bytes that it needs; returns their
   number, or 0 if it would be longer. */
static inline size_t snp__header(const snp_array *array, unsigned char *to)
{
    char text[8192];
    size_t used, start;
    int i, written;
    written = snprintf(text, sizeof text, "{'descr': %s, 'fortran_order': %s, 'shape': (",
        array->descr, array->order == 'F' ? "True" : "False");
    if (written < 0 || (size_t)written >= sizeof text) {
        return 0;
    }
    used = (size_t)written;
    for (i = 0; i < array->ndim; i++) {
        written = snprintf(text + used, sizeof text - used, "%s%llu", i > 0 ? ", " : "",
            (unsigned long long)array->shape[i]);
        if (written < 0 || (size_t)written >= sizeof text - used) {
            return 0;
        }
        used += (size_t)written;
    }
    written = snprintf(text + used, sizeof text - used, "%s), }", array->ndim == 1 ? "," : "");
    if (written < 0 || (size_t)written >= sizeof text - used) {
        return 0;
    }
    used += (size_t)written;
    for (start = 4096; start <= 8192; start += 4096) {
        if (used < start - 10) {
            memcpy(to, "\x93NUMPY\x01\x00", 8);
            to[8] = (unsigned char)((start - 10) & 0xff);
            to[9] = (unsigned char)((start - 10) >> 8);
            memset(to + 10, ' ', start - 11);
            memcpy(to + 10, text, used);
            to[start - 1] = '\n';
            return start;
        }
    }
    return 0;
}

/* Checks the end of a file, and what it says of the rest, and fills the array's fields; returns
   NULL, or what is wrong. */
static inline const char *snp__check(
    snp_array *array, const unsigned char *tail, uint64_t length, uint64_t items)
{
    const unsigned char *footer = tail + length - SNP__FOOTER;
    uint64_t ndim = snp__u32(footer + 12);
    uint64_t itemsize = snp__u64(footer + 40);
    uint64_t descr = snp__u32(footer + 48);
    uint64_t details = snp__u32(footer + 52);
    uint64_t used = 8 * ndim + descr + details + 2;
    uint64_t all = itemsize > 0 ? itemsize : 1, bytes = itemsize, stride = itemsize, size = 0;
    char kind = 'V', byteorder = '|';
    const char *at;
    int i, k;
    if (snp__crc32(tail, length - 4) != snp__u32(footer + 84)) {
        return "it is no array: its description is damaged";
    }
    if (ndim > SNP_MAX_DIMENSIONS) {
        return "it is no array: it has too many dimensions";
    }
    if (snp__round_up(used, 8) + SNP__FOOTER != length
        || !snp__all_zero(tail + used, length - SNP__FOOTER - used)
        || !snp__all_zero(footer + 59, 5) || !snp__all_zero(footer + 80, 4)) {
        return "it is no array: its description has no room";
    }
    memcpy(array->texts, tail + 8 * ndim, descr + details + 2);
    array->descr = array->texts;
    array->details = array->texts + descr + 1;
    if (array->descr[descr] != 0 || array->details[details] != 0
        || strlen(array->descr) != descr || strlen(array->details) != details) {
        return "it is no array: its description has no room";
    }
    array->ndim = (int)ndim;
    array->itemsize = itemsize;
    array->nbytes = items;
    array->order = (char)footer[56];
    array->kind = (char)footer[57];
    array->byteorder = (char)footer[58];
    memcpy(array->uuid, footer + 64, sizeof array->uuid);
    if (array->order != 'C' && array->order != 'F') {
        return "it is no array: it has no order";
    }
    for (i = 0; i < array->ndim; i++) {
        array->shape[i] = snp__u64(tail + 8 * i);
        if (array->shape[i] > SNP__LARGEST
            || (array->shape[i] != 0 && !snp__multiply(&all, array->shape[i]))) {
            return "it is no array: its shape is too large";
        }
        bytes *= array->shape[i]; /* (0, or it was seen that it is not too large.) */
    }
    if (all > SNP__LARGEST || bytes != items) {
        return "it is no array: its shape and its size contradict each other";
    }
    for (i = 0; i < array->ndim; i++) {
        k = array->order == 'F' ? i : array->ndim - 1 - i;
        array->strides[k] = (ptrdiff_t)stride;
        stride *= array->shape[k] != 0 ? array->shape[k] : 1;
    }
    at = array->descr;
    if (descr > 0) {
        if (!snp__descr(&at, &size, &kind, &byteorder, 0) || *at != 0 || array->descr[0] == '('
            || size != itemsize) {
            return "it is no array: its dtype and its items contradict each other";
        }
    }
    if (array->kind != kind || array->byteorder != byteorder) {
        return "it is no array: its dtype and its kind contradict each other";
    }
    return NULL;
}

/* Checks a whole file; returns SNP_OK, fills the array's fields and tells where the items start, or
   tells what is wrong. */
static inline int snp__look(
    int fd, uint64_t size, const char *name, snp_array *array, uint64_t *items_at)
{
    unsigned char footer[SNP__FOOTER], head[8192], expected[8192];
    unsigned char *tail;
    uint64_t data, items, start, length;
    const char *wrong;
    if (size >= 64 && snp__read(fd, head, 12, 0) && memcmp(head, "snpNAMED", 8) == 0
        && snp__u32(head + 8) == 1) {
        return snp__fail(array, SNP_OTHER_VERSION, name,
            "an older version of shared_numpy has made it: make it anew");
    }
    if (size < SNP__FOOTER || !snp__read(fd, footer, SNP__FOOTER, size - SNP__FOOTER)
        || memcmp(footer, "snpNAMED", 8) != 0) {
        return snp__fail(array, SNP_NOT_AN_ARRAY, name,
            "it is no array that shared_numpy.create has made: it does not end like one");
    }
    if (snp__u32(footer + 8) != 2) {
        return snp__fail(array, SNP_OTHER_VERSION, name,
            "a newer version of shared_numpy has made it: use its header");
    }
    data = snp__u64(footer + 16);
    items = snp__u64(footer + 24);
    if (snp__u64(footer + 32) != size) {
        return snp__fail(array, SNP_NOT_AN_ARRAY, name, "it is no array: it is cut, or longer");
    }
    if ((data != 4096 && data != 8192) || items > size || data + items > size) {
        return snp__fail(array, SNP_NOT_AN_ARRAY, name, "it is no array: its items have no room");
    }
    start = snp__round_up(data + items, 64);
    if (start > size || size - start < SNP__FOOTER || size - start > SNP__LONGEST_TAIL) {
        return snp__fail(array, SNP_NOT_AN_ARRAY, name,
            "it is no array: its description has no room");
    }
    length = size - start;
    tail = (unsigned char *)malloc(length);
    array->texts = (char *)malloc(length); /* More than enough. */
    if (tail == NULL || array->texts == NULL) {
        free(tail);
        return snp__fail(array, SNP_SYSTEM_ERROR, name, "there is no memory for its description");
    }
    if (!snp__read(fd, tail, length, start) || !snp__read(fd, head, data, 0)) {
        free(tail);
        return snp__fail(array, SNP_NOT_AN_ARRAY, name, "it is no array: it is cut");
    }
    wrong = snp__check(array, tail, length, items);
    free(tail);
    if (wrong != NULL) {
        return snp__fail(array, SNP_NOT_AN_ARRAY, name, wrong);
    }
    if (array->descr[0] == 0) {
        uint32_t version = 2;
        memset(expected, 0, sizeof expected);
        memcpy(expected, "snpNAMED", 8);
        memcpy(expected + 8, &version, sizeof version);
        start = 4096;
    } else {
        start = snp__header(array, expected);
    }
    if (start != data || memcmp(head, expected, data) != 0) {
        return snp__fail(array, SNP_NOT_AN_ARRAY, name,
            "it is no array: its beginning and its end contradict each other");
    }
    *items_at = data;
    return SNP_OK;
}

/* Unmaps an array that snp_attach has filled, whatever that returned; twice does no harm. */
static inline void snp_detach(snp_array *array)
{
    if (array->mapping != NULL) {
        munmap(array->mapping, array->mapping_size);
    }
    free(array->texts);
    memset(array, 0, sizeof *array);
}

/* Opens the file of a name in a folder, of so many bytes; returns -1 and sets errno if it cannot. */
static inline int snp__open(const char *folder, size_t length, const char *plain)
{
    char path[SNP__LONGEST_FOLDER + 1 + 255 + 1];
    int fd;
    if (length > SNP__LONGEST_FOLDER) {
        errno = ENOENT;
        return -1;
    }
    snprintf(path, sizeof path, "%.*s/%s", (int)length, folder, plain);
    do {
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    } while (fd < 0 && errno == EINTR);
    return fd;
}

/* Attaches the array of a name ("weights" or "shm://weights"), read-only. It is looked for in the
   folder that the environment variable SHARED_NUMPY_DIR names, and then in /dev/shm; a path
   ("shm:///run/shared/weights") leads to one folder.

   Returns SNP_OK and fills `array`; or another snp_status, with a message in array->error and
   nothing to detach. */
static inline int snp_attach(const char *name, snp_array *array)
{
    const char *plain = name, *folder = NULL;
    const char *slash;
    struct stat status;
    uint64_t items_at = 0;
    size_t length = 0;
    void *mapping;
    int fd, result;
    memset(array, 0, sizeof *array);
    if (strncmp(plain, "shm://", 6) == 0) {
        plain += 6;
    }
    slash = strrchr(plain, '/');
    if (*plain == '/' && slash != plain) {
        folder = plain;
        length = (size_t)(slash - plain);
        plain = slash + 1;
    } else if (plain != name) {
        plain += strspn(plain, "/");
    }
    if (*plain == 0 || strlen(plain) > 255 || strchr(plain, '/') != NULL || strcmp(plain, ".") == 0
        || strcmp(plain, "..") == 0) {
        return snp__fail(array, SNP_BAD_NAME, plain,
            "a name has 1 to 255 bytes, none of them '/', and is not '.' or '..'");
    }
    if (folder != NULL) {
        fd = snp__open(folder, length, plain);
    } else {
        folder = getenv("SHARED_NUMPY_DIR");
        fd = -1;
        errno = ENOENT;
        if (folder != NULL && *folder == '/') {
            fd = snp__open(folder, strlen(folder), plain);
        }
        if (fd < 0 && errno == ENOENT) {
            fd = snp__open("/dev/shm", strlen("/dev/shm"), plain);
        }
    }
    if (fd < 0) {
        switch (errno) {
        case ENOENT:
            return snp__fail(array, SNP_NOT_FOUND, plain, "there is no array of this name");
        case EACCES:
        case EPERM:
            return snp__fail(array, SNP_DENIED, plain, "the array is another user's");
        case ELOOP:
        case ENXIO:
            return snp__fail(array, SNP_NOT_AN_ARRAY, plain, "it is no array: it is no file");
        default:
            return snp__fail(array, SNP_SYSTEM_ERROR, plain, strerror(errno));
        }
    }
    if (fstat(fd, &status) != 0) {
        result = snp__fail(array, SNP_SYSTEM_ERROR, plain, strerror(errno));
    } else if (!S_ISREG(status.st_mode)) {
        result = snp__fail(array, SNP_NOT_AN_ARRAY, plain, "it is no array: it is no file");
    } else if (status.st_uid != geteuid()) {
        result = snp__fail(array, SNP_DENIED, plain, "the array is another user's");
    } else {
        result = snp__look(fd, (uint64_t)status.st_size, plain, array, &items_at);
    }
    if (result == SNP_OK) {
        mapping = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (mapping == MAP_FAILED) {
            result = snp__fail(array, SNP_SYSTEM_ERROR, plain, strerror(errno));
        } else {
            array->mapping = mapping;
            array->mapping_size = (size_t)status.st_size;
            array->data = (const char *)mapping + items_at;
        }
    }
    close(fd);
    if (result != SNP_OK) { /* Nothing stays but the message. */
        char error[sizeof array->error];
        memcpy(error, array->error, sizeof error);
        snp_detach(array);
        memcpy(array->error, error, sizeof error);
    }
    return result;
}

#endif
