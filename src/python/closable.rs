//! An object that several threads use while one of them closes it.
//!
//! A thread that waits in a ring has released the GIL, so another thread may close the ring
//! meanwhile. And a process may fork there; its child does not have that thread.

use super::error::exception;
use super::gil::end;
use super::operation::work;
use super::shutdown::{is_forsaken, stay};
use crate::arena::BlockRef;
use crate::error::{Error, Result};
use crate::process::{self, fork_number};
use pyo3::prelude::*;
use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::sync::Arc;

/// An object that lies in a block and can be opened by it.
pub trait InBlock: Sized {
    /// The block.
    fn block(&self) -> &process::Block;

    /// Opens the object in a block.
    fn open(block: process::Block) -> Result<Self>;
}

/// An object that threads use; reached with the GIL held.
pub struct Closable<T> {
    value: RefCell<Option<Arc<T>>>,
    /// Its block, if it was closed at the exit of the process: threads may go on to use it.
    left: RefCell<Option<(process::Arena, BlockRef)>>,
    /// How many threads of this process use it, and which process that is.
    users: Arc<Users>,
}

#[derive(Default)]
struct Users {
    count: Cell<usize>,
    fork: Cell<u64>,
}

// SAFETY: its cells are reached with the GIL held only: by `Closable` and `Using`, whose methods take
// a `Python` token.
unsafe impl Send for Users {}
// SAFETY: the GIL lets one thread at a time reach the cells.
unsafe impl Sync for Users {}

impl Users {
    fn count(&self) -> usize {
        let fork = fork_number();
        if self.fork.replace(fork) != fork {
            // Its parent's other threads are not here.
            self.count.set(0);
        }
        self.count.get()
    }
}

/// A use of it, until it is dropped, with the GIL held.
pub struct Using<'py, T> {
    value: Option<Arc<T>>,
    users: Arc<Users>,
    py: Python<'py>,
}

impl<T> Deref for Using<'_, T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        self.value.as_ref().expect("it is there until the end")
    }
}

impl<T> Drop for Using<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        self.users.count.set(self.users.count().saturating_sub(1));
        let value = self.value.take();
        // Perhaps the last.
        end(self.py, || drop(value));
    }
}

impl<T: InBlock> Closable<T> {
    pub fn new(value: T) -> Self {
        Closable {
            value: RefCell::new(Some(Arc::new(value))),
            left: RefCell::new(None),
            users: Arc::default(),
        }
    }

    /// Begins to use it. If it was closed at the exit of the process it is opened again, as long as
    /// another process has it; a thread that is about to be ended stays here.
    #[inline(always)]
    pub fn reach<'py>(&self, py: Python<'py>) -> PyResult<Using<'py, T>> {
        match self.using(py) {
            Some(value) => Ok(value),
            None => self.open_again(py),
        }
    }

    #[cold]
    fn open_again<'py>(&self, py: Python<'py>) -> PyResult<Using<'py, T>> {
        let left = self.left.borrow().clone();
        if is_forsaken(py) {
            stay(py);
        }
        let closed = || exception(py, Error::Closed);
        let (arena, which) = left.ok_or_else(closed)?;
        let opened = work(py, || arena.hold(which).and_then(T::open));
        let opened = opened.map_err(|_| closed())?;
        *self.value.borrow_mut() = Some(Arc::new(opened));
        self.using(py).ok_or_else(closed)
    }

    /// Closes it at the exit of the process.
    pub fn leave(&self, py: Python<'_>) {
        let left = self.using(py).map(|value| {
            let block = value.block();
            (block.arena().clone(), block.which())
        });
        self.let_go(py);
        *self.left.borrow_mut() = left;
    }

    /// Begins to use it, if it is not closed.
    #[inline(always)]
    pub fn using<'py>(&self, py: Python<'py>) -> Option<Using<'py, T>> {
        let value = self.value.borrow().clone()?;
        self.users.count.set(self.users.count() + 1);
        Some(Using {
            value: Some(value),
            users: self.users.clone(),
            py,
        })
    }

    /// Closes it: it is dropped by the last thread that uses it.
    pub fn let_go(&self, py: Python<'_>) {
        let left = self.left.take();
        end(py, || drop(left));
        let Some(value) = self.value.borrow_mut().take() else {
            return;
        };
        let here = 1 + self.users.count();
        for _ in here..Arc::strong_count(&value) {
            // SAFETY: these are of threads of a process that this one was forked from, and
            // nobody drops them here.
            unsafe { Arc::decrement_strong_count(Arc::as_ptr(&value)) };
        }
        end(py, || drop(value));
    }
}
