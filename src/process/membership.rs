//! An arena that this process has attached, and the blocks it has.
//!
//! References are counted in private memory, see `counts`: only the first to a
//! block and the last touch shared memory. The count of a block that another
//! process may know of becomes 0 only under the arena's lock, and so agrees with
//! the process's bit among the holders.

use super::block_cache::{Spare, Spares};
use super::counts::Counts;
use super::private_pages::Own;
use super::process_arenas::{self, Place};
use super::settings::Settings;
use super::shm_platform::Shared;
use super::shm_space;
use super::wait_hooks;
use crate::arena::format::{BlockId, Expected, Header, ENDING, NO_TREE, POISONED};
use crate::arena::handle::{Handle, Name};
use crate::arena::platform::Room;
use crate::arena::{BlockRef, Core, Extent, Member, Offspring, Parting, Stats, TicketRef};
use crate::error::{Error, Result};
use crate::sys::fork::ForkMark;
use crate::sys::{self, proc};
use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How often an arena is looked for that others make or end meanwhile.
const ATTEMPTS: usize = 8;

/// There is no such arena, or not any more.
const GONE: Error = Error::Os {
    call: "shm_open",
    errno: sys::ENOENT,
};

/// No slot: this process has left.
const DETACHED: u64 = u64::MAX;
/// No slot yet: a child for which there was none.
const UNREGISTERED: u64 = u64::MAX - 1;
/// A bit beside the slot: something is to be done before the next operation.
const CHORES: u64 = 1 << 63;

fn unpack(word: u64) -> Option<Member> {
    (word < UNREGISTERED).then(|| Member::of_word(word & !CHORES))
}

/// An arena that this process has attached. The fields are dropped in this
/// order: the place in the family goes when all descriptors are closed.
pub(super) struct Inner {
    core: Core,
    shared: Arc<Shared>,
    counts: Counts,
    spares: Spares,
    me: AtomicU64,
    /// The process's fork number when `me` was its slot.
    fork_number: AtomicU64,
    boot: u64,
    /// What can wait, under the family's list, which forks wait for.
    chores: Mutex<Chores>,
    place: Place,
}

/// What is to be done before the next operation.
#[derive(Default)]
struct Chores {
    /// References that could not be dropped when their time came.
    owed: Vec<BlockRef>,
    /// The sign by which this process's slot lives, if its byte is not its own.
    signs: Option<OwnedFd>,
}

impl Inner {
    pub fn core(&self) -> &Core {
        &self.core
    }

    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    pub fn uuid(&self) -> [u64; 2] {
        self.core.uuid()
    }

    /// Whether this process has a reference to a block, as it counts itself.
    pub fn has(&self, block: BlockId) -> bool {
        self.counts.of(block).is_held()
    }

    /// [`Inner::has`]; if so, a child is about to have one, too.
    pub fn share(&self, block: BlockId) -> bool {
        let count = self.counts.of(block);
        let held = count.is_held();
        if held {
            count.share();
        }
        held
    }

    /// Notes that a child is about to have all that this process has.
    pub fn share_all(&self) {
        self.counts.share_all();
    }

    /// Gives the small blocks back that are kept for the next allocation.
    fn give_spares_back(&self) {
        self.spares.take_all(|spare| self.give_back(spare));
    }

    fn give_back(&self, spare: Spare) {
        let unused = self.counts.of(spare.which.id).be_spare_no_more(0);
        // One that was kept before the process left and came back is not its.
        let me = self.member_now().filter(|me| unused && *me == spare.holder);
        if let Some(me) = me {
            if self.core.release(me, spare.which).is_err() {
                self.owe(spare.which);
            }
        }
    }

    /// In a forked child: nothing of its parent's is kept for its own use.
    fn forget_spares(&self) {
        self.spares.forget();
        self.counts.forget_spares();
    }

    /// Gives free memory back to the system; how many bytes.
    fn trim(&self, me: Member) -> Result<u64> {
        self.give_spares_back();
        self.core.reap(me)?;
        let mut sum = self.core.remove_empty_segments(me, u64::MAX)?;
        loop {
            match self.core.trim(me, 0)? {
                0 => return Ok(sum),
                more => sum += more,
            }
        }
    }

    pub fn place(&self) -> &Place {
        &self.place
    }

    pub fn fork_number(&self) -> u64 {
        // Acquire, pairs with the release in `register`: `me` is not the parent's any more.
        self.fork_number.load(Ordering::Acquire)
    }

    /// The word `me`; only after a look at the fork number may it be used, since in a child it is
    /// its parent's until then.
    #[inline(always)]
    fn seat(&self) -> u64 {
        // Acquire, pairs with the release in `register`, by another thread: its slot is ALIVE
        // before. If this thread took the arena's lock before others can see that, they would
        // find an owner in the lock's word whose slot is empty, and take the lock from it.
        self.me.load(Ordering::Acquire)
    }

    /// This process's part in the arena, if it has one.
    #[inline(always)]
    pub fn member_now(&self) -> Option<Member> {
        if self.fork_number() == ForkMark::get().number() {
            return unpack(self.seat());
        }
        None
    }

    /// This process's part in the arena; a child without one gets it now.
    #[inline(always)]
    fn member(&self) -> Result<Member> {
        if self.fork_number() == ForkMark::get().number() {
            let word = self.seat();
            if word < CHORES {
                return Ok(Member::of_word(word));
            }
        }
        self.attend()
    }

    /// [`Inner::member`], at the beginning of an operation: before, what is due in
    /// the arena is done.
    #[inline(always)]
    fn begin(&self) -> Result<Member> {
        let me = self.member()?;
        if self.core.is_upkeep_due() {
            return self.keep_up(me);
        }
        Ok(me)
    }

    #[cold]
    fn keep_up(&self, me: Member) -> Result<Member> {
        if wait_hooks::holds() {
            // Others wait for a thread that holds a ring's lock: the next operation
            // does it.
            return Ok(me);
        }
        match self.core.do_upkeep(me) {
            Err(Error::Interrupted) if self.is_no_more(me) => self.member(),
            // The thread is told to give up, and must not go on to what it does.
            Err(Error::Interrupted) => Err(Error::Interrupted),
            _ => Ok(me),
        }
    }

    /// Does an operation on what lies in the arena, as this process's member.
    ///
    /// While it waits for the arena's lock a signal's handler may fork, and the child come
    /// back into the wait, in which it would be its parent. So the wait ends there, and the
    /// child begins the operation again. So it does, once, when there is no memory: operations
    /// refuse what they cannot do before they touch anything.
    #[inline(always)]
    fn perform<T>(&self, operation: impl FnMut(Member) -> Result<T>) -> Result<T> {
        self.perform_as(Self::begin, operation)
    }

    /// [`perform`](Self::perform) with [`Self::member`] or [`Self::begin`].
    #[inline(always)]
    fn perform_as<T>(
        &self,
        member: impl Fn(&Self) -> Result<Member>,
        mut operation: impl FnMut(Member) -> Result<T>,
    ) -> Result<T> {
        let mut first = true;
        loop {
            let me = member(self)?;
            match operation(me) {
                Ok(done) => return Ok(done),
                Err(error) => self.try_again(me, error, &mut first)?,
            }
        }
    }

    /// Whether an operation that ended so is to be tried again; if not, the error.
    #[cold]
    fn try_again(&self, me: Member, error: Error, first: &mut bool) -> Result<()> {
        match error {
            Error::Interrupted if self.is_no_more(me) => Ok(()),
            Error::Full { asked, .. } if *first && error.is_for_want_of_memory() => {
                *first = false;
                self.make_room(me, asked)
            }
            error => Err(error),
        }
    }

    /// Gives back what this program's user has in shared memory and does not use, for one
    /// more try.
    #[cold]
    fn make_room(&self, me: Member, asked: u64) -> Result<()> {
        let made = match wait_hooks::holds() {
            // Others wait for a thread that holds a ring's lock.
            true => self.trim(me).map(drop),
            false => shm_space::make(asked),
        };
        match made {
            Err(Error::Interrupted) if !self.is_no_more(me) => made,
            _ => Ok(()),
        }
    }

    /// Whether this process is not that member: it is a child of it, or has left.
    #[cold]
    fn is_no_more(&self, me: Member) -> bool {
        self.member_now() != Some(me)
    }

    fn chores(&self) -> MutexGuard<'_, Chores> {
        self.chores.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what is to be done before the next operation.
    #[cold]
    fn attend(&self) -> Result<Member> {
        let _held = process_arenas::lock();
        let me = match self.member_now() {
            Some(me) => me,
            None => self.register()?,
        };
        let mut chores = self.chores();
        while let Some(which) = chores.owed.last().copied() {
            let unused = || !self.has(which.id);
            match self.core.release_if(me, which, unused) {
                Ok(_) | Err(Error::Stale) => chores.owed.pop(),
                Err(error) => return Err(error),
            };
        }
        // Not if another thread has left meanwhile.
        let done = |word| (word == me.word() | CHORES).then_some(me.word());
        let _ = self
            .me
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, done);
        Ok(me)
    }

    /// Notes a reference that could not be dropped, unless it is used again.
    #[cold]
    fn owe(&self, which: BlockRef) {
        let _held = process_arenas::lock();
        self.chores().owed.push(which);
        self.me.fetch_or(CHORES, Ordering::Relaxed);
    }

    /// Makes a child without a part in the arena a member.
    fn register(&self) -> Result<Member> {
        let mark = ForkMark::get();
        if self.fork_number() != mark.number() {
            // A child that was made without the C library's fork.
            let number = mark.certain();
            self.core.forget_threads();
            self.forget_spares();
            // Its parent has, without having been told, what it has inherited.
            self.counts.share_all();
            self.shared.disinherit();
            self.me.store(UNREGISTERED, Ordering::Relaxed);
            // Release, pairs with the acquire in `fork_number`.
            self.fork_number.store(number, Ordering::Release);
        }
        if self.me.load(Ordering::Relaxed) == DETACHED {
            return Err(Error::Detached);
        }
        let me = self.core.register()?;
        let registered = self.me.compare_exchange(
            UNREGISTERED,
            me.word() | CHORES,
            // Release, pairs with the acquire in `seat`.
            Ordering::Release,
            Ordering::Relaxed,
        );
        if registered.is_err() {
            // Another thread has left meanwhile.
            let parted = self.core.leave(me);
            self.settle_names(&parted);
            self.end_registration();
            return Err(Error::Detached);
        }
        Ok(me)
    }

    /// Becomes, in a forked child, what was prepared for it.
    pub fn be_born(&self, offspring: Option<Offspring>, number: u64, signs: Option<OwnedFd>) {
        let mut chores = self.chores();
        // Its parent's sign, should that have one, is not its own.
        chores.signs = None;
        chores.owed.clear();
        self.core.forget_threads();
        self.forget_spares();
        // (There is no other thread yet.)
        self.fork_number.store(number, Ordering::Relaxed);
        if self.me.load(Ordering::Relaxed) == DETACHED {
            return;
        }
        let Some(Offspring::Embryo(me)) = offspring else {
            self.shared.disinherit();
            if let Some(signs) = signs {
                self.shared.keep_pin(signs);
            }
            self.me.store(UNREGISTERED, Ordering::Relaxed);
            return;
        };
        let claimed = self.shared.inherit(me.slot);
        self.core.be_born(me, claimed);
        self.me.store(me.word(), Ordering::Relaxed);
        if !claimed {
            // The slot is alive by this sign alone.
            chores.signs = signs;
        }
    }

    /// Ends this process's part in the arena.
    fn leave(&self) -> Result<()> {
        let forked = self.fork_number() != ForkMark::get().number();
        // Acquire, as in `seat`.
        let Some(me) = unpack(self.me.swap(DETACHED, Ordering::Acquire)) else {
            return Ok(());
        };
        if forked {
            // The slot is the parent's.
            return Ok(());
        }
        let parted = self.core.leave(me);
        self.settle_names(&parted);
        // It is told with the arena out of reach.
        self.end_registration();
        let tree = self.shared.tree();
        let stays = parted.as_ref().is_ok_and(|parting| !parting.last);
        let registrar = self.core.header().registrar.read();
        if stays && tree != 0 && [tree, NO_TREE].contains(&registrar) {
            // Forked children may have it still, and end without a word.
            self.place.note_left(self.shared.name(), tree);
        }
        parted.map(|_| ())
    }

    /// Gives back, before the end of the process, what it does not need any
    /// more. Returns whether the arena has lost its names with that. See
    /// [`retire_all`](super::retire_all) for `program_ends`.
    pub fn retire(&self, program_ends: bool) -> Result<bool> {
        let Some(me) = self.member_now() else {
            return Ok(false);
        };
        // What is kept without a reference would be used after it was freed.
        self.spares.close(|spare| self.give_back(spare));
        let trimmed = self.core.trim_at_exit(me);
        let keeps = |block| self.has(block);
        let parted = trimmed.and_then(|()| self.core.part(me, keeps, program_ends));
        let names_stay = self.settle_names(&parted);
        let parting = parted?;
        if names_stay && !parting.left {
            // The memory goes with the blocks: what is free now, and what is freed later.
            self.core.reap(me)?;
            self.core.header().warm.set(0);
            self.core.header().budget.set(0);
            self.core.trim(me, 0)?;
        }
        if parting.left {
            // Should it be used once more, it gets another slot.
            let left = |word| (word & !CHORES == me.word()).then_some(UNREGISTERED);
            let _ = self
                .me
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
        }
        Ok(parting.last)
    }

    /// Whether a child of this process has the arena, and lives; or another process to which
    /// SIGKILL was sent.
    pub fn has_children(&self) -> bool {
        let pid = proc::pid();
        let Some(me) = self.member_now() else {
            return false;
        };
        let mut others = self.core.others(me);
        others.any(|row| match row.pid.get() {
            // In the making.
            0 => true,
            child => proc::status(child)
                .ok()
                .flatten()
                .is_some_and(|status| status.parent == pid || proc::is_killed(child)),
        })
    }

    /// Removes the names, if that is up to this process, and notes whether its
    /// tree has to be told that it need not. True if the names should be gone and cannot be
    /// removed, since the process has changed its user or its root: the memory is given back
    /// then, unless this process has blocks.
    fn settle_names(&self, parted: &Result<Parting>) -> bool {
        let mut names_stay = false;
        match parted {
            Ok(parting) => {
                if parting.last {
                    names_stay = !self.shared.unlink();
                    if names_stay && parting.left {
                        self.shared.empty();
                    }
                }
                if parting.unregisters {
                    self.note_unregistered();
                }
            }
            // Nobody can use an arena that was overwritten.
            Err(Error::Corrupted { .. }) => self.remove_names(),
            Err(_) => {}
        }
        names_stay
    }

    /// Notes that this process's tree has been told.
    pub fn end_registration(&self) {
        let tree = self.shared.tree();
        let registrar = &self.core.header().registrar;
        let _ = registrar.swap_if(tree | ENDING, 0);
    }

    /// Has no tree's end remove the names, now and later. Whether this process's tree
    /// has to be told is noted.
    pub fn end_tracking(&self) {
        let tree = self.shared.tree();
        let registrar = &self.core.header().registrar;
        if tree != 0 && registrar.swap_if(tree, NO_TREE).is_ok() {
            self.note_unregistered();
        }
    }

    /// Removes the names, which the end of no tree has to do any more.
    fn remove_names(&self) {
        self.shared.unlink();
        let tree = self.shared.tree();
        let registrar = &self.core.header().registrar;
        if tree != 0 && registrar.swap_if(tree, 0).is_ok() {
            self.note_unregistered();
        }
    }

    fn note_unregistered(&self) {
        let name = self.shared.name();
        UNREGISTERED_NAMES.with(|names| names.borrow_mut().push(name));
    }
}

thread_local! {
    /// Arenas that this thread has ended the registration of. A thread's own:
    /// whoever ends it tells, and no fork in another thread doubles it.
    static UNREGISTERED_NAMES: RefCell<Vec<Name>> = const { RefCell::new(Vec::new()) };
}

/// The arenas whose names this process's tree was to remove in its end and need
/// no longer, by what this thread has done since it last asked.
#[inline]
pub fn unregistered() -> Vec<Name> {
    UNREGISTERED_NAMES.with(RefCell::take)
}

/// In a forked child: its parent tells.
pub(super) fn forget_unregistered() {
    drop(unregistered());
}

/// A number that differs in a forked child from its parent's; 0 in one that was
/// made without the C library's fork.
#[inline(always)]
pub fn fork_number() -> u64 {
    ForkMark::get().number()
}

/// A number that nobody can guess.
pub fn random_number() -> Result<u64> {
    let mut bytes = [0; 8];
    proc::random(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

impl Drop for Inner {
    fn drop(&mut self) {
        // A poisoned arena, or one whose lock is kept, sees this process as
        // dead when its descriptors close.
        let _ = self.leave();
    }
}

/// A block, where it is in this process, and its length.
type Found = (BlockRef, NonNull<u8>, u64);

/// An arena that this process has attached.
#[derive(Clone)]
pub struct Arena(Arc<Inner>);

impl From<Arc<Inner>> for Arena {
    fn from(inner: Arc<Inner>) -> Self {
        Arena(inner)
    }
}

impl Arena {
    /// Makes an arena and attaches it.
    ///
    /// # Errors
    /// EEXIST if there is one of this name; `Full` if the system has no memory
    /// for its first segment; `Missing` if it has not what an arena is safe by; `Invalid` for
    /// settings that cannot be.
    pub fn create(name: Name, settings: Settings) -> Result<Arena> {
        match Self::try_create(name, settings) {
            Err(error @ Error::Full { asked, .. }) if error.is_for_want_of_memory() => {
                shm_space::make(asked)?;
                Self::try_create(name, settings)
            }
            created => created,
        }
    }

    fn try_create(name: Name, settings: Settings) -> Result<Arena> {
        let geometry = settings.geometry();
        geometry.check()?;
        let boot = proc::boot()?;
        let mut uuid = [0; 16];
        proc::random(&mut uuid)?;
        let constants = |header: &Header, lock_file: [u64; 2]| {
            let uuid = u128::from_ne_bytes(uuid);
            header.uuid[0].set(uuid as u64);
            header.uuid[1].set((uuid >> 64) as u64);
            header.uid.set(proc::user());
            header.grace.set(settings.grace);
            header.budget.set(settings.warm);
            header.least.set(settings.least);
            header.longest.set(settings.longest);
            header.lock_file[0].set(lock_file[0]);
            header.lock_file[1].set(lock_file[1]);
            header.boot.set(boot);
            header.registrar.set(settings.tree);
        };
        let inner = process_arenas::attach_new(|place| {
            let shared = Arc::new(Shared::create(name, &geometry)?);
            shared.set_patience(settings.patience);
            shared.set_tree(settings.tree);
            let set = |header: &Header| constants(header, shared.lock_file());
            let made = Core::create(shared.clone(), geometry, set).and_then(|(core, me)| {
                Self::join(core, me, shared.clone(), boot, place(shared.memory_file()))
            });
            made.inspect_err(|_| shared.unmake())
        })?;
        Ok(Arena(inner))
    }

    /// Attaches an arena; one that is attached already is returned as it is.
    ///
    /// # Errors
    /// ENOENT if there is none of this name, or one that is being made or ended;
    /// `Foreign` if it is another user's, of another version or damaged; `Full` if
    /// all its slots are taken.
    pub fn attach(name: Name, patience: u64) -> Result<Arena> {
        let boot = proc::boot()?;
        // What was there after the attempt before.
        let mut before = None;
        for _ in 0..ATTEMPTS {
            let (memory, file) = Shared::open_memory(name)?;
            let attached = process_arenas::find_or_attach(file, |place| {
                Self::attach_memory(name, memory, place, boot, patience)
            });
            let Err(Error::Foreign { .. }) = attached else {
                return attached.map(Arena);
            };
            // Somebody may have been making it, and be done by now: what is foreign has
            // been the same before.
            let now = Shared::is_arena(name, file).map(|finished| (file, finished));
            if now.is_some() && now == before {
                return attached.map(Arena);
            }
            before = now;
            std::thread::yield_now();
        }
        Err(GONE)
    }

    fn attach_memory(
        name: Name,
        memory: OwnedFd,
        place: Place,
        boot: u64,
        patience: u64,
    ) -> Result<Arc<Inner>> {
        let shared = Arc::new(Shared::open(name, memory)?);
        shared.set_patience(patience);
        let expected = Expected {
            size: shared.control_size()?,
            uid: proc::user(),
            boot,
            lock_file: shared.lock_file(),
        };
        let core = Core::open(shared.clone(), &expected)?;
        let me = core.register()?;
        Self::join(core, me, shared, boot, place)
    }

    fn join(
        core: Core,
        me: Member,
        shared: Arc<Shared>,
        boot: u64,
        place: Place,
    ) -> Result<Arc<Inner>> {
        let shift = core.geometry().block_shift;
        let inner = Arc::new(Inner {
            core,
            shared,
            counts: Counts::new(shift),
            spares: Spares::new(),
            me: AtomicU64::new(me.word()),
            fork_number: AtomicU64::new(ForkMark::get().certain()),
            boot,
            chores: Mutex::default(),
            place,
        });
        if inner.core.is_unlinked(me)? {
            // Its last member left between the opening and the registering.
            return Err(GONE);
        }
        // The dead of the past make room for the living.
        inner.core.reap(me)?;
        Ok(inner)
    }

    /// The arena's name.
    pub fn name(&self) -> Name {
        self.0.shared.name()
    }

    /// The arena's number, which no other has.
    pub fn uuid(&self) -> [u64; 2] {
        self.0.uuid()
    }

    /// The tables' view of this arena, for tests and measurements.
    pub fn core(&self) -> &Core {
        &self.0.core
    }

    /// This process's part in the arena.
    ///
    /// # Errors
    /// `Detached` if it has left.
    pub fn member(&self) -> Result<Member> {
        self.0.member()
    }

    /// [`Arena::member`], at the beginning of an operation on what lies in the
    /// arena: before, what is due in that is done.
    ///
    /// # Errors
    /// As for `member`.
    #[inline(always)]
    pub fn begin(&self) -> Result<Member> {
        self.0.begin()
    }

    /// Allocates a block of `bytes` bytes; what is in it is undefined.
    ///
    /// # Errors
    /// `Full` if there is no memory for it.
    #[inline]
    pub fn allocate(&self, bytes: u64) -> Result<Block> {
        self.clone().allocate_owned(bytes)
    }

    /// [`Arena::allocate`], by a reference that becomes the block's.
    ///
    /// # Errors
    /// As for `allocate`.
    #[inline]
    pub fn allocate_owned(self, bytes: u64) -> Result<Block> {
        let size = Core::block_size(bytes)?;
        let made = self.0.perform(|me| match self.reuse(me, size) {
            Some(found) => Ok(found),
            None => self.allocate_new(me, bytes),
        });
        let (which, bytes, size) = made.map_err(|error| error.asking(bytes))?;
        Ok(Block {
            bytes,
            which,
            size,
            arena: self,
        })
    }

    /// Takes a block that this process has kept.
    #[inline(always)]
    fn reuse(&self, me: Member, size: u64) -> Option<Found> {
        self.0.spares.take(size, |spare| {
            let count = self.0.counts.of(spare.which.id);
            let poisoned = self.0.core.header().condition.get() & POISONED != 0;
            if spare.holder != me || poisoned {
                // One that was kept before the process left and came back is
                // not its.
                count.be_spare_no_more(0);
                return None;
            }
            let taken = count.be_spare_no_more(1);
            taken.then_some((spare.which, spare.bytes, size))
        })
    }

    #[inline(always)]
    fn allocate_new(&self, me: Member, bytes: u64) -> Result<Found> {
        let counts = &self.0.counts;
        // Nobody else can know of the block before the lock is given back.
        let count = |id, number| counts.of(id).begin(number);
        let (which, place) = self.0.core.allocate_and(me, bytes, count)?;
        Ok((which, self.0.core.bytes(place), place.size))
    }

    #[inline(always)]
    fn block(&self, which: BlockRef, place: Extent) -> Block {
        Block {
            bytes: self.0.core.bytes(place),
            which,
            size: place.size,
            arena: self.clone(),
        }
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
        if !Arc::ptr_eq(&self.0, &block.arena.0) {
            return Err(Error::Foreign {
                why: "the block is of another arena",
            });
        }
        self.0.counts.of(block.which.id).share();
        let core = &self.0.core;
        let ticket = self
            .0
            .perform(|me| core.send_as(me, block.which, lasting))?;
        Ok(Handle {
            uuid: self.uuid(),
            boot: self.0.boot,
            uid: self.0.core.header().uid.get(),
            name: self.name(),
            block: block.which,
            ticket: Some(ticket),
        })
    }

    /// Opens a ticket for a block, for which another answers from the beginning: it is
    /// cancelled when that is freed.
    ///
    /// # Errors
    /// As for [`send`](Self::send); `Invalid` if the two are one.
    pub fn send_kept(&self, block: &Block, keeper: &Block) -> Result<TicketRef> {
        let same = [block, keeper].map(|each| Arc::ptr_eq(&self.0, &each.arena.0));
        if same != [true, true] {
            return Err(Error::Foreign {
                why: "the block is of another arena",
            });
        }
        for each in [block, keeper] {
            self.0.counts.of(each.which.id).share();
        }
        let core = &self.0.core;
        self.0
            .perform(|me| core.send_kept(me, block.which, keeper.which))
    }

    /// The block of a ticket that nobody has received; `Stale` later.
    ///
    /// # Errors
    /// As for [`take`](Self::take).
    pub fn take_sent(&self, which: BlockRef, ticket: TicketRef) -> Result<Block> {
        self.receive_by(which, Some(ticket), true)
    }

    /// A block that somebody may hold, or that is in flight.
    ///
    /// # Errors
    /// `Stale` if it has been freed.
    pub fn hold(&self, which: BlockRef) -> Result<Block> {
        self.receive_by(which, None, false)
    }

    /// A block that nobody holds, and that one ticket keeps; None if somebody does, or
    /// more tickets are open for it.
    ///
    /// # Errors
    /// `Stale` if it has been freed.
    pub fn hold_unheld(&self, which: BlockRef) -> Result<Option<Block>> {
        let count = || self.0.counts.of(which.id).receive();
        let core = &self.0.core;
        let place = self.0.perform(|me| core.claim_unheld(me, which, count))?;
        Ok(place.map(|place| self.block(which, place)))
    }

    /// Has a block answer for a handle that nobody has received yet: it is
    /// cancelled when the block is freed. False if it was received or cancelled,
    /// or is of another arena, or another block answers for it.
    ///
    /// # Errors
    /// `Invalid` if the handle is the block's own.
    pub fn entrust(&self, handle: &Handle, keeper: &Block) -> Result<bool> {
        let ours = handle.uuid == self.uuid() && Arc::ptr_eq(&self.0, &keeper.arena.0);
        let Some(ticket) = handle.ticket.filter(|_| ours) else {
            return Ok(false);
        };
        // Not one that is kept for later when it is let go of.
        self.0.counts.of(keeper.which.id).share();
        let core = &self.0.core;
        self.0
            .perform(|me| core.entrust(me, ticket, handle.block, keeper.which))
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
    /// later it works for as long as somebody holds the block.
    ///
    /// # Errors
    /// `Stale` if the block has been freed; `Foreign` or `BadHandle` if it is
    /// not of this arena or never was.
    #[inline]
    pub fn receive(&self, handle: &Handle) -> Result<Block> {
        self.receive_or_take(handle, false)
    }

    /// [`Arena::receive`], for the first only: later it is `Stale`, whoever holds
    /// the block.
    #[inline]
    pub fn take(&self, handle: &Handle) -> Result<Block> {
        self.receive_or_take(handle, true)
    }

    #[inline(always)]
    fn receive_or_take(&self, handle: &Handle, once: bool) -> Result<Block> {
        self.check_handle(handle)?;
        self.receive_by(handle.block, handle.ticket, once)
    }

    #[inline(always)]
    fn receive_by(&self, which: BlockRef, ticket: Option<TicketRef>, once: bool) -> Result<Block> {
        let place = self.0.perform(|me| {
            if self.0.counts.is_spare(which.id) {
                // It was never sent: the handle was forged.
                return Err(Error::Stale);
            }
            self.0.core.receive_and(me, which, ticket, once, || {
                // Under the lock, so that no thread can let go of the block between
                // the bit and the count.
                self.0.counts.of(which.id).receive();
            })
        })?;
        Ok(self.block(which, place))
    }

    /// Whether a quarter of what there is for shared memory stays free beside so many
    /// bytes.
    pub(super) fn has_plenty(&self, bytes: u64) -> bool {
        let Room { all, free } = self.0.core.platform().room();
        let free = free.saturating_add(self.0.core.header().index.warm.get());
        free.checked_sub(bytes).is_some_and(|left| left >= all / 4)
    }

    /// A block that some process holds, or that is in flight, and whose name was told.
    ///
    /// # Errors
    /// `Stale` if it has been freed or was not told, `BadHandle` if it never was.
    pub fn find(&self, which: BlockRef) -> Result<Block> {
        // (One that was told is never spare.)
        let count = || self.0.counts.of(which.id).receive();
        let core = &self.0.core;
        let place = self.0.perform(|me| core.find_and(me, which, count))?;
        Ok(self.block(which, place))
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
            .perform_as(Inner::member, |me| self.0.core.cancel_older(me, age))
    }

    /// Drops what dead processes held; how many were found.
    pub fn reap(&self) -> Result<u64> {
        self.0.perform_as(Inner::member, |me| self.0.core.reap(me))
    }

    /// Gives free memory back to the system, after dead processes have lost what
    /// they held; how many bytes.
    pub fn trim(&self) -> Result<u64> {
        self.0.perform_as(Inner::member, |me| self.0.trim(me))
    }

    /// The arena in numbers.
    pub fn stats(&self) -> Result<Stats> {
        self.0.perform_as(Inner::member, |me| {
            self.0.give_spares_back();
            self.0.core.stats(me)
        })
    }

    /// Checks every invariant; what is wrong, in words.
    pub fn check(&self) -> Result<Vec<String>> {
        self.0.perform_as(Inner::member, |me| {
            self.0.give_spares_back();
            self.0.core.check(me)
        })
    }

    /// Removes the arena's names: nobody attaches it any more, and others may
    /// use them. Those who have it go on.
    pub fn unlink(&self) -> Result<()> {
        self.0.core.mark_unlinked(self.0.member()?)?;
        self.0.remove_names();
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
        self.0.shared.set_tree(tree);
        self.0.core.slot(me.slot).tree.set(tree);
        Ok(())
    }

    /// Has the names go with this process's tree, if they go with no other. True
    /// if they do from now on.
    pub fn register_with(&self, tree: u64) -> Result<bool> {
        self.set_tree(tree)?;
        let registrar = &self.0.core.header().registrar;
        Ok(tree != 0 && registrar.swap_if(0, tree).is_ok())
    }

    /// Whether somebody removes the names in the end.
    pub fn is_registered(&self) -> bool {
        self.0.core.header().registrar.read() != 0
    }

    /// Whether somebody is about to be told that it need not.
    pub fn is_ending(&self) -> bool {
        self.0.core.header().registrar.read() & ENDING != 0
    }

    /// Notes that what [`retire_all`](super::retire_all) made
    /// [`unregistered`] has been told.
    pub fn end_registration(&self) {
        self.0.end_registration();
    }

    /// Ends what nobody will receive in an arena that no other process has: the
    /// tickets opened at least `age` ms ago, and those of killed senders whose
    /// grace is over. What is lasting perhaps not.
    pub fn end_abandoned(&self, age: u64, keep_lasting: bool) -> Result<()> {
        let me = self.0.member()?;
        self.0.core.end_abandoned(me, age, keep_lasting)
    }

    /// Ends this process's part in the arena in peace: its references are
    /// dropped, the tickets it opened are left to the arena. Whoever is the
    /// last removes the names, unless a ticket is open.
    ///
    /// For the end of a process: blocks that it still has may be used by others
    /// from now on. Otherwise an arena is left when it and all its blocks are
    /// dropped.
    pub fn leave(&self) -> Result<()> {
        self.0.leave()
    }
}

/// A block that this process holds.
pub struct Block {
    bytes: NonNull<u8>,
    which: BlockRef,
    size: u64,
    arena: Arena,
}

// SAFETY: the bytes are shared memory that any thread may reach; who writes
// them when is up to the users, in this process as in others.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

impl Block {
    /// Its first byte; it is there until the block is dropped.
    pub fn bytes(&self) -> NonNull<u8> {
        self.bytes
    }

    /// Its length in bytes, at least what was asked for.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Its row, and the life of the row.
    pub fn which(&self) -> BlockRef {
        self.which
    }

    /// Has others find it by its row and life from now on.
    ///
    /// # Errors
    /// As for any operation of the arena.
    pub fn tell_name(&self) -> Result<()> {
        let inner = &self.arena.0;
        // Not one that is kept for later when it is let go of.
        inner.counts.of(self.which.id).share();
        inner.core.tell_name(inner.member()?, self.which)
    }

    /// Its arena.
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// Copies `length` bytes from `offset` on, as the arena's memory has them, to the
    /// place `at` of another block: whatever this process has written to pages of its
    /// own.
    ///
    /// # Errors
    /// As for any operation of the arena; `Detached` if the memory is not to be had.
    ///
    /// # Panics
    /// If either block is shorter than that.
    pub fn copy_original(&self, offset: u64, length: u64, to: &Block, at: u64) -> Result<()> {
        assert!(offset <= self.size && length <= self.size - offset);
        assert!(at <= to.size && length <= to.size - at);
        let inner = &self.arena.0;
        let place = inner.core.locate(inner.member()?, self.which)?;
        let first = to.bytes.as_ptr().wrapping_add(at as usize);
        // SAFETY: within the other block, which this process holds and its caller fills.
        let bytes = unsafe { std::slice::from_raw_parts_mut(first, length as usize) };
        inner.shared.read_memory(place.address, offset, bytes)
    }

    /// Makes its whole pages this process's own, also against children that it
    /// forks; until that is ended, before the block is dropped. None if it has no
    /// whole pages.
    ///
    /// # Errors
    /// As for any operation of the arena.
    pub fn own(&self) -> Result<Option<Own>> {
        let inner = &self.arena.0;
        let place = inner.core.locate(inner.member()?, self.which)?;
        let offset = inner.shared.offset_of(place.address);
        Ok(Own::new(inner.clone(), self.bytes, self.size, offset))
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
        let inner = &self.arena.0;
        let count = inner.counts.of(self.which.id);
        if count.drop_one_of_many() {
            return;
        }
        let me = inner.member_now();
        if let Some(holder) = me.filter(|_| count.is_only()) {
            // Nobody can count meanwhile: there is this reference, and no
            // handle.
            let spare = Spare {
                which: self.which,
                bytes: self.bytes,
                holder,
            };
            if inner.spares.keep(self.size, spare, || count.become_spare()) {
                return;
            }
        }
        // Under the arena's lock, which whoever receives the block takes too.
        let dropped = Cell::new(false);
        let was_last = || {
            dropped.set(true);
            count.drop_one()
        };
        if let Some(me) = me {
            match inner.core.release_if(me, self.which, was_last) {
                // Stale: inherited without a slot of one's own; the arena keeps
                // it pinned.
                Ok(_) | Err(Error::Stale) => {}
                // The lock was not to be had. Without it others may count.
                Err(_) if !dropped.get() => {
                    if count.drop_one() {
                        inner.owe(self.which);
                    }
                }
                Err(_) => {}
            }
        } else {
            count.drop_one();
        }
    }
}
