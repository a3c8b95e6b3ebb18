//! Threads at interpreter shutdown: which are about to be ended, and where they stay.

use super::exit_state;
use super::gil::{surviving, without_gil};
use pyo3::prelude::*;

/// Whether the interpreter is about to end this thread.
pub fn is_over(py: Python<'_>) -> bool {
    let finalizing = || py.import("sys")?.call_method0("is_finalizing")?.extract();
    exit_state::is_retired_elsewhere() && finalizing().unwrap_or(true)
}

/// Whether another thread has begun to exit this process and will not join this one: it is a daemon,
/// or unknown to `threading`.
pub fn is_forsaken(py: Python<'_>) -> bool {
    let daemon = || -> PyResult<bool> {
        let threading = py.import("threading")?;
        let number = threading.call_method0("get_ident")?;
        let thread = threading
            .getattr("_active")?
            .call_method1("get", (number,))?;
        match thread.is_none() {
            true => Ok(true),
            false => thread.getattr("daemon")?.extract(),
        }
    };
    if !exit_state::is_begun_elsewhere() {
        return false;
    }
    // It may be ended here.
    is_over(py) || surviving(&mut || daemon().unwrap_or(true))
}

/// Stays until the process is gone: this thread is about to be ended.
pub fn stay(py: Python<'_>) -> ! {
    without_gil(py, || loop {
        std::thread::park();
    })
}
