"""What pools of other packages need to pass shared arrays by reference.

``multiprocessing`` and ``concurrent.futures`` need nothing. For another one, call the
function ``register`` of the module here that has its name, once, in the program that
sends arrays::

    from shared_numpy.integrations import joblib
    joblib.register()
"""
