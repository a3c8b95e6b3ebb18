"""How objects travel between processes: by reference, moved, or by value.

`copy_warnings`              warnings where a shared array is pickled by value
`registry`                   which function reduces which class, in which picklers
`by_reference`               arrays in shared memory: the handle of a block, and an offset in it
`copies`                     copies of arrays in new blocks
`shared_copies`              one copy of a huge array for many receivers
`moved`                      plain arrays: by reference, moved, or by value
`masked`                     masked arrays, matrices, records
`classes`                    users' classes that hold arrays
`multiprocessing_reducers`   plain arrays in the channels of `multiprocessing`
`pickler`                    the pickler of this package's channels
`closures`                   the same for functions that another process cannot import
"""
