"""The system and the process tree around the package.

`forks`           handlers around forks, and no fork in the middle of an import
`generics`        ``Queue[int]`` on every interpreter
`interruptions`   results that no exception of a signal handler can come before
`block_trace`     where the blocks were made that are alive
`records`         log records of what has happened
`exit_order`      the order in which parts end at process exit; daemon threads then
`posixshmem`      ``shm_open`` and ``shm_unlink``
`tracker_py37`    the resource tracker of CPython 3.6 and 3.7
`process_tree`    the process tree around an arena: its tracker, forks, process exit
`leftovers`       removes the blocks of managers that were killed
`shm_space`       room in shared memory, checked or reserved
`file_mapping`    mappings of files that need no descriptor
`list_layout`     the layout of a `ShareableList` in its segment
`named_layout`    the layout of a named array's file
"""
