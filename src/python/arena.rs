//! Arenas as Python has them.

use super::block::Block;
use super::error::{exception, natural, os_error};
use super::folder;
use super::gil::{end, end_long, release, stay, surviving, without_interpreter, work, work_long};
use super::numpy::{self, Contiguous, Items, Layout, Shape};
use crate::arena::format::{BlockId, SLOTS as MOST_PLACES};
use crate::arena::handle::{Handle, Name};
use crate::arena::{BlockRef, Member};
use crate::error::{Error, Result};
use crate::process::{self, Settings, Wishes};
use crate::sys::probe::page_size;
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple, PyType};
use std::cell::RefCell;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Adds the class and the functions of this file to the extension module.
pub fn add_to(module: &PyModule) -> PyResult<()> {
    module.add_class::<Arena>()?;
    module.add("LOCK_SUFFIX", process::LOCK_SUFFIX)?;
    module.add("NO_FOLDER", NO_FOLDER)?;
    module.add("MOST_PLACES", MOST_PLACES)?;
    module.add_function(wrap_pyfunction!(empty, module)?)?;
    module.add_function(wrap_pyfunction!(copy, module)?)?;
    module.add_function(wrap_pyfunction!(receive, module)?)?;
    module.add_function(wrap_pyfunction!(take, module)?)?;
    module.add_function(wrap_pyfunction!(cancel, module)?)?;
    module.add_function(wrap_pyfunction!(cancel_all, module)?)?;
    module.add_function(wrap_pyfunction!(clean, module)?)?;
    module.add_function(wrap_pyfunction!(end_arena, module)?)?;
    module.add_function(wrap_pyfunction!(end_tracking, module)?)?;
    module.add_function(wrap_pyfunction!(trim, module)?)?;
    module.add_function(wrap_pyfunction!(make_room, module)?)?;
    module.add_function(wrap_pyfunction!(places, module)?)?;
    module.add_function(wrap_pyfunction!(begin_exit, module)?)?;
    module.add_function(wrap_pyfunction!(retire, module)?)
}

/// How long another process may take to tell its tracker something.
const MOMENT: Duration = Duration::from_millis(1);
const MOMENTS: usize = 200;
/// How long to wait for a living owner of an arena's lock, in ms.
const PATIENCE: u64 = 30_000;
/// To ask for the process's user takes as long as two small arrays: after so many
/// allocations, a power of two, and where it is short beside the rest.
const OFTEN: u32 = 256;
/// An allocation of so many bytes takes longer.
const MUCH: u64 = 1 << 20;

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
/// closed : bool
///     Whether ``close`` was called.
#[pyclass(name = "Arena", module = "shared_numpy._core")]
pub struct Arena(RefCell<Option<process::Arena>>);

impl From<process::Arena> for Arena {
    fn from(arena: process::Arena) -> Self {
        Arena(RefCell::new(Some(arena)))
    }
}

/// The arena that this process allocates in unless told otherwise.
static DEFAULT: Mutex<Option<process::Arena>> = Mutex::new(None);

fn default_arena() -> Option<process::Arena> {
    let default = DEFAULT.lock().unwrap_or_else(PoisonError::into_inner);
    default.clone()
}

/// Makes `arena` the default of this process, and of those that it makes, if it
/// has none that others can attach.
fn offer_as_default(py: Python<'_>, arena: &process::Arena) -> PyResult<()> {
    let replaced = {
        let mut default = DEFAULT.lock().unwrap_or_else(PoisonError::into_inner);
        match &*default {
            Some(known) if !known.is_unlinked() && known.is_of_this_user() => return Ok(()),
            _ => default.replace(arena.clone()),
        }
    };
    leave(py, replaced);
    adopt(py, arena)?;
    ask::<Nothing>(py, "hand_down", (arena.name().as_str(),))?;
    Ok(())
}

/// Asks the package's module that knows the process tree.
fn ask<'py, T: FromPyObject<'py>>(
    py: Python<'py>,
    question: &str,
    arguments: impl IntoPy<Py<PyTuple>> + Clone,
) -> PyResult<T> {
    surviving(&mut || {
        let tree = py.import("shared_numpy._system.process_tree")?;
        tree.call_method1(question, arguments.clone())?.extract()
    })
}

/// What [`ask`] returns where there is nothing to say.
type Nothing<'py> = &'py PyAny;

/// The process, by its forks, that has asked to be told of its end.
static WATCHED: AtomicU64 = AtomicU64::new(u64::MAX);

/// Has this process give its arenas back at its end.
#[inline]
pub fn watch_end(py: Python<'_>) -> PyResult<()> {
    let number = process::fork_number();
    match WATCHED.load(Ordering::Relaxed) == number {
        true => Ok(()),
        false => {
            ask::<Nothing>(py, "at_end", ())?;
            EXITING.store(0, Ordering::Relaxed);
            RETIRED.store(0, Ordering::Relaxed);
            WATCHED.store(number, Ordering::Relaxed);
            Ok(())
        }
    }
}

/// The thread that ends this process, once it has begun to; 0 for none.
static EXITING: AtomicUsize = AtomicUsize::new(0);

/// The thread that has given this process's arenas back, at its end; 0 for none.
static RETIRED: AtomicUsize = AtomicUsize::new(0);

/// Whether this process's arenas were given back, at its end. Threads may go on
/// for a while, and be waited for.
fn is_retired() -> bool {
    RETIRED.load(Ordering::Relaxed) != 0
}

/// Whether the interpreter is about to end this thread.
pub fn is_over(py: Python<'_>) -> bool {
    let finalizing = || py.import("sys")?.call_method0("is_finalizing")?.extract();
    let retired = RETIRED.load(Ordering::Relaxed);
    retired != 0 && retired != this_thread() && finalizing().unwrap_or(true)
}

/// Whether another thread has begun to end this process, and nobody waits for this
/// one: it is a daemon, or unknown to `threading`.
pub fn is_forsaken(py: Python<'_>) -> bool {
    let daemon = || -> PyResult<bool> {
        let threading = py.import("threading")?;
        let number = threading.call_method0("get_ident")?;
        let thread = threading
            .getattr("_active")?
            .call_method1("get", (number,))?;
        match thread.is_none() {
            true => Ok(true),
            false => thread.getattr("daemon")?.extract(),
        }
    };
    let exiting = EXITING.load(Ordering::Relaxed);
    if exiting == 0 || exiting == this_thread() {
        return false;
    }
    // It may be ended here.
    is_over(py) || surviving(&mut || daemon().unwrap_or(true))
}

/// Whether this thread has given this process's arenas back, at its end.
pub fn ends_here() -> bool {
    RETIRED.load(Ordering::Relaxed) == this_thread()
}

/// A number that no other living thread has, and not 0.
fn this_thread() -> usize {
    thread_local!(static HERE: u8 = const { 0 });
    HERE.with(|here| here as *const u8 as usize)
}

/// Tells the tracker what it need not remove any more.
#[inline]
pub fn announce(py: Python<'_>) {
    let names = process::unregistered();
    if !names.is_empty() {
        unregister(py, &names);
    }
}

#[cold]
fn unregister(py: Python<'_>, names: &[Name]) {
    if is_over(py) {
        return;
    }
    // An object may be dropped while an exception is on its way.
    let (mut class, mut value, mut trace) = (null_mut(), null_mut(), null_mut());
    // SAFETY: three places for what is pending; null if nothing is.
    unsafe { ffi::PyErr_Fetch(&mut class, &mut value, &mut trace) };
    for name in names {
        if let Err(error) = ask::<Nothing>(py, "unregister", (name.as_str(),)) {
            error.restore(py);
            // SAFETY: the interpreter is held; there is nobody to raise it to.
            unsafe { ffi::PyErr_WriteUnraisable(null_mut()) };
        }
    }
    // SAFETY: what was fetched, given back.
    unsafe { ffi::PyErr_Restore(class, value, trace) };
}

/// Drops a reference to an arena, which may be the process's last.
pub(super) fn leave(py: Python<'_>, arena: Option<process::Arena>) {
    super::gil::end(py, || drop(arena));
    announce(py);
}

/// Has this tree's tracker remove the names of an arena if nobody else's does:
/// an arena that the process keeps until its end.
fn adopt(py: Python<'_>, arena: &process::Arena) -> PyResult<()> {
    // Trackers know POSIX's objects only; a sweep removes what lies elsewhere.
    if arena.name().folder().is_some() {
        return Ok(());
    }
    // A process that leaves tells its tracker, perhaps this one's: not after this.
    for _ in 0..MOMENTS {
        if !arena.is_ending() {
            break;
        }
        without_interpreter(py, || std::thread::sleep(MOMENT));
    }
    if arena.is_registered() {
        return Ok(());
    }
    let tree: u64 = ask(py, "registrar", (true,))?;
    if work(py, || arena.register_with(tree))? {
        ask::<Nothing>(py, "register", (arena.name().as_str(),))?;
    }
    Ok(())
}

fn name_of(name: &str) -> PyResult<Name> {
    Name::new(name).map_err(|error| PyValueError::new_err(format!("{name:?}: {error}")))
}

/// A failure of making or attaching the arena `name`.
fn with_name(py: Python<'_>, error: Error, name: Name) -> PyErr {
    let name = pyo3::types::PyString::new(py, name.as_str());
    match error {
        Error::Os { .. } => os_error(py, error, Some(name)),
        error => exception(py, error),
    }
}

/// Attaches the arena `name`.
fn attach(py: Python<'_>, name: Name) -> PyResult<process::Arena> {
    watch_end(py)?;
    // The error is Python's only when the interpreter is held again.
    let attached = work_long(py, || Ok(process::Arena::attach(name, PATIENCE)))?;
    let arena = attached.map_err(|error| with_name(py, error, name))?;
    // Should it be the last of the tree to have it, it must know.
    let tree: u64 = ask(py, "registrar", (false,))?;
    work(py, || arena.set_tree(tree))?;
    Ok(arena)
}

/// A name that nobody has.
fn new_name(folder: Option<&str>) -> Result<Name> {
    let number = process::random_number()?;
    let name = format!("snp-{:x}-{:08x}", std::process::id(), number as u32);
    Name::new(&path_of(folder, &name))
}

/// An arena's name with the folder where it lies.
fn path_of(folder: Option<&str>, name: &str) -> String {
    match folder {
        Some(folder) => format!("{folder}/{name}"),
        None => name.to_owned(),
    }
}

/// The name of an arena that is to be made or looked for in a folder.
fn name_in(folder: Option<&str>, name: &str) -> PyResult<Name> {
    // (With a path in it the name is wrong.)
    let plain = name_of(name)?;
    match plain.folder() {
        None => name_of(&path_of(folder, name)),
        Some(_) => Err(PyValueError::new_err(format!(
            "{name:?}: which folder an arena lies in is told by 'directory'"
        ))),
    }
}

/// The variable that says what arenas are made with.
const VARIABLE: &str = "SHARED_NUMPY_ARENA";

/// What the environment says of arenas that are to be made.
fn environment() -> PyResult<Wishes> {
    let Some(text) = std::env::var_os(VARIABLE) else {
        return Ok(Wishes::default());
    };
    let text = text.to_string_lossy();
    Wishes::read(&text).map_err(|why| {
        PyValueError::new_err(format!(
            "the environment variable {VARIABLE}={text:?}: {why}"
        ))
    })
}

/// For how many processes a part of this program needs places in the default arena, at most; 0 if
/// none has said that.
static PLACES: AtomicU32 = AtomicU32::new(0);

/// What the default arena is made with.
fn wishes_for_default() -> PyResult<Wishes> {
    let said = environment()?;
    Ok(match PLACES.load(Ordering::Relaxed) {
        0 => said,
        places => said.or(Wishes::places(places)),
    })
}

/// Return for how many processes the arena has places in which this process allocates.
///
/// Parameters
/// ----------
/// wanted : int
///     For so many it is to have places if it is not there yet, and if the environment variable
///     ``SHARED_NUMPY_ARENA`` does not say another number.
///
/// Returns
/// -------
/// int
///     Of an arena that is not there yet the number that it will be made with.
///
/// Raises
/// ------
/// ValueError
///     What the environment variable says cannot be.
#[pyfunction]
#[pyo3(text_signature = "(wanted)")]
fn places(py: Python<'_>, wanted: u32) -> PyResult<u32> {
    PLACES.fetch_max(wanted, Ordering::Relaxed);
    let there = default_arena().filter(|arena| arena.is_of_this_user() && !arena.is_unlinked());
    if let Some(arena) = there {
        let places = arena.places();
        leave(py, Some(arena));
        return Ok(places);
    }
    if ask::<Option<String>>(py, "inherited", ())?.is_none() {
        return Ok(wishes_for_default()?.settings().processes);
    }
    let arena = find_own_default(py)?;
    let places = arena.places();
    leave(py, Some(arena));
    Ok(places)
}

/// What the arguments of `Arena.create` say.
fn wishes(arguments: &[(&str, Option<&PyAny>)]) -> PyResult<Wishes> {
    let mut wishes = Wishes::default();
    for (key, value) in arguments {
        let Some(value) = value else {
            continue;
        };
        let set = match value.downcast::<PyString>() {
            Ok(text) => {
                let text = text.to_str()?;
                wishes.set(key, process::number(text).ok_or(text))
            }
            Err(_) => wishes.set(key, Ok(natural(key, value.extract()?)?)),
        };
        set.map_err(PyValueError::new_err)?;
    }
    Ok(wishes)
}

/// Makes an arena, in a folder or with POSIX's objects. The first that a process makes sweeps up
/// what killed processes left; each that it makes in another folder does.
fn create(
    py: Python<'_>,
    wishes: Wishes,
    name: Option<&str>,
    folder: Option<&str>,
) -> PyResult<process::Arena> {
    static SWEPT: AtomicBool = AtomicBool::new(false);
    watch_end(py)?;
    if is_over(py) {
        // Nobody would give it back.
        stay(py);
    }
    let mut settings = wishes.or(environment()?).settings();
    if !SWEPT.swap(true, Ordering::Relaxed) || folder.is_some() {
        // What cannot be swept is no reason not to begin.
        let _ = end_long(py, || process::sweep(folder));
        announce(py);
        ask::<Nothing>(py, "clean_managers_once", ())?;
    }
    let name = name.map(|name| name_in(folder, name)).transpose()?;
    if let Some(taken) = name.filter(|name| process::exists(*name)) {
        let error = Error::Os {
            call: "shm_open",
            errno: crate::sys::EEXIST,
        };
        return Err(with_name(py, error, taken));
    }
    if folder.is_none() {
        settings.tree = ask(py, "registrar", (true,))?;
    }
    match name {
        None => create_registered(py, settings, folder),
        Some(name) => {
            // Somebody else may be making one of this name: only the one that
            // is made can be registered.
            let arena = create_named(py, settings, name)?;
            if settings.tree != 0 {
                ask::<Nothing>(py, "register", (name.as_str(),))?;
            }
            Ok(arena)
        }
    }
}

/// The error where shared memory has no folder.
fn without_folder(py: Python<'_>, errno: i32) -> PyErr {
    let class = py.get_type::<PyOSError>();
    match class.call1((errno, NO_FOLDER)) {
        Ok(exception) => PyErr::from_instance(exception),
        Err(failure) => failure,
    }
}

/// What to do where shared memory has no folder.
const NO_FOLDER: &str = "there is no /dev/shm, where shared memory lies: mount a tmpfs there \
                         (mount -t tmpfs tmpfs /dev/shm), or start the container with one (not \
                         with docker run --ipc none)";

fn create_named(py: Python<'_>, settings: Settings, name: Name) -> PyResult<process::Arena> {
    let created = end_long(py, || process::Arena::create(name, settings));
    announce(py);
    created.map_err(|error| match error {
        Error::Os { errno, .. } if errno == crate::sys::ENOENT => without_folder(py, errno),
        error => with_name(py, error, name),
    })
}

/// Makes an arena of a new name, the tracker first: should everybody be killed
/// in between, it removes what there is.
fn create_registered(
    py: Python<'_>,
    settings: Settings,
    folder: Option<&str>,
) -> PyResult<process::Arena> {
    let name = new_name(folder).map_err(|error| exception(py, error))?;
    if settings.tree != 0 {
        ask::<Nothing>(py, "register", (name.as_str(),))?;
    }
    create_named(py, settings, name).inspect_err(|_| {
        if settings.tree != 0 {
            unregister(py, &[name]);
        }
    })
}

/// The arena of the process that made this one, if it can be attached still.
fn inherited(py: Python<'_>) -> PyResult<Option<process::Arena>> {
    let name: Option<String> = ask(py, "inherited", ())?;
    let Some(Ok(name)) = name.map(|name| Name::new(&name)) else {
        return Ok(None);
    };
    match attach(py, name) {
        Ok(arena) if !arena.is_unlinked() => Ok(Some(arena)),
        Ok(arena) => {
            leave(py, Some(arena));
            Ok(None)
        }
        // Not what a signal's handler raised.
        Err(error) if error.is_instance::<PyOSError>(py) => Ok(None),
        Err(error) if error.is_instance::<PyValueError>(py) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The arena of a handle, which this process may meet for the first time.
pub(super) fn arena_of(py: Python<'_>, handle: &Handle) -> PyResult<process::Arena> {
    if let Some(default) = default_arena().filter(|arena| arena.uuid() == handle.uuid) {
        return Ok(default);
    }
    let known = work(py, || Ok(process::find(handle.uuid)))?;
    if let Some(known) = known {
        return Ok(known);
    }
    process::Arena::check_home(handle).map_err(|error| exception(py, error))?;
    match attach(py, handle.name) {
        Ok(arena) if arena.uuid() == handle.uuid => {
            offer_as_default(py, &arena)?;
            Ok(arena)
        }
        // Another arena of the same name: the handle's is gone.
        Ok(arena) => {
            leave(py, Some(arena));
            Err(exception(py, Error::Stale))
        }
        Err(error) if error.is_instance::<pyo3::exceptions::PyFileNotFoundError>(py) => {
            Err(exception(py, Error::Stale))
        }
        Err(error) => Err(error),
    }
}

impl Arena {
    #[inline]
    fn open(&self) -> PyResult<process::Arena> {
        let arena = self.0.borrow();
        arena
            .clone()
            .ok_or_else(|| PyValueError::new_err("the arena was closed"))
    }

    /// Does `operation`, which may wait. It may be closed meanwhile, by another
    /// thread or a signal's handler.
    #[inline]
    fn operate<T>(
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

    /// Does `operation`, which takes long.
    fn operate_long<T>(
        &self,
        py: Python<'_>,
        operation: impl FnOnce(&process::Arena) -> Result<T>,
    ) -> PyResult<T> {
        self.operate(py, |arena| {
            release();
            operation(arena)
        })
    }
}

/// The arena in which this process allocates, made if there is none.
#[inline]
pub(super) fn find_default(py: Python<'_>) -> PyResult<process::Arena> {
    /// How many times it is asked for.
    static ASKED: AtomicU32 = AtomicU32::new(0);
    // Two threads may count as one.
    let asked = ASKED.load(Ordering::Relaxed).wrapping_add(1);
    ASKED.store(asked, Ordering::Relaxed);
    if asked & (OFTEN - 1) == 0 {
        return find_own_default(py);
    }
    match default_arena().filter(|arena| !arena.is_unlinked()) {
        Some(arena) => Ok(arena),
        None => choose_default(py),
    }
}

/// The same for what may take longer: an arena that this process's user may open, also if
/// that has just changed. Processes that are made from now on could not open the one before.
pub(super) fn find_own_default(py: Python<'_>) -> PyResult<process::Arena> {
    let foreign = {
        let mut default = DEFAULT.lock().unwrap_or_else(PoisonError::into_inner);
        default.take_if(|arena| !arena.is_of_this_user())
    };
    leave(py, foreign);
    match default_arena().filter(|arena| !arena.is_unlinked()) {
        Some(arena) => Ok(arena),
        None => choose_default(py),
    }
}

/// The thread that chooses the default arena, and its process, by its forks; 0 for
/// none.
static CHOOSER: Mutex<(u64, usize)> = Mutex::new((0, 0));

/// That this thread chooses the default arena, until it is dropped.
struct Choosing;

impl Choosing {
    /// Begins to choose; None if another thread has chosen meanwhile, or this one is
    /// in the middle of it and runs a signal's handler.
    fn begin(py: Python<'_>) -> PyResult<Option<Self>> {
        let here = (process::fork_number(), this_thread());
        loop {
            {
                let mut chooser = CHOOSER.lock().unwrap_or_else(PoisonError::into_inner);
                // (A thread of the process that forked this one is not here.)
                if chooser.1 == 0 || chooser.0 != here.0 {
                    *chooser = here;
                    return Ok(Some(Choosing));
                }
                if *chooser == here {
                    return Ok(None);
                }
            }
            without_interpreter(py, || std::thread::sleep(MOMENT));
            surviving(&mut || py.check_signals())?;
            if default_arena().is_some_and(|arena| !arena.is_unlinked()) {
                return Ok(None);
            }
        }
    }
}

impl Drop for Choosing {
    fn drop(&mut self) {
        let mut chooser = CHOOSER.lock().unwrap_or_else(PoisonError::into_inner);
        if *chooser == (process::fork_number(), this_thread()) {
            *chooser = (0, 0);
        }
    }
}

#[cold]
fn choose_default(py: Python<'_>) -> PyResult<process::Arena> {
    // In this order: either what follows is given back at the end, or that has begun.
    watch_end(py)?;
    if ask::<bool>(py, "is_forsaken", ())? {
        stay(py);
    }
    // One thread at a time: an arena that two have made would have to be left again,
    // while children that are forked meanwhile have it.
    let choosing = Choosing::begin(py)?;
    if let Some(arena) = default_arena().filter(|arena| !arena.is_unlinked()) {
        return Ok(arena);
    }
    if let Some(arena) = default_arena().filter(|_| is_retired()) {
        // A thread that works on at the end of the process: without names it ends with
        // that, and a new arena would be left behind.
        return Ok(arena);
    }
    let arena = match inherited(py)? {
        Some(arena) => arena,
        None => create(
            py,
            wishes_for_default()?,
            None,
            folder::chosen(py, None)?.as_deref(),
        )?,
    };
    if is_retired() {
        // Nobody would give it back: it goes with what is made in it.
        if is_forsaken(py) {
            leave(py, Some(arena));
            drop(choosing);
            stay(py);
        }
        return Ok(arena);
    }
    offer_as_default(py, &arena)?;
    // Another thread's, if that was faster.
    let chosen = default_arena().unwrap_or_else(|| arena.clone());
    leave(py, Some(arena));
    Ok(chosen)
}

/// Makes an array in a block of its own; nothing is touched before what is asked
/// for is known to be possible.
#[inline]
fn make_array(
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
    let block = work(py, || arena.allocate_owned(bytes))?;
    let block = Py::new(py, Block::new(block))?;
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
    make_array(py, shape, dtype, order, cls, |bytes| match bytes >= MUCH {
        true => find_own_default(py),
        false => find_default(py),
    })
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
pub(super) fn copy(
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
    // So much is there up to the first whole page, and behind the last.
    let page = page_size();
    let around = if pages { 2 * page as u64 } else { 0 };
    let block = work(py, || arena.allocate_owned(bytes.saturating_add(around)))?;
    let first = block.bytes().as_ptr();
    let to = match pages {
        true => first.wrapping_add(first.align_offset(page)),
        false => first,
    };
    let block = Py::new(py, Block::new(block))?;
    let mut layout = Layout::whole(items, shape, found.fortran);
    layout.begin_at(to as usize - first as usize);
    let made = numpy::array(py, block, layout, cls)?;
    // Other threads may have run meanwhile, and made the array another one.
    match Contiguous::new(py, array)? {
        Some((source, items, shape)) if shape.bytes(&items)? == bytes => {
            source.copy_to(py, &made, to, bytes as usize)?;
            Ok(made)
        }
        _ => Ok(py.None()),
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: objects are dropped with the interpreter held.
        let py = unsafe { Python::assume_gil_acquired() };
        leave(py, self.0.take());
    }
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
        let wishes = wishes(&[
            ("first", first),
            ("segment", segment),
            ("warm", warm),
            ("processes", processes),
        ])?;
        let folder = folder::chosen(py, directory)?;
        create(py, wishes, name, folder.as_deref()).map(Arena::from)
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

    /// Return the arena in which this process allocates.
    ///
    /// It is the one that the process met first: by receiving a handle, or from
    /// the process that made it, if that had one. Who has met none makes one.
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
    fn closed(&self) -> bool {
        self.0.borrow().is_none()
    }

    /// Allocate a block; what is in it is undefined.
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
        work(py, || arena.allocate_owned(bytes)).map(Block::new)
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
        make_array(py, shape, dtype, order, cls, |_| Ok(arena))
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
        // A cast of what is too large gives the largest.
        let age = (older_than * 1000.0) as u64;
        self.operate_long(py, |arena| arena.cancel_unreceived(age))
    }

    /// Let go of what killed processes had.
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
    ///     The block has been freed, or nobody who has it has asked for its name.
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
    ///     ``blocks`` that somebody has, ``block_bytes``, ``free_bytes`` and
    ///     those that keep their pages, ``warm_bytes``; ``table_bytes``;
    ///     ``segments``, ``segment_bytes``; ``processes``; ``handles`` not yet
    ///     received, ``orphans`` among them whose sender was killed,
    ///     ``oldest_handle`` in ms. And since the arena was made: ``allocated``,
    ///     ``freed``, ``sent``, ``received``, ``expired``, ``recoveries`` from a
    ///     death with the lock, ``reaped_processes``, ``reaped_references``,
    ///     ``returned_bytes``, ``forks``, ``pinned_forks``.
    #[pyo3(text_signature = "($self)")]
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<&'py PyDict> {
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
        ] {
            numbers.set_item(name, number)?;
        }
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

/// What names a life of a block among all arenas of the machine.
pub fn block_name(arena: Name, which: BlockRef) -> String {
    format!("{}/{}.{}", arena.as_str(), which.id.0, which.generation)
}

/// The arena's name and the block, of what `block_name` made.
fn parse_name(name: &str) -> Option<(&str, BlockRef)> {
    let (home, number) = name.rsplit_once('/')?;
    let (id, generation) = number.split_once('.')?;
    let which = BlockRef {
        id: BlockId(id.parse().ok()?),
        generation: generation.parse().ok()?,
    };
    Some((home, which))
}

/// A handle as Python has it.
#[inline]
pub fn encoded<'py>(py: Python<'py>, handle: &Handle) -> &'py PyBytes {
    PyBytes::new(py, &handle.encode())
}

/// What Python has as a handle.
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
fn receive(py: Python<'_>, handle: &PyBytes) -> PyResult<Block> {
    receive_by(py, handle, process::Arena::receive)
}

/// Turn a handle into a block, if nobody else has.
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
pub(super) fn received(
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

/// End a handle that nobody will receive, of whatever arena.
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

/// End handles that nobody will receive, of whatever arenas.
///
/// No exception of a signal's handler comes between.
///
/// Parameters
/// ----------
/// handles : list of bytes, or of such lists
///     What ``Arena.send`` returned.
///
/// Raises
/// ------
/// TypeError, ValueError
///     One of them is no handle; the others have ended.
#[pyfunction]
#[pyo3(text_signature = "(handles)")]
pub(super) fn cancel_all(py: Python<'_>, handles: &PyList) -> PyResult<()> {
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

/// Ends a handle, if it can be; signals are not asked for.
pub(super) fn give_up(py: Python<'_>, handle: &Handle) {
    let arena = end(py, || process::find(handle.uuid));
    if let Some(arena) = arena {
        // What cannot be ended now does with this process.
        let _ = end(py, || arena.cancel(handle));
        leave(py, Some(arena));
    }
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
    let swept = end_long(py, || process::sweep(folder));
    announce(py);
    let names = swept.map_err(|error| exception(py, error))?;
    let mut removed: Vec<String> = ask(py, "clean_managers", ())?;
    removed.extend(names.iter().map(|name| name.as_str().to_owned()));
    Ok(removed)
}

/// Remove an arena whose program has ended, unless a living process has it.
///
/// Parameters
/// ----------
/// name : str
///     Its name.
///
/// Returns
/// -------
/// bool
///     Whether there is no such arena now.
///
/// Raises
/// ------
/// ValueError
///     `name` cannot be an arena's.
#[pyfunction]
#[pyo3(text_signature = "(name)")]
fn end_arena(py: Python<'_>, name: &str) -> PyResult<bool> {
    let name = name_of(name)?;
    Ok(end_long(py, || process::end(name)))
}

/// Have the resource tracker forget this process's arenas.
///
/// For a process that leaves its tree: the names of its arenas then go with the last
/// process that has them, and not at the end of the tree.
#[pyfunction]
#[pyo3(text_signature = "()")]
fn end_tracking(py: Python<'_>) {
    end_long(py, process::end_tracking);
    announce(py);
}

/// Give back what the arenas of this user have in shared memory and do not use.
///
/// For whoever is about to say that there is no room: those of this process give it back
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
            Err(_) if is_retired() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sum)
}

/// Note that this thread ends the process.
///
/// A daemon thread that finds something let go of from now on stays where it is.
#[pyfunction]
#[pyo3(text_signature = "()")]
fn begin_exit() {
    EXITING.store(this_thread(), Ordering::Relaxed);
}

/// Give this process's arenas back, at its end.
///
/// Blocks that something still refers to stay the process's until it is gone.
///
/// Parameters
/// ----------
/// last : bool
///     The whole tree of processes ends: what channels of `multiprocessing` have
///     dropped, nobody will receive. What was sent by ``Arena.send`` waits.
#[pyfunction]
#[pyo3(text_signature = "(last)")]
fn retire(py: Python<'_>, last: bool) {
    begin_exit();
    RETIRED.store(this_thread(), Ordering::Relaxed);
    let staying = end_long(py, || process::retire_all(last));
    announce(py);
    for arena in staying {
        arena.end_registration();
        leave(py, Some(arena));
    }
}
