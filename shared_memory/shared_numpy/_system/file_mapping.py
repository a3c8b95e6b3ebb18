"""Mappings of files that need no descriptor.

`mmap.mmap` keeps a duplicate of the descriptor for each file, and a process has 1,024 descriptors by
default: it could not have more arrays. Here the object maps anonymous memory first, then the file is
mapped over it.
"""

import errno
import mmap
import sys

from .. import _core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional, Type

# Not reserved: the anonymous memory is never used, and must not count as committed. Private: if it
# were shared, the kernel would make a file for it.
_FLAGS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _core.MAP_NORESERVE


def map_file(
    fd: int, size: int, cls: "Optional[Type[mmap.mmap]]" = None, readonly: bool = False
) -> "Any":
    """Map a file; its descriptor can be closed afterwards.

    Parameters
    ----------
    fd : int
        A descriptor of the file, open for writing unless `readonly`.
    size : int
        The file's length in bytes.
    cls : type, optional
        A subclass of `mmap.mmap`.
    readonly : bool
        Map the file so that writing is not possible.

    Returns
    -------
    mmap.mmap
        A shared mapping of the whole file.

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
        # With vm.overcommit_memory=2, and where a process may have little memory of its own
        # (RLIMIT_DATA), the kernel counts anonymous memory, and refuses it. A file does not count.
        return cls(fd, size, mmap.MAP_SHARED, protection)
    _core.map_file(mapping, fd, not readonly)
    return mapping
