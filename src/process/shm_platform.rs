//! The arena's platform: segments in shared memory, byte locks, liveness.

use super::descriptor::{Descriptor, READ_WRITE};
use super::huge_pages::HugePages;
use super::life::{lives, Life};
use super::objects::{
    has_room, is_of, is_remnant, lock_name, make, memory_name, needing, patiently, reserve,
    room_for, LIFE_BYTE, NO_SPACE, PIN_BYTE,
};
use super::wait_hooks;
use crate::arena::format::{Address, Geometry, Header, SlotId, SlotRow, LONGEST, PAGE};
use crate::arena::handle::Name;
use crate::arena::platform::{Identity, Platform, Room};
use crate::arena::word::U32;
use crate::error::{Error, Exhausted, Result};
use crate::sys::fork::ForkMark;
use crate::sys::{self, cgroup, futex, locks, map, probe, proc, shm};
use std::mem::{offset_of, size_of};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a sleep on the lock lasts at most.
const SLEEP: Duration = Duration::from_millis(2);
/// How long it is where nobody can be woken.
const MOMENT: Duration = Duration::from_micros(200);
/// For so many bytes the look at what there is takes no time beside the rest.
const MUCH: u64 = 1 << 20;

/// An arena's objects, as one process has them open: the platform of [`Arena`](super::Arena).
///
/// A process has an arena's lock file open once: see `process_arenas`.
pub struct ShmPlatform {
    name: Name,
    memory: Descriptor,
    lock: Descriptor,
    /// The slot whose byte this process holds; -1 if none.
    claimed: AtomicI32,
    /// What shows that this process lives even if it has lost that byte's lock, as it does when it
    /// closes any descriptor of the lock file: a description that it shares with nobody.
    life: Arc<Life>,
    /// What shows that this process lives, which may have pinned blocks: descriptions that its
    /// own children inherit.
    pins: Mutex<Vec<Descriptor>>,
    segments: Mutex<Vec<Segment>>,
    patience: AtomicU64,
    /// This process's tree; 0 if nobody is told of its end.
    tree: AtomicU64,
    huge_pages: HugePages,
}

/// A segment that this process has mapped. They are added while the arena is
/// being attached, or under its lock, which a fork waits for.
struct Segment {
    number: usize,
    base: NonNull<u8>,
    size: usize,
}

// SAFETY: the pointer is to a mapping of this process, which any thread may reach, and which is
// unmapped only when the segment is dropped.
unsafe impl Send for Segment {}
// SAFETY: a shared segment gives out its numbers and the pointer, and changes nothing.
unsafe impl Sync for Segment {}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`; dropped with the platform, when the arena
        // over it is gone, and with it all that could refer to the mapping.
        let _ = unsafe { map::unmap(self.base, self.size) };
    }
}

/// Where a segment begins in the memory object. What lies between two is a
/// hole, which takes no memory.
fn start_of(number: usize) -> u64 {
    number as u64 * LONGEST
}

impl ShmPlatform {
    /// Makes the objects of a new arena: the lock file with the byte of slot 0
    /// locked, then the memory of the control segment, all zero.
    ///
    /// # Errors
    /// EEXIST if there is such an arena, `Full` if there is no memory for it, `Missing` if
    /// the system lacks a call that keeps an arena safe, and the errors of the calls. The objects
    /// are removed again.
    pub fn create(name: Name, geometry: &Geometry) -> Result<Self> {
        let parts = geometry.first_parts();
        let size = parts.iter().map(|(_, size)| size).sum();
        let lock = make(&lock_name(name))?;
        let claimed = patiently(|| locks::try_for_process(lock.as_fd(), 0)).map_err(needing(
            "locks of bytes of files, by which they tell which processes live",
        ));
        let made = claimed.and_then(|claimed| {
            if !claimed || !is_of(&lock_name(name), lock.as_fd()) {
                // It was taken for a dead process's, after this one had been
                // stopped for long.
                return Err(Error::Os {
                    call: "shm_open",
                    errno: sys::EEXIST,
                });
            }
            let memory = match make(&memory_name(name)) {
                Err(Error::Os { errno, .. }) if errno == sys::EEXIST && is_remnant(name)? => {
                    // No other process can have to do with it: this one has the lock file.
                    shm::unlink_object(&memory_name(name))?;
                    make(&memory_name(name))?
                }
                made => made?,
            };
            // First of all the lock file's number: should this process die before this is an
            // arena, no other object may be taken for it.
            let facts = shm::facts(lock.as_fd())?;
            let begun = facts.file().iter().enumerate().try_for_each(|(i, number)| {
                let at = offset_of!(Header, lock_file) + 8 * i;
                patiently(|| shm::write(memory.as_fd(), at as u64, &number.to_ne_bytes()))
            });
            let made = begun.and_then(|()| {
                has_room(memory.as_fd(), size)?;
                let mut parts = parts.iter();
                parts
                    .try_for_each(|(start, size)| reserve(memory.as_fd(), *start, *size))
                    .map_err(needing(
                        "memory that is taken before it is used: a write would end the process \
                         where there is none",
                    ))
            });
            if let Err(error) = made {
                let _ = shm::unlink_object(&memory_name(name));
                return Err(error);
            }
            Ok(memory)
        });
        match made {
            Ok(memory) => {
                let shared = Self::over(name, memory, lock)?;
                shared.note_claimed(SlotId(0));
                Ok(shared)
            }
            Err(error) => {
                // A process that has its byte is about to remove what has the names then, and has
                // made sure that it is this file: without it they could be the next arena's.
                let is_removed =
                    claimed == Ok(false) && locks::try_for_process(lock.as_fd(), 0) != Ok(true);
                if !is_removed && is_of(&lock_name(name), lock.as_fd()) {
                    let _ = shm::unlink_object(&lock_name(name));
                }
                match error {
                    Error::Os { errno, .. } if errno == sys::ENOSPC => Err(Error::Full {
                        what: Exhausted::Space,
                        asked: size,
                        left: room_for(lock.as_fd())?.free,
                    }),
                    error => Err(error),
                }
            }
        }
    }

    /// Opens the lock file of an arena that this process has not attached: its
    /// locks would go with this descriptor.
    pub fn open(name: Name, memory: OwnedFd) -> Result<Self> {
        let lock = patiently(|| shm::open_object(&lock_name(name), READ_WRITE, 0))?;
        Self::over(name, memory, lock)
    }

    fn over(name: Name, memory: OwnedFd, lock: OwnedFd) -> Result<Self> {
        let memory = Descriptor::new(&memory_name(name), memory)?;
        Ok(ShmPlatform {
            name,
            lock: Descriptor::new(&lock_name(name), lock)?,
            claimed: AtomicI32::new(-1),
            life: Arc::new(Life::new(memory.file())),
            memory,
            pins: Mutex::default(),
            segments: Mutex::default(),
            patience: AtomicU64::new(30_000),
            tree: AtomicU64::new(0),
            huge_pages: HugePages::default(),
        })
    }

    /// The arena's name.
    pub fn name(&self) -> Name {
        self.name
    }

    /// The memory object's inode and device.
    pub fn memory_file(&self) -> [u64; 2] {
        self.memory.file()
    }

    /// The control segment's length, as its header says.
    ///
    /// # Errors
    /// `Foreign` if the object is no such thing.
    pub fn control_size(&self) -> Result<u64> {
        let memory = self.memory()?;
        let mut size = [0; 8];
        let at = offset_of!(Header, size) as u64;
        let read = patiently(|| shm::read(memory, at, &mut size))?;
        let size = u64::from_ne_bytes(size);
        let all = shm::facts(memory)?.size.min(LONGEST);
        match read == 8 && (size_of::<Header>() as u64..=all).contains(&size) {
            true => Ok(size),
            false => Err(Error::Foreign {
                why: "it does not begin like an arena",
            }),
        }
    }

    /// The lock file's inode and device.
    pub fn lock_file(&self) -> [u64; 2] {
        self.lock.file()
    }

    /// Waits `ms` for a living owner of the lock, from now on.
    pub fn set_patience(&self, ms: u64) {
        self.patience.store(ms, Ordering::Relaxed);
    }

    /// Says which tree of processes this one is of, from its next slot on.
    pub fn set_tree(&self, tree: u64) {
        self.tree.store(tree, Ordering::Relaxed);
    }

    /// This process's sign of life, which a child closes.
    pub(super) fn life(&self) -> Arc<Life> {
        self.life.clone()
    }

    /// What [`set_tree`](Self::set_tree) said.
    pub fn tree(&self) -> u64 {
        self.tree.load(Ordering::Relaxed)
    }

    /// The memory object.
    pub(super) fn memory(&self) -> Result<BorrowedFd<'_>> {
        let memory = self.memory.lend(|fd| {
            // The code that closed it may have closed the other descriptors as well.
            self.life.check();
            if !self.pins().is_empty() {
                let _ = Self::show_pin(fd);
            }
        })?;
        self.show_life(memory);
        Ok(memory)
    }

    /// Maps whole pages of the memory object once more where they are mapped, as
    /// private copies or shared.
    ///
    /// # Safety
    /// `length` bytes at `base` are pages that this process has mapped from
    /// `offset` on, and nobody needs what only the mapping before had.
    pub(super) unsafe fn map_again(
        &self,
        base: NonNull<u8>,
        length: usize,
        offset: u64,
        copied: bool,
    ) -> Result<()> {
        // SAFETY: the caller promises what `again` asks: whole pages mapped from `offset` on, whose
        // private contents nobody needs.
        unsafe { map::again(base, length, self.memory()?, offset, copied) }
    }

    /// Reads from `offset` bytes behind a place on, whatever is mapped there.
    pub(super) fn read_memory(
        &self,
        address: Address,
        offset: u64,
        bytes: &mut [u8],
    ) -> Result<()> {
        let memory = self.memory()?;
        let start = self.offset_of(address) + offset;
        let mut done = 0;
        while done < bytes.len() {
            match patiently(|| shm::read(memory, start + done as u64, &mut bytes[done..]))? {
                0 => return Err(Error::Detached),
                more => done += more,
            }
        }
        Ok(())
    }

    /// Writes from `offset` bytes behind a place on, whose pages were reserved.
    ///
    /// # Errors
    /// `Detached` also if this process may not write files as long: the kernel would end it.
    pub(super) fn write_memory(&self, address: Address, offset: u64, bytes: &[u8]) -> Result<()> {
        let start = self.offset_of(address) + offset;
        if proc::file_size_limit() < start.saturating_add(bytes.len() as u64) {
            return Err(Error::Detached);
        }
        shm::write(self.memory()?, start, bytes)
    }

    /// Where a place is in the memory object.
    pub(super) fn offset_of(&self, address: Address) -> u64 {
        start_of(address.segment()) + address.offset()
    }

    /// The lock file; a process whose descriptor was closed has lost its byte,
    /// and takes it again: until then its number and start time speak for it.
    pub(super) fn lock_fd(&self) -> Result<BorrowedFd<'_>> {
        self.lock.lend(|fd| {
            if let Ok(slot) = u64::try_from(self.claimed.load(Ordering::Relaxed)) {
                let _ = locks::try_for_process(fd, slot);
            }
        })
    }

    /// Notes that this process has the byte lock of a slot, and shows it by the memory file, too.
    fn note_claimed(&self, slot: SlotId) {
        self.life.end();
        self.claimed.store(slot.0 as i32, Ordering::Relaxed);
        // (Which does the rest.)
        let _ = self.memory();
    }

    /// Notes that it has none.
    fn note_disclaimed(&self) {
        // In this order: a thread that shows it meanwhile looks once more.
        self.claimed.store(-1, Ordering::Relaxed);
        self.life.end();
    }

    /// Shows by the memory file that this process lives, if it has a slot and does not yet. Where that
    /// cannot be (no such locks, no descriptor left, not this user's file any more) the byte lock
    /// alone shows it.
    fn show_life(&self, memory: BorrowedFd<'_>) {
        let claimed = self.claimed.load(Ordering::Relaxed);
        let Ok(slot) = u64::try_from(claimed) else {
            return;
        };
        if self.life.is_shown() || !probe::has_description_locks(memory) {
            return;
        }
        let opened =
            shm::open_for_locks(memory).or_else(|error| self.open_by_name(error, shm::FOR_LOCKS));
        let _ = opened.and_then(|fd| self.life.show(fd, slot));
        if self.claimed.load(Ordering::Relaxed) != claimed {
            // Another thread has left the slot meanwhile.
            self.life.end();
        }
    }

    /// Opens the memory file by its name, where there is no /proc, if that still is this arena's; else
    /// the error of the attempt before.
    fn open_by_name(&self, error: Error, flags: i32) -> Result<OwnedFd> {
        let named = shm::open_object(&memory_name(self.name), flags, 0)?;
        match shm::facts(named.as_fd())?.file() == self.memory_file() {
            true => Ok(named),
            false => Err(error),
        }
    }

    /// Takes the byte lock of the slot that was made for this process, in the
    /// child: its parent's lock is not inherited.
    pub fn inherit(&self, slot: SlotId) -> bool {
        self.note_disclaimed();
        for _ in 0..100 {
            if matches!(self.claim(slot), Ok(true)) {
                return true;
            }
            // Another process tries whether the slot is free, which ends at once.
            std::thread::yield_now();
        }
        false
    }

    /// Forgets the byte of the parent, in a child without a slot.
    pub fn disinherit(&self) {
        self.note_disclaimed();
    }

    /// Opens the description whose locks are signs of life for a child.
    pub fn open_signs(&self) -> Result<OwnedFd> {
        let memory = self.memory()?;
        shm::reopen(memory).or_else(|error| self.open_by_name(error, READ_WRITE))
    }

    /// Gives the child in the making in `slot` its sign of life.
    pub fn sign(signs: &OwnedFd, slot: SlotId) -> bool {
        matches!(
            patiently(|| locks::try_for_description(signs.as_fd(), slot.0 as u64, false)),
            Ok(true)
        )
    }

    /// Has a child in the making show, for as long as it or a child of it lives, that blocks
    /// are pinned for it; false if it cannot.
    pub fn pin(signs: &OwnedFd) -> bool {
        Self::show_pin(signs.as_fd()) == Ok(true)
    }

    fn show_pin(fd: BorrowedFd<'_>) -> Result<bool> {
        match probe::has_description_locks(fd) {
            true => locks::try_for_description(fd, PIN_BYTE, true),
            // Before Linux 3.15, and in some sandboxes.
            false => locks::try_for_file(fd, true),
        }
    }

    /// Keeps, in the child, what shows that it lives.
    pub fn keep_pin(&self, signs: OwnedFd) {
        // (If that fails its blocks are not kept: the arena's file is gone.)
        if let Ok(pin) = Descriptor::new(&memory_name(self.name), signs) {
            self.pins().push(pin);
        }
    }

    fn pins(&self) -> MutexGuard<'_, Vec<Descriptor>> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the process of a slot that has lost its byte shows that it lives.
    fn shows_life(&self, slot: SlotId) -> bool {
        let byte = LIFE_BYTE + slot.0 as u64;
        let locked = self
            .memory()
            .and_then(|fd| patiently(|| locks::is_locked(fd, byte)));
        locked != Ok(false)
    }

    /// Maps `length` bytes for a segment of `size`, or some more.
    fn map_segment(&self, number: usize, size: u64, length: u64) -> Result<NonNull<u8>> {
        let fd = self.memory()?;
        if size > LONGEST || shm::facts(fd)?.size < start_of(number) + size {
            return Err(Error::Corrupted {
                why: "a segment was truncated",
            });
        }
        map::shared(fd, start_of(number), length as usize)
            .map_err(needing("mappings of files that processes share"))
    }
}

// SAFETY: `map` returns mappings of objects that are as long as asked for,
// page-aligned, zero when made; they are unmapped when `ShmPlatform` is dropped.
unsafe impl Platform for ShmPlatform {
    fn map(&self, number: usize, size: u64) -> Result<NonNull<u8>> {
        let mut segments = self.segments.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |segment: &&Segment| segment.number == number;
        let fits = |segment: &&Segment| same(segment) && segment.size as u64 >= size;
        if let Some(segment) = segments.iter().find(fits) {
            return Ok(segment.base);
        }
        // One that was mapped before stays: blocks may be in use there, which both show.
        // What is behind the end is for the next one that is longer.
        let length = match segments.iter().any(|segment| same(&segment)) {
            true => size.checked_next_power_of_two().unwrap_or(size),
            false => size,
        };
        let base = self.map_segment(number, size, length)?;
        let size = length as usize;
        segments.push(Segment { number, base, size });
        Ok(base)
    }

    fn create(&self, number: usize, size: u64, fill: &dyn Fn(NonNull<u8>)) -> Result<()> {
        wait_hooks::before_waiting();
        let fd = self.memory()?;
        let start = start_of(number);
        let map = || self.map_segment(number, size, size);
        // Its number may have been that of a segment before, whose removal failed.
        let zero = patiently(|| shm::deallocate(fd, start, LONGEST)).is_ok();
        let take = || {
            self.huge_pages.extend(fd, start + size, size);
            self.huge_pages.reserve(fd, start, size)
        };
        let made = has_room(fd, size)
            .and_then(|()| take())
            .and_then(|()| map());
        match made {
            Ok(base) => {
                if !zero {
                    // SAFETY: mapped above, as long as that, and no process knows of the segment.
                    unsafe { base.write_bytes(0, size as usize) };
                }
                fill(base);
                // SAFETY: mapped above, and `fill` keeps no reference.
                let _ = unsafe { map::unmap(base, size as usize) };
                Ok(())
            }
            Err(error) => {
                self.remove(number);
                Err(error)
            }
        }
    }

    fn unit(&self, size: u64) -> u64 {
        let unit = self.memory().map(|fd| self.huge_pages.unit(fd, size));
        unit.ok().flatten().unwrap_or(PAGE)
    }

    fn remove(&self, number: usize) {
        wait_hooks::before_waiting();
        let _ = patiently(|| shm::deallocate(self.memory()?, start_of(number), LONGEST));
    }

    fn reserve(&self, address: Address, size: u64) -> Result<()> {
        wait_hooks::before_waiting();
        let start = start_of(address.segment()) + address.offset();
        // (Most of the pages may be there: the file system refuses what is too much, a control
        // group's limit kills.)
        if size >= MUCH && cgroup::memory().is_some_and(|left| left < size) {
            return Err(NO_SPACE);
        }
        self.huge_pages.reserve(self.memory()?, start, size)
    }

    unsafe fn give_back(&self, address: Address, bytes: NonNull<u8>, size: u64) -> Result<()> {
        wait_hooks::before_waiting();
        let start = address.offset();
        // Inwards: the system rounds the end up, over what lies behind.
        let page = probe::page_size() as u64;
        let first = start.next_multiple_of(page);
        let end = (start + size) / page * page;
        if first >= end {
            return Ok(());
        }
        // SAFETY: within the range that the caller has.
        let place = unsafe { bytes.add((first - start) as usize) };
        // SAFETY: whole pages of a mapping made by `map`; nobody needs them.
        patiently(|| unsafe { map::remove_pages(place, (end - first) as usize) })
    }

    fn room(&self) -> Room {
        let room = self.memory().and_then(room_for);
        room.unwrap_or(Room { all: 0, free: 0 })
    }

    fn now(&self) -> u64 {
        proc::now()
    }

    fn micros(&self) -> u64 {
        proc::monotonic() / 1000
    }

    fn sleep(&self, word: &U32, expected: u32) {
        wait_hooks::before_waiting();
        // Interrupted, woken, too late: the waiter looks again.
        match probe::can_sleep() {
            true => drop(futex::wait(word.as_atomic(), expected, SLEEP)),
            // In some sandboxes.
            false => std::thread::sleep(MOMENT),
        }
    }

    fn wake(&self, word: &U32) {
        let _ = futex::wake(word.as_atomic(), 1);
    }

    fn patience(&self) -> u64 {
        self.patience.load(Ordering::Relaxed)
    }

    fn is_interrupted(&self) -> bool {
        let process = ForkMark::get().number();
        // A signal's handler may have forked meanwhile: the child is not the one that waits.
        wait_hooks::gives_up() || ForkMark::get().number() != process
    }

    fn identity(&self) -> Identity {
        // Without allocating: a child asks before it may.
        let pid = proc::pid();
        let status = proc::status(pid).ok().flatten();
        Identity {
            pid,
            started: status.map_or(0, |status| status.started),
            stack: status.map_or(0, |status| status.stack),
            namespace: proc::namespace().unwrap_or(0),
            tree: self.tree(),
        }
    }

    fn claim(&self, slot: SlotId) -> Result<bool> {
        let lock = self.lock_fd()?;
        let claimed = patiently(|| locks::try_for_process(lock, slot.0 as u64))?;
        if claimed {
            self.note_claimed(slot);
        }
        Ok(claimed)
    }

    fn disclaim(&self, slot: SlotId) {
        if let Ok(fd) = self.lock_fd() {
            let _ = locks::release_for_process(fd, slot.0 as u64);
        }
        self.note_disclaimed();
    }

    fn is_dead(&self, slot: SlotId, row: &SlotRow) -> bool {
        // The system does not tell a process of its own locks, and may tell nothing else.
        if self.claimed.load(Ordering::Relaxed) == slot.0 as i32 {
            return false;
        }
        let locked = self
            .lock_fd()
            .and_then(|fd| patiently(|| locks::is_locked(fd, slot.0 as u64)));
        match locked {
            Ok(true) => false,
            Ok(false) => !lives(row).unwrap_or_else(|| self.shows_life(slot)),
            // The lock file cannot be opened again: nobody can tell but by the
            // number, and a process of another namespace must be believed.
            Err(_) => lives(row) == Some(false),
        }
    }

    fn is_child_gone(&self, slot: SlotId) -> bool {
        let locked = self
            .memory()
            .and_then(|fd| locks::is_locked(fd, slot.0 as u64));
        locked == Ok(false)
    }

    fn is_pinned(&self) -> bool {
        let locked = self
            .memory()
            .and_then(|fd| match probe::has_description_locks(fd) {
                true => locks::is_locked(fd, PIN_BYTE),
                false => {
                    let other = self.open_signs()?;
                    locks::try_for_file(other.as_fd(), false).map(|free| !free)
                }
            });
        locked != Ok(false)
    }
}
