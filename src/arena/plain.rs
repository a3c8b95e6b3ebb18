//! An arena's world in the memory of one process.
//!
//! For property tests, sanitizers, fuzzers: no system call, no other process.
//! Several members can share one [`World`], die by a word and come back; the
//! time stands still until it is told otherwise; memory has an end.

use super::format::{Address, Geometry, SlotId, SlotRow, SlotSet, PAGE, SEGMENTS};
use super::platform::{Identity, Platform, Room};
use super::word::U32;
use crate::error::{Error, Result};
use std::alloc::{alloc_zeroed, dealloc, handle_alloc_error, Layout};
use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard};

/// What the members of a plain arena share.
#[derive(Clone, Default)]
pub struct World(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    segments: BTreeMap<usize, Memory>,
    /// The memory of segments that were removed: members may have it mapped, and see the next
    /// segment of that number there.
    removed: BTreeMap<usize, Memory>,
    /// The process that has a slot's byte lock, by its number.
    claims: BTreeMap<u16, u64>,
    dead: Vec<u64>,
    embryos: SlotSet,
    pinned: bool,
    now: u64,
    /// How many more bytes segments and reservations may take.
    room: u64,
    /// Pages that were given back and not reserved since.
    returned: BTreeMap<u64, ()>,
    /// Called once, by the next process that is at work outside the lock.
    at_work: Option<Box<dyn FnOnce() + Send>>,
    interrupted: bool,
}

struct Memory {
    base: NonNull<u8>,
    layout: Layout,
    /// How long the segment is; there may be more memory.
    size: u64,
}

impl Memory {
    fn new(size: u64, all: u64) -> Self {
        let layout = Layout::from_size_align(all as usize, PAGE as usize).expect("a size");
        // SAFETY: the layout is not empty: no segment is.
        let base = unsafe { alloc_zeroed(layout) };
        match NonNull::new(base) {
            Some(base) => Memory { base, layout, size },
            None => handle_alloc_error(layout),
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: made by `new` with this layout, and nobody has it any more:
        // `World` outlives every `Plain` of it.
        unsafe { dealloc(self.base.as_ptr(), self.layout) }
    }
}

// SAFETY: the memory is reached through atomics only.
unsafe impl Send for Memory {}

impl World {
    /// A world with `room` bytes for segments.
    pub fn new(room: u64) -> Self {
        let world = World::default();
        world.state().room = room;
        world
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// A process of this world.
    pub fn process(&self, pid: u64) -> Arc<Plain> {
        Arc::new(Plain {
            world: self.clone(),
            pid,
        })
    }

    /// Ends a process: it holds no byte any more.
    pub fn kill(&self, pid: u64) {
        let mut state = self.state();
        state.dead.push(pid);
        state.claims.retain(|_, holder| *holder != pid);
    }

    /// Whether the child of a slot that is an reserved lives.
    pub fn set_reserved(&self, slot: SlotId, lives: bool) {
        let mut state = self.state();
        if lives {
            state.embryos.insert(slot);
        } else {
            let (word, bit) = SlotSet::place(slot);
            state.embryos.0[word] &= !bit;
        }
    }

    /// Whether children without a slot hold pinned blocks.
    pub fn set_pinned(&self, pinned: bool) {
        self.state().pinned = pinned;
    }

    /// Has `what` happen while a process next does what takes long, outside the lock.
    pub fn at_work(&self, what: impl FnOnce() + Send + 'static) {
        self.state().at_work = Some(Box::new(what));
    }

    fn work(&self) {
        let what = self.state().at_work.take();
        if let Some(what) = what {
            what()
        }
    }

    /// Whether processes that wait for the lock are told to give up.
    pub fn set_interrupted(&self, interrupted: bool) {
        self.state().interrupted = interrupted;
    }

    /// Lets time pass.
    pub fn pass(&self, ms: u64) {
        self.state().now += ms;
    }

    /// Takes the memory from the tables of a new arena that it does not have at first.
    pub fn bare_tables(&self, geometry: &Geometry) {
        let mut state = self.state();
        let parts = geometry.first_parts();
        let has = |page: u64| {
            let (start, end) = (page * PAGE, (page + 1) * PAGE);
            parts
                .iter()
                .any(|(at, size)| *at < end && at + size > start)
        };
        for page in (0..geometry.data() / PAGE).filter(|page| !has(*page)) {
            state.returned.insert(page, ());
        }
    }

    /// How many more bytes segments may take.
    pub fn set_room(&self, room: u64) {
        self.state().room = room;
    }

    /// Whether any byte of an extent has no page.
    pub fn lacks_page(&self, address: Address, size: u64) -> bool {
        let first = address.0 / PAGE;
        let last = (address.0 + size - 1) / PAGE;
        self.state().returned.range(first..=last).next().is_some()
    }

    /// How long the control segment is, of the arena that was made here.
    pub fn control_size(&self) -> u64 {
        self.state()
            .segments
            .get(&0)
            .map_or(0, |memory| memory.size)
    }

    /// The segments that exist, by number.
    pub fn segments(&self) -> Vec<usize> {
        self.state().segments.keys().copied().collect()
    }
}

/// A [`World`] as one process sees it.
pub struct Plain {
    world: World,
    pid: u64,
}

const NO_SPACE: Error = Error::Os {
    call: "posix_fallocate",
    errno: 28,
};

// SAFETY: segments are zeroed, aligned to a page, never moved, and freed with
// the last clone of their world.
unsafe impl Platform for Plain {
    fn map(&self, number: usize, size: u64) -> Result<NonNull<u8>> {
        let mut state = self.world.state();
        if number == 0 {
            let new = || Memory::new(size, size);
            state.segments.entry(0).or_insert_with(new);
        }
        match state.segments.get(&number) {
            Some(memory) if memory.size >= size => Ok(memory.base),
            _ => Err(Error::Corrupted {
                why: "a segment is not there",
            }),
        }
    }

    fn create(&self, number: usize, size: u64, fill: &dyn Fn(NonNull<u8>)) -> Result<()> {
        assert!(number < SEGMENTS);
        self.world.work();
        let mut state = self.world.state();
        if state.room < size {
            return Err(NO_SPACE);
        }
        let memory = match state.removed.remove(&number) {
            Some(mut memory) if memory.layout.size() as u64 >= size => {
                // SAFETY: the memory has at least `size` bytes (the match), and is in no segment, so
                // nothing refers to it.
                unsafe { memory.base.write_bytes(0, size as usize) };
                memory.size = size;
                memory
            }
            Some(memory) => {
                state.removed.insert(number, memory);
                return Err(NO_SPACE);
            }
            // It stays at its place when another one gets its number, which may be longer.
            None => Memory::new(size, size * 2),
        };
        state.room -= size;
        fill(memory.base);
        state.segments.insert(number, memory);
        Ok(())
    }

    fn remove(&self, number: usize) {
        self.world.work();
        let mut state = self.world.state();
        if let Some(memory) = state.segments.remove(&number) {
            let pages = Address::new(number, 0).0 / PAGE..Address::new(number + 1, 0).0 / PAGE;
            let returned: Vec<u64> = state.returned.range(pages).map(|(page, _)| *page).collect();
            // (The pages of the others go back now.)
            state.room += memory.size - returned.len() as u64 * PAGE;
            for page in returned {
                state.returned.remove(&page);
            }
            state.removed.insert(number, memory);
        }
    }

    fn reserve(&self, address: Address, size: u64) -> Result<()> {
        self.world.work();
        let mut state = self.world.state();
        let pages = address.0 / PAGE..=(address.0 + size - 1) / PAGE;
        let wanted: Vec<u64> = state.returned.range(pages).map(|(page, _)| *page).collect();
        let bytes = wanted.len() as u64 * PAGE;
        if state.room < bytes {
            return Err(NO_SPACE);
        }
        state.room -= bytes;
        for page in wanted {
            state.returned.remove(&page);
        }
        Ok(())
    }

    unsafe fn give_back(&self, address: Address, bytes: NonNull<u8>, size: u64) -> Result<()> {
        self.world.work();
        let mut state = self.world.state();
        let first = address.offset().next_multiple_of(PAGE);
        let end = (address.offset() + size) / PAGE * PAGE;
        for offset in (first..end).step_by(PAGE as usize) {
            // SAFETY: a whole page within the extent; the caller owns it.
            let page = unsafe { bytes.add((offset - address.offset()) as usize) };
            // SAFETY: a whole page within the extent, whose bytes the caller does not need.
            unsafe { page.write_bytes(0, PAGE as usize) };
            let number = Address::new(address.segment(), offset).0 / PAGE;
            if state.returned.insert(number, ()).is_none() {
                state.room += PAGE;
            }
        }
        Ok(())
    }

    fn room(&self) -> Room {
        let free = self.world.state().room;
        Room { all: free, free }
    }

    fn now(&self) -> u64 {
        self.world.state().now
    }

    fn sleep(&self, _word: &U32, _expected: u32) {
        std::thread::yield_now()
    }

    fn wake(&self, _word: &U32) {}

    fn patience(&self) -> u64 {
        30_000
    }

    fn is_interrupted(&self) -> bool {
        self.world.state().interrupted
    }

    fn identity(&self) -> Identity {
        Identity {
            pid: self.pid,
            ..Identity::default()
        }
    }

    fn claim(&self, slot: SlotId) -> Result<bool> {
        let mut state = self.world.state();
        if state.claims.contains_key(&slot.0) {
            return Ok(false);
        }
        state.claims.insert(slot.0, self.pid);
        Ok(true)
    }

    fn disclaim(&self, slot: SlotId) {
        self.world.state().claims.remove(&slot.0);
    }

    fn is_dead(&self, slot: SlotId, _row: &SlotRow) -> bool {
        !self.world.state().claims.contains_key(&slot.0)
    }

    fn is_child_gone(&self, slot: SlotId) -> bool {
        !self.world.state().embryos.contains(slot)
    }

    fn is_pinned(&self) -> bool {
        self.world.state().pinned
    }
}
