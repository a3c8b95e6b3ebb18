"""One copy of an array per host of a Dask cluster.

::

    client                     scheduler                      workers of a host
    share(): copies the        knows which shares there       the first that needs the share fills
    bytes into the arena       are, whose, and which          the host's arena, under a lock that its
    of its own host       ---> workers have which       ---->  death releases; the others attach
         |                     (a tree of sources)                   ^            |
         +---- pieces of 8 MiB, where no worker has them ------------+            +--> workers of other
                                                                                       hosts, in pieces

`requirements`   the versions of Dask that are known here
`image`          the bytes of a share in one block: a header, a flag for each piece, the buffers
`host_memory`    the arena of a share on this host, and the lock under which it is filled
`copies`         the copies that this process has open, one for each share
`array`          the array that stands for all copies of a share
`memory`         which memory of a worker counts for it: not what it shares
`results`        shared arrays that tasks return: by handle within a host
`filling`        a copy in the making, and where its bytes come from
`worker`         what a worker does: fills, serves, attaches
`scheduler`      what the scheduler knows: shares, their clients, and who has them
`client`         what the program does that shares

A *host* is whatever shares a folder for arenas, normally /dev/shm: a worker looks for the share's
arena there, and makes it if there is none. No address is compared.

A share ends with ``close()``, or when its client leaves the scheduler. The scheduler tells the
workers, each of which drops its reference; the last one to leave the arena removes it. A share that
has ended stays ended: a worker remembers those of which it was told, and asks the scheduler before
it opens another.
"""
