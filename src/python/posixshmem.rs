//! `shm_open` and `shm_unlink`, the space for objects, and renaming them.
//!
//! The first two have the signatures and errors of CPython 3.8's
//! `_posixshmem`. One difference: a name with an embedded NUL is refused, as
//! CPython does since 3.11.9, where 3.8 silently uses the part before it.

use super::error::os_error;
use super::gil::without_gil;
use crate::error::Result;
use crate::segment::Reservation;
use crate::sys;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
#[cfg(arenas)]
use pyo3::types::PyBytes;
use pyo3::types::PyString;
use std::ffi::CString;
use std::os::fd::{BorrowedFd, IntoRawFd};
use std::os::raw::c_int;

/// Adds the functions of this file to the extension module.
pub fn add_to(module: &PyModule) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(shm_open, module)?)?;
    module.add_function(wrap_pyfunction!(shm_unlink, module)?)?;
    module.add_function(wrap_pyfunction!(room, module)?)?;
    #[cfg(arenas)]
    module.add_function(wrap_pyfunction!(rename, module)?)?;
    #[cfg(arenas)]
    module.add_function(wrap_pyfunction!(memory_left, module)?)?;
    module.add_function(wrap_pyfunction!(reserve, module)?)
}

/// Open a shared memory object and return its file descriptor.
///
/// Parameters
/// ----------
/// path : str
///     The object's name, "/name" to be portable.
/// flags : int
///     As for ``os.open``.
/// mode : int
///     Permission bits of an object that the call creates.
///
/// Returns
/// -------
/// int
///     A descriptor, not inherited by programs that the process executes.
///
/// Raises
/// ------
/// OSError
///     The call failed; ``filename`` is `path`.
/// ValueError
///     `path` contains a NUL character.
#[pyfunction(mode = "0o777")]
#[pyo3(text_signature = "(path, flags, mode=511)")]
fn shm_open(py: Python<'_>, path: &PyAny, flags: c_int, mode: c_int) -> PyResult<c_int> {
    let name = object_name("shm_open", path)?;
    let fd = uninterrupted(py, Some(path), || sys::shm::open(&name, flags, mode as u32))?;
    Ok(fd.into_raw_fd())
}

/// Remove the name of a shared memory object.
///
/// The memory itself lives until the last process has closed it.
///
/// Parameters
/// ----------
/// path : str
///     The object's name.
///
/// Raises
/// ------
/// OSError
///     The call failed (``FileNotFoundError``: there is no such object);
///     ``filename`` is `path`.
/// ValueError
///     `path` contains a NUL character.
#[pyfunction]
#[pyo3(text_signature = "(path)")]
fn shm_unlink(py: Python<'_>, path: &PyAny) -> PyResult<()> {
    let name = object_name("shm_unlink", path)?;
    uninterrupted(py, Some(path), || sys::shm::unlink(&name))
}

/// Give a file another name.
///
/// Parameters
/// ----------
/// old : bytes
///     The file's path.
/// new : bytes
///     A path in the same file system.
/// exchange : bool
///     Whether `new` is a file that gets the name `old`, in one step. Else nobody may have
///     that name.
///
/// Raises
/// ------
/// OSError
///     FileNotFoundError: there is no `old`, or no `new` to exchange it with.
///     FileExistsError: a file has the name `new`, which was not to be exchanged.
#[cfg(arenas)]
#[pyfunction]
#[pyo3(text_signature = "(old, new, exchange)")]
fn rename(py: Python<'_>, old: &PyBytes, new: &PyBytes, exchange: bool) -> PyResult<()> {
    let path = |bytes: &PyBytes| {
        CString::new(bytes.as_bytes()).map_err(|_| PyValueError::new_err("embedded null character"))
    };
    let how = match exchange {
        true => sys::shm::Rename::Exchange,
        false => sys::shm::Rename::New,
    };
    sys::shm::rename(&path(old)?, &path(new)?, how).map_err(|error| os_error(py, error, Some(new)))
}

/// Return how many bytes the file system of a descriptor can still take.
///
/// Parameters
/// ----------
/// fd : int
///     A descriptor of a shared memory object.
///
/// Returns
/// -------
/// int or None
///     Bytes; None if the file system has no limit.
///
/// Raises
/// ------
/// OSError
///     The call failed.
#[pyfunction]
#[pyo3(text_signature = "(fd)")]
fn room(py: Python<'_>, fd: c_int) -> PyResult<Option<u64>> {
    let fd = borrowed(&fd)?;
    let room = sys::shm::room(fd);
    let free = room.map(|room| room.map(|room| room.free));
    free.map_err(|error| os_error(py, error, None))
}

/// Return how much memory the control groups of this process leave it.
///
/// Returns
/// -------
/// int or None
///     Bytes, pages of files included, which are given up first; None without a limit, or if
///     memory may be swapped. More than that is not refused but ends a process.
#[cfg(arenas)]
#[pyfunction]
#[pyo3(text_signature = "()")]
fn memory_left() -> Option<u64> {
    sys::cgroup::memory()
}

/// Take the memory for the first `size` bytes of a shared memory object now.
///
/// Writing there can then no longer end the process with SIGBUS. Bytes that
/// exist keep their values. Other threads run meanwhile; signal handlers run
/// too, and an exception from one ends the call.
///
/// Parameters
/// ----------
/// fd : int
///     A descriptor of the object, open for writing.
/// size : int
///     Bytes to reserve, from the object's start.
///
/// Raises
/// ------
/// OSError
///     The memory is not there (ENOSPC), or the object does not support it.
#[pyfunction]
#[pyo3(text_signature = "(fd, size)")]
fn reserve(py: Python<'_>, fd: c_int, size: u64) -> PyResult<()> {
    let fd = borrowed(&fd)?;
    if size > i64::MAX as u64 {
        return Err(PyValueError::new_err(format!(
            "'size' must fit a signed 64-bit file offset, not {size}"
        )));
    }
    let mut reservation = Reservation::new(size);
    while !uninterrupted(py, None, || reservation.step(fd))? {
        py.check_signals()?;
    }
    Ok(())
}

/// Lends the descriptor that is the argument `fd`.
pub fn borrowed(fd: &c_int) -> PyResult<BorrowedFd<'_>> {
    if *fd < 0 {
        return Err(PyValueError::new_err(format!(
            "'fd' must be a descriptor, not {fd}"
        )));
    }
    // SAFETY: `fd` is not -1, and it is only lent to one system call at a time.
    // Another thread may close it meanwhile; the kernel then answers EBADF, or
    // works on what the number names next, as with any function of `os`.
    Ok(unsafe { BorrowedFd::borrow_raw(*fd) })
}

/// Reads the name of a shared memory object from the argument `path`.
fn object_name(function: &str, path: &PyAny) -> PyResult<CString> {
    let text: &PyString = path.downcast().map_err(|_| {
        let class = path.get_type().name().unwrap_or("another type");
        PyTypeError::new_err(format!(
            "{function}() argument 'path' must be str, not {class}"
        ))
    })?;
    CString::new(text.to_str()?).map_err(|_| PyValueError::new_err("embedded null character"))
}

/// Makes `call` without the GIL, again for as long as a signal interrupts it.
///
/// Pending signal handlers run in between, and an exception from one of them is
/// the result. Any other failure becomes an `OSError`, about `path` if given.
fn uninterrupted<T: Send>(
    py: Python<'_>,
    path: Option<&PyAny>,
    mut call: impl FnMut() -> Result<T> + Send,
) -> PyResult<T> {
    loop {
        match without_gil(py, &mut call) {
            Ok(value) => return Ok(value),
            Err(error) if error.errno() == sys::EINTR => py.check_signals()?,
            Err(error) => return Err(os_error(py, error, path)),
        }
    }
}
