"""The versions of Dask that are known here."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Tuple

# The last one for CPython 3.8. Those for 3.7 and 3.6 have other handlers, monitors and plugins.
OLDEST = (2023, 5)

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
