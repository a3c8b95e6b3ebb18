"""Shared arrays by reference through the pools of other packages.

Each module here has the name of a package. Call its function ``register`` once, in the program that
sends arrays; ``unregister`` undoes it::

    from shared_numpy.integrations import joblib
    joblib.register()

``dask`` is for clusters: its ``share`` makes one copy of an array per host, and its ``register``, which
is called with a client, holds as long as the cluster.

``multiprocessing`` and ``concurrent.futures`` pass shared arrays by reference without that; with
it they move plain arrays through shared memory, too.
"""
