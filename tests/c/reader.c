/* Prints what shared_numpy.h tells of the arrays whose names are the arguments, a line each:
   status, kind, byte order, order, itemsize, nbytes, shape, strides, descr, and the CRC-32 of
   the items; or the status and the message. Compiled as C99 and as C++11. */

#include <shared_numpy.h>

int main(int argc, char **argv)
{
    int i, k;
    for (i = 1; i < argc; i++) {
        snp_array array;
        int status = snp_attach(argv[i], &array);
        if (status != SNP_OK) {
            printf("%d\t%s\n", status, array.error);
            if (array.data != NULL || array.mapping != NULL || array.texts != NULL) {
                return 1;
            }
        } else {
            printf("0\t%c\t%c\t%c\t%lu\t%lu\t", array.kind, array.byteorder, array.order,
                (unsigned long)array.itemsize, (unsigned long)array.nbytes);
            for (k = 0; k < array.ndim; k++) {
                printf("%lu,", (unsigned long)array.shape[k]);
            }
            printf("\t");
            for (k = 0; k < array.ndim; k++) {
                printf("%ld,", (long)array.strides[k]);
            }
            printf("\t%s\t%lu\n", array.descr,
                (unsigned long)snp__crc32((const unsigned char *)array.data, array.nbytes));
        }
        snp_detach(&array);
        snp_detach(&array);
    }
    return 0;
}
