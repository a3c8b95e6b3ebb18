//! The processes around this one: telling their resource tracker, and giving arenas back at exit.
//!
//! The package's module `_system.process_tree` knows the tree; it is asked by name, and not before
//! it is needed.

use super::error::exception;
use super::exit_state;
use super::gil::{end, end_long, surviving, without_gil};
use super::operation::work;
use super::shutdown::is_over;
use crate::arena::handle::Name;
use crate::process::{self, Verdict};
use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Adds the functions of this file to the extension module.
pub fn add_to(module: &PyModule) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(end_arena, module)?)?;
    module.add_function(wrap_pyfunction!(clean_arena, module)?)?;
    module.add_function(wrap_pyfunction!(remove_arena, module)?)?;
    module.add_function(wrap_pyfunction!(end_tracking, module)?)?;
    module.add_function(wrap_pyfunction!(begin_exit, module)?)?;
    module.add_function(wrap_pyfunction!(retire, module)?)
}

/// The name of an arena that Python has told.
pub fn name_of(name: &str) -> PyResult<Name> {
    Name::new(name).map_err(|error| PyValueError::new_err(format!("{name:?}: {error}")))
}

/// Asks the package's module that knows the process tree.
pub fn ask<'py, T: FromPyObject<'py>>(
    py: Python<'py>,
    question: &str,
    arguments: impl IntoPy<Py<PyTuple>> + Clone,
) -> PyResult<T> {
    surviving(&mut || {
        let tree = py.import("shared_numpy._system.process_tree")?;
        tree.call_method1(question, arguments.clone())?.extract()
    })
}

/// What [`ask`] returns where there is nothing to say.
pub type Nothing<'py> = &'py PyAny;

/// The fork number of the process that has registered its exit.
static WATCHED: AtomicU64 = AtomicU64::new(u64::MAX);

/// Has this process give its arenas back at its exit.
#[inline]
pub fn watch_end(py: Python<'_>) -> PyResult<()> {
    let number = process::fork_number();
    match WATCHED.load(Ordering::Relaxed) == number {
        true => Ok(()),
        false => {
            ask::<Nothing>(py, "at_end", ())?;
            exit_state::forget();
            WATCHED.store(number, Ordering::Relaxed);
            Ok(())
        }
    }
}

/// Tells the tracker which names it need not remove any more.
#[inline]
pub fn announce(py: Python<'_>) {
    let names = process::unregistered();
    if !names.is_empty() {
        unregister(py, &names);
    }
}

#[cold]
pub fn unregister(py: Python<'_>, names: &[Name]) {
    if is_over(py) {
        return;
    }
    // An object may be dropped while an exception is on its way.
    let (mut class, mut value, mut trace) = (null_mut(), null_mut(), null_mut());
    // SAFETY: three variables for the pending exception, which are null if there is none.
    unsafe { ffi::PyErr_Fetch(&mut class, &mut value, &mut trace) };
    for name in names {
        if let Err(error) = ask::<Nothing>(py, "unregister", (name.as_str(),)) {
            error.restore(py);
            // SAFETY: the GIL is held. There is no caller to raise it to.
            unsafe { ffi::PyErr_WriteUnraisable(null_mut()) };
        }
    }
    // SAFETY: the references that `PyErr_Fetch` gave, which this call takes.
    unsafe { ffi::PyErr_Restore(class, value, trace) };
}

/// Drops a reference to an arena, which may be the process's last one.
pub fn leave(py: Python<'_>, arena: Option<process::Arena>) {
    end(py, || drop(arena));
    announce(py);
}

/// How long another process may take to tell its tracker something.
const MOMENT: Duration = Duration::from_millis(1);
const MOMENTS: usize = 200;

/// Has this tree's tracker remove the names of an arena if nobody else's does:
/// an arena that the process keeps until its end.
pub fn adopt(py: Python<'_>, arena: &process::Arena) -> PyResult<()> {
    // Trackers know POSIX's objects only; `remove_orphans` removes what lies elsewhere.
    if arena.name().folder().is_some() {
        return Ok(());
    }
    // A process that leaves tells its tracker, perhaps this one's: not after this.
    for _ in 0..MOMENTS {
        if !arena.is_ending() {
            break;
        }
        without_gil(py, || std::thread::sleep(MOMENT));
    }
    if arena.is_registered() {
        return Ok(());
    }
    let tree: u64 = ask(py, "registrar", (true,))?;
    if work(py, || arena.register_with(tree))? {
        ask::<Nothing>(py, "register", (arena.name().as_str(),))?;
    }
    Ok(())
}

/// Remove an arena whose program has ended, unless a living process has it.
///
/// Parameters
/// ----------
/// name : str
///     Its name.
///
/// Returns
/// -------
/// bool
///     Whether there is no such arena now.
///
/// Raises
/// ------
/// ValueError
///     `name` cannot be an arena's.
#[pyfunction]
#[pyo3(text_signature = "(name)")]
fn end_arena(py: Python<'_>, name: &str) -> PyResult<bool> {
    let name = name_of(name)?;
    Ok(end_long(py, || process::remove_orphan(name)))
}

/// Remove an arena, if no process has it and nothing waits in it for a receiver.
///
/// Parameters
/// ----------
/// name : str
///     Its name.
/// grace : float, optional
///     For how many seconds what was sent may wait for a receiver.
///
/// dry : bool, optional
///     Only say what would become of it.
///
/// Returns
/// -------
/// verdict : str
///     ``"gone"``: there is none. ``"goes"``: it was removed, unless a process has taken it meanwhile.
///     It stays: ``"in use"``, ``"young"`` (it may be in the making), ``"awaited"`` (by a receiver of
///     what was sent) or ``"unclear"``.
/// count : int
///     How many handles wait.
/// why : str
///     What is unclear.
///
/// Raises
/// ------
/// ValueError
///     `name` cannot be an arena's.
#[pyfunction(grace = "600.0", dry = "false")]
#[pyo3(text_signature = "(name, grace=600.0, dry=False)")]
fn clean_arena(
    py: Python<'_>,
    name: &str,
    grace: f64,
    dry: bool,
) -> PyResult<(&'static str, usize, String)> {
    let name = name_of(name)?;
    // (Out of range it is the nearest number that there is.)
    let kept = (grace * 1000.0) as u64;
    let verdict = end_long(py, || match dry {
        true => process::judge(name, kept),
        false => process::remove_deserted(name, kept),
    });
    announce(py);
    Ok(match verdict {
        None => ("gone", 0, String::new()),
        Some(Verdict::Orphan | Verdict::Remains) => ("goes", 0, String::new()),
        Some(Verdict::InUse) => ("in use", 0, String::new()),
        Some(Verdict::Young) => ("young", 0, String::new()),
        Some(Verdict::Awaited(count)) => ("awaited", count, String::new()),
        Some(Verdict::Unclear(why)) => ("unclear", 0, why),
    })
}

/// Remove the objects of an arena, whatever is in them, unless a process has it.
///
/// For arenas that are damaged, of another version of the package, or of another user.
///
/// Parameters
/// ----------
/// name : str
///     Its name.
///
/// Returns
/// -------
/// bool
///     Whether they were removed; they stay if a process has a lock on the arena's lock file.
///
/// Raises
/// ------
/// OSError
///     There is no lock file of that name, or the system refuses it.
/// ValueError
///     `name` cannot be an arena's.
#[pyfunction]
#[pyo3(text_signature = "(name)")]
fn remove_arena(py: Python<'_>, name: &str) -> PyResult<bool> {
    let name = name_of(name)?;
    let removed = end_long(py, || process::remove_anyway(name));
    removed.map_err(|error| exception(py, error))
}

/// Have the resource tracker forget this process's arenas.
///
/// For a process that leaves its tree: the names of its arenas then go with the last
/// process that has them, and not at the end of the tree.
#[pyfunction]
#[pyo3(text_signature = "()")]
fn end_tracking(py: Python<'_>) {
    end_long(py, process::end_tracking);
    announce(py);
}

/// Note that this thread ends the process.
///
/// From now on a daemon thread that finds something closed is parked.
#[pyfunction]
#[pyo3(text_signature = "()")]
fn begin_exit() {
    exit_state::begin();
}

/// Give this process's arenas back, at its end.
///
/// Blocks that something still refers to stay the process's until it is gone.
///
/// Parameters
/// ----------
/// last : bool
///     The whole tree of processes ends: what channels of `multiprocessing` have
///     dropped, nobody will receive. What was sent by ``Arena.send`` waits.
#[pyfunction]
#[pyo3(text_signature = "(last)")]
fn retire(py: Python<'_>, last: bool) {
    begin_exit();
    exit_state::retire();
    let staying = end_long(py, || process::retire_all(last));
    announce(py);
    for arena in staying {
        arena.end_registration();
        leave(py, Some(arena));
    }
}
