//! References to a block: all uses of its bytes come before they are anybody else's.
//!
//! The counts and the drop are the code's own; the arena is one row under a mutex.
//!
//! Properties:
//!
//! * what a thread did with the bytes comes before the block is freed or cached by the thread that
//!   drops the last reference;
//! * so it is if the arena's lock was not to be had, and the block is owed.

use crate::model::{check, ModelAtomic, ALL};
use loom::cell::UnsafeCell;
use loom::sync::{Arc, Mutex};
use loom::thread;
use shared_numpy::error::{Error, Result};
use shared_numpy::process::block::{drop_last, Holder};
use shared_numpy::process::counts::Count;

#[derive(Default)]
struct Row {
    tickets: u32,
    is_freed: bool,
}

struct Process {
    count: Count<ModelAtomic>,
    bytes: UnsafeCell<u32>,
    row: Mutex<Row>,
}

impl Process {
    fn new(references: u32, tickets: u32) -> Arc<Self> {
        let row = Row {
            tickets,
            is_freed: false,
        };
        let process = Process {
            count: Count::default(),
            bytes: UnsafeCell::new(0),
            row: Mutex::new(row),
        };
        process.count.begin(references);
        Arc::new(process)
    }

    /// Reads the bytes, as every thread with a reference may.
    fn read(&self) {
        // SAFETY: `loom` has just seen that nobody writes them.
        self.bytes.with(|bytes| assert_eq!(unsafe { *bytes }, 0));
    }

    /// Writes them, as the next one to whom they are given does.
    fn reuse(&self) {
        // SAFETY: `loom` has just seen that nobody else accesses them.
        self.bytes.with_mut(|bytes| unsafe { *bytes += 1 });
    }

    /// Drops a reference; `locks`: the arena's lock is to be had.
    fn drop_reference(&self, locks: bool) {
        if !self.count.drop_one_of_many() {
            let process = self;
            drop_last(&self.count, &Last { process, locks });
        }
    }

    /// Receives by a ticket.
    fn receive(&self) {
        let mut row = self.row.lock().unwrap();
        row.tickets -= 1;
        self.count.receive();
    }

    fn times_reused(&self) -> u32 {
        // SAFETY: `loom` has just seen that nobody writes them.
        self.bytes.with(|bytes| unsafe { *bytes })
    }
}

/// A reference that is dropped, and was the last.
struct Last<'a> {
    process: &'a Process,
    locks: bool,
}

impl Holder for Last<'_> {
    fn cache(&self, enter: impl FnOnce()) -> bool {
        enter();
        self.process.reuse();
        true
    }

    fn release_if(&self, was_last: impl FnOnce() -> bool) -> Result<()> {
        if !self.locks {
            return Err(Error::Busy { pid: 0, seconds: 0 });
        }
        let mut row = self.process.row.lock().unwrap();
        if was_last() && row.tickets == 0 {
            row.is_freed = true;
            self.process.reuse();
        }
        Ok(())
    }

    fn owe(&self) {}
}

/// Two threads and this one have a reference each, use the block and drop them.
fn dropped_by_three(shared: bool) {
    check(ALL, move || {
        let process = Process::new(3, 0);
        if shared {
            process.count.share();
        }
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let process = process.clone();
                thread::spawn(move || {
                    process.read();
                    process.drop_reference(true);
                })
            })
            .collect();
        process.read();
        process.drop_reference(true);
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(process.times_reused(), 1);
        assert_eq!(process.count.is_cached(), !shared);
        assert_eq!(process.row.lock().unwrap().is_freed, shared);
    });
}

#[test]
fn a_block_is_freed_after_all_uses() {
    dropped_by_three(true);
}

#[test]
fn a_block_is_cached_after_all_uses() {
    dropped_by_three(false);
}

/// One thread drops its reference, with the lock or without it, while another one receives, uses
/// and drops.
fn received_meanwhile(locks: bool) {
    check(ALL, move || {
        let process = Process::new(1, 1);
        process.count.share();
        let other = process.clone();
        let thread = thread::spawn(move || {
            other.read();
            other.drop_reference(locks);
        });
        process.receive();
        process.read();
        process.drop_reference(true);
        thread.join().unwrap();
        let freed = process.row.lock().unwrap().is_freed;
        assert_eq!(process.times_reused(), freed as u32);
        // (What is owed is given back by the process's next operation.)
        assert!(freed || !locks);
        assert!(!process.count.is_held());
    });
}

#[test]
fn a_block_that_is_received_meanwhile_is_freed_after_all_uses() {
    received_meanwhile(true);
}

#[test]
fn a_block_that_is_owed_is_freed_after_all_uses() {
    received_meanwhile(false);
}
