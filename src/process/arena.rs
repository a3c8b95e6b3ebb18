//! The methods of [`Arena`], an arena that this process has attached.

use super::attaching;
use super::block::Block;
use super::forks;
use super::identified;
use super::membership::{Arena, Membership};
use super::process_arenas;
use super::settings::Settings;
use super::shm_space;
use crate::arena::format::ENDING;
use crate::arena::handle::{Handle, Name};
use crate::arena::{BlockRef, Core, Entry, Member, Stats, TicketRef};
use crate::error::{Error, Result};
use crate::sys::proc;
use std::sync::Arc;

/// The arena of that number, if this process has attached it.
pub fn find(uuid: [u64; 2]) -> Option<Arena> {
    process_arenas::find::<Membership>(uuid).map(Arena::from)
}

/// All arenas that this process has attached.
pub fn all() -> Vec<Arena> {
    let all = process_arenas::all::<Membership>();
    all.into_iter().map(Arena::from).collect()
}

impl Arena {
    /// Makes an arena and attaches it.
    ///
    /// # Errors
    /// EEXIST if there is one of this name; `Full` if the system has no memory
    /// for its first segment; `Missing` if it has not what an arena is safe by; `Invalid` for
    /// settings that cannot be.
    pub fn create(name: Name, settings: Settings) -> Result<Arena> {
        forks::watch_forks()?;
        Self::with_room(|| attaching::create(name, settings, None))
    }

    /// Makes an arena; once more after memory was given back, if there was none.
    fn with_room(create: impl Fn() -> Result<Arc<Membership>>) -> Result<Arena> {
        let created = match create() {
            Err(error @ Error::Full { asked, .. }) if error.is_for_want_of_memory() => {
                shm_space::make(asked)?;
                create()
            }
            created => created,
        };
        created.map(Arena)
    }

    /// Attaches the arena of an identifier, in a folder or among POSIX's objects, or makes it.
    ///
    /// All processes of this user that call it get one arena, for as long as one of them or a forked
    /// child of theirs lives and has it. An arena that none of them has any more is not attached: a new
    /// one takes its place.
    ///
    /// # Errors
    /// As for `create` and `attach`, but EEXIST and ENOENT; `Foreign` if something else has its name;
    /// `Busy` if a process that makes or ends it is stopped.
    pub fn attach_or_create(
        folder: Option<&str>,
        identifier: [u8; 16],
        settings: Settings,
    ) -> Result<Arena> {
        forks::watch_forks()?;
        if identifier == [0; 16] {
            return Err(Error::Invalid {
                why: "an identifier of zeros stands for none",
            });
        }
        let name = Name::of_identifier(folder, identifier)?;
        Self::with_room(|| identified::attach_or_create(name, identifier, settings))
    }

    /// By what [`attach_or_create`](Self::attach_or_create) finds it; None if it does not.
    pub fn identifier(&self) -> Option<[u8; 16]> {
        self.0.core.header().identifier()
    }

    /// Has the arena itself hold a block, its root, as long as it lives; false if it has another root,
    /// unless that is to be `replace`d.
    ///
    /// # Errors
    /// `Foreign` for another arena's block.
    pub fn publish_root(&self, block: &Block, replace: bool) -> Result<bool> {
        if !block.is_of(self) {
            return Err(Error::Foreign {
                why: "the block is of another arena",
            });
        }
        block.share();
        let core = &self.0.core;
        self.0
            .perform(|me| core.publish_root(me, block.which(), replace))
    }

    /// The block that the arena itself holds.
    ///
    /// # Errors
    /// As for any operation of the arena.
    pub fn root(&self) -> Result<Option<Block>> {
        Block::root(self)
    }

    /// Attaches an arena; one that is attached already is returned as it is.
    ///
    /// # Errors
    /// ENOENT if there is none of this name, or one that is being made or ended;
    /// `Foreign` if it is another user's, of another version or damaged; `Full` if
    /// all its slots are taken.
    pub fn attach(name: Name, patience: u64) -> Result<Arena> {
        forks::watch_forks()?;
        attaching::attach(name, patience, Entry::Member).map(Arena)
    }

    /// Attaches an arena to look after what dead processes have left.
    ///
    /// # Errors
    /// As for `attach`.
    pub(super) fn attach_deserted(name: Name, patience: u64) -> Result<Arena> {
        forks::watch_forks()?;
        attaching::attach(name, patience, Entry::Caretaker).map(Arena)
    }

    /// The arena's name.
    pub fn name(&self) -> Name {
        self.0.platform.name()
    }

    /// The arena's number, which no other has.
    pub fn uuid(&self) -> [u64; 2] {
        self.0.core.uuid()
    }

    /// The tables' view of this arena, for tests and measurements.
    pub fn core(&self) -> &Core {
        &self.0.core
    }

    /// This process's membership.
    ///
    /// # Errors
    /// `Detached` if it has left.
    pub fn member(&self) -> Result<Member> {
        self.0.member()
    }

    /// [`Arena::member`], at the beginning of an operation on an object in the arena: upkeep that is
    /// due is done first.
    ///
    /// # Errors
    /// As for `member`.
    #[inline(always)]
    pub fn begin(&self) -> Result<Member> {
        self.0.begin()
    }

    /// Allocates a block of `bytes` bytes, with undefined contents.
    ///
    /// # Errors
    /// `Full` if there is no memory for it.
    #[inline]
    pub fn allocate(&self, bytes: u64) -> Result<Block> {
        Block::allocate(self.clone(), bytes)
    }

    /// [`Arena::allocate`], by a reference that becomes the block's.
    ///
    /// # Errors
    /// As for `allocate`.
    #[inline]
    pub fn allocate_owned(self, bytes: u64) -> Result<Block> {
        Block::allocate(self, bytes)
    }

    /// Opens a ticket for a block and returns both as a handle, for one
    /// receiver.
    ///
    /// # Errors
    /// `Full` if there are too many tickets; `Foreign` for another arena's
    /// block.
    #[inline]
    pub fn send(&self, block: &Block) -> Result<Handle> {
        self.send_as(block, false)
    }

    /// [`Arena::send`]; `lasting`: for others than this program, whose end it
    /// outlives.
    #[inline(always)]
    pub fn send_as(&self, block: &Block, lasting: bool) -> Result<Handle> {
        if !block.is_of(self) {
            return Err(Error::Foreign {
                why: "the block is of another arena",
            });
        }
        block.share();
        let core = &self.0.core;
        let ticket = self
            .0
            .perform(|me| core.send_as(me, block.which(), lasting))?;
        Ok(Handle {
            uuid: self.uuid(),
            boot: self.0.boot,
            uid: self.0.core.header().uid.get(),
            name: self.name(),
            block: block.which(),
            ticket: Some(ticket),
        })
    }

    /// Opens a ticket for a block, for which another answers from the beginning: it is
    /// cancelled when that is freed.
    ///
    /// # Errors
    /// As for [`send`](Self::send); `Invalid` if the two are one.
    pub fn send_owned(&self, block: &Block, owner: &Block) -> Result<TicketRef> {
        let same = [block, owner].map(|each| each.is_of(self));
        if same != [true, true] {
            return Err(Error::Foreign {
                why: "the block is of another arena",
            });
        }
        for each in [block, owner] {
            each.share();
        }
        let core = &self.0.core;
        self.0
            .perform(|me| core.send_owned(me, block.which(), owner.which()))
    }

    /// The block of a ticket that nobody has received; `Stale` later.
    ///
    /// # Errors
    /// As for [`take`](Self::take).
    pub fn take_sent(&self, which: BlockRef, ticket: TicketRef) -> Result<Block> {
        Block::receive(self, which, Some(ticket), true)
    }

    /// A block that a process may hold, or that is in flight.
    ///
    /// # Errors
    /// `Stale` if it has been freed.
    pub fn hold(&self, which: BlockRef) -> Result<Block> {
        Block::receive(self, which, None, false)
    }

    /// A block that no process holds and for which one ticket is open; None if a process holds it,
    /// or more tickets are open.
    ///
    /// # Errors
    /// `Stale` if it has been freed.
    pub fn claim_unheld(&self, which: BlockRef) -> Result<Option<Block>> {
        Block::claim_unheld(self, which)
    }

    /// Has a block answer for a handle that nobody has received yet: it is
    /// cancelled when the block is freed. False if it was received or cancelled,
    /// or is of another arena, or another block answers for it.
    ///
    /// # Errors
    /// `Invalid` if the handle is the block's own.
    pub fn transfer_ownership(&self, handle: &Handle, owner: &Block) -> Result<bool> {
        let ours = handle.uuid == self.uuid() && owner.is_of(self);
        let Some(ticket) = handle.ticket.filter(|_| ours) else {
            return Ok(false);
        };
        // Set, so that the last reference does not put the block into the cache.
        owner.share();
        let core = &self.0.core;
        self.0
            .perform(|me| core.transfer_ownership(me, ticket, handle.block, owner.which()))
    }

    /// Refuses a handle that cannot be of an arena of this process's.
    ///
    /// # Errors
    /// `Foreign` for one of another machine, boot or user.
    pub fn check_home(handle: &Handle) -> Result<()> {
        Self::check_origin(handle, proc::boot()?, proc::user())
    }

    fn check_origin(handle: &Handle, boot: u64, user: u32) -> Result<()> {
        let foreign = |why| Err(Error::Foreign { why });
        if handle.boot != boot {
            return foreign("the handle is of another machine, or of before it was started");
        }
        if handle.uid != user {
            return foreign(
                "the handle is another user's, or was made before this program changed its user",
            );
        }
        Ok(())
    }

    fn check_handle(&self, handle: &Handle) -> Result<()> {
        Self::check_origin(handle, self.0.boot, self.0.core.header().uid.get())?;
        match handle.uuid == self.uuid() {
            true => Ok(()),
            false => Err(Error::Foreign {
                why: "the handle is of another arena",
            }),
        }
    }

    /// Turns a handle into a block. The first to do so uses up its ticket;
    /// later it works for as long as some process holds the block.
    ///
    /// # Errors
    /// `Stale` if the block has been freed; `Foreign` or `BadHandle` if it is
    /// not of this arena or never was.
    #[inline]
    pub fn receive(&self, handle: &Handle) -> Result<Block> {
        self.receive_or_take(handle, false)
    }

    /// [`Arena::receive`], for the first only: later it is `Stale`, even while a process holds the
    /// block.
    #[inline]
    pub fn take(&self, handle: &Handle) -> Result<Block> {
        self.receive_or_take(handle, true)
    }

    #[inline(always)]
    fn receive_or_take(&self, handle: &Handle, once: bool) -> Result<Block> {
        self.check_handle(handle)?;
        Block::receive(self, handle.block, handle.ticket, once)
    }

    /// A block that some process holds, or that is in flight, and whose name was told.
    ///
    /// # Errors
    /// `Stale` if it has been freed or was not told, `BadHandle` if it never was.
    pub fn find(&self, which: BlockRef) -> Result<Block> {
        Block::find(self, which)
    }

    /// The blocks that can be found.
    pub fn blocks(&self) -> Result<Vec<BlockRef>> {
        self.0.perform(|me| self.0.core.named_blocks(me))
    }

    /// Ends the ticket of a handle that nobody will receive; false if it has
    /// been received or ended.
    ///
    /// # Errors
    /// `Foreign` or `BadHandle` if it is not of this arena or never was.
    pub fn cancel(&self, handle: &Handle) -> Result<bool> {
        self.check_handle(handle)?;
        match handle.ticket {
            Some(ticket) => self
                .0
                .perform(|me| self.0.core.cancel(me, ticket, handle.block)),
            None => Ok(false),
        }
    }

    /// Ends all tickets that were opened at least `age` ms ago; how many.
    pub fn cancel_unreceived(&self, age: u64) -> Result<u64> {
        self.0
            .perform_as(Membership::member, |me| self.0.core.cancel_older(me, age))
    }

    /// Drops what dead processes held; how many were found.
    pub fn reap(&self) -> Result<u64> {
        self.0
            .perform_as(Membership::member, |me| self.0.core.reap(me))
    }

    /// Gives free memory back to the system, after dead processes have lost what
    /// they held; how many bytes.
    pub fn trim(&self) -> Result<u64> {
        self.0.perform_as(Membership::member, |me| self.0.trim(me))
    }

    /// Of some blocks, which live: a process has them, or a ticket refers to them.
    pub fn which_live(&self, blocks: &[BlockRef]) -> Result<Vec<bool>> {
        self.0.perform_as(Membership::member, |me| {
            self.0.empty_cache();
            let lives = |which: &BlockRef| match self.0.core.locate(me, *which) {
                Ok(_) => Ok(true),
                Err(Error::Stale) => Ok(false),
                Err(error) => Err(error),
            };
            blocks.iter().map(lives).collect()
        })
    }

    /// The arena in numbers.
    pub fn stats(&self) -> Result<Stats> {
        self.0.perform_as(Membership::member, |me| {
            self.0.empty_cache();
            self.0.core.stats(me)
        })
    }

    /// Checks every invariant; returns the violations, in words.
    pub fn check(&self) -> Result<Vec<String>> {
        self.0.perform_as(Membership::member, |me| {
            self.0.empty_cache();
            self.0.core.check(me)
        })
    }

    /// Removes the arena's names: no process attaches it any more, and another arena may have them.
    /// Processes that have it go on.
    pub fn unlink(&self) -> Result<()> {
        self.0.core.mark_unlinked(self.0.member()?)?;
        self.0.registration().remove_names();
        Ok(())
    }

    /// Whether this process's user made it: others cannot open it, nor remove its names.
    pub fn is_of_this_user(&self) -> bool {
        self.0.core.header().uid.get() == proc::user()
    }

    /// How many processes can have it at one time.
    pub fn places(&self) -> u32 {
        self.0.core.geometry().processes
    }

    /// Whether the arena has lost its names, or is about to.
    pub fn is_unlinked(&self) -> bool {
        self.0.core.header().unlinked.read() != 0
    }

    /// Says which tree of processes this one is of; 0 for none.
    pub fn set_tree(&self, tree: u64) -> Result<()> {
        let me = self.0.member()?;
        self.0.platform.set_tree(tree);
        self.0.core.slot(me.slot).tree.set(tree);
        Ok(())
    }

    /// Has the names go with this process's tree, if they go with no other. True
    /// if they do from now on.
    pub fn register_with(&self, tree: u64) -> Result<bool> {
        self.set_tree(tree)?;
        Ok(self.0.registration().begin(tree))
    }

    /// Whether a tree's tracker removes the names in the end.
    pub fn is_registered(&self) -> bool {
        self.0.core.header().registrar.read() != 0
    }

    /// Whether a process is about to tell the tracker that it need not.
    pub fn is_ending(&self) -> bool {
        self.0.core.header().registrar.read() & ENDING != 0
    }

    /// Notes that what [`retire_all`](super::retire_all) made
    /// [`unregistered`](super::unregistered) has been told.
    pub fn end_registration(&self) {
        self.0.registration().end();
    }

    /// Ends what nobody will receive in an arena that no other process has: the
    /// tickets opened at least `age` ms ago, and those of killed senders whose grace is over; not
    /// lasting ones, if `keep_lasting`.
    pub fn end_abandoned(&self, age: u64, keep_lasting: bool) -> Result<()> {
        let me = self.0.member()?;
        self.0.core.end_abandoned(me, age, keep_lasting)
    }

    /// Ends this process's membership: its references are
    /// dropped, and the arena becomes the owner of the tickets it opened. The last process removes
    /// the names, unless a ticket is open.
    ///
    /// For the exit of a process: blocks that it still has may be freed from now on. Otherwise an
    /// arena is left when it and all its blocks are dropped.
    pub fn leave(&self) -> Result<()> {
        self.0.leave()
    }
}
