//! What Python can do with a [`Block`].

use super::error::natural;
use super::gil::end;
use super::handles::{block_name, decode};
use super::numpy::{self, Items, Layout, Shape};
use super::objects::{Arena, Block};
use super::operation::{work, work_long};
use super::ticket_guard::TicketGuard;
use crate::process;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyType};

/// Adds the class and the function of this file to the extension module.
pub fn add_to(module: &PyModule) -> PyResult<()> {
    module.add_class::<Block>()?;
    module.add_function(wrap_pyfunction!(can_own_more, module)?)
}

/// Tell whether one more block can be made this process's own (``Block.private``). What is
/// received beyond that is to be copied: each such block takes mappings, of which the system
/// gives a process so many.
#[pyfunction]
#[pyo3(text_signature = "()")]
fn can_own_more() -> bool {
    process::can_make_private()
}

#[pymethods]
impl Block {
    #[getter]
    fn nbytes(&self) -> u64 {
        self.inner.size()
    }

    #[getter]
    fn address(&self) -> usize {
        self.first_byte() as usize
    }

    #[getter]
    fn is_new(&self) -> bool {
        self.inner.is_new()
    }

    #[getter]
    fn is_of_this_user(&self) -> bool {
        self.inner.arena().is_of_this_user()
    }

    #[getter]
    fn arena(&self) -> Arena {
        Arena::from(self.inner.arena().clone())
    }

    #[getter]
    fn __array_interface__<'py>(&self, py: Python<'py>) -> PyResult<&'py PyDict> {
        let interface = PyDict::new(py);
        interface.set_item("version", 3)?;
        interface.set_item("shape", (self.inner.size(),))?;
        interface.set_item("typestr", "|u1")?;
        interface.set_item("data", (self.address(), false))?;
        Ok(interface)
    }

    /// Names this life of the block among all arenas of the machine.
    #[getter]
    fn name(&self, py: Python<'_>) -> String {
        if !self.named.get() {
            // Without it (the arena is gone) the name is one all the same.
            let told = end(py, || self.inner.tell_name());
            self.named.set(told.is_ok());
        }
        block_name(self.inner.arena().name(), self.inner.which())
    }

    #[getter]
    fn unlinked(&self) -> bool {
        self.unlinked.get()
    }

    #[getter]
    fn private(&self) -> bool {
        self.private.get()
    }

    #[setter]
    pub fn set_private(&self, py: Python<'_>, private: bool) -> PyResult<()> {
        if private && !self.private.get() {
            self.own.set(work(py, || self.inner.make_private())?);
        }
        self.private.set(private || self.private.get());
        Ok(())
    }

    /// Make the block this process's own by copies of its pages, made where it writes.
    ///
    /// Other processes that have the block do not see writes to the copies, and none may write to the
    /// shared memory.
    ///
    /// Returns
    /// -------
    /// bool
    ///     False if another object of this process has made it its own, and may have
    ///     written to it: there is ``copy_original``.
    ///
    /// Raises
    /// ------
    /// OSError
    ///     The process has too many mappings.
    #[pyo3(text_signature = "($self)")]
    fn detach(&self, py: Python<'_>) -> PyResult<bool> {
        self.set_private(py, true)?;
        let own = self.own.take();
        let detached = work(py, || {
            own.as_ref()
                .map_or(Ok(false), process::PrivatePages::detach)
        });
        self.own.set(own);
        detached
    }

    /// Copy bytes as the memory that is shared has them, whatever this process has
    /// written to pages of its own.
    ///
    /// Parameters
    /// ----------
    /// offset : int
    ///     The first of them.
    /// length : int
    ///     How many.
    /// to : Block
    ///     Where they are copied to.
    /// at : int
    ///     To which place of it, in bytes.
    ///
    /// Raises
    /// ------
    /// ValueError
    ///     One of the two blocks is shorter.
    #[pyo3(text_signature = "($self, offset, length, to, at)")]
    fn copy_original(
        &self,
        py: Python<'_>,
        offset: u64,
        length: u64,
        to: &Block,
        at: u64,
    ) -> PyResult<()> {
        let fits = |start: u64, room| start.checked_add(length).is_some_and(|end| end <= room);
        if !fits(offset, self.inner.size()) || !fits(at, to.inner.size()) {
            return Err(PyValueError::new_err(format!(
                "{length} bytes from {offset} of {} do not fit at {at} of {}",
                self.inner.size(),
                to.inner.size()
            )));
        }
        let (from, to) = (&*self.inner, &*to.inner);
        work_long(py, || from.copy_original(offset, length, to, at))
    }

    /// Answer for a handle that nobody has received yet: it is cancelled when
    /// this block is freed, however that comes about.
    ///
    /// Parameters
    /// ----------
    /// handle : bytes
    ///     What ``Arena.send`` returned, for another block of the same arena.
    ///
    /// Returns
    /// -------
    /// bool
    ///     False if it was received or cancelled, is of another arena, or is
    ///     answered for by another block.
    ///
    /// Raises
    /// ------
    /// ValueError
    ///     It is no handle, or this block's own.
    #[pyo3(text_signature = "($self, handle)")]
    fn keep(&self, py: Python<'_>, handle: &PyBytes) -> PyResult<bool> {
        let handle = decode(py, handle)?;
        let arena = self.inner.arena();
        work(py, || arena.transfer_ownership(&handle, &self.inner))
    }

    /// Send the block nowhere from now on.
    ///
    /// It is for this object, and what is made on it; handles that were made
    /// stay good.
    #[pyo3(text_signature = "($self)")]
    fn unlink(&self) {
        self.unlinked.set(true);
    }

    /// Make a handle of the block to be pickled.
    ///
    /// Parameters
    /// ----------
    /// handles : list, optional
    ///     The handle is appended to it, before an exception of a signal's handler
    ///     can come between.
    /// lasting : bool
    ///     It is good beyond the end of this program, as one of ``Arena.send``.
    ///
    /// Returns
    /// -------
    /// Sending
    ///     It pickles as the bytes that ``Arena.send`` returns. Should it be
    ///     dropped while an exception is on its way, the handle is cancelled.
    ///
    /// Raises
    /// ------
    /// ArenaFullError
    ///     Too many references are in flight.
    /// ValueError
    ///     The block was unlinked, or is this process's own copy.
    #[args(handles = "None", lasting = "false")]
    #[pyo3(text_signature = "($self, handles=None, lasting=False)")]
    fn sending(
        &self,
        py: Python<'_>,
        handles: Option<&PyList>,
        lasting: bool,
    ) -> PyResult<TicketGuard> {
        let handle = self.handle(py, lasting)?;
        // Cancelled, should the rest fail.
        let sending = TicketGuard::new(self.inner.arena().clone(), handle);
        if let Some(handles) = handles {
            handles.append(sending.handle(py))?;
        }
        Ok(sending)
    }

    /// Make an array on the block, anywhere in it.
    ///
    /// Parameters
    /// ----------
    /// shape : int or sequence of int
    ///     Lengths of the dimensions.
    /// dtype : dtype_like
    ///     What the items are; none that hold references to objects.
    /// strides : sequence of int, optional
    ///     Bytes from an item to the next along each dimension, zero and below
    ///     zero included. By default items lie one behind the other, in C order.
    /// offset : int
    ///     Where the first item begins, in bytes.
    /// cls : type, optional
    ///     The array's class, ``numpy.ndarray`` or a subclass.
    ///
    /// Returns
    /// -------
    /// numpy.ndarray
    ///     Its ``base`` is the block, or an array whose base that is: for a
    ///     subclass, and where numpy's functions in C cannot be used. What is in
    ///     it is undefined unless something was written there.
    ///
    /// Raises
    /// ------
    /// ValueError
    ///     Items would lie outside the block.
    /// TypeError
    ///     `dtype` holds references, or is none; `cls` is no array's.
    #[args(dtype = "None", strides = "None", offset = "0", cls = "None")]
    #[pyo3(text_signature = "($self, shape, dtype=None, strides=None, offset=0, cls=None)")]
    fn array(
        slf: Py<Self>,
        py: Python<'_>,
        shape: &PyAny,
        dtype: Option<&PyAny>,
        strides: Option<&PyAny>,
        offset: i64,
        cls: Option<&PyType>,
    ) -> PyResult<PyObject> {
        let items = Items::new(py, dtype)?;
        let offset = natural("offset", offset)? as usize;
        let room = slf.borrow(py).inner.size();
        let layout = Layout::within(room, items, Shape::new(shape)?, strides, offset)?;
        numpy::array(py, slf, layout, cls)
    }

    fn __repr__(&self) -> String {
        let name = self.inner.arena().name();
        format!(
            "<Block of {} bytes in arena {:?}>",
            self.inner.size(),
            name.as_str()
        )
    }
}
