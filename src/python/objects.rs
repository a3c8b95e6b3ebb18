//! The objects that Python has of the core: [`Arena`] and [`Block`], without their methods.
//!
//! The methods are in `arena` and `block`, above what makes arrays and handles of them.

use super::gil::{end, release};
use super::operation::work;
use super::process_tree::{announce, leave, watch_end};
use super::records;
use crate::arena::handle::Handle;
use crate::error::Result;
use crate::process;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::cell::{Cell, RefCell};
use std::mem::ManuallyDrop;

/// Shared memory in which blocks are allocated and handed from process to
/// process; see ``create``, ``attach`` and ``default``.
///
/// The process is attached while it has an object of this class that is not
/// closed, or a block. When the last process leaves, the arena is gone.
///
/// Attributes
/// ----------
/// name : str
///     The name by which other processes attach it.
/// identifier : bytes or None
///     The 16 bytes by which ``attach_or_create`` finds it; None for other arenas.
/// root : Block or None
///     The block that the arena itself holds: see ``publish_root``.
/// closed : bool
///     Whether ``close`` was called.
#[pyclass(name = "Arena", module = "shared_numpy._core")]
pub struct Arena(pub(super) RefCell<Option<process::Arena>>);

impl From<process::Arena> for Arena {
    fn from(arena: process::Arena) -> Self {
        Arena(RefCell::new(Some(arena)))
    }
}

impl Arena {
    #[inline]
    pub fn open(&self) -> PyResult<process::Arena> {
        let arena = self.0.borrow();
        arena
            .clone()
            .ok_or_else(|| PyValueError::new_err("the arena was closed"))
    }

    /// Does `operation`, which may wait. It may be closed meanwhile, by another
    /// thread or a signal's handler.
    #[inline]
    pub fn operate<T>(
        &self,
        py: Python<'_>,
        operation: impl FnOnce(&process::Arena) -> Result<T>,
    ) -> PyResult<T> {
        watch_end(py)?;
        let arena = self.open()?;
        let result = work(py, || operation(&arena));
        leave(py, Some(arena));
        result
    }

    /// Does `operation`, which takes long, and emits the records of what has happened.
    pub fn operate_long<T>(
        &self,
        py: Python<'_>,
        operation: impl FnOnce(&process::Arena) -> Result<T>,
    ) -> PyResult<T> {
        let result = self.operate(py, |arena| {
            release();
            operation(arena)
        });
        records::emit_after(py, result)
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: Python drops objects with the GIL held.
        let py = unsafe { Python::assume_gil_acquired() };
        leave(py, self.0.take());
    }
}

/// Some memory of an arena, and this process's reference to it.
///
/// It is made by ``Arena.alloc`` and by receiving a handle. The memory is this
/// process's for as long as the object lives, and an array on it keeps the
/// object as its ``base``: the memory is released with the last view.
///
/// Attributes
/// ----------
/// nbytes : int
///     Its length in bytes: what was asked for, rounded up to a multiple of 64.
/// address : int
///     Where it begins in this process's memory; a multiple of 64.
/// arena : Arena
///     Where it is from.
/// is_new : bool
///     Whether the block, if nobody has written to it since it was allocated, is known to hold zeros.
/// is_of_this_user : bool
///     Whether its arena was made as the user that this process is now.
/// name : str
///     What tells it from all other blocks there are and were. Once it was asked for,
///     other processes can find the block by it, as long as some process has it.
/// unlinked : bool
///     Whether ``unlink`` was called.
/// private : bool
///     Whether it was received as this process's own copy of something, so that
///     arrays on it are not sent by reference. It can be set, for good: then the
///     whole pages of the block are private also against children that are forked.
#[pyclass(name = "Block", module = "shared_numpy._core")]
pub struct Block {
    pub(super) inner: ManuallyDrop<process::Block>,
    pub(super) unlinked: Cell<bool>,
    pub(super) private: Cell<bool>,
    pub(super) named: Cell<bool>,
    pub(super) own: Cell<Option<process::PrivatePages>>,
}

impl Drop for Block {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: Python drops objects with the GIL held.
        let py = unsafe { Python::assume_gil_acquired() };
        end(py, || {
            // What cannot be given back stays until the process ends.
            if self.own.take().is_none_or(process::PrivatePages::end) {
                // SAFETY: once, here.
                unsafe { ManuallyDrop::drop(&mut self.inner) }
            }
        });
        announce(py);
    }
}

impl Block {
    #[inline]
    pub fn new(block: process::Block) -> Self {
        Block {
            inner: ManuallyDrop::new(block),
            unlinked: Cell::new(false),
            private: Cell::new(false),
            named: Cell::new(false),
            own: Cell::new(None),
        }
    }

    /// The reference itself.
    pub fn inner(&self) -> &process::Block {
        &self.inner
    }

    /// Refuses a private block, which a fork may have made a copy.
    pub fn refuse_if_private(&self) -> PyResult<()> {
        match self.private.get() {
            true => Err(PyValueError::new_err(
                "the block is this process's own copy: send an array on it, or a copy",
            )),
            false => Ok(()),
        }
    }

    /// Whether it is this process's own.
    pub fn is_private(&self) -> bool {
        self.private.get()
    }

    /// A handle of the block, which is sent, as `sending` makes one.
    pub fn handle(&self, py: Python<'_>, lasting: bool) -> PyResult<Handle> {
        if self.unlinked.get() {
            return Err(PyValueError::new_err(
                "the array was unlinked: it cannot be sent any more",
            ));
        }
        self.refuse_if_private()?;
        watch_end(py)?;
        let arena = self.inner.arena();
        work(py, || arena.send_as(&self.inner, lasting))
    }

    /// Another reference to a private block, to be sent; None if a child may have it, too.
    pub fn lend(&self) -> Option<process::Block> {
        let own = self.own.take()?;
        let lends = own.is_unforked();
        self.own.set(Some(own));
        lends.then(|| process::Block::clone(&self.inner))
    }

    /// Where its memory begins.
    #[inline]
    pub fn first_byte(&self) -> *mut u8 {
        self.inner.bytes().as_ptr()
    }
}
