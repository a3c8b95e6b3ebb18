"""What the package asks of the system and of the processes around it.

`forks`           handlers around forks, and no fork in the middle of an import
`generics`        ``Queue[int]`` on every interpreter
`exit_order`      daemon threads at process exit
`posixshmem`      ``shm_open`` and ``shm_unlink``
`tracker_py37`    the resource tracker of CPython 3.6 and 3.7
`process_tree`    what arenas ask of the process tree around them
`leftovers`       what managers of killed programs left
`shm_space`       space in shared memory, asked for or taken
`file_mapping`    files in memory, without a descriptor
`list_layout`     how a `ShareableList` lies in its segment
`named_layout`    how a named array lies in its file
"""
