//! Arrays in new blocks: empty ones, and copies.

use super::block_trace::note_object;
use super::default_arena::{find_default, find_own_default};
use super::numpy::{self, Contiguous, Items, Layout, Shape};
use super::objects::Block;
use super::operation::work;
use super::process_tree::watch_end;
use super::records;
use crate::process;
use crate::sys::probe::page_size;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyType;

/// Adds the functions of this file to the extension module.
pub fn add_to(module: &PyModule) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(empty, module)?)?;
    module.add_function(wrap_pyfunction!(copy, module)?)
}

/// An allocation of so many bytes takes longer than to ask for the process's user.
const MUCH: u64 = 1 << 20;

/// Makes an array in a block of its own; nothing is changed before the arguments are known to be
/// right.
#[inline]
pub fn make_array(
    py: Python<'_>,
    shape: &PyAny,
    dtype: Option<&PyAny>,
    order: Option<&str>,
    class: Option<&PyType>,
    arena: impl FnOnce(u64) -> PyResult<process::Arena>,
) -> PyResult<PyObject> {
    let fortran = match order {
        None | Some("C" | "c") => false,
        Some("F" | "f") => true,
        Some(other) => {
            return Err(PyValueError::new_err(format!(
                "order must be 'C' or 'F', not {other:?}"
            )))
        }
    };
    let items = Items::new(py, dtype)?.with_length(py)?;
    let shape = Shape::new(shape)?;
    let bytes = shape.bytes(&items)?;
    let arena = arena(bytes)?;
    let block = Block::new(work(py, || arena.allocate_owned(bytes))?);
    note_object(py, &block)?;
    let block = Py::new(py, block)?;
    numpy::array(py, block, Layout::whole(items, shape, fortran), class)
}

/// Make an array in a block of the arena in which this process allocates.
///
/// Parameters
/// ----------
/// shape : int or sequence of int
///     Lengths of the dimensions.
/// dtype : dtype_like, optional
///     What the items are, float64 by default.
/// order : {"C", "F"}
///     Whether the last or the first index varies fastest.
/// cls : type, optional
///     The array's class, ``numpy.ndarray`` or a subclass.
///
/// Returns
/// -------
/// numpy.ndarray
///     As ``Arena.default().empty`` makes it.
#[pyfunction(dtype = "None", order = "\"C\"", cls = "None")]
#[pyo3(text_signature = "(shape, dtype=None, order='C', cls=None)")]
fn empty(
    py: Python<'_>,
    shape: &PyAny,
    dtype: Option<&PyAny>,
    order: Option<&str>,
    cls: Option<&PyType>,
) -> PyResult<PyObject> {
    watch_end(py)?;
    let made = make_array(py, shape, dtype, order, cls, |bytes| match bytes >= MUCH {
        true => find_own_default(py),
        false => find_default(py),
    });
    records::emit_after(py, made)
}

/// Copy an array into a block of its own, its items lying as they do.
///
/// Parameters
/// ----------
/// array : numpy.ndarray
///     Its items lie one behind the other, in either order.
/// cls : type, optional
///     The copy's class, ``numpy.ndarray`` or a subclass.
/// pages : bool
///     Have the items lie in whole pages that nothing else lies in.
///
/// Returns
/// -------
/// numpy.ndarray or None
///     None if the items lie otherwise.
///
/// Raises
/// ------
/// TypeError
///     `array` is none, or its items hold references to objects.
/// ArenaFullError, ArenaBusyError, ArenaCorruptedError
///     As in ``Arena.alloc``.
#[pyfunction(cls = "None", pages = "false")]
#[pyo3(text_signature = "(array, cls=None, pages=False)")]
pub fn copy(
    py: Python<'_>,
    array: &PyAny,
    cls: Option<&PyType>,
    pages: bool,
) -> PyResult<PyObject> {
    watch_end(py)?;
    let Some((found, items, shape)) = Contiguous::new(py, array)? else {
        return Ok(py.None());
    };
    let bytes = shape.bytes(&items)?;
    let arena = match bytes >= MUCH {
        true => find_own_default(py)?,
        false => find_default(py)?,
    };
    // Room for the bytes before the first whole page and behind the last one.
    let page = page_size();
    let around = if pages { 2 * page as u64 } else { 0 };
    let block = work(py, || arena.allocate_owned(bytes.saturating_add(around)))?;
    let first = block.bytes().as_ptr();
    let to = match pages {
        true => first.wrapping_add(first.align_offset(page)),
        false => first,
    };
    let at = to as usize - first as usize;
    let block = Block::new(block);
    note_object(py, &block)?;
    let block = Py::new(py, block)?;
    let mut layout = Layout::whole(items, shape, found.fortran);
    layout.begin_at(at);
    let made = numpy::array(py, block.clone_ref(py), layout, cls)?;
    // Other threads may have run meanwhile and changed the array's shape.
    match Contiguous::new(py, array)? {
        Some((source, items, shape)) if shape.bytes(&items)? == bytes => {
            source.copy_to(py, &made, block.borrow(py).inner(), at, bytes as usize)?;
            Ok(made)
        }
        _ => Ok(py.None()),
    }
}
