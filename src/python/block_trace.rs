//! Where the blocks were made that this process makes while it is traced.
//!
//! A trace is a dict that the package's module `_system.block_trace` has given: its keys name blocks,
//! its values are their length and the stack of their making. While there is none, all that this
//! costs is one look at a flag for each block. All here is done with the GIL held.

use super::objects;
use super::operation::work_long;
use super::process_tree::leave;
use crate::arena::format::BlockId;
use crate::arena::BlockRef;
use crate::process;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use pyo3::AsPyPointer;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Adds the functions of this file to the extension module.
pub fn add_to(module: &PyModule) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(begin_trace, module)?)?;
    module.add_function(wrap_pyfunction!(end_trace, module)?)?;
    module.add_function(wrap_pyfunction!(drop_freed, module)?)
}

/// From so many blocks on those are dropped that are free again; then from twice as many as are left.
const MANY: usize = 10_000;

/// The trace that there is.
struct Trace {
    made: Py<PyDict>,
    frames: usize,
    /// The folder of the package, whose innermost frames are left out.
    package: String,
    /// The process that is traced, not its children.
    fork_number: u64,
    /// With how many blocks those are dropped next that are free again.
    most: usize,
}

static TRACE: Mutex<Option<Trace>> = Mutex::new(None);
static TRACES: AtomicBool = AtomicBool::new(false);

/// Does something with the trace of this process, if there is one. No code of Python's may run.
fn with_trace<T>(look: impl FnOnce(&mut Trace) -> T) -> Option<T> {
    let mut trace = TRACE.lock().unwrap_or_else(PoisonError::into_inner);
    let trace = trace.as_mut();
    let ours = trace.filter(|trace| trace.fork_number == process::fork_number());
    ours.map(look)
}

/// The key of a block.
type Key = (u64, u64, u32, u64);

/// Notes a new block, if this process is traced.
///
/// # Errors
/// There is no memory for it.
#[inline(always)]
pub fn note_made(py: Python<'_>, block: &process::Block) -> PyResult<()> {
    match TRACES.load(Ordering::Relaxed) {
        true => note(py, block),
        false => Ok(()),
    }
}

/// [`note_made`], of a block that Python has.
#[inline(always)]
pub fn note_object(py: Python<'_>, block: &objects::Block) -> PyResult<()> {
    note_made(py, block.inner())
}

#[cold]
fn note(py: Python<'_>, block: &process::Block) -> PyResult<()> {
    let found = with_trace(|trace| {
        let made = trace.made.clone_ref(py);
        (made, trace.frames, trace.package.clone(), trace.most)
    });
    let Some((made, frames, package, most)) = found else {
        return Ok(());
    };
    let made = made.as_ref(py);
    let stack = stack(py, frames, &package)?;
    let uuid = block.arena().uuid();
    let which = block.which();
    let key: Key = (uuid[0], uuid[1], which.id.0, which.generation);
    made.set_item(key, (block.size(), stack))?;
    if made.len() >= most {
        drop_freed(py, made)?;
        let most = MANY.max(2 * made.len());
        with_trace(|trace| trace.most = most);
    }
    Ok(())
}

/// The frames of this thread from the inside to the outside: the file, line and function of each.
fn stack<'py>(py: Python<'py>, most: usize, package: &str) -> PyResult<&'py PyTuple> {
    let mut found: Vec<(PyObject, PyObject, PyObject)> = Vec::new();
    let mut is_outside = false;
    // (ValueError: there is no frame, in a thread that is not Python's.)
    let mut frame: Option<&PyAny> = py.import("sys")?.call_method0("_getframe").ok();
    while let Some(this) = frame {
        let code = this.getattr("f_code")?;
        let file: &PyAny = code.getattr("co_filename")?;
        if !is_outside
            && !file
                .extract::<&str>()
                .is_ok_and(|file| file.starts_with(package))
        {
            // All frames so far are the package's.
            found.clear();
            is_outside = true;
        }
        if found.len() < most {
            let line = this.getattr("f_lineno")?;
            let name = code.getattr("co_name")?;
            found.push((file.into(), line.into(), name.into()));
        } else if is_outside {
            break;
        }
        let back: &PyAny = this.getattr("f_back")?;
        frame = (!back.is_none()).then_some(back);
    }
    Ok(PyTuple::new(py, found))
}

/// Trace from now on where this process makes blocks.
///
/// Parameters
/// ----------
/// made : dict
///     What is filled: the length and stack of each block, by a key that names the block.
/// frames : int
///     The most frames of a stack.
/// package : str
///     The folder whose innermost frames are left out.
///
/// Returns
/// -------
/// bool
///     False if the process is traced already; nothing has changed then.
#[pyfunction]
#[pyo3(text_signature = "(made, frames, package)")]
fn begin_trace(made: Py<PyDict>, frames: usize, package: String) -> bool {
    let fork_number = process::fork_number();
    let mut trace = TRACE.lock().unwrap_or_else(PoisonError::into_inner);
    if matches!(&*trace, Some(other) if other.fork_number == fork_number) {
        return false;
    }
    *trace = Some(Trace {
        made,
        frames,
        package,
        fork_number,
        most: MANY,
    });
    TRACES.store(true, Ordering::Relaxed);
    true
}

/// End the trace that fills this dict, if there is one.
///
/// Parameters
/// ----------
/// made : dict
#[pyfunction]
#[pyo3(text_signature = "(made)")]
fn end_trace(made: &PyDict) {
    // Dropped when the trace is unlocked again: its values may be the last references to something.
    let _ended = {
        let mut trace = TRACE.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = trace.take_if(|trace| trace.made.as_ptr() == made.as_ptr());
        if ended.is_some() {
            TRACES.store(false, Ordering::Relaxed);
        }
        ended
    };
}

/// Drop the blocks from a dict that are free: that no process has, and no handle stands for.
///
/// Those are dropped, too, whose arena this process has left.
///
/// Parameters
/// ----------
/// made : dict
///     As ``begin_trace`` fills it.
///
/// Raises
/// ------
/// ArenaBusyError, ArenaCorruptedError
///     As any operation of an arena.
#[pyfunction]
#[pyo3(text_signature = "(made)")]
fn drop_freed(py: Python<'_>, made: &PyDict) -> PyResult<()> {
    let keys: Vec<Key> = made.keys().extract()?;
    let mut live = std::collections::HashSet::new();
    for arena in work_long(py, || Ok(process::all()))? {
        let [first, second] = arena.uuid();
        let ours: Vec<Key> = keys
            .iter()
            .filter(|key| (key.0, key.1) == (first, second))
            .copied()
            .collect();
        let blocks: Vec<BlockRef> = ours
            .iter()
            .map(|key| BlockRef {
                id: BlockId(key.2),
                generation: key.3,
            })
            .collect();
        let found = match blocks.is_empty() {
            true => Ok(Vec::new()),
            false => work_long(py, || arena.which_live(&blocks)),
        };
        leave(py, Some(arena));
        let pairs = ours.into_iter().zip(found?);
        live.extend(pairs.filter(|(_, lives)| *lives).map(|(key, _)| key));
    }
    for key in keys.into_iter().filter(|key| !live.contains(key)) {
        // (Another thread may have done so.)
        if made.contains(key)? {
            made.del_item(key)?;
        }
    }
    Ok(())
}
