//! A file in the place of memory that an `mmap` object has mapped.
//!
//! The stable ABI of 3.6 has no buffer protocol for classes written in Rust, so the memory
//! that Python sees is an `mmap` object, and that would keep a descriptor of its own for
//! each file.

use super::error::os_error;
use super::posixshmem::borrowed;
use crate::sys;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyType;
use pyo3::{ffi, AsPyPointer};
use std::ffi::{c_int, c_void};
use std::ptr::NonNull;

extern "C" {
    /// In the stable ABI of every version from 3.2 on, also where no header has it any more.
    fn PyObject_AsReadBuffer(
        object: *mut ffi::PyObject,
        first: *mut *const c_void,
        length: *mut isize,
    ) -> c_int;
}

/// Adds what is in this file to the extension module.
pub fn add_to(module: &PyModule) -> PyResult<()> {
    module.add("MAP_NORESERVE", sys::map::NORESERVE)?;
    module.add("PAGE_SIZE", sys::probe::page_size())?;
    module.add_function(wrap_pyfunction!(map_file, module)?)
}

/// Put a file in the place of the memory that an ``mmap`` object has mapped.
///
/// Parameters
/// ----------
/// mapping : mmap.mmap
///     Anonymous memory that nobody has used yet. Its length is the file's.
/// fd : int
///     A descriptor of the file, which the mapping does not keep.
/// writable : bool
///     Whether the file can be written to by it.
///
/// Raises
/// ------
/// OSError
///     The file cannot be mapped.
/// TypeError
///     `mapping` is no ``mmap.mmap``.
#[pyfunction]
#[pyo3(text_signature = "(mapping, fd, writable)")]
fn map_file(py: Python<'_>, mapping: &PyAny, fd: c_int, writable: bool) -> PyResult<()> {
    let class: &PyType = py.import("mmap")?.getattr("mmap")?.downcast()?;
    if !class.is_instance(mapping)? {
        return Err(PyTypeError::new_err(format!(
            "'mapping' must be an mmap.mmap, not {}",
            mapping.get_type().name().unwrap_or("another type")
        )));
    }
    let (mut first, mut length) = (std::ptr::null(), 0);
    // SAFETY: a live object, and two places for the answers, which are set if it returns 0.
    let answer = unsafe { PyObject_AsReadBuffer(mapping.as_ptr(), &mut first, &mut length) };
    if answer != 0 {
        return Err(PyErr::fetch(py));
    }
    let Some(first) = NonNull::new(first as *mut u8) else {
        return Err(PyTypeError::new_err("'mapping' has no memory"));
    };
    // SAFETY: an `mmap` object begins at a page of its own and has all pages of its length. The
    // caller has made it for this, so that nobody needs what is there; it unmaps the same pages
    // in the end, whatever they show. The GIL is held: no other thread can close it.
    unsafe { sys::map::over(first, length as usize, borrowed(&fd)?, writable) }
        .map_err(|error| os_error(py, error, None))
}
