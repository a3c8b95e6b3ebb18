//! Messages that lie in blocks: a pickle behind a magic number and its length.
//!
//! ```text
//! block    "snpMSG01", length u64, pickle
//! ```
//!
//! The block answers for the handles that the pickle has in it: whatever becomes of a
//! message, they end with it, unless they were received.

use super::block_trace::note_made;
use super::default_arena::{arena_of, find_default};
use super::gil::{self, end};
use super::handles::{decode, encoded};
use super::numpy::{self, Items, Layout, Shape};
use super::objects::Block;
use super::operation::work;
use super::process_tree::{announce, leave, watch_end};
use crate::process;
use crate::sys::copy::copy;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

pub fn add_to(module: &PyModule) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(lay_down, module)?)?;
    module.add_function(wrap_pyfunction!(take_up, module)?)
}

const MAGIC: [u8; 8] = *b"snpMSG01";

/// What comes before the pickle.
const HEAD: usize = 16;

/// Up to so many bytes a pickle is copied out of its block.
const SHORT: usize = 1 << 16;

/// Lay a pickle down in a block, for one receiver.
///
/// Parameters
/// ----------
/// stream : bytes
///     The pickle.
/// handles : list of bytes
///     Those in it, for which the block answers from now on (but for those of arrays
///     in another arena: each ends as if it had been sent alone). The block's own
///     is appended.
/// lasting : bool
///     It is good beyond the end of this program.
///
/// Returns
/// -------
/// bytes
///     The block's handle, for ``take_up``.
///
/// Raises
/// ------
/// ArenaFullError
///     There is no room for it.
/// TypeError, ValueError
///     One of `handles` is none.
#[pyfunction(lasting = "false")]
#[pyo3(text_signature = "(stream, handles, lasting=False)")]
fn lay_down<'py>(
    py: Python<'py>,
    stream: &PyBytes,
    handles: &PyList,
    lasting: bool,
) -> PyResult<&'py PyBytes> {
    watch_end(py)?;
    let arena = find_default(py)?;
    let block = laid_down(py, &arena, stream.as_bytes(), handles)?;
    let sent = end(py, || arena.send_as(&block, lasting));
    let handle = sent.map_err(|error| super::error::exception(py, error))?;
    let bytes = encoded(py, &handle);
    if let Err(error) = handles.append(bytes) {
        // There was no memory for it.
        let _ = end(py, || arena.cancel(&handle));
        return Err(error);
    }
    end(py, || drop(block));
    announce(py);
    Ok(bytes)
}

/// Lays a pickle down in a new block of an arena, which answers for the handles in it.
pub(super) fn laid_down(
    py: Python<'_>,
    arena: &process::Arena,
    pickle: &[u8],
    handles: &PyList,
) -> PyResult<process::Block> {
    let mut transferred = Vec::with_capacity(handles.len());
    for handle in handles {
        transferred.push(decode(py, handle.downcast()?)?);
    }
    let block = work(py, || arena.allocate((HEAD + pickle.len()) as u64))?;
    if let Err(error) = note_made(py, &block) {
        end(py, || drop(block));
        return Err(error);
    }
    fill(py, &block, pickle);
    let kept = end(py, || {
        let mut each = transferred.iter();
        each.try_for_each(|handle| arena.transfer_ownership(handle, &block).map(|_| ()))
    });
    match kept {
        Ok(()) => Ok(block),
        Err(error) => {
            end(py, || drop(block));
            Err(super::error::exception(py, error))
        }
    }
}

/// Writes a message into a block.
fn fill(py: Python<'_>, block: &process::Block, pickle: &[u8]) {
    let length = (pickle.len() as u64).to_ne_bytes();
    let mut to = block.bytes().as_ptr();
    for part in [&MAGIC[..], &length[..], pickle] {
        // SAFETY: the block is new, nobody else's, and has room for all parts.
        unsafe { gil::copy(py, part.as_ptr(), to, part.len()) };
        to = to.wrapping_add(part.len());
    }
}

/// Take up the pickle of a message, if nobody else has.
///
/// Parameters
/// ----------
/// handle : bytes
///     What ``lay_down`` returned.
///
/// Returns
/// -------
/// bytes or numpy.ndarray
///     The pickle: copied if it is short, else as it lies.
/// Block
///     What answers for the handles in it, until it is dropped.
///
/// Raises
/// ------
/// StaleHandleError, ForeignHandleError
///     As in ``take``.
/// ValueError
///     What the handle is of holds no message.
#[pyfunction]
#[pyo3(text_signature = "(handle)")]
fn take_up(py: Python<'_>, handle: &PyBytes) -> PyResult<(PyObject, Py<Block>)> {
    let handle = decode(py, handle)?;
    watch_end(py)?;
    let arena = arena_of(py, &handle)?;
    let taken = work(py, || arena.take(&handle));
    leave(py, Some(arena));
    taken_up(py, taken?)
}

/// The pickle that was laid down in a block.
pub(super) fn taken_up(py: Python<'_>, block: process::Block) -> PyResult<(PyObject, Py<Block>)> {
    let Some(length) = length_in(&block) else {
        let which = block.which();
        end(py, || drop(block));
        announce(py);
        return Err(PyValueError::new_err(format!(
            "block {}.{} holds no message",
            which.id.0, which.generation
        )));
    };
    if length > SHORT {
        let items = Items::new(py, Some(pyo3::types::PyString::new(py, "u1")))?;
        let length = length.into_py(py);
        let shape = Shape::new(length.as_ref(py))?;
        let mut layout = Layout::whole(items, shape, false);
        layout.begin_at(HEAD);
        let block = Py::new(py, Block::new(block))?;
        let pickle = numpy::array(py, block.clone(), layout, None)?;
        return Ok((pickle, block));
    }
    let pickle = end_of(py, &block, length)?;
    Ok((pickle.into(), Py::new(py, Block::new(block))?))
}

/// The last bytes of the pickle that was laid down in a block.
pub(super) fn end_of<'py>(
    py: Python<'py>,
    block: &process::Block,
    count: usize,
) -> PyResult<&'py PyBytes> {
    let length = length_in(block).unwrap_or(0);
    let count = count.min(length);
    let first = block.bytes().as_ptr().wrapping_add(HEAD + length - count);
    PyBytes::new_with(py, count, |bytes| {
        // SAFETY: within the block, as was seen; memory of our own, just as long. A sender
        // that writes on meanwhile spoils the message and nothing else.
        unsafe { copy(first, bytes.as_mut_ptr(), count) };
        Ok(())
    })
}

/// Whether the pickle that was laid down in a block has this end.
pub(super) fn ends_with(block: &process::Block, end: &[u8]) -> bool {
    let length = length_in(block).unwrap_or(0);
    let Some(start) = length.checked_sub(end.len()) else {
        return false;
    };
    let mut found = vec![0; end.len()];
    let first = block.bytes().as_ptr().wrapping_add(HEAD + start);
    // SAFETY: within the block, as was seen; memory of our own, just as long.
    unsafe { copy(first, found.as_mut_ptr(), found.len()) };
    found == end
}

/// How long the pickle is; None if there is none.
pub(super) fn length_in(block: &process::Block) -> Option<usize> {
    let mut head = [0; HEAD];
    if block.size() < HEAD as u64 {
        return None;
    }
    // SAFETY: the block is as long.
    unsafe { copy(block.bytes().as_ptr(), head.as_mut_ptr(), HEAD) };
    let (magic, length) = head.split_at(MAGIC.len());
    let length = u64::from_ne_bytes(length.try_into().ok()?);
    let fits = magic == MAGIC && length <= block.size() - HEAD as u64;
    fits.then_some(length as usize)
}
