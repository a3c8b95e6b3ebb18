//! The extension module `shared_numpy._core`: the only place with pyo3.
//!
//! Its functions turn Python's arguments into the core's, release the GIL while the system works,
//! and turn the core's errors into exceptions. `shared_memory/shared_numpy/_core.pyi` mirrors what
//! is added here. Upwards it knows two modules of the package by name, and not before they are
//! needed: `errors`, where the exceptions are, and `_system.process_tree`, which knows the
//! processes around this one.
//!
//! The files, from the bottom to the top:
//!
//! | module            | holds                                                              |
//! |-------------------|--------------------------------------------------------------------|
//! | `exit_state`      | how far this process is with its exit                              |
//! | `gil`             | releasing the GIL and acquiring it again                           |
//! | `shutdown`        | threads that the interpreter is about to end                       |
//! | `error`           | the core's errors as exceptions                                    |
//! | `operation`       | an operation of the core: signals while it waits, its errors       |
//! | `posixshmem`      | `shm_open`, `shm_unlink`, and the space for what they open         |
//! | `mapping`         | a file in the place of memory that an `mmap` object has mapped     |
//! | `packet`          | packets through pipes                                              |
//! | `folder`          | where arenas and named arrays are made                             |
//! | `machine`         | what this machine has                                              |
//! | `look`            | arenas and processes, seen from outside                            |
//! | `future`          | the step of a future that no other thread may come between         |
//! | `one_copy`        | one copy of the extension in a process                             |
//! | `process_tree`    | what the tree's resource tracker is told; exit                     |
//! | `records`         | log records of what has happened                                   |
//! | `traffic`         | this process's counters                                            |
//! | `attaching`       | making an arena and attaching one                                  |
//! | `default_arena`   | which arena this process allocates in                              |
//! | `objects`         | the classes `Arena` and `Block`, without their methods             |
//! | `block_trace`     | where blocks were made                                             |
//! | `handles`         | handles and names of blocks                                        |
//! | `ticket_guard`    | a handle while it is pickled                                       |
//! | `numpy`           | arrays on blocks                                                   |
//! | `new_arrays`      | arrays in new blocks                                               |
//! | `message`         | pickles in blocks                                                  |
//! | `closable`        | what several threads use while one closes it                       |
//! | `ring`, `frames`  | rings of messages and of frames                                    |
//! | `fast_pickle`     | simple objects as bytes, without a pickler                         |
//! | `numpy_allocator` | numpy's allocations in the arena                                   |
//! | `block`, `arena`  | the methods of `Block` and `Arena`                                 |
//! | `all_arenas`      | functions over all arenas of a process, or of its user             |

mod error;
mod gil;
mod mapping;
mod packet;
mod posixshmem;

#[cfg(arenas)]
mod all_arenas;
#[cfg(arenas)]
mod arena;
#[cfg(arenas)]
mod attaching;
#[cfg(arenas)]
mod block;
#[cfg(arenas)]
mod block_trace;
#[cfg(arenas)]
mod closable;
#[cfg(arenas)]
mod default_arena;
#[cfg(arenas)]
mod exit_state;
#[cfg(arenas)]
mod fast_pickle;
#[cfg(arenas)]
mod folder;
#[cfg(arenas)]
mod frames;
#[cfg(arenas)]
mod future;
#[cfg(arenas)]
mod handles;
#[cfg(arenas)]
mod look;
#[cfg(arenas)]
mod machine;
#[cfg(arenas)]
mod message;
#[cfg(arenas)]
mod new_arrays;
#[cfg(arenas)]
mod numpy;
#[cfg(arenas)]
mod numpy_allocator;
#[cfg(arenas)]
mod objects;
#[cfg(arenas)]
mod one_copy;
#[cfg(arenas)]
mod operation;
#[cfg(arenas)]
mod process_tree;
#[cfg(arenas)]
mod records;
#[cfg(arenas)]
mod ring;
#[cfg(arenas)]
mod shutdown;
#[cfg(arenas)]
mod ticket_guard;
#[cfg(arenas)]
mod traffic;

use pyo3::prelude::*;

/// The compiled core of shared_numpy.
#[pymodule]
fn _core(_py: Python<'_>, module: &PyModule) -> PyResult<()> {
    #[cfg(arenas)]
    {
        one_copy::check(_py)?;
        crate::process::watch_forks().map_err(|failure| error::exception(_py, failure))?;
    }
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    posixshmem::add_to(module)?;
    mapping::add_to(module)?;
    packet::add_to(module)?;
    #[cfg(arenas)]
    add_arena_to(module)?;
    Ok(())
}

#[cfg(arenas)]
fn add_arena_to(module: &PyModule) -> PyResult<()> {
    block::add_to(module)?;
    module.add_class::<ticket_guard::TicketGuard>()?;
    module.add_function(wrap_pyfunction!(array_maker, module)?)?;
    numpy::add_to(module)?;
    fast_pickle::add_to(module)?;
    numpy_allocator::add_to(module)?;
    message::add_to(module)?;
    machine::add_to(module)?;
    look::add_to(module)?;
    ring::add_to(module)?;
    frames::add_to(module)?;
    folder::add_to(module)?;
    future::add_to(module)?;
    process_tree::add_to(module)?;
    default_arena::add_to(module)?;
    handles::add_to(module)?;
    new_arrays::add_to(module)?;
    block_trace::add_to(module)?;
    records::add_to(module)?;
    traffic::add_to(module)?;
    arena::add_to(module)?;
    all_arenas::add_to(module)
}

/// Tell how arrays are made: by numpy's functions in "C", or in "Python".
#[cfg(arenas)]
#[pyfunction]
#[pyo3(text_signature = "()")]
fn array_maker(py: Python<'_>) -> PyResult<&'static str> {
    numpy::way(py)
}
