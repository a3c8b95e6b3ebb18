//! References to a block under a model checker: clones, drops, cached blocks, handles.
//!
//! The counts, the cache and the drop are the code's own, over the words of the model checker. The
//! arena is a model of one row under one lock.
//!
//! Properties:
//!
//! * a block to which a thread has a reference is live, in the life that the reference names, and
//!   the process is its holder;
//! * when all references are dropped, the cache is empty and nothing is owed, the process is no
//!   holder any more and the row is free;
//! * a ticket keeps the block alive between its sender and its receiver.

use crate::random::{few_switches, random, schedules};
use shared_numpy::arena::format::{BlockId, SlotId};
use shared_numpy::arena::word::Atomic;
use shared_numpy::arena::{BlockRef, Member};
use shared_numpy::error::Error;
use shared_numpy::process::block::{drop_last, Holder};
use shared_numpy::process::block_cache::{BlockCache, CachedBlock};
use shared_numpy::process::counts::Count;
use shuttle::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use shuttle::sync::{Arc, Mutex};
use shuttle::thread;
use std::ptr::NonNull;

struct ModelWord(AtomicU32);

impl Atomic for ModelWord {
    type Value = u32;

    fn new(value: u32) -> Self {
        ModelWord(AtomicU32::new(value))
    }

    fn load(&self, _: Ordering) -> u32 {
        self.0.load(Ordering::SeqCst)
    }

    fn store(&self, value: u32, _: Ordering) {
        self.0.store(value, Ordering::SeqCst)
    }

    fn exchange(&self, old: u32, new: u32, _: Ordering, _: Ordering) -> Result<u32, u32> {
        self.0
            .compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst)
    }

    fn fetch_add(&self, value: u32, _: Ordering) -> u32 {
        self.0.fetch_add(value, Ordering::SeqCst)
    }

    fn fetch_sub(&self, value: u32, _: Ordering) -> u32 {
        self.0.fetch_sub(value, Ordering::SeqCst)
    }

    fn fetch_or(&self, value: u32, _: Ordering) -> u32 {
        self.0.fetch_or(value, Ordering::SeqCst)
    }
}

const SIZE: u64 = 64;
const ME: Member = Member {
    slot: SlotId(0),
    generation: 1,
};

/// The row, as the arena has it.
#[derive(Default)]
struct Row {
    life: u64,
    is_live: bool,
    is_held: bool,
    tickets: u32,
}

impl Row {
    fn check_held(&self, life: u64) {
        assert!(self.is_live && self.life == life, "freed under a reference");
        assert!(self.is_held, "the process is no holder");
    }

    fn free_if_unwanted(&mut self) {
        if !self.is_held && self.tickets == 0 {
            assert!(self.is_live, "freed twice");
            self.is_live = false;
            self.life += 1;
        }
    }
}

/// A process with one row.
struct Model {
    count: Count<ModelWord>,
    cache: BlockCache<ModelWord>,
    row: Mutex<Row>,
    owed: Mutex<Vec<u64>>,
    /// Whether the arena's lock is not to be had.
    is_busy: AtomicBool,
}

/// A reference.
struct Reference {
    model: Arc<Model>,
    life: u64,
}

impl Model {
    fn new() -> Arc<Model> {
        Arc::new(Model {
            count: Count::default(),
            cache: BlockCache::default(),
            row: Mutex::default(),
            owed: Mutex::default(),
            is_busy: AtomicBool::new(false),
        })
    }

    fn reference(self: &Arc<Self>, life: u64) -> Reference {
        Reference {
            model: self.clone(),
            life,
        }
    }

    /// Does what is owed, at the beginning of an operation.
    fn attend(&self) {
        let mut owed = self.owed.lock().unwrap();
        while let Some(life) = owed.pop() {
            let mut row = self.row.lock().unwrap();
            if !self.count.is_held() && row.is_live && row.life == life && row.is_held {
                row.is_held = false;
                row.free_if_unwanted();
            }
        }
    }

    /// Takes the block out of the cache, or makes one if the row is free.
    fn allocate(self: &Arc<Self>) -> Option<Reference> {
        self.attend();
        let reused = self.cache.take(SIZE, |cached| {
            let taken = self.count.leave_cache(1);
            taken.then_some(cached.which.generation)
        });
        if let Some(life) = reused {
            return Some(self.reference(life));
        }
        let mut row = self.row.lock().unwrap();
        if row.is_live {
            return None;
        }
        row.is_live = true;
        row.is_held = true;
        self.count.begin(1);
        Some(self.reference(row.life))
    }

    /// Receives a block by a ticket, or by a forged handle.
    fn receive(self: &Arc<Self>, by_ticket: bool) -> Option<Reference> {
        self.attend();
        if self.count.is_cached() {
            return None;
        }
        let mut row = self.row.lock().unwrap();
        if !row.is_live || by_ticket && row.tickets == 0 {
            return None;
        }
        row.tickets -= by_ticket as u32;
        row.is_held = true;
        self.count.receive();
        Some(self.reference(row.life))
    }

    /// Gives the cached block back to the arena.
    fn empty_cache(&self) {
        self.cache.take_all(|cached| {
            if self.count.leave_cache(0) {
                let mut row = self.row.lock().unwrap();
                row.check_held(cached.which.generation);
                row.is_held = false;
                row.free_if_unwanted();
            }
        });
    }

    /// After all threads have ended.
    fn check_end(self: &Arc<Self>) {
        self.is_busy.store(false, Ordering::SeqCst);
        while let Some(reference) = self.receive(true) {
            reference.look();
        }
        self.attend();
        self.empty_cache();
        let row = self.row.lock().unwrap();
        assert!(!self.count.is_held(), "a reference was never dropped");
        assert!(!row.is_live && !row.is_held, "a block was never freed");
    }
}

impl Reference {
    /// Uses the block.
    fn look(&self) {
        self.model.row.lock().unwrap().check_held(self.life);
    }

    fn send(&self) {
        self.model.attend();
        self.model.count.share();
        let mut row = self.model.row.lock().unwrap();
        row.check_held(self.life);
        row.tickets += 1;
    }
}

impl Clone for Reference {
    fn clone(&self) -> Self {
        self.model.count.add();
        self.model.reference(self.life)
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        if thread::panicking() {
            return;
        }
        if !self.model.count.drop_one_of_many() {
            drop_last(&self.model.count, self);
        }
    }
}

impl Holder for Reference {
    fn cache(&self, enter: impl FnOnce()) -> bool {
        let block = CachedBlock {
            which: BlockRef {
                id: BlockId(0),
                generation: self.life,
            },
            bytes: NonNull::dangling(),
            holder: ME,
        };
        self.model.cache.put(SIZE, block, enter)
    }

    fn release_if(&self, was_last: impl FnOnce() -> bool) -> shared_numpy::error::Result<()> {
        if self.model.is_busy.load(Ordering::SeqCst) {
            return Err(Error::Busy { pid: 0, seconds: 0 });
        }
        let mut row = self.model.row.lock().unwrap();
        if was_last() {
            row.check_held(self.life);
            row.is_held = false;
            row.free_if_unwanted();
        }
        Ok(())
    }

    fn owe(&self) {
        self.model.owed.lock().unwrap().push(self.life);
    }
}

/// Runs the work of several threads, and looks at what is left.
fn run(model: &Arc<Model>, works: Vec<Box<dyn FnOnce() + Send>>) {
    let threads: Vec<_> = works.into_iter().map(thread::spawn).collect();
    for thread in threads {
        thread.join().unwrap();
    }
    model.check_end();
}

/// One thread sends and drops, one has a clone, two receive by tickets.
fn sent_and_received() {
    let model = Model::new();
    let (block, receiver) = (model.allocate().unwrap(), model.clone());
    let (clone, other) = (block.clone(), model.clone());
    let receive = |model: Arc<Model>| {
        move || {
            if let Some(block) = model.receive(true) {
                block.look();
                block.clone().look();
            }
        }
    };
    run(
        &model,
        vec![
            Box::new(move || {
                block.send();
                block.send();
                block.look();
            }),
            Box::new(move || clone.look()),
            Box::new(receive(receiver)),
            Box::new(receive(other)),
        ],
    );
}

/// Two threads drop, others allocate from the cache, and one empties it.
fn cached_and_reused() {
    let model = Model::new();
    let block = model.allocate().unwrap();
    let (clone, one, two, third) = (block.clone(), model.clone(), model.clone(), model.clone());
    let allocate = |model: Arc<Model>| {
        move || {
            if let Some(block) = model.allocate() {
                block.look();
            }
        }
    };
    run(
        &model,
        vec![
            Box::new(move || drop(block)),
            Box::new(move || clone.look()),
            Box::new(allocate(one)),
            Box::new(allocate(two)),
            Box::new(move || third.empty_cache()),
        ],
    );
}

/// The lock is not to be had for a time, while references are dropped and received.
fn dropped_without_the_lock() {
    let model = Model::new();
    let block = model.allocate().unwrap();
    block.send();
    let (receiver, stopped) = (model.clone(), model.clone());
    run(
        &model,
        vec![
            Box::new(move || drop(block)),
            Box::new(move || {
                if let Some(block) = receiver.receive(true) {
                    block.look();
                }
                if let Some(block) = receiver.allocate() {
                    block.look();
                }
            }),
            Box::new(move || {
                stopped.is_busy.store(true, Ordering::SeqCst);
                thread::yield_now();
                stopped.is_busy.store(false, Ordering::SeqCst);
            }),
        ],
    );
}

#[test]
fn a_reference_keeps_its_block() {
    random("references::a_reference_keeps_its_block", |seed| {
        schedules(seed, 3000, sent_and_received);
        few_switches(seed, 2000, sent_and_received);
    });
}

#[test]
fn a_cached_block_is_used_once() {
    random("references::a_cached_block_is_used_once", |seed| {
        schedules(seed, 3000, cached_and_reused);
        few_switches(seed, 2000, cached_and_reused);
    });
}

#[test]
fn a_reference_that_is_owed_is_dropped() {
    random("references::a_reference_that_is_owed_is_dropped", |seed| {
        schedules(seed, 3000, dropped_without_the_lock);
        few_switches(seed, 2000, dropped_without_the_lock);
    });
}

/// The look at the count was before the block was cached.
#[test]
fn a_block_that_a_forged_handle_named_is_not_reused() {
    shuttle::check_random(
        || {
            let model = Model::new();
            drop(model.allocate().unwrap());
            assert!(model.count.is_cached() && model.receive(false).is_none());
            model.count.receive();
            let forged = model.reference(0);
            assert!(model.allocate().is_none());
            forged.look();
            drop(forged);
            model.check_end();
        },
        1,
    );
}
