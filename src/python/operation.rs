//! An operation of the core, as Python's threads do it: it looks for signals while it waits, and its
//! error becomes an exception.

use super::error::exception;
use super::gil::{regain, release, surviving, Regain};
use super::shutdown::{is_forsaken, stay};
use crate::error::{Error, Result};
use crate::process::{use_hooks, WaitHooks};
use crate::sys::proc;
use pyo3::ffi;
use pyo3::prelude::*;
use std::cell::Cell;
use std::time::{Duration, Instant};

/// How long a thread waits before it looks for signals (again).
const PATIENCE: Duration = Duration::from_millis(50);

thread_local! {
    /// When this thread last looked for signals.
    static LOOKED: Cell<Option<Instant>> = const { Cell::new(None) };
    /// Whether it has found one, whose handler has raised an exception.
    static RAISED: Cell<bool> = const { Cell::new(false) };
}

static OPERATION: WaitHooks = WaitHooks {
    before_waiting: release,
    gives_up: has_signal,
};

/// Whether a signal's handler has raised an exception, which is left to be fetched. It looks now and
/// then; at once if `now`.
fn has_signal(now: bool) -> bool {
    if RAISED.with(Cell::get) {
        return true;
    }
    let time = Instant::now();
    let waits = |last: Instant| time - last < PATIENCE;
    if !now && LOOKED.with(|last| last.get().is_some_and(waits)) {
        return false;
    }
    LOOKED.with(|last| last.set(Some(time)));
    if !proc::is_first_thread() {
        // Handlers run in the main thread only. And a daemon thread that waits without asking for
        // the GIL does not hold up interpreter shutdown.
        return false;
    }
    regain();
    let raised = {
        // Handlers may fork, and a fork must not release the GIL.
        let _hooks = use_hooks(None);
        // SAFETY: the GIL is held. Handlers run here, and may use
        // arenas: a thread that looks for signals holds no lock.
        surviving(&mut || unsafe { ffi::PyErr_CheckSignals() }) != 0
    };
    release();
    RAISED.with(|flag| flag.set(raised));
    raised
}

/// Does `work`, which may wait; pending signals' handlers run then, and an
/// exception of one ends it.
#[inline(always)]
pub fn work<T>(py: Python<'_>, work: impl FnOnce() -> Result<T>) -> PyResult<T> {
    let result = {
        let _regain = Regain;
        let _hooks = use_hooks(Some(&OPERATION));
        work()
    };
    match result {
        // The operation may have succeeded without the part that was interrupted.
        _ if RAISED.with(|flag| flag.replace(false)) => Err(PyErr::fetch(py)),
        Ok(result) => Ok(result),
        // Its arena was given back by the thread that exits.
        Err(Error::Detached | Error::Stale) if is_forsaken(py) => stay(py),
        Err(error) => Err(exception(py, error)),
    }
}

/// Does `work`, which takes long.
pub fn work_long<T>(py: Python<'_>, work: impl FnOnce() -> Result<T>) -> PyResult<T> {
    self::work(py, || {
        release();
        work()
    })
}
