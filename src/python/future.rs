//! The step of a future that no other thread may come between.

use pyo3::ffi;
use pyo3::once_cell::GILOnceCell;
use pyo3::prelude::*;
use pyo3::AsPyPointer;
use std::ffi::CStr;

/// Adds the function of this file to the extension module.
pub fn add_to(module: &PyModule) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(settle, module)?)
}

/// The attributes of a future that are used here.
struct Names {
    result: PyObject,
    is_watched: PyObject,
    state: PyObject,
}

fn names(py: Python<'_>) -> &'static Names {
    static NAMES: GILOnceCell<Names> = GILOnceCell::new();
    NAMES.get_or_init(py, || Names {
        result: interned(py, c"_result"),
        is_watched: interned(py, c"_is_watched"),
        state: interned(py, c"_state"),
    })
}

/// The one string of this text that attributes are found by.
fn interned(py: Python<'_>, text: &CStr) -> PyObject {
    // SAFETY: text that ends with a zero.
    let string = unsafe { ffi::PyUnicode_InternFromString(text.as_ptr()) };
    // SAFETY: a reference of our own, or null with an exception.
    unsafe { PyObject::from_owned_ptr(py, string) }
}

/// Give a running future its result, unless it is watched: in one step for all other threads.
///
/// Between the looks and the change of ``_state`` nothing is allocated and no code of Python's
/// runs, so no other thread does.
///
/// Parameters
/// ----------
/// future : LightFuture
///     Which has a ``_state`` of its own.
/// result : object
/// running : str
///     Its state.
/// finished : str
///     Its state then.
///
/// Returns
/// -------
/// bool
///     False if it is watched, and is to be told so with its condition held; or not running.
#[pyfunction]
#[pyo3(text_signature = "(future, result, running, finished)")]
fn settle(
    py: Python<'_>,
    future: &PyAny,
    result: &PyAny,
    running: &PyAny,
    finished: &PyAny,
) -> PyResult<bool> {
    let names = names(py);
    future.setattr(names.result.as_ref(py), result)?;
    let is_running = future.getattr(names.state.as_ref(py))?.as_ptr() == running.as_ptr();
    if !is_running || future.getattr(names.is_watched.as_ref(py))?.is_true()? {
        return Ok(false);
    }
    future.setattr(names.state.as_ref(py), finished)?;
    Ok(true)
}
