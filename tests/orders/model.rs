//! Words, sleeps and runs of the model checker.

use loom::sync::atomic::{AtomicU32, Ordering};
use loom::sync::{Condvar, Mutex};
use shared_numpy::arena::lock::Word as _;
use shared_numpy::arena::word::{self, Atomic};

/// A word of the model checker.
pub struct ModelAtomic(AtomicU32);

/// The core's word over that of the model checker.
pub type Word = word::Word<ModelAtomic>;

impl Atomic for ModelAtomic {
    type Value = u32;

    fn new(value: u32) -> Self {
        ModelAtomic(AtomicU32::new(value))
    }

    fn load(&self, order: Ordering) -> u32 {
        self.0.load(order)
    }

    fn store(&self, value: u32, order: Ordering) {
        self.0.store(value, order)
    }

    fn exchange(
        &self,
        old: u32,
        new: u32,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u32, u32> {
        self.0.compare_exchange(old, new, success, failure)
    }

    fn fetch_add(&self, value: u32, order: Ordering) -> u32 {
        self.0.fetch_add(value, order)
    }

    fn fetch_sub(&self, value: u32, order: Ordering) -> u32 {
        self.0.fetch_sub(value, order)
    }

    fn fetch_or(&self, value: u32, order: Ordering) -> u32 {
        self.0.fetch_or(value, order)
    }
}

/// Where threads sleep on a word. A sleep ends by a wake-up only: `loom` reports a deadlock if that
/// is lost.
#[derive(Default)]
pub struct Sleepers {
    count: Mutex<usize>,
    woken: Condvar,
}

impl Sleepers {
    /// Sleeps if the word holds `expected`. (The kernel's lock of the word's sleepers is the mutex.)
    pub fn sleep(&self, word: &Word, expected: u32) {
        let mut count = self.count.lock().unwrap();
        if word.load() == expected {
            *count += 1;
            drop(self.woken.wait(count).unwrap());
        }
    }

    /// Wakes one.
    pub fn wake(&self) {
        let mut count = self.count.lock().unwrap();
        if *count > 0 {
            *count -= 1;
            self.woken.notify_one();
        }
    }
}

/// All executions of a model.
pub const ALL: Option<usize> = None;

/// Those with at most so many preemptions: of bigger models there are too many.
pub const fn preempted(times: usize) -> Option<usize> {
    Some(times)
}

/// Runs `model` in all these executions.
pub fn check(executions: Option<usize>, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = executions;
    builder.check(model);
}
