"""One copy of an array per host of a Dask cluster, and shared arrays by handle within a host.

::

    from distributed import Client
    from shared_numpy.integrations import dask as snp_dask

    client = Client(cluster)
    data = snp_dask.share(client, array)          # one copy per host, for all workers there
    client.map(function, range(100), data=data)   # np.asarray(data), data[10:20], data.sum(0), ...
    data.to_dask(chunks=(1000, 1000))             # a dask array over it
    data.close()

It needs the extra: ``pip install 'shared-numpy[dask]'``, on the client, the scheduler and the
workers. Nothing else is configured, and no process runs beside Dask's own.
"""

from ._dask import requirements  # noqa: F401 (It tells what is missing, before the others need it.)
from ._dask.array import PerHostArray
from ._dask.client import register, share, stats

__all__ = ["PerHostArray", "register", "share", "stats"]
