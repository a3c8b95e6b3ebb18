//! What Python can do with an [`Arena`].

use super::attaching::{
    attach, attach_or_create, create, identifier_of, name_in, wishes, NO_FOLDER,
};
use super::block_trace::note_object;
use super::default_arena::find_own_default;
use super::error::{exception, natural};
use super::folder;
use super::handles::{block_name, decode, encoded, parse_name, receive};
use super::new_arrays::make_array;
use super::objects::{Arena, Block};
use super::operation::work;
use super::process_tree::{leave, name_of, watch_end};
use super::records;
use super::traffic;
use crate::arena::format::SLOTS as MOST_PLACES;
use crate::arena::Member;
use crate::error::Error;
use crate::process;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyType};

/// Adds the class and the constants of this file to the extension module.
pub fn add_to(module: &PyModule) -> PyResult<()> {
    module.add_class::<Arena>()?;
    module.add("LOCK_SUFFIX", process::LOCK_SUFFIX)?;
    module.add("NO_FOLDER", NO_FOLDER)?;
    module.add("MOST_PLACES", MOST_PLACES)
}

#[pymethods]
impl Arena {
    /// Make an arena and attach it.
    ///
    /// The first arena that a process makes also removes arenas that no process
    /// has any more; see ``shared_numpy.clean``.
    ///
    /// Parameters
    /// ----------
    /// first : int or str, optional
    ///     Memory to take now, the arena's tables included, in bytes or as ``"64K"``, the
    ///     default and the least. More is added when it is needed, in segments that are each
    ///     as long as all before, up to 8 MiB, and a quarter of that later.
    /// segment : int or str, optional
    ///     The most that a segment has if no larger block needs it; ``"1G"`` by default.
    /// warm : int or str, optional
    ///     How much free memory keeps its pages for quick reuse, at most. By default a
    ///     sixteenth of /dev/shm, or of what is free there if that is less.
    /// processes : int, optional
    ///     How many processes can be attached at one time, 2 to 1,024; 256 by default. With more
    ///     each block takes 8 bytes more for each further 64 of them.
    /// name : str, optional
    ///     1 to 40 letters, digits, "-", "_" and ".", not beginning with ".".
    ///     By default a name that nobody has.
    /// directory : str or path-like, optional
    ///     The folder to make it in, on a tmpfs; by default what the environment variable
    ///     ``SHARED_NUMPY_DIR`` says, or else /dev/shm. Its path has at most 64 bytes, by which
    ///     handles are longer. No resource tracker knows of an arena elsewhere than in /dev/shm:
    ///     where all its processes were killed it stays until the next arena is made there.
    ///
    /// Returns
    /// -------
    /// Arena
    ///
    /// Raises
    /// ------
    /// FileExistsError
    ///     There is an arena of this name.
    /// ArenaFullError
    ///     There is no room in /dev/shm for `first` bytes.
    /// ValueError
    ///     `directory` is not on a tmpfs; an argument is not what it may be, or something in the environment variable
    ///     ``SHARED_NUMPY_ARENA``, ``first=64K,segment=1G,warm=64M,processes=256``, which
    ///     says what an arena is made with where the arguments do not.
    #[staticmethod]
    #[args(
        first = "None",
        segment = "None",
        warm = "None",
        processes = "None",
        name = "None",
        directory = "None"
    )]
    #[pyo3(
        name = "create",
        text_signature = "(first=None, segment=None, warm=None, processes=None, name=None, directory=None)"
    )]
    fn py_create(
        py: Python<'_>,
        first: Option<&PyAny>,
        segment: Option<&PyAny>,
        warm: Option<&PyAny>,
        processes: Option<&PyAny>,
        name: Option<&str>,
        directory: Option<&PyAny>,
    ) -> PyResult<Self> {
        let wishes = wishes(first, segment, warm, processes)?;
        let folder = folder::chosen(py, directory)?;
        let made = create(py, wishes, name, folder.as_deref()).map(Arena::from);
        records::emit_after(py, made)
    }

    /// Attach an arena of this user by its name.
    ///
    /// Parameters
    /// ----------
    /// name : str
    ///     Its name; that of an arena elsewhere than in /dev/shm may be its path.
    /// directory : str or path-like, optional
    ///     The folder where it lies. By default it is looked for in the one that the environment
    ///     variable ``SHARED_NUMPY_DIR`` names, and in /dev/shm.
    ///
    /// Returns
    /// -------
    /// Arena
    ///     However often it is attached, the process has it once.
    ///
    /// Raises
    /// ------
    /// FileNotFoundError
    ///     There is no arena of this name, or not any more.
    /// ForeignHandleError
    ///     It is another user's or of another version, or no arena.
    /// ArenaFullError
    ///     As many living processes have it as it was made for.
    #[staticmethod]
    #[args(directory = "None")]
    #[pyo3(name = "attach", text_signature = "(name, directory=None)")]
    fn py_attach(py: Python<'_>, name: &str, directory: Option<&PyAny>) -> PyResult<Self> {
        let exact = name_of(name)?;
        let folder = match exact.folder() {
            Some(_) => None,
            None => folder::chosen(py, directory)?,
        };
        if let Some(folder) = folder {
            match attach(py, name_in(Some(&folder), name)?) {
                Err(error)
                    if directory.is_none()
                        && error.is_instance::<pyo3::exceptions::PyFileNotFoundError>(py) => {}
                attached => return attached.map(Arena::from),
            }
        }
        attach(py, exact).map(Arena::from)
    }

    /// Attach the arena of an identifier, or make it if no living process has it.
    ///
    /// Processes that know nothing of each other but the identifier meet in one arena: all of this
    /// user that see the same folder. One of them makes it, and no other sees it before it is
    /// complete.
    ///
    /// An arena whose processes have all exited or been killed is not attached with what they left:
    /// an empty one takes its place. The arena has no resource tracker: its last process removes it,
    /// and if that was killed, the next call for the identifier or ``shared_numpy.clean`` does.
    ///
    /// Parameters
    /// ----------
    /// identifier : bytes-like
    ///     16 bytes, not all of them zero, for instance ``uuid.uuid4().bytes``.
    /// first : int or str, optional
    /// segment : int or str, optional
    /// warm : int or str, optional
    /// processes : int, optional
    ///     As in ``create``, for the process that makes it.
    /// directory : str or path-like, optional
    ///     As in ``create``.
    ///
    /// Returns
    /// -------
    /// Arena
    ///
    /// Raises
    /// ------
    /// TypeError, ValueError
    ///     `identifier` is not 16 bytes, or all zero; or as in ``create``.
    /// ForeignHandleError
    ///     Something else has the name that the identifier gives, or an arena of another version.
    /// ArenaBusyError
    ///     A process that makes or ends the arena was stopped half a minute ago.
    /// ArenaFullError
    ///     There is no room for it, or as many processes have it as it was made for.
    ///
    /// Examples
    /// --------
    /// >>> import shared_numpy as snp, uuid
    /// >>> identifier = uuid.uuid4().bytes
    /// >>> with snp.Arena.attach_or_create(identifier) as arena:
    /// ...     again = snp.Arena.attach_or_create(identifier)
    /// ...     again.identifier == identifier, again.name == arena.name
    /// (True, True)
    /// >>> again.close()
    #[staticmethod]
    #[args(
        first = "None",
        segment = "None",
        warm = "None",
        processes = "None",
        directory = "None"
    )]
    #[pyo3(
        name = "attach_or_create",
        text_signature = "(identifier, first=None, segment=None, warm=None, processes=None, directory=None)"
    )]
    fn py_attach_or_create(
        py: Python<'_>,
        identifier: &PyAny,
        first: Option<&PyAny>,
        segment: Option<&PyAny>,
        warm: Option<&PyAny>,
        processes: Option<&PyAny>,
        directory: Option<&PyAny>,
    ) -> PyResult<Self> {
        let identifier = identifier_of(py, identifier)?;
        let wishes = wishes(first, segment, warm, processes)?;
        let folder = folder::chosen(py, directory)?;
        let met = attach_or_create(py, identifier, wishes, folder.as_deref()).map(Arena::from);
        records::emit_after(py, met)
    }

    /// Return the arena in which this process allocates.
    ///
    /// It is the one that the process met first: by receiving a handle, or from
    /// the process that made it, if that had one. A process that has met none makes one.
    ///
    /// Returns
    /// -------
    /// Arena
    ///     It stays attached until the process ends, whatever is closed.
    ///
    /// Raises
    /// ------
    /// ArenaFullError
    ///     There is no room in /dev/shm for a new one.
    #[staticmethod]
    #[pyo3(text_signature = "()")]
    fn default(py: Python<'_>) -> PyResult<Self> {
        find_own_default(py).map(Arena::from)
    }

    #[getter]
    fn name(&self) -> PyResult<String> {
        Ok(self.open()?.name().as_str().to_owned())
    }

    #[getter]
    fn identifier<'py>(&self, py: Python<'py>) -> PyResult<Option<&'py PyBytes>> {
        let identifier = self.open()?.identifier();
        Ok(identifier.map(|bytes| PyBytes::new(py, &bytes)))
    }

    #[getter]
    fn root(&self, py: Python<'_>) -> PyResult<Option<Block>> {
        watch_end(py)?;
        let root = self.operate(py, |arena| arena.root())?;
        Ok(root.map(Block::new))
    }

    /// Have the arena itself hold a block, from which processes find all else that is in it.
    ///
    /// It lives as long as the arena, whichever processes exit or are killed, and is ``root`` in all of
    /// them. Write its content before.
    ///
    /// Parameters
    /// ----------
    /// block : Block
    ///     A block of this arena.
    /// replace : bool, optional
    ///     Whether it takes the place of another block, which lives on only where it is used.
    ///
    /// Returns
    /// -------
    /// bool
    ///     False if there is another one and `replace` is false: nothing has changed. Of processes that
    ///     publish at once, one gets True.
    ///
    /// Raises
    /// ------
    /// ForeignHandleError
    ///     The block is of another arena.
    /// ValueError
    ///     The block is this process's own copy.
    ///
    /// Examples
    /// --------
    /// >>> import shared_numpy as snp, uuid
    /// >>> arena = snp.Arena.attach_or_create(uuid.uuid4().bytes)
    /// >>> block = arena.alloc(64)
    /// >>> block.array(8, "i8")[:] = range(8)
    /// >>> arena.publish_root(block), arena.publish_root(arena.alloc(64))
    /// (True, False)
    /// >>> del block
    /// >>> int(arena.root.array(8, "i8").sum())
    /// 28
    /// >>> arena.close()
    #[args(replace = "false")]
    #[pyo3(text_signature = "($self, block, replace=False)")]
    fn publish_root(&self, py: Python<'_>, block: &Block, replace: bool) -> PyResult<bool> {
        block.refuse_if_private()?;
        self.operate(py, |arena| arena.publish_root(block.inner(), replace))
    }

    #[getter]
    fn closed(&self) -> bool {
        self.0.borrow().is_none()
    }

    /// Allocate a block, with undefined contents.
    ///
    /// Parameters
    /// ----------
    /// nbytes : int
    ///     How long it shall be at least.
    ///
    /// Returns
    /// -------
    /// Block
    ///     Its memory is there: writing to it cannot fail.
    ///
    /// Raises
    /// ------
    /// ArenaFullError
    ///     There is no room; nothing has changed.
    /// ArenaBusyError
    ///     Another process keeps the arena's lock.
    /// ArenaCorruptedError
    ///     The arena was overwritten.
    #[pyo3(text_signature = "($self, nbytes)")]
    fn alloc(&self, py: Python<'_>, nbytes: i64) -> PyResult<Block> {
        let bytes = natural("nbytes", nbytes)?;
        watch_end(py)?;
        let arena = self.open()?;
        let made = work(py, || arena.allocate_owned(bytes)).map(Block::new);
        let made = made.and_then(|block| note_object(py, &block).map(|()| block));
        records::emit_after(py, made)
    }

    /// Make an array in a block of its own.
    ///
    /// Parameters
    /// ----------
    /// shape : int or sequence of int
    ///     Lengths of the dimensions.
    /// dtype : dtype_like, optional
    ///     What the items are, float64 by default; none that hold references to
    ///     objects.
    /// order : {"C", "F"}
    ///     Whether the last or the first index varies fastest.
    /// cls : type, optional
    ///     The array's class, ``numpy.ndarray`` or a subclass.
    ///
    /// Returns
    /// -------
    /// numpy.ndarray
    ///     Not initialised; as ``Block.array`` makes it.
    ///
    /// Raises
    /// ------
    /// TypeError
    ///     `dtype` holds references, or is none.
    /// ValueError
    ///     `shape` cannot be an array's.
    /// ArenaFullError, ArenaBusyError, ArenaCorruptedError
    ///     As in ``alloc``.
    #[args(dtype = "None", order = "\"C\"", cls = "None")]
    #[pyo3(text_signature = "($self, shape, dtype=None, order='C', cls=None)")]
    fn empty(
        &self,
        py: Python<'_>,
        shape: &PyAny,
        dtype: Option<&PyAny>,
        order: Option<&str>,
        cls: Option<&PyType>,
    ) -> PyResult<PyObject> {
        watch_end(py)?;
        let arena = self.open()?;
        let made = make_array(py, shape, dtype, order, cls, |_| Ok(arena));
        records::emit_after(py, made)
    }

    /// Make a handle of a block for one receiver.
    ///
    /// The block stays alive for it, whatever becomes of this process's
    /// reference.
    ///
    /// Parameters
    /// ----------
    /// block : Block
    ///     A block of this arena.
    ///
    /// Returns
    /// -------
    /// bytes
    ///     At most 100 of them, good on this machine until it is restarted.
    ///
    /// Raises
    /// ------
    /// ForeignHandleError
    ///     The block is of another arena.
    /// ValueError
    ///     The block is this process's own copy.
    /// ArenaFullError
    ///     Too many references are in flight.
    #[pyo3(text_signature = "($self, block)")]
    fn send<'py>(&self, py: Python<'py>, block: &Block) -> PyResult<&'py PyBytes> {
        block.refuse_if_private()?;
        let handle = self.operate(py, |arena| arena.send_as(block.inner(), true))?;
        Ok(encoded(py, &handle))
    }

    /// Turn the handle of a block into the block.
    ///
    /// The first to do so, in any process, takes over the reference that the handle
    /// stands for. Received again it works for as long as some process has the
    /// block. The handle's arena is attached if this process does not know it.
    ///
    /// Parameters
    /// ----------
    /// block_handle : bytes
    ///     What ``send`` returned, of whatever arena.
    ///
    /// Returns
    /// -------
    /// Block
    ///
    /// Raises
    /// ------
    /// StaleHandleError
    ///     The block has been freed.
    /// ForeignHandleError
    ///     The handle is of another machine or user, or of before this machine was
    ///     started.
    /// ValueError
    ///     It is no handle of a block.
    #[staticmethod]
    #[pyo3(name = "receive", text_signature = "(block_handle)")]
    fn py_receive(py: Python<'_>, block_handle: &PyBytes) -> PyResult<Block> {
        receive(py, block_handle)
    }

    /// End a handle that nobody will receive.
    ///
    /// Parameters
    /// ----------
    /// handle : bytes
    ///     What ``send`` returned.
    ///
    /// Returns
    /// -------
    /// bool
    ///     False if it has been received or ended before.
    #[pyo3(text_signature = "($self, handle)")]
    fn cancel(&self, py: Python<'_>, handle: &PyBytes) -> PyResult<bool> {
        let handle = decode(py, handle)?;
        self.operate(py, |arena| arena.cancel(&handle))
    }

    /// End all handles that were made some time ago and not received.
    ///
    /// Parameters
    /// ----------
    /// older_than : float
    ///     Their least age, in seconds.
    ///
    /// Returns
    /// -------
    /// int
    ///     How many there were.
    #[pyo3(text_signature = "($self, older_than)")]
    fn cancel_unreceived(&self, py: Python<'_>, older_than: f64) -> PyResult<u64> {
        if older_than.is_nan() || older_than < 0.0 {
            return Err(PyValueError::new_err(format!(
                "'older_than' must be a time in seconds, not {older_than}"
            )));
        }
        // A cast of a number that is too large gives the largest.
        let age = (older_than * 1000.0) as u64;
        self.operate_long(py, |arena| arena.cancel_unreceived(age))
    }

    /// Drop what killed processes held.
    ///
    /// It is done now and then, and before an arena is found to be full.
    ///
    /// Returns
    /// -------
    /// int
    ///     How many processes were found dead.
    #[pyo3(text_signature = "($self)")]
    fn reap(&self, py: Python<'_>) -> PyResult<u64> {
        self.operate_long(py, |arena| arena.reap())
    }

    /// Return the number of this process's membership, of which each process of the arena has
    /// another one, now and later.
    ///
    /// Returns
    /// -------
    /// int
    #[pyo3(text_signature = "($self)")]
    fn member(&self, py: Python<'_>) -> PyResult<u64> {
        self.operate(py, |arena| arena.member().map(Member::word))
    }

    /// Tell whether the process of a membership has left the arena or is dead, also if nobody
    /// has waited for it yet.
    ///
    /// Parameters
    /// ----------
    /// member : int
    ///     What ``member()`` has returned there.
    ///
    /// Returns
    /// -------
    /// bool
    #[pyo3(text_signature = "($self, member)")]
    fn is_gone(&self, py: Python<'_>, member: u64) -> PyResult<bool> {
        self.operate(py, |arena| {
            Ok(arena.core().is_gone(Member::of_word(member)))
        })
    }

    /// Return the block of a name, while some process has it or it is in flight.
    ///
    /// Parameters
    /// ----------
    /// name : str
    ///     What a block has as its ``name``.
    ///
    /// Returns
    /// -------
    /// Block
    ///
    /// Raises
    /// ------
    /// StaleHandleError
    ///     The block has been freed, or no process that has it has asked for its name.
    /// ForeignHandleError
    ///     It is of another arena.
    /// ValueError
    ///     No block has such a name.
    #[pyo3(text_signature = "($self, name)")]
    fn find(&self, py: Python<'_>, name: &str) -> PyResult<Block> {
        let arena = self.open()?;
        let Some((home, which)) = parse_name(name) else {
            return Err(PyValueError::new_err(format!(
                "{name:?} is no block's name"
            )));
        };
        if home != arena.name().as_str() {
            let why = "the block is of another arena";
            return Err(exception(py, Error::Foreign { why }));
        }
        work(py, || arena.find(which)).map(Block::new)
    }

    /// Tell which blocks can be found.
    ///
    /// Returns
    /// -------
    /// list of str
    ///     The names that were asked for, of blocks that some process has, or that are
    ///     in flight.
    #[pyo3(text_signature = "($self)")]
    fn blocks(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        let home = self.open()?.name();
        let found = self.operate_long(py, |arena| arena.blocks())?;
        let name = |which| block_name(home, which);
        Ok(found.into_iter().map(name).collect())
    }

    /// Look at every number in the arena's tables.
    ///
    /// Returns
    /// -------
    /// list of str
    ///     What contradicts itself; empty if all is well.
    #[pyo3(text_signature = "($self)")]
    fn check(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        self.operate_long(py, |arena| arena.check())
    }

    /// Return the arena in numbers.
    ///
    /// Returns
    /// -------
    /// dict of str to int
    ///     ``blocks`` that a process has, ``block_bytes``, ``free_bytes`` and
    ///     those that keep their pages, ``warm_bytes``; ``table_bytes``;
    ///     ``segments``, ``segment_bytes``; ``processes``; ``handles`` not yet
    ///     received, ``orphans`` among them whose sender was killed,
    ///     ``oldest_handle`` in ms. And since the arena was made: ``allocated``,
    ///     ``freed``, ``sent``, ``received``, ``expired``, ``recoveries`` from a
    ///     death with the lock, ``reaped_processes``, ``reaped_references``,
    ///     ``returned_bytes``, ``forks``, ``pinned_forks``; ``grows``, segments added, and
    ///     ``returns``, times that memory was given back.
    ///
    ///     And what this process has counted since it began (a forked child begins with zeros), over
    ///     all its arenas: ``lock_waits``, times that a thread found a lock of an arena or a queue
    ///     taken; ``longest_lock_wait``, the longest sleep until it had the lock, in µs; ``spins``
    ///     and ``sleeps``, waits for a message, a frame or room that ended without and with a sleep;
    ///     messages and bytes through queues and executors, ``ring_sent``, ``ring_sent_bytes``,
    ///     ``ring_received``, ``ring_received_bytes``, and where their channel is a pipe
    ///     ``pipe_sent``, ``pipe_sent_bytes``, ``pipe_received``, ``pipe_received_bytes``: pickles,
    ///     without the arrays that go by reference; frames of ring buffers, ``frames_written``,
    ///     ``frames_written_bytes``, ``frames_read``, ``frames_read_bytes``.
    #[pyo3(text_signature = "($self)")]
    pub(super) fn stats<'py>(&self, py: Python<'py>) -> PyResult<&'py PyDict> {
        let stats = self.operate_long(py, |arena| arena.stats())?;
        let numbers = PyDict::new(py);
        for (name, number) in [
            ("blocks", stats.blocks),
            ("block_bytes", stats.block_bytes),
            ("free_bytes", stats.free_bytes),
            ("warm_bytes", stats.warm_bytes),
            ("table_bytes", stats.table_bytes),
            ("segments", stats.segments),
            ("segment_bytes", stats.segment_bytes),
            ("processes", stats.processes),
            ("handles", stats.tickets),
            ("orphans", stats.orphans),
            ("oldest_handle", stats.oldest_ticket),
            ("allocated", stats.allocated),
            ("freed", stats.freed),
            ("sent", stats.sent),
            ("received", stats.received),
            ("expired", stats.expired),
            ("recoveries", stats.recoveries),
            ("reaped_processes", stats.reaped_processes),
            ("reaped_references", stats.reaped_references),
            ("returned_bytes", stats.returned_bytes),
            ("forks", stats.forks),
            ("pinned_forks", stats.pinned_forks),
            ("grows", stats.grows),
            ("returns", stats.returns),
        ] {
            numbers.set_item(name, number)?;
        }
        traffic::add_counters(numbers)?;
        Ok(numbers)
    }

    /// Give up this object's part in the arena.
    ///
    /// Blocks and arrays stay as they are; the process leaves the arena with
    /// the last of them and the last object that is not closed. Closing again
    /// does nothing.
    #[pyo3(text_signature = "($self)")]
    fn close(&self, py: Python<'_>) {
        let arena = self.0.borrow_mut().take();
        leave(py, arena);
    }

    /// Remove the arena's name: no process attaches it from now on, and another
    /// arena may have it.
    ///
    /// Those that have it go on with it.
    #[pyo3(text_signature = "($self)")]
    fn unlink(&self, py: Python<'_>) -> PyResult<()> {
        self.operate_long(py, |arena| arena.unlink())
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __exit__(&self, py: Python<'_>, _class: &PyAny, _exception: &PyAny, _traceback: &PyAny) {
        self.close(py)
    }

    fn __reduce__(slf: &PyCell<Self>) -> PyResult<(PyObject, (String,))> {
        let name = slf.borrow().name()?;
        let class: &PyType = slf.get_type();
        Ok((class.getattr("attach")?.into(), (name,)))
    }

    fn __repr__(&self) -> String {
        match &*self.0.borrow() {
            Some(arena) => format!("<Arena {:?}>", arena.name().as_str()),
            None => "<Arena, closed>".to_owned(),
        }
    }
}
