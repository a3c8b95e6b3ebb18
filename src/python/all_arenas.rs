//! What Python can do with all arenas of a process, or of its user.

use super::default_arena::find_own_default;
use super::error::exception;
use super::exit_state;
use super::folder;
use super::gil::end_long;
use super::objects::Arena;
use super::operation::{work, work_long};
use super::process_tree::{announce, ask, leave};
use super::records;
use crate::process;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// Adds the functions of this file to the extension module.
pub fn add_to(module: &PyModule) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(clean, module)?)?;
    module.add_function(wrap_pyfunction!(trim, module)?)?;
    module.add_function(wrap_pyfunction!(stats, module)?)?;
    module.add_function(wrap_pyfunction!(make_room, module)?)
}

/// Remove the arenas of this user that no living process has, and what the managers of killed
/// programs have made.
///
/// They are left where all processes of a program were killed together with the
/// tracker that removes what they leave. An arena in which a handle waits for a
/// receiver is kept for ten minutes after the handle was made, or half a minute
/// if its sender was killed.
///
/// Parameters
/// ----------
/// directory : str or path-like, optional
///     A folder to look in beside /dev/shm and the one that ``SHARED_NUMPY_DIR`` names.
///
/// Returns
/// -------
/// list of str
///     The names that were removed.
///
/// Raises
/// ------
/// OSError
///     /dev/shm cannot be read.
/// ValueError
///     `directory` is not on a tmpfs.
#[pyfunction(directory = "None")]
#[pyo3(text_signature = "(directory=None)")]
fn clean(py: Python<'_>, directory: Option<&PyAny>) -> PyResult<Vec<String>> {
    let folder = folder::chosen(py, directory)?;
    let folder = folder.as_deref();
    let removed = end_long(py, || process::remove_orphans(folder));
    announce(py);
    let names = removed.map_err(|error| exception(py, error))?;
    let mut removed: Vec<String> = ask(py, "clean_managers", ())?;
    removed.extend(records::note_cleaning(py, &names)?);
    records::emit_after(py, Ok(removed))
}

/// Give back the free memory of this user's arenas.
///
/// For code that is about to raise an error: the arenas of this process give their free memory back
/// first, then those of others that can be attached without waiting, for half a second in all.
///
/// Parameters
/// ----------
/// nbytes : int
///     How many bytes are wanted; nothing is done for more than there can ever be.
#[pyfunction]
#[pyo3(text_signature = "(nbytes)")]
fn make_room(py: Python<'_>, nbytes: u64) -> PyResult<()> {
    let made = work_long(py, || process::make_room(nbytes));
    announce(py);
    made
}

/// Give the free memory of this process's arenas back to the system.
///
/// Free memory keeps its pages for a while, since they are quickly used again. What was
/// not used for ten seconds is given back anyway, at the next operation of any process.
///
/// Returns
/// -------
/// int
///     How many bytes were given back.
#[pyfunction]
#[pyo3(text_signature = "()")]
fn trim(py: Python<'_>) -> PyResult<u64> {
    let arenas = work(py, || Ok(process::all()))?;
    let mut sum = 0;
    for arena in arenas {
        let trimmed = work_long(py, || arena.trim());
        leave(py, Some(arena));
        match trimmed {
            Ok(bytes) => sum += bytes,
            // This process has left it.
            Err(_) if exit_state::is_retired() => {}
            Err(error) => return Err(error),
        }
    }
    records::emit_after(py, Ok(sum))
}

/// Return the default arena, and what this process has done, in numbers.
///
/// Returns
/// -------
/// dict of str to int
///     ``Arena.default().stats()``, which has the keys. A process without a default arena gets one.
///
/// Raises
/// ------
/// ArenaFullError
///     There is no room in /dev/shm for a new arena.
///
/// Examples
/// --------
/// >>> import shared_numpy as snp
/// >>> before = snp.stats()["blocks"]
/// >>> frame = snp.zeros((1000, 1000))
/// >>> snp.stats()["blocks"] - before
/// 1
#[pyfunction]
#[pyo3(text_signature = "()")]
fn stats(py: Python<'_>) -> PyResult<&PyDict> {
    Arena::from(find_own_default(py)?).stats(py)
}
