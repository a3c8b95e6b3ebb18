//! The one conversion of the core's errors into Python's exceptions.
//!
//! The classes are those of the package's module `errors`, which imports nothing.

#[cfg(arenas)]
use super::gil::surviving;
use crate::error::Error;
#[cfg(arenas)]
use crate::{
    activity::{Event, EVENTS},
    process,
    sys::proc,
};
use pyo3::exceptions::PyOSError;
#[cfg(arenas)]
use pyo3::exceptions::{PyEOFError, PyValueError};
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

/// Makes the exception for `error`.
#[cfg(arenas)]
#[cold]
pub fn exception(py: Python<'_>, error: Error) -> PyErr {
    surviving(&mut || make_exception(py, error))
}

#[cfg(arenas)]
fn make_exception(py: Python<'_>, error: Error) -> PyErr {
    let made = match error {
        Error::Os { .. } | Error::Interrupted | Error::Closed => return os_error(py, error, None),
        Error::Missing { errno, .. } => py
            .get_type::<PyOSError>()
            .call1((errno, error.to_string()))
            .map(|exception| -> &PyAny { exception }),
        Error::Orphaned => return PyEOFError::new_err(error.to_string()),
        Error::BadHandle { .. } | Error::Detached | Error::Invalid { .. } => {
            return PyValueError::new_err(error.to_string())
        }
        Error::Stale => simple(py, "StaleHandleError", error),
        Error::Foreign { .. } | Error::OtherVersion { .. } => {
            simple(py, "ForeignHandleError", error)
        }
        Error::Corrupted { .. } => simple(py, "ArenaCorruptedError", error),
        Error::Full { asked, left, .. } => {
            let memory = error.is_for_want_of_memory();
            let event = Event::Refused {
                asked,
                left,
                memory,
            };
            EVENTS.note([0, 0], event);
            let message = match memory {
                true => format!("{error}. {}", process::situation()),
                false => error.to_string(),
            };
            with_errno(py, "ArenaFullError", error, message).and_then(|exception| {
                exception.setattr("asked", asked)?;
                exception.setattr("left", left)?;
                Ok(exception)
            })
        }
        Error::Busy { pid, .. } => {
            let state = state(pid);
            let message = format!("{error} (it is {state})");
            with_errno(py, "ArenaBusyError", error, message).and_then(|exception| {
                exception.setattr("pid", pid)?;
                exception.setattr("state", state)?;
                Ok(exception)
            })
        }
    };
    match made {
        Ok(exception) => PyErr::from_instance(exception),
        Err(failure) => failure,
    }
}

#[cfg(arenas)]
fn class<'py>(py: Python<'py>, name: &str) -> PyResult<&'py PyAny> {
    py.import("shared_numpy.errors")?.getattr(name)
}

#[cfg(arenas)]
fn simple<'py>(py: Python<'py>, name: &str, error: Error) -> PyResult<&'py PyAny> {
    class(py, name)?.call1((error.to_string(),))
}

#[cfg(arenas)]
fn with_errno<'py>(
    py: Python<'py>,
    name: &str,
    error: Error,
    message: String,
) -> PyResult<&'py PyAny> {
    class(py, name)?.call1((error.errno(), message))
}

/// Reads the argument `what`, which must not be negative.
#[cfg(arenas)]
pub fn natural(what: &str, number: i64) -> PyResult<u64> {
    u64::try_from(number).map_err(|_| {
        PyValueError::new_err(format!("'{what}' must not be negative, as {number} is"))
    })
}

/// What a process is doing, in words.
#[cfg(arenas)]
fn state(pid: u32) -> &'static str {
    match proc::status(pid as u64) {
        Ok(Some(status)) => match status.state {
            b'T' => "stopped",
            b't' => "stopped by a debugger",
            b'D' => "in an uninterruptible sleep",
            b'R' => "running",
            b'S' => "sleeping",
            _ => "in an unusual state",
        },
        Ok(None) => "not to be seen from here",
        Err(_) => "in an unknown state",
    }
}
