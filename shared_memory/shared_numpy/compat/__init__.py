"""Compatibility modules: the names of other projects, on top of this package.

==============  ===========================================================
`npshmex`       an executor, and arrays under keys
`pyarraypool`   arrays that are made transferable
`contextshare`  arrays that workers know by name
`jztools`       arrays with a manager and a scope (``jztools.shared_memory``)
`sharedarray`   arrays with names, in memory or files (``SharedArray``)
==============  ===========================================================

A program changes its imports and keeps its code. Programs written for the other project named
``shared_numpy`` do not change anything.
"""
