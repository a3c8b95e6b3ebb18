//! The one conversion of the core's errors into Python's exceptions.

use crate::error::Error;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

/// Makes the `OSError` for `error`; `filename` is the name that the caller gave.
pub fn os_error(py: Python<'_>, error: Error, filename: Option<&PyAny>) -> PyErr {
    let errno = error.errno();
    let make = || -> PyResult<&PyAny> {
        let message = py.import("os")?.call_method1("strerror", (errno,))?;
        let class = py.get_type::<PyOSError>();
        match filename {
            Some(filename) => class.call1((errno, message, filename)),
            None => class.call1((errno, message)),
        }
    };
    // The class picks the subclass (`FileNotFoundError`, …) by the number when
    // it is called. It is called here, and not by the interpreter when the
    // exception is caught: before 3.12 that would look for a handler of plain
    // `OSError`.
    match make() {
        Ok(exception) => PyErr::from_instance(exception),
        Err(failure) => failure,
    }
}
