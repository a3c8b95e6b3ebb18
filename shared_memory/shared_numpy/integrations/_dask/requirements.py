"""The versions of Dask that are known here."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Tuple

# The first one whose handlers, plugins and handshakes are as they are used here.
OLDEST = (2022, 2)

HINT = "install it with: pip install 'shared-numpy[dask]'"


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
