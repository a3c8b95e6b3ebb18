//! Handles and names of blocks: making, reading, receiving and cancelling them.

use super::default_arena::arena_of;
use super::error::exception;
use super::gil::end;
use super::objects::Block;
use super::operation::work;
use super::process_tree::{leave, watch_end};
use crate::arena::format::BlockId;
use crate::arena::handle::{Handle, Name};
use crate::arena::BlockRef;
use crate::error::{Error, Result};
use crate::process;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

/// Adds the functions of this file to the extension module.
pub fn add_to(module: &PyModule) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(receive, module)?)?;
    module.add_function(wrap_pyfunction!(take, module)?)?;
    module.add_function(wrap_pyfunction!(cancel, module)?)?;
    module.add_function(wrap_pyfunction!(cancel_all, module)?)
}

/// The name of one life of a block, unique among all arenas of the machine.
pub fn block_name(arena: Name, which: BlockRef) -> String {
    format!("{}/{}.{}", arena.as_str(), which.id.0, which.generation)
}

/// The arena's name and the block in a name from `block_name`.
pub fn parse_name(name: &str) -> Option<(&str, BlockRef)> {
    let (home, number) = name.rsplit_once('/')?;
    let (id, generation) = number.split_once('.')?;
    let which = BlockRef {
        id: BlockId(id.parse().ok()?),
        generation: generation.parse().ok()?,
    };
    Some((home, which))
}

/// A handle as Python's bytes.
#[inline]
pub fn encoded<'py>(py: Python<'py>, handle: &Handle) -> &'py PyBytes {
    PyBytes::new(py, &handle.encode())
}

/// The handle in Python's bytes.
#[inline]
pub fn decode(py: Python<'_>, handle: &PyBytes) -> PyResult<Handle> {
    Handle::decode(handle.as_bytes()).map_err(|error| match error {
        Error::BadHandle { .. } if handle.as_bytes().starts_with(b"snpREF") => {
            PyValueError::new_err(
                "this is the handle of an object, not of a block: shared_numpy.receive takes it",
            )
        }
        error => exception(py, error),
    })
}

/// Turn the handle of a block into the block; see the function ``Arena.receive``.
#[pyfunction]
#[pyo3(text_signature = "(handle)")]
pub fn receive(py: Python<'_>, handle: &PyBytes) -> PyResult<Block> {
    receive_by(py, handle, process::Arena::receive)
}

/// Turn a handle into a block, if it was not received before.
///
/// Parameters
/// ----------
/// handle : bytes
///     What ``Arena.send`` returned.
///
/// Returns
/// -------
/// Block
///
/// Raises
/// ------
/// StaleHandleError
///     It was received or cancelled before.
/// ForeignHandleError, ValueError
///     As in ``receive``.
#[pyfunction]
#[pyo3(text_signature = "(handle)")]
fn take(py: Python<'_>, handle: &PyBytes) -> PyResult<Block> {
    receive_by(py, handle, process::Arena::take)
}

fn receive_by(
    py: Python<'_>,
    handle: &PyBytes,
    way: fn(&process::Arena, &Handle) -> Result<process::Block>,
) -> PyResult<Block> {
    received(py, decode(py, handle)?, way)
}

/// The block of a handle.
pub fn received(
    py: Python<'_>,
    handle: Handle,
    way: fn(&process::Arena, &Handle) -> Result<process::Block>,
) -> PyResult<Block> {
    watch_end(py)?;
    let arena = arena_of(py, &handle)?;
    let received = work(py, || way(&arena, &handle));
    leave(py, Some(arena));
    received.map(Block::new)
}

/// Cancel a handle that will not be received, of any arena.
///
/// Parameters
/// ----------
/// handle : bytes
///     What ``Arena.send`` returned.
///
/// Returns
/// -------
/// bool
///     False if it was received or cancelled before, or is of an arena that this
///     process has not attached.
///
/// Raises
/// ------
/// ValueError
///     It is no handle.
#[pyfunction]
#[pyo3(text_signature = "(handle)")]
fn cancel(py: Python<'_>, handle: &PyBytes) -> PyResult<bool> {
    cancelled(py, &decode(py, handle)?)
}

/// Ends a handle; false if that was done before, or its arena is not attached.
fn cancelled(py: Python<'_>, handle: &Handle) -> PyResult<bool> {
    let known = work(py, || Ok(process::find(handle.uuid)))?;
    let Some(arena) = known else {
        return Ok(false);
    };
    let cancelled = work(py, || arena.cancel(handle));
    leave(py, Some(arena));
    cancelled
}

/// Cancel handles that will not be received, of any arenas.
///
/// No exception of a signal handler interrupts it.
///
/// Parameters
/// ----------
/// handles : list of bytes, or of such lists
///     What ``Arena.send`` returned.
///
/// Raises
/// ------
/// TypeError, ValueError
///     One of them is no handle; the others are cancelled.
#[pyfunction]
#[pyo3(text_signature = "(handles)")]
pub fn cancel_all(py: Python<'_>, handles: &PyList) -> PyResult<()> {
    let mut all = Ok(());
    for each in handles {
        let ended = match each.downcast::<PyList>() {
            Ok(handles) => cancel_all(py, handles),
            Err(_) => each.extract().and_then(|handle| {
                give_up(py, &decode(py, handle)?);
                Ok(())
            }),
        };
        all = all.and(ended);
    }
    all
}

/// Cancels a handle, if it can be; does not look for signals.
pub fn give_up(py: Python<'_>, handle: &Handle) {
    let arena = end(py, || process::find(handle.uuid));
    if let Some(arena) = arena {
        // A ticket that cannot be ended now ends with this process.
        let _ = end(py, || arena.cancel(handle));
        leave(py, Some(arena));
    }
}
