//! numpy's allocator: large arrays that lie in the arena from the beginning, whatever code makes
//! them.
//!
//! numpy asks a handler for the memory of its arrays (NEP 49, since 1.22). Ours takes large arrays
//! from the arena. If a function returns such an array, and nothing else refers to its memory, the
//! memory goes to the receiver as it is.
//!
//! A handler belongs to a thread's context. An array keeps the handler that allocated it, and any
//! thread may free it.

use super::default_arena::find_default;
use super::numpy;
use super::objects::Block;
use crate::process;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use pyo3::{ffi, AsPyPointer};
use std::ffi::{c_char, c_int, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::OnceLock;

pub fn add_to(module: &PyModule) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(place_arrays, module)?)?;
    module.add_function(wrap_pyfunction!(given_away, module)?)
}

/// Less than this is left to numpy: its own pages would be many times as much.
const LEAST: usize = 1 << 16;

/// What numpy calls, in the layout of its version 1.
#[repr(C)]
#[derive(Clone, Copy)]
struct Allocator {
    context: *mut c_void,
    malloc: unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void,
    calloc: unsafe extern "C" fn(*mut c_void, usize, usize) -> *mut c_void,
    realloc: unsafe extern "C" fn(*mut c_void, *mut c_void, usize) -> *mut c_void,
    free: unsafe extern "C" fn(*mut c_void, *mut c_void, usize),
}

/// What the capsule holds.
#[repr(C)]
struct Handler {
    name: [u8; 127],
    version: u8,
    allocator: Allocator,
}

const CAPSULE: *const c_char = c"mem_handler".as_ptr();
const VERSION: u8 = 1;

/// What the functions need; for the life of the process, as arrays may be.
struct State {
    arena: process::Arena,
    /// For what is small, or has no room in the arena.
    other: Allocator,
    handler: Handler,
}

// SAFETY: the only pointer is the other allocator's context, which numpy passes to that allocator in
// any thread.
unsafe impl Send for State {}
// SAFETY: it is never changed after it was made, and its functions may be called by any thread.
unsafe impl Sync for State {}

static STATE: OnceLock<State> = OnceLock::new();

/// From how many bytes on memory is placed.
static THRESHOLD: AtomicUsize = AtomicUsize::new(usize::MAX);

/// The functions are given only to numpy, with all of it set.
fn state() -> &'static State {
    match STATE.get() {
        Some(state) => state,
        None => std::process::abort(),
    }
}

fn place(state: &State, bytes: usize) -> *mut c_void {
    if bytes < THRESHOLD.load(Ordering::Relaxed) {
        return null_mut();
    }
    match process::allocate_private(&state.arena, bytes as u64) {
        Some(placed) => placed.as_ptr().cast(),
        None => null_mut(),
    }
}

unsafe extern "C" fn malloc(_: *mut c_void, bytes: usize) -> *mut c_void {
    let state = state();
    let placed = place(state, bytes);
    if !placed.is_null() {
        return placed;
    }
    // SAFETY: the allocator that was in force before, called with its own context, as numpy would.
    unsafe { (state.other.malloc)(state.other.context, bytes) }
}

unsafe extern "C" fn calloc(_: *mut c_void, count: usize, size: usize) -> *mut c_void {
    let state = state();
    let bytes = count.saturating_mul(size);
    let placed = place(state, bytes);
    if !placed.is_null() {
        // SAFETY: so many bytes were placed there, for us alone.
        unsafe { std::ptr::write_bytes(placed.cast::<u8>(), 0, bytes) };
        return placed;
    }
    // SAFETY: the allocator that was in force before, called with its own context, as numpy would.
    unsafe { (state.other.calloc)(state.other.context, count, size) }
}

unsafe extern "C" fn realloc(_: *mut c_void, old: *mut c_void, bytes: usize) -> *mut c_void {
    let state = state();
    let other = state.other;
    let Some(room) = process::private_size(old as usize) else {
        // SAFETY: the memory is not ours, so it is of the allocator before, called with its own
        // context.
        return unsafe { (other.realloc)(other.context, old, bytes) };
    };
    if bytes <= room {
        return old;
    }
    // SAFETY: a new allocation.
    let new = unsafe { malloc(null_mut(), bytes) };
    if !new.is_null() {
        // SAFETY: two allocations, both of `room` bytes at least.
        unsafe { std::ptr::copy_nonoverlapping(old.cast::<u8>(), new.cast(), room) };
        process::free_private(old as usize);
    }
    new
}

unsafe extern "C" fn free(_: *mut c_void, bytes: *mut c_void, size: usize) {
    if !process::free_private(bytes as usize) {
        let other = state().other;
        // SAFETY: the memory is not ours, so it is of the allocator before, called with its own
        // context.
        unsafe { (other.free)(other.context, bytes, size) }
    }
}

/// Have numpy allocate large arrays of this thread in the arena.
///
/// Parameters
/// ----------
/// threshold : int
///     Arrays of at least so many bytes (and of 64 KiB), in whole pages of their own
///     that are private also against children that are forked. Where a quarter of
///     /dev/shm would not stay free, or there are thousands, it is ordinary memory.
///
/// Returns
/// -------
/// bool
///     False if this numpy knows no such thing: it is older than 1.22 (or its handlers
///     are of a version that is not known).
#[pyfunction]
#[pyo3(text_signature = "(threshold)")]
fn place_arrays(py: Python<'_>, threshold: usize) -> PyResult<bool> {
    let arena = find_default(py)?;
    numpy::set_handler(py, |current| {
        // SAFETY: a live object; null with an exception set if it is no such capsule.
        let found = unsafe { ffi::PyCapsule_GetPointer(current.as_ptr(), CAPSULE) };
        if found.is_null() {
            return Err(PyErr::fetch(py));
        }
        // SAFETY: what the capsule of this name holds, in every version so far; it
        // stays while the capsule does.
        let found = unsafe { &*(found as *const Handler) };
        if found.version != VERSION {
            return Ok(None);
        }
        let mut name = [0; 127];
        name[..12].copy_from_slice(b"shared_numpy");
        let state = STATE.get_or_init(|| {
            // For the life of the process.
            std::mem::forget(PyObject::from(current));
            State {
                arena,
                other: found.allocator,
                handler: Handler {
                    name,
                    version: VERSION,
                    allocator: Allocator {
                        context: null_mut(),
                        malloc,
                        calloc,
                        realloc,
                        free,
                    },
                },
            }
        });
        THRESHOLD.store(threshold.max(LEAST), Ordering::Relaxed);
        let pointer = &raw const state.handler as *mut c_void;
        // SAFETY: it is there for the life of the process; numpy only reads it.
        let capsule = unsafe { ffi::PyCapsule_New(pointer, CAPSULE, None) };
        // SAFETY: a new reference, or null with an exception set.
        unsafe { PyObject::from_owned_ptr_or_err(py, capsule) }.map(Some)
    })
}

/// Find the arrays in something whose memory can be given away.
///
/// Parameters
/// ----------
/// found : list
///     With the thing as its only item, to which nothing else refers.
///
/// Returns
/// -------
/// dict
///     For each such array, at any depth of tuples, lists and dicts, by its id: the
///     block that it lies in, to be sent. Nothing but the thing refers to the array,
///     what holds it or its memory, and no child that was forked has any of it.
#[pyfunction]
#[pyo3(text_signature = "(found)")]
fn given_away<'py>(py: Python<'py>, found: &'py PyList) -> PyResult<&'py PyDict> {
    let given = PyDict::new(py);
    let mut open = Vec::new();
    add_items(found.as_ptr(), &mut open);
    while let Some(item) = open.pop() {
        // SAFETY: what holds it is alive and not changed meanwhile: nothing here runs
        // code in Python that could know of it.
        let thing: &PyAny = unsafe { py.from_borrowed_ptr(item) };
        if !is_sole(thing) || add_items(item, &mut open) {
            continue;
        }
        if let Some(block) = memory_of(py, thing)? {
            given.set_item(item as usize, Py::new(py, Block::new(block))?)?;
        }
    }
    Ok(given)
}

/// Adds what a list, a tuple or a dict holds; false if it is none. (As borrowed
/// references: each of pyo3's own would be one that is counted.)
fn add_items(thing: *mut ffi::PyObject, items: &mut Vec<*mut ffi::PyObject>) -> bool {
    // SAFETY: a live object.
    let is = |check: unsafe fn(*mut ffi::PyObject) -> c_int| unsafe { check(thing) } != 0;
    if is(ffi::PyList_CheckExact) {
        // SAFETY: a list.
        let places = 0..unsafe { ffi::PyList_Size(thing) };
        // SAFETY: a list, and places that it has.
        items.extend(places.map(|place| unsafe { ffi::PyList_GetItem(thing, place) }));
    } else if is(ffi::PyTuple_CheckExact) {
        // SAFETY: a tuple.
        let places = 0..unsafe { ffi::PyTuple_Size(thing) };
        // SAFETY: a tuple, and places that it has.
        items.extend(places.map(|place| unsafe { ffi::PyTuple_GetItem(thing, place) }));
    } else if is(ffi::PyDict_CheckExact) {
        let (mut place, mut value) = (0, null_mut());
        // SAFETY: a dict that is not changed meanwhile; it is told no key.
        while unsafe { ffi::PyDict_Next(thing, &mut place, null_mut(), &mut value) } != 0 {
            items.push(value);
        }
    } else {
        return false;
    }
    true
}

/// The block of an array that can be given away.
fn memory_of(py: Python<'_>, thing: &PyAny) -> PyResult<Option<process::Block>> {
    let Some((bytes, owner)) = numpy::owner(py, thing)? else {
        return Ok(None);
    };
    if !std::ptr::eq(owner.object.as_ptr(), thing.as_ptr()) && !is_sole(owner.object) {
        return Ok(None);
    }
    let block = match owner.data {
        Some(data) => process::lend_private(data),
        None => match owner.object.extract::<PyRef<Block>>() {
            Ok(block) => block.lend(),
            Err(_) => None,
        },
    };
    // A view of a small part keeps none of the rest.
    let Some(block) = block.filter(|block| bytes as u64 >= block.size() / 2) else {
        return Ok(None);
    };
    let references = py.import("weakref")?.getattr("getweakrefcount")?;
    for object in [thing, owner.object] {
        if references.call1((object,))?.extract::<usize>()? != 0 {
            return Ok(None);
        }
    }
    Ok(Some(block))
}

/// Whether there is one reference to an object, that of what holds it.
fn is_sole(object: &PyAny) -> bool {
    // SAFETY: a live object.
    unsafe { ffi::Py_REFCNT(object.as_ptr()) == 1 }
}
