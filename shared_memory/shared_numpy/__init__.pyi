# The public names, for type checkers and editors; at run time `__init__.py` imports each at its first use.

from . import array_manager as array_manager
from . import arrays as arrays
from . import backport as backport
from . import compat as compat
from . import context as context
from . import demo as demo
from . import errors as errors
from . import executor as executor
from . import ring_buffer as ring_buffer
from . import handles as handles
from . import integrations as integrations
from . import managers as managers
from . import named as named
from . import queues as queues
from . import resource_tracker as resource_tracker
from . import shared_memory as shared_memory
from ._command.findings import diagnose as diagnose
from ._pickling.copy_warnings import warn_on_copy as warn_on_copy
from ._system.block_trace import trace_blocks as trace_blocks
from ._core import (
    Arena as Arena,
    Block as Block,
    __version__ as __version__,
    clean as clean,
    machine as machine,
    stats as stats,
    trim as trim,
)
from .array_manager import ArrayManager as ArrayManager
from .arrays import (
    array as array,
    asarray as asarray,
    empty as empty,
    empty_like as empty_like,
    from_array as from_array,
    full as full,
    full_like as full_like,
    is_shared as is_shared,
    name_of as name_of,
    ndarray as ndarray,
    ones as ones,
    ones_like as ones_like,
    share as share,
    zeros as zeros,
    zeros_like as zeros_like,
)
from .context import SharedContext as SharedContext
from .errors import (
    ArenaBusyError as ArenaBusyError,
    ArenaCorruptedError as ArenaCorruptedError,
    ArenaFullError as ArenaFullError,
    CopyWarning as CopyWarning,
    ForeignHandleError as ForeignHandleError,
    StaleHandleError as StaleHandleError,
)
from .executor import ProcessPoolExecutor as ProcessPoolExecutor
from .ring_buffer import RingBuffer as RingBuffer
from .handles import Handle as Handle, receive as receive, send as send
from .managers import SharedMemoryManager as SharedMemoryManager
from .named import (
    attach as attach,
    create as create,
    delete as delete,
    get_include as get_include,
    list_named as list_named,
)
from .queues import JoinableQueue as JoinableQueue, Queue as Queue, SimpleQueue as SimpleQueue
from .shared_memory import ShareableList as ShareableList, SharedMemory as SharedMemory
from ._pickling.classes import register_type as register_type

__all__ = [
    "array", "asarray", "empty", "empty_like", "from_array", "full", "full_like", "ndarray", "ones",
    "ones_like", "zeros", "zeros_like", "Queue", "ProcessPoolExecutor", "create", "attach", "delete",
    "SharedMemory", "ShareableList", "SharedMemoryManager", "shared_memory",
]  # fmt: skip
