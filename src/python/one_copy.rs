//! One copy of the extension in a process.
//!
//! The kernel's byte locks belong to processes: two copies, each with its own
//! list of attached arenas, would drop each other's. And an object of one
//! interpreter is nothing to another.

use crate::sys;
use pyo3::exceptions::PyImportError;
use pyo3::ffi;
use pyo3::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What all copies have, so that they find each other; its value is nothing.
#[no_mangle]
#[allow(non_upper_case_globals)]
pub static shared_numpy_core_marker: u8 = 0;

/// The interpreter that has loaded this copy, by its table of builtins; 0 if
/// none has.
static INTERPRETER: AtomicUsize = AtomicUsize::new(0);

/// Refuses a second copy, and a second interpreter.
pub fn check(_py: Python<'_>) -> PyResult<()> {
    // SAFETY: the GIL is held; the result is borrowed and only compared.
    let here = unsafe { ffi::PyEval_GetBuiltins() } as usize;
    let first = INTERPRETER.compare_exchange(0, here, Ordering::Relaxed, Ordering::Relaxed);
    if first.is_err_and(|first| first != here) {
        return Err(PyImportError::new_err(
            "shared_numpy._core is loaded in another interpreter of this process; \
             it works in one only",
        ));
    }
    let mine = &raw const shared_numpy_core_marker as usize;
    if let Some(path) = sys::loaded::other_with(c"shared_numpy_core_marker", mine) {
        return Err(PyImportError::new_err(format!(
            "another copy of shared_numpy._core is loaded in this process, {path}; import one \
             of them only"
        )));
    }
    Ok(())
}
