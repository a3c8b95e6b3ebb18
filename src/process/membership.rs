//! A process's membership in an arena: joining, forking, leaving, and what is postponed.
//!
//! The word `me` holds the slot that this process has, the slot's generation, and whether something
//! is to be done before the next operation. It is read without a lock at the beginning of each
//! operation, after the fork number: in a child the word is the parent's until the child's own
//! fork number is stored beside it.
//!
//! | `me` is        | the process                                                        |
//! |----------------|--------------------------------------------------------------------|
//! | a member       | has that slot, which is ALIVE (or RESERVED, see `resume_child`)      |
//! | with POSTPONED | has it, and owes something that [`attend`](Membership) does first  |
//! | UNREGISTERED   | has no slot (any more, or since a fork): the next operation gets one |
//! | DETACHED       | has left, for good                                                 |

use super::block_cache::{BlockCache, CachedBlock};
use super::counts::Counts;
use super::life::Life;
use super::process_arenas::{self, ForkHooks, Identity, PreparedFork, Seat};
use super::registration::Registration;
use super::shm_platform::ShmPlatform;
use super::wait_hooks;
use crate::activity;
use crate::arena::format::{BlockId, NO_TREE};
use crate::arena::{BlockRef, Core, Entry, ForkedChild, Member};
use crate::error::{Error, Result};
use crate::sys::fork::ForkMark;
use crate::sys::{self, proc};
use std::any::Any;
use std::cell::OnceCell;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// No such arena, or not any more.
pub(super) const GONE: Error = Error::Os {
    call: "shm_open",
    errno: sys::ENOENT,
};

/// No slot: this process has left.
const DETACHED: u64 = u64::MAX;
/// No slot now: a child that got none at the fork, or a process after `retire`. The next operation
/// gets one.
const UNREGISTERED: u64 = u64::MAX - 1;
/// A bit beside the slot: something is to be done before the next operation.
const POSTPONED: u64 = 1 << 63;

fn unpack(word: u64) -> Option<Member> {
    (word < UNREGISTERED).then(|| Member::of_word(word & !POSTPONED))
}

/// An arena that this process has attached. The fields are dropped in this order: the arena leaves
/// the list of attached arenas (`process_arenas`) only when all its descriptors are closed.
pub(super) struct Membership {
    pub core: Core,
    pub platform: Arc<ShmPlatform>,
    pub counts: Counts,
    pub cache: BlockCache,
    me: AtomicU64,
    /// The process's fork number when `me` was its slot.
    fork_number: AtomicU64,
    /// The number of the boot in which the arena was made.
    pub boot: u64,
    /// Changed with the list of arenas locked, so that no fork happens meanwhile.
    postponed: Mutex<Postponed>,
    seat: Seat,
}

/// What is to be done before the next operation.
#[derive(Default)]
struct Postponed {
    /// References that could not be dropped, since the arena's lock was not to be had.
    owed: Vec<BlockRef>,
    /// The lock that shows that this process is alive, if it could not take its slot's byte lock.
    signs: Option<OwnedFd>,
}

impl Membership {
    /// Joins an arena, of which this process has become the member `me`, as what `entry` says.
    ///
    /// # Errors
    /// ENOENT if it has lost its names, and what taking the lock reports.
    pub fn join(
        core: Core,
        me: Member,
        platform: Arc<ShmPlatform>,
        boot: u64,
        seat: Seat,
        entry: Entry,
    ) -> Result<Arc<Membership>> {
        let shift = core.geometry().block_shift;
        let joined = Arc::new(Membership {
            core,
            platform,
            counts: Counts::new(shift),
            cache: BlockCache::default(),
            me: AtomicU64::new(me.word()),
            fork_number: AtomicU64::new(ForkMark::get().certain()),
            boot,
            postponed: Mutex::default(),
            seat,
        });
        if !joined.core.admit(me, entry)? {
            joined.end_unlinked();
            return Err(GONE);
        }
        // The dead of the past make room for the living.
        joined.core.reap(me)?;
        Ok(joined)
    }

    /// Whether this process counts a reference to a block.
    pub fn has(&self, block: BlockId) -> bool {
        self.counts.of(block).is_held()
    }

    /// The registration of the arena's names.
    pub fn registration(&self) -> Registration<'_> {
        Registration {
            core: &self.core,
            platform: &self.platform,
        }
    }

    /// [`Membership::has`]; if so, notes that a child is about to have a reference, too.
    pub fn share(&self, block: BlockId) -> bool {
        let count = self.counts.of(block);
        let held = count.is_held();
        if held {
            count.share();
        }
        held
    }

    /// Gives all cached blocks back to the arena.
    pub fn empty_cache(&self) {
        self.cache.take_all(|block| self.give_back(block));
    }

    fn give_back(&self, block: CachedBlock) {
        let unused = self.counts.of(block.which.id).leave_cache(0);
        // (If the process has left since, and come back as another member, it is not its block.)
        let me = self.member_now().filter(|me| unused && *me == block.holder);
        if let Some(me) = me {
            if self.core.release(me, block.which).is_err() {
                self.owe(block.which);
            }
        }
    }

    /// In a forked child: the cached blocks are the parent's.
    fn forget_cached(&self) {
        self.cache.forget();
        self.counts.forget_cached();
    }

    /// Gives free memory back to the system; returns how many bytes.
    pub fn trim(&self, me: Member) -> Result<u64> {
        self.empty_cache();
        self.core.reap(me)?;
        let mut sum = self.core.remove_empty_segments(me, u64::MAX)?;
        loop {
            match self.core.trim(me, 0)? {
                0 => return Ok(sum),
                more => sum += more,
            }
        }
    }

    pub fn fork_number(&self) -> u64 {
        // Acquire, pairs with the release in `register`: `me` is not the parent's any more.
        self.fork_number.load(Ordering::Acquire)
    }

    /// The word `me`. It may be used only after a look at the fork number, since in a child it is the
    /// parent's until then.
    #[inline(always)]
    fn member_word(&self) -> u64 {
        // Acquire, pairs with the release in `register`, by another thread: its slot is ALIVE
        // before. If this thread took the arena's lock before others can see that, they would
        // find an owner in the lock's word whose slot is empty, and take the lock from it.
        self.me.load(Ordering::Acquire)
    }

    /// This process's membership, if it has one.
    #[inline(always)]
    pub fn member_now(&self) -> Option<Member> {
        if self.fork_number() == ForkMark::get().number() {
            return unpack(self.member_word());
        }
        None
    }

    /// This process's membership; a child without one gets one now.
    #[inline(always)]
    pub fn member(&self) -> Result<Member> {
        if self.fork_number() == ForkMark::get().number() {
            let word = self.member_word();
            if word < POSTPONED {
                return Ok(Member::of_word(word));
            }
        }
        self.attend()
    }

    /// [`Membership::member`], at the beginning of an operation: upkeep that is due is done first.
    #[inline(always)]
    pub fn begin(&self) -> Result<Member> {
        let me = self.member()?;
        if self.core.is_upkeep_due() {
            return self.keep_up(me);
        }
        Ok(me)
    }

    #[cold]
    fn keep_up(&self, me: Member) -> Result<Member> {
        if wait_hooks::is_uninterruptible() {
            // Others wait for a thread that holds a ring's lock: the next operation does the upkeep.
            return Ok(me);
        }
        match self.core.do_upkeep(me) {
            Err(Error::Interrupted) if self.is_no_more(me) => self.member(),
            // The thread is told to give up, and must not go on to its operation.
            Err(Error::Interrupted) => Err(Error::Interrupted),
            _ => Ok(me),
        }
    }

    /// Whether this process is not that member any more: it is a child of it, or has left.
    #[cold]
    pub fn is_no_more(&self, me: Member) -> bool {
        self.member_now() != Some(me)
    }

    fn postponed(&self) -> MutexGuard<'_, Postponed> {
        self.postponed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Does the postponed work, before the next operation.
    #[cold]
    fn attend(&self) -> Result<Member> {
        let _list = process_arenas::lock();
        let me = match self.member_now() {
            Some(me) => me,
            None => self.register()?,
        };
        let mut postponed = self.postponed();
        while let Some(which) = postponed.owed.last().copied() {
            let unused = || !self.has(which.id);
            match self.core.release_if(me, which, unused) {
                Ok(_) | Err(Error::Stale) => postponed.owed.pop(),
                Err(error) => return Err(error),
            };
        }
        // Not if another thread has left meanwhile.
        let done = |word| (word == me.word() | POSTPONED).then_some(me.word());
        let _ = self
            .me
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, done);
        Ok(me)
    }

    /// Notes that the process is still a holder of a block to which its last reference was dropped.
    #[cold]
    pub fn owe(&self, which: BlockRef) {
        let _list = process_arenas::lock();
        self.postponed().owed.push(which);
        self.me.fetch_or(POSTPONED, Ordering::Relaxed);
    }

    /// Makes a child without a membership a member.
    fn register(&self) -> Result<Member> {
        let mark = ForkMark::get();
        if self.fork_number() != mark.number() {
            // A child that was made without the C library's fork.
            let number = mark.certain();
            activity::begin_anew(number);
            self.core.forget_threads();
            self.forget_cached();
            // No handler has told the parent that a child has its blocks, too.
            self.counts.share_all();
            self.platform.disinherit();
            self.me.store(UNREGISTERED, Ordering::Relaxed);
            // Release, pairs with the acquire in `fork_number`.
            self.fork_number.store(number, Ordering::Release);
        }
        if self.me.load(Ordering::Relaxed) == DETACHED {
            return Err(Error::Detached);
        }
        let me = self.core.register()?;
        // (It goes on with its blocks if it cannot be a resident.)
        let _ = self.core.admit(me, Entry::Member);
        let registered = self.me.compare_exchange(
            UNREGISTERED,
            me.word() | POSTPONED,
            // Release, pairs with the acquire in `member_word`.
            Ordering::Release,
            Ordering::Relaxed,
        );
        if registered.is_err() {
            // Another thread has left meanwhile.
            let detached = self.core.leave(me);
            self.registration().settle_names(&detached);
            self.registration().end();
            return Err(Error::Detached);
        }
        Ok(me)
    }

    /// Leaves an arena that has lost its names, or is about to, and sees to it that it does: the process
    /// that marked it may have been killed. Its memory is not given back, since processes that do not
    /// count as members may have blocks.
    fn end_unlinked(&self) {
        self.registration().remove_names();
        // Acquire, pairs with the release in `register`, as in `member_word`.
        if let Some(me) = unpack(self.me.swap(DETACHED, Ordering::Acquire)) {
            let _ = self.core.leave(me);
        }
    }

    /// Lets this process in once more, as what `entry` says; false if the arena has lost its names,
    /// which are removed then.
    ///
    /// # Errors
    /// As for any operation of the arena.
    pub fn admit(&self, entry: Entry) -> Result<bool> {
        let admitted = self.core.admit(self.member()?, entry)?;
        if !admitted {
            self.registration().remove_names();
        }
        Ok(admitted)
    }

    /// Ends this process's membership.
    pub fn leave(&self) -> Result<()> {
        let forked = self.fork_number() != ForkMark::get().number();
        // Acquire, pairs with the release in `register`, as in `member_word`.
        let Some(me) = unpack(self.me.swap(DETACHED, Ordering::Acquire)) else {
            return Ok(());
        };
        if forked {
            // The slot is the parent's.
            return Ok(());
        }
        let detached = self.core.leave(me);
        if self.registration().settle_names(&detached) {
            self.registration().empty();
        }
        // The caller tells the tracker after this, when the arena is out of reach.
        self.registration().end();
        let tree = self.platform.tree();
        let stays = detached.as_ref().is_ok_and(|detachment| !detachment.last);
        let registrar = self.core.header().registrar.read();
        if stays && tree != 0 && [tree, NO_TREE].contains(&registrar) {
            // Forked children may still have it, and exit without leaving it.
            self.seat.note_left(self.platform.name(), tree);
        }
        detached.map(|_| ())
    }

    /// Gives back, before the process exits, what it does not need any more. Returns whether that
    /// removed the arena's names. See
    /// [`retire_all`](super::retire_all) for `program_ends`.
    pub fn retire(&self, program_ends: bool) -> Result<bool> {
        let Some(me) = self.member_now() else {
            return Ok(false);
        };
        // Cached blocks would be reused after they were freed.
        self.cache.close(|block| self.give_back(block));
        let trimmed = self.core.trim_at_exit(me);
        let is_used = |block| self.has(block);
        let detached = trimmed.and_then(|()| self.core.detach(me, is_used, program_ends));
        if detached.as_ref().is_ok_and(|detachment| detachment.left) {
            // If this process uses the arena once more, it gets another slot.
            let left = |word| (word & !POSTPONED == me.word()).then_some(UNREGISTERED);
            let _ = self
                .me
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
        }
        let names_stay = self.registration().settle_names(&detached);
        let detachment = detached?;
        if names_stay && !detachment.left {
            // No names, so no new users: give back what is free now, and keep nothing that is freed
            // later.
            self.core.reap(me)?;
            self.core.header().warm.set(0);
            self.core.header().budget.set(0);
            self.core.trim(me, 0)?;
        }
        if names_stay && detachment.left {
            // Not while a thread of this process uses it once more, nor after this.
            let ends = self.me.compare_exchange(
                UNREGISTERED,
                DETACHED,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            if ends.is_ok() {
                self.registration().empty();
            }
        }
        Ok(detachment.last)
    }

    /// Whether another member is a child of this process (also one that is being forked), or has
    /// been sent SIGKILL and has not ended yet.
    pub fn has_children(&self) -> bool {
        let pid = proc::pid();
        let Some(me) = self.member_now() else {
            return false;
        };
        let mut others = self.core.others(me);
        others.any(|row| match row.pid.get() {
            // A child that is being forked.
            0 => true,
            child => proc::status(child)
                .ok()
                .flatten()
                .is_some_and(|status| status.parent == pid || proc::is_killed(child)),
        })
    }
}

impl ForkHooks for Membership {
    fn identity(&self) -> Identity {
        Identity {
            memory_file: self.platform.memory_file(),
            lock_file: self.platform.lock_file(),
            uuid: self.core.uuid(),
        }
    }

    fn seat(&self) -> &Seat {
        &self.seat
    }

    fn life(&self) -> Arc<Life> {
        self.platform.life()
    }

    fn prepare_fork(&self) -> PreparedFork {
        let mut prepared = PreparedFork {
            me: self.member_now(),
            child: None,
            signs: None,
        };
        let Some(me) = prepared.me else {
            return prepared;
        };
        let survives_fork = |block| self.share(block);
        let opened = OnceCell::new();
        let signs = || {
            let open = || self.platform.open_signs().ok();
            opened.get_or_init(open).as_ref()
        };
        let sign = |slot| signs().is_some_and(|signs| ShmPlatform::sign(signs, slot));
        let pin = || signs().is_some_and(ShmPlatform::pin);
        prepared.child = match self.core.prepare_fork(me, survives_fork, sign, pin) {
            Ok(child) => Some(child),
            // This process has left meanwhile: there is nothing to hand over.
            Err(Error::Detached) => None,
            Err(_) => {
                self.counts.share_all();
                self.core.freeze(pin());
                None
            }
        };
        prepared.signs = opened.into_inner().flatten();
        prepared
    }

    fn resume_parent(&self, prepared: &mut PreparedFork) {
        // With the list locked: no later fork shall inherit these signs.
        drop(prepared.signs.take());
        if let (Some(_), Some(me)) = (prepared.child, prepared.me) {
            self.core.finish_fork(me);
        }
    }

    fn resume_child(&self, prepared: &mut PreparedFork, number: u64) {
        let signs = prepared.signs.take();
        let mut postponed = self.postponed();
        // The parent's sign of life, if it has one, is not the child's.
        postponed.signs = None;
        postponed.owed.clear();
        self.core.forget_threads();
        self.forget_cached();
        // (There is no other thread yet.)
        self.fork_number.store(number, Ordering::Relaxed);
        if self.me.load(Ordering::Relaxed) == DETACHED {
            // (Another thread is leaving it, and may not have come to this.)
            self.platform.disinherit();
            return;
        }
        let Some(ForkedChild::Reserved(me)) = prepared.child else {
            self.platform.disinherit();
            if let Some(signs) = signs {
                self.platform.keep_pin(signs);
            }
            self.me.store(UNREGISTERED, Ordering::Relaxed);
            return;
        };
        let claimed = self.platform.inherit(me.slot);
        self.core.take_over_fork(me, claimed);
        self.me.store(me.word(), Ordering::Relaxed);
        if !claimed {
            // The slot is alive by this sign alone.
            postponed.signs = signs;
        }
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        // If the arena is poisoned or its lock is not to be had, other members see this process as
        // dead when its descriptors close.
        let _ = self.leave();
    }
}

/// An arena that this process has attached: a counted reference to its membership, which ends
/// with the last of them.
#[derive(Clone)]
pub struct Arena(pub(super) Arc<Membership>);

impl From<Arc<Membership>> for Arena {
    fn from(membership: Arc<Membership>) -> Self {
        Arena(membership)
    }
}
