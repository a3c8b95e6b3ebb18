//! Blocks, and the rules by which this process counts its references to them.
//!
//! A process may have many [`Block`]s for one block of the arena: clones in several threads, and
//! one for each time that it was received. The arena knows only whether the process is a *holder*.
//! The rules keep both in step, and let most clones and drops touch no shared memory.
//!
//! **The states of a count.** Beside the number of references a count has two flags.
//!
//! | references | flags  | the block                                                              |
//! |------------|--------|------------------------------------------------------------------------|
//! | 0          | not CACHED | is not this process's, or is owed: see `Membership::owe`           |
//! | 1          | none   | is this process's, and no other process can know of it: *only*         |
//! | 1 or more  | any    | is this process's                                                      |
//! | 0          | CACHED | waits in the block cache; the process is its holder still              |
//!
//! SHARED says that another process may know of the block: it was sent, named or received, or this
//! process held it at a fork. It is set before the send, the naming or the fork takes effect, and
//! for a received block in the same critical section of the arena's lock. It stays set until the
//! row's next life.
//!
//! **Changes that need no lock.**
//!
//! * A thread that has a reference may count another one ([`Count::add`]), and may drop one that is
//!   not the last ([`Count::drop_one_of_many`]): the number cannot reach 0 by that.
//! * If there is one reference and SHARED is not set, the thread that has it is alone with the
//!   block: no other thread has a reference to clone, and no handle exists to receive. It may turn
//!   the count into CACHED and put the block into the cache.
//! * The thread that takes a block out of the cache turns CACHED into one reference, or into none
//!   if it gives the block back to the arena.
//!
//! **Changes under the arena's lock.**
//!
//! * The number goes from 0 to 1 where the process becomes a holder: when the block is allocated
//!   ([`Count::begin`]) or received ([`Count::receive`]).
//! * The number goes to 0 where the process ceases to be a holder. So a thread that drops the last
//!   reference takes the lock first and looks again: if another thread has received the block
//!   meanwhile, the number is not 1 any more, and the process stays a holder.
//!
//! **When the lock is not to be had** (its owner is stopped, or the arena is poisoned) the count is
//! dropped without it, and the block is *owed*: before its next operation the process takes the
//! lock and ceases to be a holder, unless it has a reference again by then.
//!
//! **Forged handles** can break these rules. A handle of a block that was never sent can only be
//! made up, and a program that makes one up can write to any memory of the arena anyway.
//! [`Counts::is_cached`] refuses such a handle if the block is in the cache, and
//! [`Count::leave_cache`] is an exchange that fails if the block was received nevertheless. A
//! forged handle that is received at the moment when the block enters the cache is not noticed: the
//! next allocation then gets a block that the receiver has, too.
//!
//! `tests/core/references.rs` runs these lines under a model checker.
//!
//! [`Counts::is_cached`]: super::counts::Counts::is_cached

use super::block_cache::{CachedBlock, LARGEST};
use super::counts::Count;
use super::membership::{Arena, Membership};
use super::shm_platform::ShmPlatform;
use crate::arena::format::{Address, POISONED};
use crate::arena::word::Atomic;
use crate::arena::{BlockRef, Extent, Member, TicketRef};
use crate::error::{Error, Result};
use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::Arc;

/// A block that this process holds: one reference to it.
pub struct Block {
    bytes: NonNull<u8>,
    which: BlockRef,
    size: u64,
    arena: Arena,
}

// SAFETY: the pointer is to shared memory, mapped for as long as `arena` lives, which any thread
// may reach. When it is written is up to the users of the block, in this process as in others.
unsafe impl Send for Block {}
// SAFETY: as for Send: a shared reference gives the same access to the same memory.
unsafe impl Sync for Block {}

/// What dropping a reference needs of the process that has it.
pub trait Holder {
    /// Puts the block into the cache, and does `enter` before a thread can take it out; false if it
    /// cannot be cached.
    fn cache(&self, enter: impl FnOnce()) -> bool;

    /// Under the arena's lock: asks `was_last`, and if so, ceases to be a holder.
    ///
    /// # Errors
    /// The lock was not to be had, if `was_last` was not asked.
    fn release_if(&self, was_last: impl FnOnce() -> bool) -> Result<()>;

    /// Notes that the block is owed.
    fn owe(&self);
}

/// Drops a reference that was the last one when [`Count::drop_one_of_many`] looked.
#[inline(always)]
pub fn drop_last<A: Atomic<Value = u32>>(count: &Count<A>, holder: &impl Holder) {
    // No other thread can change the count meanwhile: this is the only reference, and no handle of
    // the block exists.
    if count.is_only() && holder.cache(|| count.enter_cache()) {
        return;
    }
    let dropped = Cell::new(false);
    let released = holder.release_if(|| {
        dropped.set(true);
        count.drop_one()
    });
    // Without the lock other threads may count: only the drop says whether it was the last.
    if released.is_err() && !dropped.get() && count.drop_one() {
        holder.owe();
    }
}

/// A block whose last reference is being dropped.
struct Last<'a> {
    block: &'a Block,
    /// This process's membership; None if it has left, or is a child without one.
    me: Option<Member>,
}

impl Holder for Last<'_> {
    #[inline(always)]
    fn cache(&self, enter: impl FnOnce()) -> bool {
        let Some(holder) = self.me else {
            return false;
        };
        let block = CachedBlock {
            which: self.block.which,
            bytes: self.block.bytes,
            holder,
        };
        self.block.arena.0.cache.put(self.block.size, block, enter)
    }

    #[inline(always)]
    fn release_if(&self, was_last: impl FnOnce() -> bool) -> Result<()> {
        let me = self.me.ok_or(Error::Detached)?;
        let core = &self.block.arena.0.core;
        core.release_if(me, self.block.which, was_last).map(drop)
    }

    #[cold]
    fn owe(&self) {
        // (Without a membership there is no holder that could owe.)
        if self.me.is_some() {
            self.block.arena.0.owe(self.block.which);
        }
    }
}

impl Clone for Block {
    /// Another reference of this process's; touches no shared memory.
    fn clone(&self) -> Self {
        self.arena.0.counts.of(self.which.id).add();
        Block {
            arena: self.arena.clone(),
            ..*self
        }
    }
}

impl Drop for Block {
    #[inline]
    fn drop(&mut self) {
        let membership = &self.arena.0;
        let count = membership.counts.of(self.which.id);
        if count.drop_one_of_many() {
            return;
        }
        let me = membership.member_now();
        drop_last(count, &Last { block: self, me });
    }
}

/// A block, where it is in this process, and its length.
type Found = (BlockRef, NonNull<u8>, u64);

impl Membership {
    /// Takes a block out of the cache.
    #[inline(always)]
    fn reuse(&self, me: Member, size: u64) -> Option<Found> {
        self.cache.take(size, |cached| {
            let count = self.counts.of(cached.which.id);
            let poisoned = self.core.header().condition.get() & POISONED != 0;
            if cached.holder != me || poisoned {
                // The process has left since, and come back as another member: the block is not
                // its any more.
                count.leave_cache(0);
                return None;
            }
            let taken = count.leave_cache(1);
            taken.then_some((cached.which, cached.bytes, size))
        })
    }

    #[inline(always)]
    fn allocate_new(&self, me: Member, bytes: u64) -> Result<Found> {
        // Called under the lock: nobody else can know of the block before that is given back.
        let count = |id, number| self.counts.of(id).begin(number);
        let (which, place) = self.core.allocate_and(me, bytes, count)?;
        Ok((which, self.core.bytes(place), place.size))
    }
}

impl Block {
    /// Allocates a block in `arena`, by a reference that becomes the block's.
    #[inline(always)]
    pub(super) fn allocate(arena: Arena, bytes: u64) -> Result<Block> {
        let membership = &arena.0;
        let size = membership.core.block_size(bytes)?;
        let made = membership.perform(|me| match membership.reuse(me, size) {
            Some(found) => Ok(found),
            None => membership.allocate_new(me, bytes),
        });
        let (which, bytes, size) = made.map_err(|error| error.asking(bytes))?;
        Ok(Block {
            bytes,
            which,
            size,
            arena,
        })
    }

    /// The block at a place that an operation of the arena has returned, and counted.
    #[inline(always)]
    fn at(arena: &Arena, which: BlockRef, place: Extent) -> Block {
        Block {
            bytes: arena.0.core.bytes(place),
            which,
            size: place.size,
            arena: arena.clone(),
        }
    }

    /// Receives a block, by a ticket if there is one; `once`: only if that is open.
    #[inline(always)]
    pub(super) fn receive(
        arena: &Arena,
        which: BlockRef,
        ticket: Option<TicketRef>,
        once: bool,
    ) -> Result<Block> {
        let membership = &arena.0;
        let place = membership.perform(|me| {
            if membership.counts.is_cached(which.id) {
                // It was never sent: the handle was forged.
                return Err(Error::Stale);
            }
            membership.core.receive_and(me, which, ticket, once, || {
                // Under the lock, so that no thread can drop the last reference between
                // the bit and the count.
                membership.counts.of(which.id).receive();
            })
        })?;
        Ok(Block::at(arena, which, place))
    }

    /// Receives a block that no process holds and for which one ticket is open; None if a process
    /// holds it, or more tickets are open.
    pub(super) fn claim_unheld(arena: &Arena, which: BlockRef) -> Result<Option<Block>> {
        let membership = &arena.0;
        let count = || membership.counts.of(which.id).receive();
        let place = membership.perform(|me| membership.core.claim_unheld(me, which, count))?;
        Ok(place.map(|place| Block::at(arena, which, place)))
    }

    /// Receives a block whose name was told.
    pub(super) fn find(arena: &Arena, which: BlockRef) -> Result<Block> {
        // (One that was told is never cached.)
        let membership = &arena.0;
        let count = || membership.counts.of(which.id).receive();
        let place = membership.perform(|me| membership.core.find_and(me, which, count))?;
        Ok(Block::at(arena, which, place))
    }

    /// Receives the block that the arena itself holds.
    pub(super) fn root(arena: &Arena) -> Result<Option<Block>> {
        // (One that was published is never cached.)
        let membership = &arena.0;
        let count = |id| membership.counts.of(id).receive();
        let found = membership.perform(|me| membership.core.hold_root_and(me, count))?;
        Ok(found.map(|(which, place)| Block::at(arena, which, place)))
    }

    /// Its first byte; it is there until the block is dropped.
    pub fn bytes(&self) -> NonNull<u8> {
        self.bytes
    }

    /// Its length in bytes, at least what was asked for.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether a block that was just allocated, and not written to, is known to hold zeros. (Small
    /// ones may have been another's before, see `block_cache`.)
    pub fn is_new(&self) -> bool {
        let membership = &self.arena.0;
        let is_new = || membership.perform(|me| membership.core.is_new(me, self.which));
        self.size > LARGEST && is_new().unwrap_or(false)
    }

    /// Its row, and the life of the row.
    pub fn which(&self) -> BlockRef {
        self.which
    }

    /// Its arena.
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// Whether it is of that arena.
    pub(super) fn is_of(&self, arena: &Arena) -> bool {
        Arc::ptr_eq(&self.arena.0, &arena.0)
    }

    /// Notes that another process may know of it from now on.
    #[inline(always)]
    pub(super) fn share(&self) {
        self.arena.0.counts.of(self.which.id).share();
    }

    /// Has others find it by its row and life from now on.
    ///
    /// # Errors
    /// As for any operation of the arena.
    pub fn tell_name(&self) -> Result<()> {
        let membership = &self.arena.0;
        self.share();
        membership.core.tell_name(membership.member()?, self.which)
    }

    /// Copies `length` bytes from `offset` on to byte `at` of another block. The bytes are those of
    /// the arena's shared memory, even if this process has written to private copies of the pages.
    ///
    /// # Errors
    /// As for any operation of the arena; `Detached` if the memory is not to be had.
    ///
    /// # Panics
    /// If either block is shorter than that.
    pub fn copy_original(&self, offset: u64, length: u64, to: &Block, at: u64) -> Result<()> {
        assert!(offset <= self.size && length <= self.size - offset);
        assert!(at <= to.size && length <= to.size - at);
        let membership = &self.arena.0;
        let place = membership.core.locate(membership.member()?, self.which)?;
        let first = to.bytes.as_ptr().wrapping_add(at as usize);
        // SAFETY: `length` bytes from `at` on lie within the other block (asserted above), which is
        // mapped while `to` is borrowed. It is shared memory: its user sees to it that nobody else
        // writes there meanwhile.
        let bytes = unsafe { std::slice::from_raw_parts_mut(first, length as usize) };
        membership
            .platform
            .read_memory(place.address, offset, bytes)
    }

    /// Where the block is in the arena; None if this process has it no more.
    pub(super) fn place(&self) -> Option<Address> {
        let membership = &self.arena.0;
        let me = membership.member().ok()?;
        Some(membership.core.locate(me, self.which).ok()?.address)
    }

    pub(super) fn platform(&self) -> &ShmPlatform {
        &self.arena.0.platform
    }
}
