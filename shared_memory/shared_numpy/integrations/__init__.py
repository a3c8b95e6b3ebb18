"""What pools of other packages need to pass shared arrays by reference.

For another package, call the function ``register`` of the module here that has its name, once,
in the program that sends arrays; ``unregister`` undoes it::

    from shared_numpy.integrations import joblib
    joblib.register()

``multiprocessing`` and ``concurrent.futures`` pass shared arrays by reference without that; with
it they move plain arrays through shared memory, too.
"""
