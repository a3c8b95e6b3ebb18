"""Files in memory, without a descriptor.

`mmap.mmap` keeps a descriptor of its own for each file that it maps, so that a process that
has the usual 1,024 could have no more arrays than that. Here the object maps memory that
belongs to no file, and then the file is put in its place.
"""

import errno
import mmap
import sys

from .. import _core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional, Type

# Shared and not reserved: memory that will never be used is not to be counted.
_FLAGS = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | _core.MAP_NORESERVE


def map_file(
    fd: int, size: int, cls: "Optional[Type[mmap.mmap]]" = None, readonly: bool = False
) -> "Any":
    """Map a file, which needs no descriptor any more.

    Parameters
    ----------
    fd : int
        A descriptor of the file, open for writing unless `readonly`.
    size : int
        The file's length in bytes.
    cls : type, optional
        A subclass of `mmap.mmap`.
    readonly : bool
        Whether no write shall be possible.

    Returns
    -------
    mmap.mmap
        All of the file, shared with whoever has it.

    Raises
    ------
    ValueError
        The file is empty.
    OSError
        It cannot be mapped.
    """
    if not size:
        raise ValueError("cannot mmap an empty file")
    if size > sys.maxsize:
        text = "{:,} bytes are more than this interpreter, of 32 bits, can map"
        raise OSError(errno.ENOMEM, text.format(size))
    cls = mmap.mmap if cls is None else cls
    protection = mmap.PROT_READ if readonly else mmap.PROT_READ | mmap.PROT_WRITE
    try:
        mapping = cls(-1, size, _FLAGS, protection)
    except OSError:
        # Under strict accounting (vm.overcommit_memory=2) the system refuses even memory that
        # is not reserved, if it is more than it has left. A file it does map.
        return cls(fd, size, mmap.MAP_SHARED, protection)
    _core.map_file(mapping, fd, not readonly)
    return mapping
