//! Rings as Python has them.

use super::block_trace::note_made;
use super::closable::{Closable, InBlock, Using};
use super::default_arena::find_own_default;
use super::gil::end;
use super::handles::cancel_all;
use super::message::{end_of, ends_with, laid_down, length_in, taken_up};
use super::objects::Block;
use super::operation::work;
use super::process_tree::{announce, watch_end};
use super::records::emit_before;
use crate::activity::COUNTERS;
use crate::error::Result;
use crate::process;
use crate::ring::messages::{Item, Messages, Settings, Taken};
use crate::ring::Patience;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use std::time::Duration;

/// Adds the classes of this file to the extension module.
pub fn add_to(module: &PyModule) -> PyResult<()> {
    module.add_class::<Ring>()?;
    module.add_class::<Message>()?;
    module.add_function(wrap_pyfunction!(can_sleep, module)?)
}

/// Tell whether processes can sleep on shared memory here: not where the system call for it
/// is forbidden or missing.
#[pyfunction]
#[pyo3(text_signature = "()")]
fn can_sleep() -> bool {
    crate::sys::probe::can_sleep()
}

/// A pickle up to so many bytes is put as it is; a longer one lies in a block.
const INLINE: usize = 16 << 10;

/// How long a thread waits: seconds, or None for ever.
pub(super) fn patience(timeout: Option<f64>) -> PyResult<Patience> {
    let Some(seconds) = timeout else {
        return Ok(Patience::new(None));
    };
    if seconds.is_nan() {
        return Err(PyValueError::new_err(
            "a timeout is a number of seconds, not nan",
        ));
    }
    match seconds > 0.0 {
        true => Ok(Patience::new(Duration::try_from_secs_f64(seconds).ok())),
        false => Ok(Patience::none()),
    }
}

/// Messages from any of its processes to any other, in order, in shared memory.
///
/// A message is a pickle and the handles that are in it. It is put and taken whole: a
/// process that is killed loses none but those that it has taken, and leaves no half of one.
///
/// Attributes
/// ----------
/// block : Block
///     By which other processes open it, and with which all that is in it ends.
/// limit : int
/// spin : bool
///     Whether waiters of this process may look for some microseconds before they sleep. They
///     do only where the process has two processors, and while waits are short.
#[pyclass(name = "Ring", module = "shared_numpy._core")]
pub struct Ring {
    inner: Closable<Messages>,
}

impl InBlock for Messages {
    fn block(&self) -> &process::Block {
        self.base().block()
    }

    fn open(block: process::Block) -> Result<Self> {
        Messages::open(block)
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: Python drops objects with the GIL held.
        let py = unsafe { Python::assume_gil_acquired() };
        self.inner.let_go(py);
        announce(py);
    }
}

/// A message that is about to be put.
enum Packed<'py> {
    Bytes(&'py PyBytes),
    Block(process::Block),
}

impl Packed<'_> {
    fn item(&self) -> Item<'_> {
        match self {
            Packed::Bytes(bytes) => Item::Bytes(bytes.as_bytes()),
            Packed::Block(block) => Item::Block(block),
        }
    }
}

impl Ring {
    fn inner<'py>(&self, py: Python<'py>) -> PyResult<Using<'py, Messages>> {
        self.inner.reach(py)
    }

    fn pack<'py>(
        &self,
        py: Python<'py>,
        stream: &'py PyBytes,
        handles: &PyList,
    ) -> PyResult<Packed<'py>> {
        if handles.is_empty() && stream.as_bytes().len() <= INLINE {
            return Ok(Packed::Bytes(stream));
        }
        let inner = self.inner(py)?;
        let block = laid_down(py, inner.base().block().arena(), stream.as_bytes(), handles)?;
        Ok(Packed::Block(block))
    }

    fn unpack(&self, py: Python<'_>, taken: Taken) -> PyResult<PyObject> {
        let length = match &taken {
            Taken::Bytes(bytes) => bytes.len(),
            Taken::Block(block) => length_in(block).unwrap_or(0),
        };
        COUNTERS.rings.count_received(length as u64);
        match taken {
            Taken::Bytes(bytes) => Ok(PyBytes::new(py, &bytes).into()),
            Taken::Block(block) => Ok(taken_up(py, block)?.into_py(py)),
        }
    }

    fn take(
        &self,
        py: Python<'_>,
        most: usize,
        timeout: Option<f64>,
        watched: bool,
    ) -> PyResult<Vec<Taken>> {
        let mut patience = patience(timeout)?;
        patience.leaves_with_maker = watched;
        let inner = self.inner(py)?;
        work(py, || inner.take(most, &mut patience))
    }
}

#[pymethods]
impl Ring {
    /// Make a ring in the default arena.
    ///
    /// Parameters
    /// ----------
    /// limit : int
    ///     How many messages it holds at most; 0 for any number.
    /// first : int
    ///     How many bytes it has room for at first; a power of two, 4096 at least.
    /// longest : int
    ///     For how many it may grow to have room.
    ///
    /// Returns
    /// -------
    /// Ring
    ///
    /// Raises
    /// ------
    /// ArenaFullError
    ///     There is no room for it.
    /// ValueError
    ///     There is no ring of such lengths.
    #[staticmethod]
    #[args(limit = "0", first = "65536", longest = "65536")]
    #[pyo3(text_signature = "(limit=0, first=65536, longest=65536)")]
    fn create(py: Python<'_>, limit: u64, first: u64, longest: u64) -> PyResult<Self> {
        watch_end(py)?;
        let arena = find_own_default(py)?;
        let settings = Settings {
            limit,
            first,
            longest,
        };
        let ring = Self::over(work(py, || Messages::create(&arena, settings))?)?;
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
    ///     No ring lies there.
    #[staticmethod]
    #[pyo3(text_signature = "(block)")]
    fn open(py: Python<'_>, block: &Block) -> PyResult<Self> {
        let block = block.inner().clone();
        Self::over(work(py, || Messages::open(block))?)
    }

    #[getter]
    fn block(&self, py: Python<'_>) -> PyResult<Block> {
        Ok(Block::new(self.inner(py)?.base().block().clone()))
    }

    #[getter]
    fn limit(&self, py: Python<'_>) -> PyResult<u64> {
        Ok(self.inner(py)?.limit())
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

    /// Put a message in.
    ///
    /// Parameters
    /// ----------
    /// stream : bytes
    ///     The pickle.
    /// handles : list of bytes
    ///     Those in it. They belong to the message: the list is empty when it was put, and
    ///     they have ended when there was no room.
    /// timeout : float, optional
    ///     How many seconds to wait for room.
    ///
    /// Returns
    /// -------
    /// bool
    ///     False if there was no room.
    ///
    /// Raises
    /// ------
    /// ArenaFullError
    ///     There is no memory for it.
    /// OSError
    ///     It was closed (EBADF).
    #[args(timeout = "None")]
    #[pyo3(text_signature = "($self, stream, handles, timeout=None)")]
    fn put(
        &self,
        py: Python<'_>,
        stream: &PyBytes,
        handles: &PyList,
        timeout: Option<f64>,
    ) -> PyResult<bool> {
        emit_before(py, timeout)?;
        let mut patience = patience(timeout)?;
        let packed = self.pack(py, stream, handles)?;
        let count = self.put_packed(py, vec![(packed, handles)], &mut patience)?;
        if count == 1 {
            COUNTERS.rings.count_sent(1, stream.as_bytes().len() as u64);
        }
        Ok(count == 1)
    }

    /// Put messages in, in order, with as few steps as there can be.
    ///
    /// Parameters
    /// ----------
    /// messages : list of tuple
    ///     The pickle and the list of handles of each, as for ``put``.
    /// timeout : float, optional
    ///     How many seconds to wait for room for all.
    ///
    /// Returns
    /// -------
    /// int
    ///     How many there was room for. The others' handles have ended.
    ///
    /// Raises
    /// ------
    /// ArenaFullError, OSError
    ///     As for ``put``; those that are in have no handles any more.
    #[args(timeout = "None")]
    #[pyo3(text_signature = "($self, messages, timeout=None)")]
    fn put_many(
        &self,
        py: Python<'_>,
        messages: Vec<(&PyBytes, &PyList)>,
        timeout: Option<f64>,
    ) -> PyResult<usize> {
        emit_before(py, timeout)?;
        let mut patience = patience(timeout)?;
        let mut lengths = Vec::with_capacity(messages.len());
        let mut packed = Vec::with_capacity(messages.len());
        for (stream, handles) in messages {
            lengths.push(stream.as_bytes().len() as u64);
            match self.pack(py, stream, handles) {
                Ok(each) => packed.push((each, handles)),
                Err(error) => {
                    finish(py, packed, 0)?;
                    return Err(error);
                }
            }
        }
        let count = self.put_packed(py, packed, &mut patience)?;
        let bytes = lengths[..count].iter().sum();
        COUNTERS.rings.count_sent(count as u64, bytes);
        Ok(count)
    }

    /// Take a message out.
    ///
    /// Parameters
    /// ----------
    /// timeout : float, optional
    ///     How many seconds to wait for one.
    /// watched : bool
    ///     The end of the process that has made the ring ends the wait.
    ///
    /// Returns
    /// -------
    /// bytes or tuple or None
    ///     The pickle; with a `Block`, as by ``take_up``, if it is long or has handles in it.
    ///     None if there was no message.
    ///
    /// Raises
    /// ------
    /// EOFError
    ///     That process is gone, and there is none.
    /// OSError
    ///     It was closed (EBADF).
    #[args(timeout = "None", watched = "false")]
    #[pyo3(text_signature = "($self, timeout=None, watched=False)")]
    fn get(&self, py: Python<'_>, timeout: Option<f64>, watched: bool) -> PyResult<PyObject> {
        emit_before(py, timeout)?;
        match self.take(py, 1, timeout, watched)?.pop() {
            Some(taken) => self.unpack(py, taken),
            None => Ok(py.None()),
        }
    }

    /// Take messages out.
    ///
    /// Parameters
    /// ----------
    /// most : int
    ///     How many at most.
    /// timeout : float, optional
    ///     How many seconds to wait for one.
    ///
    /// Returns
    /// -------
    /// list
    ///     Of what ``get`` returns; empty if there was none.
    ///
    /// Raises
    /// ------
    /// OSError
    ///     It was closed (EBADF).
    #[args(timeout = "None")]
    #[pyo3(text_signature = "($self, most, timeout=None)")]
    fn get_many<'py>(
        &self,
        py: Python<'py>,
        most: usize,
        timeout: Option<f64>,
    ) -> PyResult<&'py PyList> {
        emit_before(py, timeout)?;
        let found = PyList::empty(py);
        for taken in self.take(py, most, timeout, false)? {
            found.append(self.unpack(py, taken)?)?;
        }
        Ok(found)
    }

    /// Take a message out from among the others, unopened.
    ///
    /// Parameters
    /// ----------
    /// behind : int
    ///     How many there are behind it.
    /// end : bytes
    ///     With which its stream ends.
    ///
    /// Returns
    /// -------
    /// Message or None
    ///     None if it is not there any more.
    ///
    /// Raises
    /// ------
    /// ArenaFullError
    ///     There is no room for the others without it.
    #[pyo3(text_signature = "($self, behind, end)")]
    fn withdraw(&self, py: Python<'_>, behind: usize, end: &[u8]) -> PyResult<Option<Message>> {
        let inner = self.inner(py)?;
        let ends = |taken: &Taken| match taken {
            Taken::Bytes(bytes) => bytes.ends_with(end),
            Taken::Block(block) => ends_with(block, end),
        };
        let taken = work(py, || inner.withdraw(behind, ends))?;
        Ok(taken.map(|taken| Message { taken: Some(taken) }))
    }

    /// Wait until there is a message; another process may take it all the same.
    ///
    /// Parameters
    /// ----------
    /// timeout : float, optional
    ///     For how many seconds.
    ///
    /// Returns
    /// -------
    /// bool
    ///     False if there was none.
    #[args(timeout = "None")]
    #[pyo3(text_signature = "($self, timeout=None)")]
    fn poll(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let mut patience = patience(timeout)?;
        let inner = self.inner(py)?;
        work(py, || inner.poll(&mut patience))
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        let inner = self.inner(py)?;
        work(py, || inner.len()).map(|length| length as usize)
    }

    /// Report that one of the messages that were put is done.
    ///
    /// Returns
    /// -------
    /// bool
    ///     False if all were before.
    #[pyo3(text_signature = "($self)")]
    fn report_done(&self, py: Python<'_>) -> PyResult<bool> {
        let inner = self.inner(py)?;
        work(py, || inner.report_done())
    }

    /// Wait until all messages that were put are done.
    ///
    /// Parameters
    /// ----------
    /// timeout : float, optional
    ///     For how many seconds.
    ///
    /// Returns
    /// -------
    /// bool
    ///     False if some were not.
    #[args(timeout = "None")]
    #[pyo3(text_signature = "($self, timeout=None)")]
    fn join(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let mut patience = patience(timeout)?;
        let inner = self.inner(py)?;
        work(py, || inner.join(&mut patience))
    }

    /// Take messages out without opening them; those that there are.
    ///
    /// Parameters
    /// ----------
    /// most : int
    ///     How many at most.
    ///
    /// Returns
    /// -------
    /// list of Message
    ///     A message that is dropped ends, with the arrays that it speaks of.
    #[pyo3(text_signature = "($self, most)")]
    fn get_unopened<'py>(&self, py: Python<'py>, most: usize) -> PyResult<&'py PyList> {
        let found = PyList::empty(py);
        for taken in self.take(py, most, Some(0.0), false)? {
            found.append(Py::new(py, Message { taken: Some(taken) })?)?;
        }
        Ok(found)
    }

    /// Put a message in that was taken out of a ring of the same arena unopened, if there is
    /// room.
    ///
    /// Parameters
    /// ----------
    /// message : Message
    ///     It cannot be used any more if it was put.
    ///
    /// Returns
    /// -------
    /// bool
    ///     False if there was no room.
    ///
    /// Raises
    /// ------
    /// ValueError
    ///     It was put before.
    #[pyo3(text_signature = "($self, message)")]
    fn put_unopened(&self, py: Python<'_>, mut message: PyRefMut<'_, Message>) -> PyResult<bool> {
        let inner = self.inner(py)?;
        let taken = message.taken()?;
        let item = match taken {
            Taken::Bytes(bytes) => Item::Bytes(bytes),
            Taken::Block(block) => Item::Block(block),
        };
        let put = work(py, || inner.put(&[item], &mut Patience::none()))? == 1;
        if put {
            let taken = message.taken.take();
            end(py, || drop(taken));
            announce(py);
        }
        Ok(put)
    }

    /// Put and take nothing more in this process; threads that wait here get an error.
    ///
    /// The ring ends with the last process that has it.
    #[pyo3(text_signature = "($self)")]
    fn close(&self, py: Python<'_>) {
        if let Some(inner) = self.inner.using(py) {
            inner.base().close();
        }
        self.inner.let_go(py);
        announce(py);
    }

    /// Close the ring at the exit of the process; threads that go on may still use it, if another
    /// process has it.
    #[pyo3(text_signature = "($self)")]
    fn let_go(&self, py: Python<'_>) {
        self.inner.leave(py);
        announce(py);
    }
}

/// A message that was taken out of a ring unopened.
#[pyclass(name = "Message", module = "shared_numpy._core")]
pub struct Message {
    taken: Option<Taken>,
}

impl Drop for Message {
    fn drop(&mut self) {
        // SAFETY: Python drops objects with the GIL held.
        let py = unsafe { Python::assume_gil_acquired() };
        let taken = self.taken.take();
        end(py, || drop(taken));
        announce(py);
    }
}

impl Message {
    fn taken(&self) -> PyResult<&Taken> {
        let gone = || PyValueError::new_err("the message was put into a ring");
        self.taken.as_ref().ok_or_else(gone)
    }
}

#[pymethods]
impl Message {
    /// Return the end of the stream.
    ///
    /// Parameters
    /// ----------
    /// count : int
    ///     How many bytes of it, if there are so many.
    ///
    /// Returns
    /// -------
    /// bytes
    ///
    /// Raises
    /// ------
    /// ValueError
    ///     It was put into another ring.
    #[pyo3(text_signature = "($self, count)")]
    fn end<'py>(&self, py: Python<'py>, count: usize) -> PyResult<&'py PyBytes> {
        match self.taken()? {
            Taken::Bytes(bytes) => {
                let first = bytes.len().saturating_sub(count);
                Ok(PyBytes::new(py, &bytes[first..]))
            }
            Taken::Block(block) => end_of(py, block, count),
        }
    }
}

impl Ring {
    fn over(inner: Messages) -> PyResult<Self> {
        Ok(Ring {
            inner: Closable::new(inner),
        })
    }

    /// Puts messages; those that are in have no handles any more, also should this fail.
    fn put_packed(
        &self,
        py: Python<'_>,
        packed: Vec<(Packed<'_>, &PyList)>,
        patience: &mut Patience,
    ) -> PyResult<usize> {
        let mut count = 0;
        let put = self.inner(py).and_then(|inner| match &packed[..] {
            [(only, _)] => work(py, || {
                inner.put_counted(&[only.item()], patience, &mut count)
            }),
            all => {
                let items: Vec<Item<'_>> = all.iter().map(|(each, _)| each.item()).collect();
                work(py, || inner.put_counted(&items, patience, &mut count))
            }
        });
        finish(py, packed, count)?;
        put.map(|()| count)
    }
}

/// Drops messages of which the first `count` were put: their handles are not the sender's any more.
/// The handles of the others are cancelled.
fn finish(py: Python<'_>, messages: Vec<(Packed<'_>, &PyList)>, count: usize) -> PyResult<()> {
    let mut ended = Ok(());
    for (number, (packed, handles)) in messages.into_iter().enumerate() {
        if let Packed::Block(block) = packed {
            end(py, || drop(block));
        }
        if handles.is_empty() {
            continue;
        }
        let done = match number < count {
            true => handles.call_method0("clear").map(|_| ()),
            // (A block does not answer for handles of other arenas.)
            false => cancel_all(py, handles),
        };
        ended = ended.and(done);
    }
    announce(py);
    ended
}
