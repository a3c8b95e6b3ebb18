//! Releasing the GIL while a thread waits, and acquiring it again.
//!
//! Most operations of an arena take a tenth of a microsecond; to release the GIL for that would cost
//! as much again. So an operation begins with the GIL held, releases it when it is about to wait,
//! and acquires it again at its end. Before its end it acquires the GIL only to look for signals,
//! which it does where it holds no lock.
//!
//! Code that runs between must not touch anything of the interpreter's.

#[cfg(arenas)]
use super::exit_state;
#[cfg(arenas)]
use crate::process::{use_hooks, WaitHooks};
use pyo3::ffi;
use pyo3::prelude::*;
use std::cell::Cell;
use std::ptr::null_mut;

thread_local! {
    /// This thread's state while it has released the GIL.
    static RELEASED: Cell<*mut ffi::PyThreadState> = const { Cell::new(null_mut()) };
}

/// Releases the GIL, unless this thread already has.
pub fn release() {
    RELEASED.with(|released| {
        if released.get().is_null() {
            // SAFETY: an operation begins with the GIL held, and this thread has not released it
            // (RELEASED is null).
            released.set(unsafe { ffi::PyEval_SaveThread() });
        }
    })
}

/// Parks a thread that the interpreter is ending, see [`surviving`].
struct Park;

impl Drop for Park {
    fn drop(&mut self) {
        while !std::thread::panicking() {
            std::thread::park();
        }
    }
}

/// Does `work`, which may wait for the GIL.
///
/// Before 3.14 a daemon thread that acquires the GIL during interpreter shutdown is ended there and
/// then, by unwinding its stack. Frames of Rust must not be unwound so: the thread is parked here
/// until the process is gone.
pub fn surviving<T>(work: &mut dyn FnMut() -> T) -> T {
    let park = Park;
    let result = work();
    std::mem::forget(park);
    result
}

/// Whether another thread has begun to shut the interpreter down.
#[cfg(arenas)]
fn is_left_behind() -> bool {
    // SAFETY: may be asked at any time, by anybody.
    let ends = unsafe { ffi::Py_IsInitialized() } == 0;
    ends && !crate::sys::proc::is_first_thread() && !exit_state::ends_here()
}

#[cfg(not(arenas))]
fn is_left_behind() -> bool {
    false
}

/// Acquires the GIL, if this thread has released it.
#[inline(always)]
pub fn regain() {
    let state = RELEASED.with(|released| released.replace(null_mut()));
    if !state.is_null() {
        if is_left_behind() {
            // This thread's state is freed, or about to be.
            loop {
                std::thread::park();
            }
        }
        // As pyo3 declares the function it cannot unwind, and the compiler, should
        // it see which one is called, leaves out what happens then.
        type Restore = unsafe extern "C-unwind" fn(*mut ffi::PyThreadState);
        let declared = ffi::PyEval_RestoreThread as unsafe extern "C" fn(_);
        // SAFETY: one function, of which the second type promises less.
        let restore = unsafe { std::mem::transmute::<unsafe extern "C" fn(_), Restore>(declared) };
        let restore = std::hint::black_box(restore);
        // SAFETY: the state of this thread, which `release` got.
        surviving(&mut || unsafe { restore(state) });
    }
}

/// Acquires the GIL when it is dropped, if this thread has released it.
pub struct Regain;

impl Drop for Regain {
    #[inline(always)]
    fn drop(&mut self) {
        regain();
    }
}

/// Does `work` with the GIL released.
pub fn without_gil<T: Send>(_py: Python<'_>, work: impl FnOnce() -> T + Send) -> T {
    let _regain = Regain;
    release();
    work()
}

/// To copy so many bytes takes longer than to release the GIL and acquire it again.
#[cfg(arenas)]
const LONG: usize = 1 << 20;

/// Does `work`, which copies `count` bytes, with the GIL released if that takes long.
#[cfg(arenas)]
#[inline(always)]
fn copying(py: Python<'_>, count: usize, work: impl FnOnce() + Send) {
    match count >= LONG {
        true => without_gil(py, work),
        false => work(),
    }
}

/// Copies `count` bytes, with the GIL released if that takes long.
///
/// # Safety
/// As for [`crate::sys::copy::copy`]; nobody else frees or moves either meanwhile.
#[cfg(arenas)]
pub unsafe fn copy(py: Python<'_>, from: *const u8, to: *mut u8, count: usize) {
    let (from, to) = (from as usize, to as usize);
    // SAFETY: the caller promises that both ranges are valid for `count` bytes and do not overlap,
    // and that nobody frees or moves them while the GIL is released.
    let copy = move || unsafe { crate::sys::copy::copy(from as *const u8, to as *mut u8, count) };
    copying(py, count, copy)
}

/// Copies `count` bytes into a block that is new, from `at` on, with the GIL released if that takes
/// long.
///
/// # Safety
/// As for [`Block::copy_in`](crate::process::Block::copy_in); nobody else frees or moves the source
/// meanwhile.
#[cfg(arenas)]
pub unsafe fn copy_in(
    py: Python<'_>,
    from: *const u8,
    block: &crate::process::Block,
    at: usize,
    count: usize,
) {
    let from = from as usize;
    // SAFETY: the caller promises that the source is valid for `count` bytes, that nobody frees or
    // moves it while the GIL is released, and that nobody else uses the block.
    let copy = move || unsafe { block.copy_in(at, from as *const u8, count) };
    copying(py, count, copy)
}

#[cfg(arenas)]
static ENDING: WaitHooks = WaitHooks {
    before_waiting: release,
    gives_up: |_| false,
};

/// Does `work`, which may wait and does not give up.
#[cfg(arenas)]
#[inline(always)]
pub fn end<T>(_py: Python<'_>, work: impl FnOnce() -> T) -> T {
    let _regain = Regain;
    let _hooks = use_hooks(Some(&ENDING));
    work()
}

/// Does `work`, which takes long and does not give up.
#[cfg(arenas)]
pub fn end_long<T>(py: Python<'_>, work: impl FnOnce() -> T) -> T {
    end(py, || {
        release();
        work()
    })
}
