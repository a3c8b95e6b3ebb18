//! Which arena this process allocates in.
//!
//! It is the one that the process met first: by receiving a handle, or from the process that made
//! it. A process that has met none makes one.

use super::attaching::{attach, create, environment};
use super::error::exception;
use super::exit_state;
use super::folder;
use super::gil::{surviving, without_gil};
use super::operation::work;
use super::process_tree::{adopt, ask, leave, watch_end, Nothing};
use super::shutdown::{is_forsaken, stay};
use crate::arena::handle::{Handle, Name};
use crate::error::Error;
use crate::process::{self, Wishes};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Adds the function of this file to the extension module.
pub fn add_to(module: &PyModule) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(places, module)?)
}

/// How long a thread sleeps while another one chooses.
const MOMENT: Duration = Duration::from_millis(1);
/// The default arena is compared with the process's user once in so many allocations, a power of two,
/// and in slower calls: to ask for the user takes as long as to make two small arrays.
const OFTEN: u32 = 256;

/// The arena that this process allocates in by default.
static DEFAULT: Mutex<Option<process::Arena>> = Mutex::new(None);

pub fn default_arena() -> Option<process::Arena> {
    let default = DEFAULT.lock().unwrap_or_else(PoisonError::into_inner);
    default.clone()
}

/// Makes `arena` the default of this process and of its children, if this process has no default that
/// others can attach.
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

/// The largest number of processes for which a part of this program needs places in the default
/// arena; 0 if none has asked.
static PLACES: AtomicU32 = AtomicU32::new(0);

/// The settings for making the default arena.
fn wishes_for_default() -> PyResult<Wishes> {
    let said = environment()?;
    Ok(match PLACES.load(Ordering::Relaxed) {
        0 => said,
        places => said.or(Wishes::places(places)),
    })
}

/// Return for how many processes the default arena has places.
///
/// Parameters
/// ----------
/// wanted : int
///     Make the arena with so many places, if it is not there yet and the environment variable
///     ``SHARED_NUMPY_ARENA`` does not set another number.
///
/// Returns
/// -------
/// int
///     The number with which the arena was made, or will be.
///
/// Raises
/// ------
/// ValueError
///     The environment variable is wrong.
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

/// The default arena of the parent process, if it can still be attached.
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
        // Not an exception that a signal handler raised.
        Err(error) if error.is_instance::<PyOSError>(py) => Ok(None),
        Err(error) if error.is_instance::<PyValueError>(py) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The arena of a handle, which this process may meet for the first time.
pub fn arena_of(py: Python<'_>, handle: &Handle) -> PyResult<process::Arena> {
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
        // Another arena of the same name: the handle's arena is gone.
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

/// The arena in which this process allocates, made if there is none.
#[inline]
pub fn find_default(py: Python<'_>) -> PyResult<process::Arena> {
    /// How many times the arena was asked for.
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

/// The same for slower calls: an arena that this process's user may open, even if the process has just
/// changed its user. New processes could not open the old one.
pub fn find_own_default(py: Python<'_>) -> PyResult<process::Arena> {
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

/// The fork number and the thread that chooses the default arena; 0 for none.
static CHOOSER: Mutex<(u64, usize)> = Mutex::new((0, 0));

/// This thread chooses the default arena until this is dropped.
struct Choosing;

impl Choosing {
    /// Begins to choose; None if another thread has chosen meanwhile, or this thread is choosing
    /// already and runs a signal handler.
    fn begin(py: Python<'_>) -> PyResult<Option<Self>> {
        let here = (process::fork_number(), exit_state::this_thread());
        loop {
            {
                let mut chooser = CHOOSER.lock().unwrap_or_else(PoisonError::into_inner);
                // (A thread of the parent process is not in this one.)
                if chooser.1 == 0 || chooser.0 != here.0 {
                    *chooser = here;
                    return Ok(Some(Choosing));
                }
                if *chooser == here {
                    return Ok(None);
                }
            }
            without_gil(py, || std::thread::sleep(MOMENT));
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
        if *chooser == (process::fork_number(), exit_state::this_thread()) {
            *chooser = (0, 0);
        }
    }
}

#[cold]
fn choose_default(py: Python<'_>) -> PyResult<process::Arena> {
    // In this order: either the new arena is given back at exit, or the exit is seen to have begun.
    watch_end(py)?;
    if ask::<bool>(py, "is_forsaken", ())? {
        stay(py);
    }
    // One thread at a time: the second of two new arenas would have to be left again, while
    // children that are forked meanwhile have it.
    let choosing = Choosing::begin(py)?;
    if let Some(arena) = default_arena().filter(|arena| !arena.is_unlinked()) {
        return Ok(arena);
    }
    if let Some(arena) = default_arena().filter(|_| exit_state::is_retired()) {
        // A thread that goes on during process exit: this arena, without names, ends with the
        // process, and a new one would be left behind.
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
    if exit_state::is_retired() {
        // No thread would give it back: it ends with the last block in it.
        if is_forsaken(py) {
            leave(py, Some(arena));
            drop(choosing);
            stay(py);
        }
        return Ok(arena);
    }
    offer_as_default(py, &arena)?;
    // (Another thread's arena, if that was faster.)
    let chosen = default_arena().unwrap_or_else(|| arena.clone());
    leave(py, Some(arena));
    Ok(chosen)
}
