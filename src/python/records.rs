//! Log records of what has happened in the core.
//!
//! The core notes events where it may hold locks; the package's module `_system.records` makes log
//! records of them. That runs handlers of users, so it is done by calls that users make, and where no
//! lock is held:
//!
//! * after a call whose result may be dropped, such as a new array;
//! * before a call that takes or sends a message. One that does not wait emits nothing, since the
//!   package makes such calls with locks held.
//!
//! So an exception that a handler lets pass, such as `KeyboardInterrupt`, ends the call, and loses no
//! message. Nothing is emitted, and no module imported, in a program that has not imported `logging`:
//! nobody could see it.

use super::gil::surviving;
use super::process_tree::leave;
use super::shutdown::is_over;
use crate::activity::{Event, EVENTS};
use crate::arena::handle::Name;
use crate::process;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// Adds the functions of this file to the extension module.
pub fn add_to(module: &PyModule) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(note_event, module)?)?;
    module.add_function(wrap_pyfunction!(take_event, module)?)?;
    module.add_function(wrap_pyfunction!(take_lost_events, module)?)?;
    module.add_function(wrap_pyfunction!(emit_records, module)?)
}

const MODULE: &str = "shared_numpy._system.records";

/// Emits the records of what has happened. The caller holds no lock.
///
/// # Errors
/// What a handler has let pass.
#[inline(always)]
fn emit(py: Python<'_>) -> PyResult<()> {
    match EVENTS.are_there() {
        true => emit_all(py),
        false => Ok(()),
    }
}

/// [`emit`], after a call with this result; it is dropped if a handler lets an exception pass.
#[inline(always)]
pub fn emit_after<T>(py: Python<'_>, result: PyResult<T>) -> PyResult<T> {
    emit(py)?;
    result
}

/// [`emit`], before a call that waits for so long.
#[inline(always)]
pub fn emit_before(py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
    match timeout {
        Some(0.0) => Ok(()),
        _ => emit(py),
    }
}

/// Whether the program has imported `logging`.
fn has_logging(py: Python<'_>) -> bool {
    // SAFETY: the GIL is held.
    let modules = unsafe { ffi::PyImport_GetModuleDict() };
    // SAFETY: a borrowed reference to what lives as long as the interpreter.
    let modules: Option<&PyAny> = unsafe { py.from_borrowed_ptr_or_opt(modules) };
    let modules = modules.and_then(|modules| modules.downcast::<PyDict>().ok());
    modules.is_some_and(|modules| modules.contains("logging").unwrap_or(false))
}

#[cold]
fn emit_all(py: Python<'_>) -> PyResult<()> {
    if is_over(py) {
        return Ok(());
    }
    if !has_logging(py) {
        while EVENTS.take().is_some() {}
        EVENTS.take_lost();
        return Ok(());
    }
    surviving(&mut || py.import(MODULE)?.call_method0("emit").map(drop))
}

/// Notes that arenas were removed; returns their names.
///
/// # Errors
/// Those of importing a module.
pub fn note_cleaning(py: Python<'_>, names: &[Name]) -> PyResult<Vec<String>> {
    let names: Vec<String> = names.iter().map(|name| name.as_str().to_owned()).collect();
    if !names.is_empty() && has_logging(py) {
        surviving(&mut || {
            let records = py.import(MODULE)?;
            records.call_method1("note_cleaning", (names.clone(),))
        })?;
    }
    Ok(names)
}

/// Note that the module `_system.records` has something to emit.
#[pyfunction]
#[pyo3(text_signature = "()")]
fn note_event() {
    EVENTS.note([0, 0], Event::Other);
}

/// Emit the records of what has happened, if a program can see them.
///
/// For threads of this package that hold no lock, and have not called anything that does so.
#[pyfunction]
#[pyo3(text_signature = "()")]
fn emit_records(py: Python<'_>) -> PyResult<()> {
    emit(py)
}

/// How many events were lost, since too many waited.
///
/// Returns
/// -------
/// int
///     Since it was last asked.
#[pyfunction]
#[pyo3(text_signature = "()")]
fn take_lost_events() -> u64 {
    EVENTS.take_lost()
}

/// What ``take_event`` returns of an event.
type Taken = (&'static str, Option<String>, (u64, u64, u64));

/// Take the oldest event that was not taken yet.
///
/// What has happened in an arena that this process has left is passed over: most are other
/// programs', attached for the moment to remove or to trim them.
///
/// Returns
/// -------
/// tuple or None
///     Its name, the arena's name (None for no arena), and three numbers. None if there is none.
#[pyfunction]
#[pyo3(text_signature = "()")]
fn take_event(py: Python<'_>) -> Option<Taken> {
    let (arena, event) = loop {
        let (uuid, event) = EVENTS.take()?;
        if uuid == [0, 0] {
            break (None, event);
        }
        let arena = process::find(uuid);
        let name = arena.as_ref().map(|arena| arena.name().as_str().to_owned());
        leave(py, arena);
        if name.is_some() {
            break (name, event);
        }
    };
    let (name, values) = match event {
        Event::Recovered { pid, ring } => ("recovery", (pid, ring as u64, 0)),
        Event::Reaped { pid, exited } => ("reap", (pid, exited as u64, 0)),
        Event::Grown { bytes, segment } => ("growth", (bytes, segment, 0)),
        Event::Returned { bytes, segments } => ("return", (bytes, segments, 0)),
        Event::Refused {
            asked,
            left,
            memory,
        } => ("refusal", (asked, left, memory as u64)),
        Event::Other => ("other", (0, 0, 0)),
    };
    Some((name, arena, values))
}
