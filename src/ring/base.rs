//! What all rings have: a block with a head, a lock, events, and waiting for them.
//!
//! ```text
//! byte  what
//! 0     magic      u64   which kind of ring; last of all
//! 8     maker      u64   generation << 8 | slot of the process that made it
//! 64    owner      u32   the lock: see `arena::lock`
//! 68    condition  u32   lock: UNSETTLED until recovered, POISONED for ever
//! 72    stamps     3 x u32   lock: when each event last happened for a sleeping waiter, in us of
//!                            the monotonic clock
//! 128   events     3 x 64
//! 320   what the kind has more
//! ```

use super::event::{self, Event};
use super::spin::Spin;
use crate::activity::COUNTERS;
use crate::arena::format::{POISONED, UNSETTLED};
use crate::arena::lock::{Owner, Taken};
use crate::arena::word::{Atomic, Word, U32, U64};
use crate::arena::{Member, Work};
use crate::error::{Error, Result};
use crate::process::{before_waiting, gives_up, gives_up_now, Arena, Block, Uninterruptible};
use crate::sys::{futex, proc};
use std::cell::Cell;
use std::mem::offset_of;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a waiter sleeps at first and at most. After each sleep it looks whether it has missed
/// something because another process died, and for signals that came just before the sleep. While
/// nothing happens the sleeps grow, twofold each, so that idle processes are idle.
const SLEEP: Duration = Duration::from_millis(50);
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// How many events a ring has.
pub const EVENTS: usize = 3;

/// What every ring begins with.
#[repr(C, align(64))]
pub struct Head {
    magic: U64,
    maker: U64,
    lock: Lock,
    events: [Event<U32>; EVENTS],
}

#[repr(C, align(64))]
struct Lock {
    owner: U32,
    condition: U32,
    stamps: [U32; EVENTS],
}

/// The time of a stamp: microseconds, of which the difference of two counts.
fn stamp_now() -> u32 {
    (proc::monotonic() / 1000) as u32
}

impl<A: Atomic<Value = u32>> event::Word for Word<A> {
    #[inline(always)]
    fn load(&self) -> u32 {
        self.read()
    }

    #[inline(always)]
    fn store(&self, value: u32) {
        self.commit(value)
    }
}

/// How long a thread waits, and what else ends its wait.
pub struct Patience {
    deadline: Option<Instant>,
    /// The exit of the process that has made the ring ends the wait.
    pub leaves_with_maker: bool,
    /// What is waited for can also happen without a wake-up: the caller checks after each sleep.
    pub(super) looks: bool,
    /// Whether it has slept meanwhile.
    slept: bool,
}

impl Patience {
    /// Waits for so long; for ever if it is None.
    pub fn new(timeout: Option<Duration>) -> Self {
        Patience {
            // What is too far in the future is never.
            deadline: timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
            leaves_with_maker: false,
            looks: false,
            slept: false,
        }
    }

    /// Does not wait.
    pub fn none() -> Self {
        Self::new(Some(Duration::ZERO))
    }

    /// Whether it has slept since this was asked.
    fn has_slept(&mut self) -> bool {
        std::mem::take(&mut self.slept)
    }

    fn left(&self) -> Duration {
        match self.deadline {
            Some(deadline) => deadline.saturating_duration_since(Instant::now()),
            None => Duration::MAX,
        }
    }
}

/// A ring's block, as one process has it open.
pub struct Base {
    block: Block,
    closed: AtomicBool,
    spins: [Spin; EVENTS],
    /// How long the next sleep of each event's waiters is, in ms.
    sleeps: [AtomicU32; EVENTS],
}

/// A kind of rings: what lies in their blocks.
///
/// # Safety
/// It is `repr(C)`, begins with a [`Head`], and is made of words of shared memory only.
pub unsafe trait Layout: Sync {
    /// The number that stands for it.
    const MAGIC: u64;
}

impl Base {
    /// Makes a ring in a new block, with `more` bytes behind its layout. The layout is zero except
    /// for what `fill` writes; the bytes behind it are not cleared.
    pub fn create<L: Layout>(
        arena: &Arena,
        more: u64,
        fill: impl FnOnce(&Base, &L) -> Result<()>,
    ) -> Result<Base> {
        let size = size_of::<L>();
        let block = arena.allocate((size as u64).saturating_add(more))?;
        // SAFETY: the block is new, nobody else's, and as long.
        unsafe { block.bytes().as_ptr().write_bytes(0, size) };
        let me = arena.member()?;
        let base = Base::over(block);
        base.head().maker.set(me.word());
        fill(&base, base.layout())?;
        base.head().magic.commit(L::MAGIC);
        Ok(base)
    }

    /// Opens a ring.
    ///
    /// # Errors
    /// `BadHandle` if the block is none of this kind.
    pub fn open<L: Layout>(block: Block) -> Result<Base> {
        let base = Base::over(block);
        let fits = base.block.size() >= size_of::<L>() as u64;
        // Pairs with the commit in `create`: what was filled in comes before.
        match fits && base.head().magic.read() == L::MAGIC {
            true => Ok(base),
            false => Err(Error::BadHandle {
                why: "its block holds no such ring",
            }),
        }
    }

    fn over(block: Block) -> Base {
        Base {
            block,
            closed: AtomicBool::new(false),
            spins: Default::default(),
            sleeps: [const { AtomicU32::new(SLEEP.as_millis() as u32) }; EVENTS],
        }
    }

    /// The ring's block. The tickets that it owns end with it.
    pub fn block(&self) -> &Block {
        &self.block
    }

    /// What lies in it.
    #[inline(always)]
    pub fn layout<L: Layout>(&self) -> &L {
        // SAFETY: the block is as long (`create`, `open`), aligned to 64, and this
        // process's as long as `self`; a layout is made of atomics, for which all bytes
        // are values.
        unsafe { self.block.bytes().cast().as_ref() }
    }

    #[inline(always)]
    fn head(&self) -> &Head {
        // SAFETY: every layout begins with a `Head` (a rule of the trait), so the block is at least
        // as long; it is aligned to 64 and mapped as long as `self` holds it.
        unsafe { self.block.bytes().cast().as_ref() }
    }

    /// An event.
    #[inline(always)]
    pub fn event(&self, which: usize) -> &Event<U32> {
        &self.head().events[which]
    }

    /// Lets the waits of this process end, and none begin.
    pub fn close(&self) {
        // SeqCst, pairs with the load in `is_closed`. A waiter that sees the step below sees this,
        // too: the step releases, and the look at the count acquires. (If the owner of the lock
        // writes the count after the step, a waiter may see that and not this: it sleeps once.)
        self.closed.store(true, Ordering::SeqCst);
        for event in &self.head().events {
            // A waiter that is about to sleep must not: the count is another one than it has seen.
            // (Without the lock; should the owner of the lock change the count at the same time, it
            // is another one, too.) Those of other processes look and sleep again.
            event.count.step();
            let _ = futex::wake(event.count.as_atomic(), i32::MAX);
        }
    }

    /// Whether it was closed here.
    pub fn is_closed(&self) -> bool {
        // SeqCst, pairs with the store in `close`.
        self.closed.load(Ordering::SeqCst)
    }

    /// Lets waiters of this process spin, or not.
    pub fn spin(&self, enabled: bool) {
        for spin in &self.spins {
            spin.enable(enabled);
        }
    }

    /// Whether they may.
    pub fn spins(&self) -> bool {
        self.spins[0].is_enabled()
    }

    /// Whether the process that has made the ring is gone.
    pub fn is_orphaned(&self) -> bool {
        let maker = Member::of_word(self.head().maker.get());
        self.block.arena().core().is_gone(maker)
    }

    /// Takes the ring's lock. If its last owner died under it, or an earlier `recover` did not
    /// finish, calls `recover` to put right what was left half done.
    ///
    /// # Errors
    /// `Busy` or `Interrupted`, as for the arena's lock, what `recover` reports, or
    /// `Corrupted`.
    #[inline(always)]
    pub fn lock(
        &self,
        recover: impl FnOnce(&LockedRing<'_>) -> Result<()>,
    ) -> Result<LockedRing<'_>> {
        let arena = self.block.arena();
        let core = arena.core();
        let Lock {
            owner, condition, ..
        } = &self.head().lock;
        let (me, taken, work) = loop {
            let me = arena.begin()?;
            // While this thread waited a signal's handler may have forked, and this be the
            // child; or the process may have left.
            let taken = match core.lock_word(me, owner) {
                Err(Error::Interrupted) if arena.member() != Ok(me) => continue,
                taken => taken?,
            };
            match core.work(me) {
                Ok(work) if arena.member() == Ok(me) => break (me, taken, work),
                other => {
                    if taken == Taken::FromDead {
                        condition.commit(condition.get() | UNSETTLED);
                    }
                    core.unlock_word(me, owner);
                    other?;
                }
            }
        };
        let held = LockedRing {
            base: self,
            me,
            wakes: Cell::new([0; EVENTS]),
            _holding: Uninterruptible::begin(),
            _work: work,
        };
        if taken == Taken::FromDead {
            // The mark comes first: should what follows fail or die, the next owner
            // sees it.
            condition.commit(condition.get() | UNSETTLED);
        }
        if condition.get() != 0 {
            held.settle(recover)?;
        }
        Ok(held)
    }

    /// Waits until the count of an event differs from `seen`, which the caller has read under the
    /// lock, or, if `patience.looks`, until one sleep is over. True if the caller is to check its
    /// condition again; false if the time is up.
    ///
    /// # Errors
    /// `Closed`, `Orphaned`, `Interrupted`, and those of [`lock`](Self::lock).
    #[cold]
    pub fn wait(
        &self,
        which: usize,
        seen: u32,
        patience: &mut Patience,
        recover: impl Fn(&LockedRing<'_>) -> Result<()>,
    ) -> Result<bool> {
        let event = self.event(which);
        let changed = || event::Word::load(&event.count) != seen || self.is_closed();
        if patience.left().is_zero() {
            self.go_without(which, seen, patience, recover)?;
            return Ok(false);
        }
        // Signals first: a waiter that never sleeps would never see them.
        if gives_up() {
            self.go_without(which, seen, patience, recover)?;
            return Err(Error::Interrupted);
        }
        before_waiting();
        let start = Instant::now();
        let stamp = &self.head().lock.stamps[which];
        let before = stamp.read();
        // How long it took until the event happened. A waiter that has slept runs some time later:
        // if it learned from that, two waiters that wake each other would sleep for good.
        let waited = || match stamp.read() {
            same if same == before => start.elapsed(),
            happened => {
                let late = Duration::from_micros(stamp_now().wrapping_sub(happened) as u64);
                start.elapsed().saturating_sub(late)
            }
        };
        let spin = &self.spins[which];
        let in_vain = spin.until(start, changed);
        let mut slept = false;
        if in_vain.is_some() {
            while !changed() {
                {
                    let _held = self.lock(&recover)?;
                    if event::Word::load(&event.count) != seen {
                        break;
                    }
                    event.mark();
                }
                if !slept {
                    COUNTERS.sleeps.add(1);
                }
                (slept, patience.slept) = (true, true);
                // Woken, interrupted, too late: the waiter looks again.
                let sleep = self.next_sleep(which, patience.looks);
                // A signal that has come since the last look would not end the sleep.
                if sleep > SLEEP && gives_up_now() {
                    return Err(Error::Interrupted);
                }
                let _ = futex::wait(event.count.as_atomic(), seen, patience.left().min(sleep));
                if changed() {
                    break;
                }
                if gives_up_now() {
                    return Err(Error::Interrupted);
                }
                if patience.leaves_with_maker && self.is_orphaned() {
                    return Err(Error::Orphaned);
                }
                if patience.left().is_zero() {
                    spin.learn(start.elapsed(), in_vain);
                    return Ok(patience.looks);
                }
                if patience.looks {
                    break;
                }
            }
        }
        if !slept {
            COUNTERS.spins.add(1);
        }
        spin.learn(waited(), in_vain);
        let first = SLEEP.as_millis() as u32;
        self.sleeps[which].store(first, Ordering::Relaxed);
        if self.is_closed() {
            // This thread may have used up a wake-up: pass it on to another waiter.
            let _ = futex::wake(event.count.as_atomic(), 1);
            return Err(Error::Closed);
        }
        Ok(true)
    }

    /// How long a waiter sleeps now; the next time it is longer, but for one that `looks`.
    fn next_sleep(&self, which: usize, looks: bool) -> Duration {
        if looks {
            return SLEEP;
        }
        let sleep = self.sleeps[which].load(Ordering::Relaxed);
        let longer = (2 * sleep).min(LONGEST_SLEEP.as_millis() as u32);
        self.sleeps[which].store(longer, Ordering::Relaxed);
        Duration::from_millis(sleep as u64)
    }

    /// Restores the wake-ups of other waiters, for one that leaves without what it has waited for:
    /// the wake-up that it got may have cleared their mark, too.
    fn go_without(
        &self,
        which: usize,
        seen: u32,
        patience: &mut Patience,
        recover: impl FnOnce(&LockedRing<'_>) -> Result<()>,
    ) -> Result<()> {
        if patience.slept {
            let held = self.lock(recover)?;
            // If the event has happened since it looked, that is for another waiter.
            let again = event::Word::load(&self.event(which).count) != seen;
            held.hand_on(which, patience, again);
        }
        Ok(())
    }
}

/// A ring while this thread has its lock. Wake-ups are made when that is given back.
pub struct LockedRing<'a> {
    base: &'a Base,
    /// This process's part in the arena.
    pub me: Member,
    wakes: Cell<[i32; EVENTS]>,
    _holding: Uninterruptible,
    _work: Work<'a>,
}

impl LockedRing<'_> {
    fn settle(&self, recover: impl FnOnce(&LockedRing<'_>) -> Result<()>) -> Result<()> {
        let condition = &self.base.head().lock.condition;
        if condition.get() & POISONED != 0 {
            return Err(Error::Corrupted {
                why: "a contradiction was found in a ring before",
            });
        }
        recover(self)?;
        // The dead process may have changed the ring without waking those that wait for it.
        for which in 0..EVENTS {
            self.base.event(which).happen();
            self.wake(which, i32::MAX);
        }
        condition.commit(0);
        Ok(())
    }

    /// Poisons the ring.
    #[cold]
    pub fn corrupted(&self, why: &'static str) -> Error {
        let condition = &self.base.head().lock.condition;
        condition.commit(condition.get() | POISONED);
        Error::Corrupted { why }
    }

    fn wake(&self, which: usize, count: i32) {
        let mut wakes = self.wakes.get();
        wakes[which] = wakes[which].saturating_add(count);
        self.wakes.set(wakes);
    }

    /// Lets an event happen, for so many waiters.
    #[inline(always)]
    pub fn happen(&self, which: usize, count: usize) {
        if count > 0 && self.base.event(which).happen() {
            self.base.head().lock.stamps[which].commit(stamp_now());
            self.wake(which, count.min(i32::MAX as usize) as i32);
        }
    }

    /// Hands on the wake-up of a waiter that has got what it waited for; `again`: there is something
    /// for another one.
    #[inline(always)]
    pub fn hand_on(&self, which: usize, patience: &mut Patience, again: bool) {
        if patience.has_slept() && self.base.event(which).hand_on(again) {
            self.wake(which, 1);
        }
    }
}

impl Drop for LockedRing<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        let Lock {
            owner, condition, ..
        } = &self.base.head().lock;
        if std::thread::panicking() {
            condition.commit(condition.get() | UNSETTLED);
        }
        self.base.block.arena().core().unlock_word(self.me, owner);
        let wakes = self.wakes.get();
        if wakes != [0; EVENTS] {
            for (event, count) in self.base.head().events.iter().zip(wakes) {
                if count > 0 {
                    let _ = futex::wake(event.count.as_atomic(), count);
                }
            }
        }
    }
}

// A look at the bytes of a ring, without having it open.

/// Numbers in bytes that somebody has read; zeros behind their end.
pub(super) struct Numbers<'a>(pub &'a [u8]);

impl Numbers<'_> {
    pub fn u64(&self, at: usize) -> u64 {
        let bytes = self.0.get(at..at + 8).and_then(|part| part.try_into().ok());
        bytes.map_or(0, u64::from_ne_bytes)
    }

    pub fn u32(&self, at: usize) -> u32 {
        let bytes = self.0.get(at..at + 4).and_then(|part| part.try_into().ok());
        bytes.map_or(0, u32::from_ne_bytes)
    }

    /// The magic number of a ring.
    pub fn magic(&self) -> u64 {
        self.u64(offset_of!(Head, magic))
    }
}

/// What the kinds have more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyLook {
    /// Messages.
    Messages {
        /// How many there are.
        count: u32,
        /// How many there may be; `u64::MAX` for any number.
        limit: u64,
    },
    /// Frames.
    Frames {
        /// How many were written.
        written: u64,
        /// All readers have read those below this number.
        consumed: u64,
        /// Whether frames that nobody has read may be filled again.
        overwrites: bool,
        /// For how many readers its first writer waits; 0 once they have come.
        awaited: u32,
        /// Of each frame: its number, if it has one, and its block.
        frames: Vec<(Option<u64>, u32)>,
        /// Of each reader: its slot, and the number of the frame that it reads next.
        readers: Vec<(u16, u64)>,
    },
}

/// The slots of the ring's maker and of the owner of its lock, and for which events a waiter may be
/// asleep.
pub(super) fn look(bytes: &Numbers<'_>) -> (u16, Option<u16>, [bool; EVENTS]) {
    let maker = Member::of_word(bytes.u64(offset_of!(Head, maker)));
    let owner = bytes.u32(offset_of!(Head, lock) + offset_of!(Lock, owner));
    let marked = |number: usize| {
        let event = offset_of!(Head, events) + number * size_of::<Event<U32>>();
        bytes.u32(event + Event::<U32>::MARKED) != 0
    };
    let waiters = std::array::from_fn(marked);
    (maker.slot.0, Owner::of(owner).map(Owner::slot), waiters)
}
