"""Doors for the users of other projects: their names, over this package's engine.

==============  ===========================================================
`npshmex`       an executor, and arrays under keys
`pyarraypool`   arrays that are made transferable
`contextshare`  arrays that workers know by name
`jztools`       arrays with a manager and a scope (``jztools.shared_memory``)
`sharedarray`   arrays with names, in memory or files (``SharedArray``)
==============  ===========================================================

A program changes an import and keeps its code. Those of ``shared_numpy`` change nothing.
"""
