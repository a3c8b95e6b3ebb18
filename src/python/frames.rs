//! Rings of frames as Python has them.

use super::block_trace::note_made;
use super::closable::{Closable, InBlock, Using};
use super::default_arena::find_own_default;
use super::gil::end;
use super::objects::Block;
use super::operation::work;
use super::process_tree::{announce, watch_end};
use super::records::emit_before;
use super::ring::patience;
use crate::activity::COUNTERS;
use crate::error::Result;
use crate::process;
use crate::ring::frames::{self, View};
use pyo3::prelude::*;

/// Adds the class of this file to the extension module.
pub fn add_to(module: &PyModule) -> PyResult<()> {
    module.add_class::<Frames>()
}

/// What ``read`` returns: a frame's block and number, when it was written (in ns of the
/// monotonic clock), and how many the reader has missed.
type Seen = (Block, u64, u64, u64);

/// Pieces of memory of one length, which writers fill and readers look at in place.
///
/// Attributes
/// ----------
/// block : Block
///     By which other processes open it, and with which all of it ends.
/// written : int
///     How many frames were written so far.
/// spin : bool
///     Whether waiters of this process may look for some microseconds before they sleep.
#[pyclass(name = "Frames", module = "shared_numpy._core")]
pub struct Frames {
    inner: Closable<frames::Frames>,
}

impl Drop for Frames {
    fn drop(&mut self) {
        // SAFETY: Python drops objects with the GIL held.
        let py = unsafe { Python::assume_gil_acquired() };
        self.end(py);
    }
}

impl Frames {
    fn over(inner: frames::Frames) -> Self {
        Frames {
            inner: Closable::new(inner),
        }
    }

    fn end(&self, py: Python<'_>) {
        self.leave_readers(py);
        self.inner.let_go(py);
        announce(py);
    }

    fn inner<'py>(&self, py: Python<'py>) -> PyResult<Using<'py, frames::Frames>> {
        self.inner.reach(py)
    }

    /// (A reader that cannot report that it leaves is found to be gone.)
    fn leave_readers(&self, py: Python<'_>) {
        if let Some(inner) = self.inner.using(py) {
            let _ = end(py, || inner.leave());
        }
    }
}

impl InBlock for frames::Frames {
    fn block(&self) -> &process::Block {
        self.base().block()
    }

    fn open(block: process::Block) -> Result<Self> {
        frames::Frames::open(block)
    }
}

fn seen(view: Option<View>) -> Option<Seen> {
    if let Some(view) = &view {
        COUNTERS.frames.count_received(view.block.size());
    }
    view.map(|view| (Block::new(view.block), view.number, view.time, view.skipped))
}

#[pymethods]
impl Frames {
    /// Make a ring in the default arena.
    ///
    /// Parameters
    /// ----------
    /// slots : int
    ///     How many; 1 to 256.
    /// nbytes : int
    ///     The length of each.
    /// overwrites : bool
    ///     Frames may be filled again that some reader has not read.
    ///
    /// Returns
    /// -------
    /// Frames
    ///
    /// Raises
    /// ------
    /// ArenaFullError
    ///     There is no room for it.
    /// ValueError
    ///     There is no ring of so many frames.
    #[staticmethod]
    #[pyo3(text_signature = "(slots, nbytes, overwrites)")]
    fn create(py: Python<'_>, slots: usize, nbytes: u64, overwrites: bool) -> PyResult<Self> {
        watch_end(py)?;
        let arena = find_own_default(py)?;
        let made = work(py, || {
            frames::Frames::create(&arena, slots, nbytes, overwrites)
        })?;
        let ring = Frames::over(made);
        note_made(py, ring.inner(py)?.base().block())?;
        Ok(ring)
    }

    /// Open the ring that lies in a block.
    ///
    /// Parameters
    /// ----------
    /// block : Block
    ///     The ``block`` of another one, that was sent.
    ///
    /// Raises
    /// ------
    /// ValueError
    ///     No ring of frames lies there.
    #[staticmethod]
    #[pyo3(text_signature = "(block)")]
    fn open(py: Python<'_>, block: &Block) -> PyResult<Self> {
        let block = block.inner().clone();
        let opened = work(py, || frames::Frames::open(block))?;
        Ok(Frames::over(opened))
    }

    #[getter]
    fn block(&self, py: Python<'_>) -> PyResult<Block> {
        Ok(Block::new(self.inner(py)?.base().block().clone()))
    }

    #[getter]
    fn written(&self, py: Python<'_>) -> PyResult<u64> {
        let inner = self.inner(py)?;
        work(py, || inner.written())
    }

    #[getter]
    fn spin(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.inner(py)?.base().spins())
    }

    #[setter]
    fn set_spin(&self, py: Python<'_>, spin: bool) -> PyResult<()> {
        self.inner(py)?.base().spin(spin);
        Ok(())
    }

    /// Tell why there is no frame to be filled.
    ///
    /// Returns
    /// -------
    /// tuple of int
    ///     How many are held: looked at, filled, kept or sent on; and how many others wait to
    ///     be read.
    ///
    /// Raises
    /// ------
    /// OSError
    ///     The ring was closed (EBADF).
    #[pyo3(text_signature = "($self)")]
    fn occupied(&self, py: Python<'_>) -> PyResult<(usize, usize)> {
        let inner = self.inner(py)?;
        work(py, || inner.occupied())
    }

    /// Take a frame to fill it.
    ///
    /// Parameters
    /// ----------
    /// timeout : float, optional
    ///     How many seconds to wait for one that can be filled.
    ///
    /// Returns
    /// -------
    /// tuple or None
    ///     Its block and which of the frames it is, for ``write``; if that is not called
    ///     the frame is free again when the block is dropped. None if there was none.
    ///
    /// Raises
    /// ------
    /// OSError
    ///     The ring was closed (EBADF).
    #[args(timeout = "None")]
    #[pyo3(text_signature = "($self, timeout=None)")]
    fn blank(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<(Block, usize)>> {
        emit_before(py, timeout)?;
        let mut patience = patience(timeout)?;
        let inner = self.inner(py)?;
        let blank = work(py, || inner.blank(&mut patience))?;
        Ok(blank.map(|blank| (Block::new(blank.block), blank.index)))
    }

    /// Show a frame that was filled to the readers.
    ///
    /// Parameters
    /// ----------
    /// block : Block
    /// index : int
    ///     What ``blank`` returned.
    ///
    /// Returns
    /// -------
    /// int
    ///     Its number.
    ///
    /// Raises
    /// ------
    /// ValueError
    ///     It was written before.
    /// OSError
    ///     The ring was closed (EBADF).
    #[pyo3(text_signature = "($self, block, index)")]
    fn write(&self, py: Python<'_>, block: &Block, index: usize) -> PyResult<u64> {
        let (inner, block) = (self.inner(py)?, block.inner());
        let number = work(py, || inner.write(block, index))?;
        COUNTERS.frames.count_sent(1, block.size());
        Ok(number)
    }

    /// Tell waiting writers that a frame is not looked at any more, or not filled.
    #[pyo3(text_signature = "($self)")]
    fn let_go(&self, py: Python<'_>) -> PyResult<()> {
        let inner = self.inner(py)?;
        work(py, || inner.let_go())
    }

    /// Make this process a reader, before it reads.
    ///
    /// Raises
    /// ------
    /// ArenaFullError
    ///     There are 64 readers.
    /// OSError
    ///     The ring was closed (EBADF).
    #[pyo3(text_signature = "($self)")]
    fn start_reading(&self, py: Python<'_>) -> PyResult<()> {
        let inner = self.inner(py)?;
        work(py, || inner.start_reading())
    }

    /// Look at the next frame that this process has not read.
    ///
    /// Parameters
    /// ----------
    /// timeout : float, optional
    ///     How many seconds to wait for one.
    ///
    /// Returns
    /// -------
    /// tuple or None
    ///     Its block, which keeps it as it is; its number; when it was written, in ns of the
    ///     monotonic clock; how many this process has missed. None if there was none.
    ///
    /// Raises
    /// ------
    /// ArenaFullError
    ///     There are 64 readers.
    /// OSError
    ///     The ring was closed (EBADF).
    #[args(timeout = "None")]
    #[pyo3(text_signature = "($self, timeout=None)")]
    fn read(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<Seen>> {
        emit_before(py, timeout)?;
        let mut patience = patience(timeout)?;
        let inner = self.inner(py)?;
        work(py, || inner.read(&mut patience)).map(seen)
    }

    /// Look at the newest frame, whether it was read or not; those before it are skipped.
    ///
    /// Parameters
    /// ----------
    /// timeout : float, optional
    ///     How many seconds to wait if none was written yet.
    ///
    /// Returns
    /// -------
    /// tuple or None
    ///     As by ``read``.
    ///
    /// Raises
    /// ------
    /// ArenaFullError, OSError
    ///     As by ``read``.
    #[args(timeout = "None")]
    #[pyo3(text_signature = "($self, timeout=None)")]
    fn latest(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<Seen>> {
        emit_before(py, timeout)?;
        let mut patience = patience(timeout)?;
        let inner = self.inner(py)?;
        work(py, || inner.latest(&mut patience)).map(seen)
    }

    /// Close the ring in this process; threads that wait here get an error.
    #[pyo3(text_signature = "($self)")]
    fn close(&self, py: Python<'_>) {
        if let Some(inner) = self.inner.using(py) {
            inner.base().close();
        }
        self.end(py);
    }

    /// Close the ring at the exit of the process; threads that go on may still use it, if
    /// another process has it.
    #[pyo3(text_signature = "($self)")]
    fn leave(&self, py: Python<'_>) {
        self.leave_readers(py);
        self.inner.leave(py);
        announce(py);
    }
}
