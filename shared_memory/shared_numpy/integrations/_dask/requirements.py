"""The versions of Dask that are known here, and what is used of them that their manual has not."""

import importlib
import inspect
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, List, Tuple

# The last one for CPython 3.8. Those for 3.7 and 3.6 have other handlers, monitors and plugins.
OLDEST = (2023, 5)

HINT = "install it with: pip install 'shared-numpy[dask]'"
if sys.version_info < (3, 8):
    HINT = "it needs CPython 3.8 or later, with Dask {}.{} or later, and this is CPython {}.{}".format(
        *(OLDEST + sys.version_info[:2])
    )


def _numbers(version: str) -> "Tuple[int, ...]":
    return tuple(int(part) for part in version.split("+")[0].split(".")[:2])


try:
    import distributed
except ImportError as error:
    raise ImportError(
        "shared_numpy.integrations.dask needs dask and distributed ({}): {}".format(error, HINT)
    ) from error

if _numbers(distributed.__version__) < OLDEST:
    raise ImportError(
        "shared_numpy.integrations.dask needs distributed {}.{} or later, and this is {}: {}".format(
            OLDEST[0], OLDEST[1], distributed.__version__, HINT
        )
    )

# Names of classes, each with attributes.
_ATTRIBUTES = [
    ("system_monitor", "SystemMonitor", "get_process_memory"),
    ("worker_memory", "NannyMemoryManager", "memory_monitor"),
    ("worker", "Worker", "get_data handle_scheduler"),
    ("client", "Client", "_close _reconnect subscribe_topic"),
    ("scheduler", "Scheduler", "worker_send log_event proxy"),
]
# Functions, each with parameters.
_PARAMETERS = [
    ("core", "ConnectionPool.__init__", "connection_args"),
    ("comm.core", "connect", "handshake_overrides"),
    ("worker_memory", "NannyMemoryManager.__init__", "memory_limit"),
]


def missing() -> "List[str]":
    """Return what the integration uses, and this version of Dask has not."""
    found = []
    for module, name, attributes in _ATTRIBUTES:
        for attribute in attributes.split():
            if _find(module, name + "." + attribute) is None:
                found.append("{}.{}.{}".format(module, name, attribute))
    for module, name, parameter in _PARAMETERS:
        function = _find(module, name)
        if function is None or parameter not in inspect.signature(function).parameters:
            found.append("{}.{}({})".format(module, name, parameter))
    comm = _find("comm.core", "Comm")
    if comm is None or "remote_info" not in getattr(comm, "__annotations__", ()):
        found.append("comm.core.Comm.remote_info")
    return found


def _find(module, path):
    # type: (str, str) -> Any
    try:
        thing = importlib.import_module("distributed." + module)  # type: Any
        for name in path.split("."):
            thing = getattr(thing, name)
    except (ImportError, AttributeError):
        return None
    return thing


def check() -> None:
    """Raise RuntimeError if this version of Dask lacks something that the integration uses."""
    found = missing()
    if found:
        raise RuntimeError(
            "distributed {} is not known here: it has no {}. Use an older one, or a newer version of "
            "shared-numpy".format(distributed.__version__, ", ".join(found))
        )
