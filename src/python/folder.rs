//! Where arenas and named arrays are made and looked for, as Python asks for it.

use super::error::exception;
use crate::process::folder;
use crate::sys::shm;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::os::fd::BorrowedFd;

/// Adds the functions to the module.
pub fn add_to(module: &PyModule) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(is_on_tmpfs, module)?)?;
    module.add_function(wrap_pyfunction!(py_folder, module)?)
}

/// The folder that a caller or the environment has chosen; None for that of POSIX's objects.
pub fn chosen(py: Python<'_>, directory: Option<&PyAny>) -> PyResult<Option<String>> {
    let folder = match directory {
        None => folder::of_environment(),
        Some(directory) => {
            let path = py.import("os")?.getattr("fspath")?.call1((directory,))?;
            folder::check(path.extract()?)
        }
    };
    folder.map_err(PyValueError::new_err)
}

/// Return the folder for shared memory that a caller has chosen, or else the environment.
///
/// Parameters
/// ----------
/// directory : str or path-like, optional
///     Its path; by default what the variable SHARED_NUMPY_DIR says.
///
/// Returns
/// -------
/// str or None
///     None for /dev/shm.
///
/// Raises
/// ------
/// ValueError
///     It is not on a tmpfs, or its path is not absolute, plain and of at most 64 bytes.
#[pyfunction(directory = "None")]
#[pyo3(name = "folder", text_signature = "(directory=None)")]
fn py_folder(py: Python<'_>, directory: Option<&PyAny>) -> PyResult<Option<String>> {
    chosen(py, directory)
}

/// Tell whether an open file lies on a tmpfs.
///
/// Parameters
/// ----------
/// fd : int
///     A descriptor of the file.
///
/// Returns
/// -------
/// bool
///
/// Raises
/// ------
/// OSError
///     It cannot be asked.
#[pyfunction]
#[pyo3(text_signature = "(fd)")]
fn is_on_tmpfs(py: Python<'_>, fd: i32) -> PyResult<bool> {
    if fd < 0 {
        return Err(PyValueError::new_err("a descriptor is not negative"));
    }
    // SAFETY: borrowed for one question; a number that is nobody's gets EBADF for an answer.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    shm::is_on_tmpfs(fd).map_err(|error| exception(py, error))
}
