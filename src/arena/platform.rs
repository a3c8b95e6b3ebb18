//! The platform: what the arena needs of the system around it.
//!
//! The arena itself makes no system call: the memory of its segments, the
//! lives of its processes, waiting and the time come from here. `process`
//! implements it on the operating system, [`plain`](super::plain) on the memory
//! of one process, where sanitizers, property tests and fuzzers can work.

use super::format::{Address, SlotId, SlotRow, PAGE};
use super::word::U32;
use crate::error::Result;
use std::ptr::NonNull;

/// What identifies a process, beside its slot's byte lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The process as it numbers itself.
    pub pid: u64,
    /// When it started, in the kernel's ticks since boot.
    pub started: u64,
    /// Where its stack begins; 0 if it is not known.
    pub stack: u64,
    /// The inode of its namespace of pids; 0 if it is not known.
    pub namespace: u64,
    /// Its tree of processes; 0 if there is nobody to tell its end.
    pub tree: u64,
}

/// What a system has for segments, in bytes; `u64::MAX` where there is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// All of it.
    pub all: u64,
    /// What nobody has.
    pub free: u64,
}

/// The system around an arena.
///
/// # Safety
/// What [`map`](Platform::map) returns is `size` bytes of memory, aligned to a
/// page (or to 64 bytes at least), readable and writable, zero where nobody
/// wrote yet, and stays so at its place until the platform is dropped.
pub unsafe trait Platform: Send + Sync {
    /// The memory of segment `number`, which is there and `size` bytes long.
    fn map(&self, number: usize, size: u64) -> Result<NonNull<u8>>;

    /// Makes segment `number` with `size` bytes that are all reserved and zero, and has
    /// its beginning written by `fill`. Its number is this process's alone
    /// until it is made. A segment that cannot be made leaves nothing.
    fn create(&self, number: usize, size: u64, fill: &dyn Fn(NonNull<u8>)) -> Result<()>;

    /// What the length of a segment of at least `size` bytes is best a multiple of, at least
    /// [`PAGE`].
    fn unit(&self, _size: u64) -> u64 {
        PAGE
    }

    /// Removes segment `number`, which nobody uses; it may not be there.
    fn remove(&self, number: usize);

    /// Reserves memory for `size` bytes at `address`, and keeps their values
    /// where they have it already.
    fn reserve(&self, address: Address, size: u64) -> Result<()>;

    /// Gives the whole pages within `size` bytes at `address` back to the
    /// system; `bytes` is where they are in this process.
    ///
    /// # Safety
    /// The range is within a segment that this platform has mapped, at `bytes`,
    /// and nobody needs what is in it.
    unsafe fn give_back(&self, address: Address, bytes: NonNull<u8>, size: u64) -> Result<()>;

    /// What the system has for segments.
    fn room(&self) -> Room;

    /// The time in ms, the same for all processes.
    fn now(&self) -> u64;

    /// The time in µs, as exactly as it is known.
    fn micros(&self) -> u64 {
        self.now() * 1000
    }

    /// Sleeps for some milliseconds, or until `word` does not hold `expected`
    /// or is woken.
    fn sleep(&self, word: &U32, expected: u32);

    /// Wakes one sleeper on `word`.
    fn wake(&self, word: &U32);

    /// How long a waiter waits for a living owner of the lock, in ms.
    fn patience(&self) -> u64;

    /// Whether the waiter is to give up before that.
    fn is_interrupted(&self) -> bool {
        false
    }

    /// The identity of this process.
    fn identity(&self) -> Identity;

    /// Takes the byte lock of a slot for this process; false if another has it.
    fn claim(&self, slot: SlotId) -> Result<bool>;

    /// Gives the byte lock of a slot back.
    fn disclaim(&self, slot: SlotId);

    /// Whether the process in `row` is dead.
    fn is_dead(&self, slot: SlotId, row: &SlotRow) -> bool;

    /// Whether the child for which the slot was reserved is dead, or was never forked.
    fn is_child_gone(&self, slot: SlotId) -> bool;

    /// Whether a process lives that inherited blocks and got no slot.
    fn is_pinned(&self) -> bool;
}
