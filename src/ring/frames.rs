//! A ring of frames: pieces of memory of one length that are filled and read in place.
//!
//! ```text
//! block   head (see `base`), then
//!         slots      u32   how many frames there are
//!         overwrites u32   1: frames that no reader has read may be filled again
//!         next       u64   how many frames were written
//!         consumed   u64   all readers have read the frames below this number; falls when a
//!                          reader comes for which there still are some
//!         awaited    u32   writers wait until so many processes are readers; 0 once a writer has
//!                          found them
//!         readers    64 x 64
//!         frames     256 x 64
//! ```
//!
//! Each frame is a block of its own, whose ticket the ring's block owns. A process that fills or
//! reads a frame holds its block like any other. So the arena knows these processes, and forgets
//! the dead ones. A frame may be filled again when no process holds its block and none of its
//! handles is in flight, and, unless the ring overwrites, when all readers have read it. A frame is
//! visible from one store of its number, which comes after its bytes, to another, which comes
//! before it is filled again: so no reader ever sees half of one.
//!
//! A reader is a process. The rows of readers that have exited are reused.

use super::base::{Base, BodyLook, Head, Layout, LockedRing, Numbers, Patience};
use super::event;
use crate::arena::format::BlockId;
use crate::arena::word::{U32, U64};
use crate::arena::{BlockRef, Member};
use crate::error::{Error, Exhausted, Result};
use crate::process::{Arena, Block};
use crate::sys::proc;
use std::mem::offset_of;

/// A frame was written.
const READY: usize = 0;
/// A frame may be free to be filled.
const ROOM: usize = 1;

/// The most frames that a ring has.
pub const SLOTS: usize = 256;
/// The most readers that it has at a time.
pub const READERS: usize = 64;

/// How often a writer that finds no room looks for dead readers, in ms.
const LOOK: u64 = 50;

#[repr(C)]
struct Rows {
    head: Head,
    slots: U32,
    overwrites: U32,
    next: U64,
    consumed: U64,
    awaited: U32,
    readers: [Reader; READERS],
    frames: [Frame; SLOTS],
}

// SAFETY: it is `repr(C)`, its first field is a `Head`, and all fields are words of shared memory.
unsafe impl Layout for Rows {
    const MAGIC: u64 = u64::from_le_bytes(*b"snpFRAM1");
}

/// A process that reads. All of it is written under the ring's lock.
#[repr(C, align(64))]
struct Reader {
    /// The process; 0 for none.
    member: U64,
    /// The number of the frame that it reads next.
    position: U64,
}

/// A frame. Its number is written under the ring's lock, the rest before that is there.
#[repr(C, align(64))]
struct Frame {
    /// One more than the number of the frame that is in it; 0 if none is.
    filled: U64,
    /// When it was written, in ns of the monotonic clock.
    time: U64,
    block: U32,
    generation: U64,
}

impl Frame {
    fn which(&self) -> BlockRef {
        BlockRef {
            id: BlockId(self.block.get()),
            generation: self.generation.get(),
        }
    }
}

/// A frame that this process looks at.
pub struct View {
    /// Its bytes, which nobody changes while this is held.
    pub block: Block,
    /// Its number; they are counted from 0.
    pub number: u64,
    /// When it was written, in ns of the monotonic clock.
    pub time: u64,
    /// How many frames the reader has missed since the last one.
    pub skipped: u64,
}

/// A frame that this process fills; nobody else sees it until it is [written](Frames::write).
pub struct Blank {
    /// Its bytes.
    pub block: Block,
    /// Which of the ring's frames it is.
    pub index: usize,
}

/// A ring of frames that this process has open.
pub struct Frames {
    base: Base,
    /// When this process has looked for dead ones, in ms.
    looked: U64,
    /// Which row of readers was its own or its parent's; one more than its number.
    row: U32,
    /// Where this process is as a reader, or its parent was before it was forked: one more than the
    /// number of the frame that it reads next; 0 if it is no reader.
    read: U64,
    /// How many frames were filled again between a fork and the child's first look.
    missed: U64,
}

impl Frames {
    /// Makes a ring of so many frames of so many bytes in an arena. Its first writer waits for so
    /// many readers.
    ///
    /// # Errors
    /// `Full` if there is no memory for all of it, and then none is kept; `Invalid` for a number of
    /// frames or of readers that cannot be.
    pub fn create(
        arena: &Arena,
        slots: usize,
        bytes: u64,
        overwrites: bool,
        readers: usize,
    ) -> Result<Frames> {
        if readers > READERS {
            return Err(Error::Invalid {
                why: "a ring waits for 64 readers at most",
            });
        }
        if !(1..=SLOTS).contains(&slots) {
            return Err(Error::Invalid {
                why: "a ring has 1 to 256 frames",
            });
        }
        let mut taken = 0;
        let made = Base::create(arena, 0, |base, rows: &Rows| {
            for frame in &rows.frames[..slots] {
                let block = arena.allocate(bytes)?;
                taken += block.size();
                arena.send_owned(&block, base.block())?;
                frame.block.set(block.which().id.0);
                frame.generation.set(block.which().generation);
            }
            rows.slots.set(slots as u32);
            rows.overwrites.set(overwrites as u32);
            rows.awaited.set(readers as u32);
            Ok(())
        });
        if made.is_err() && taken > 0 {
            // The blocks that there was room for are free again. (The error that counts is the
            // first one.)
            let _ = arena.trim();
        }
        let all = bytes.saturating_mul(slots as u64);
        let base = made.map_err(|error| error.asking(all).having_taken(taken))?;
        Ok(Frames::over(base))
    }

    /// Opens the ring that lies in a block.
    ///
    /// # Errors
    /// `BadHandle` if none does.
    pub fn open(block: Block) -> Result<Frames> {
        Ok(Frames::over(Base::open::<Rows>(block)?))
    }

    fn over(base: Base) -> Frames {
        Frames {
            base,
            looked: U64::default(),
            row: U32::default(),
            read: U64::default(),
            missed: U64::default(),
        }
    }

    /// What it has in common with other rings.
    pub fn base(&self) -> &Base {
        &self.base
    }

    fn rows(&self) -> &Rows {
        self.base.layout()
    }

    fn frames(&self) -> &[Frame] {
        let slots = self.rows().slots.get() as usize;
        &self.rows().frames[..slots.min(SLOTS)]
    }

    fn lock(&self) -> Result<LockedRing<'_>> {
        self.base.lock(|_| self.recover())
    }

    fn wait(&self, which: usize, seen: u32, patience: &mut Patience) -> Result<bool> {
        self.base.wait(which, seen, patience, |_| self.recover())
    }

    fn seen(&self, which: usize) -> u32 {
        event::Word::load(&self.base.event(which).count)
    }

    /// Counts a frame whose writer died before it had counted it.
    fn recover(&self) -> Result<()> {
        let last = self.frames().iter().map(|frame| frame.filled.get()).max();
        let next = &self.rows().next;
        next.commit(next.get().max(last.unwrap_or(0)));
        Ok(())
    }

    fn check_open(&self) -> Result<()> {
        match self.base.is_closed() {
            true => Err(Error::Closed),
            false => Ok(()),
        }
    }

    /// A frame to be filled; None if there was none in time.
    ///
    /// It is one that holds nothing; or else the oldest one that nobody looks at, if the ring
    /// overwrites or all readers have read it. There is none before the readers are there that the
    /// ring waits for.
    ///
    /// # Errors
    /// Those of waiting.
    pub fn blank(&self, patience: &mut Patience) -> Result<Option<Blank>> {
        // Views end, and processes die, without a word.
        patience.looks = true;
        let mut has_looked = false;
        loop {
            self.check_open()?;
            let seen = {
                let held = self.lock()?;
                if self.has_begun() {
                    if let Some(blank) = self.find_blank()? {
                        held.hand_on(ROOM, patience, true);
                        return Ok(Some(blank));
                    }
                }
                self.seen(ROOM)
            };
            // Not twice without a wait between: on a slow machine that would never end.
            has_looked = !has_looked && self.forgets_the_dead()?;
            if has_looked {
                continue;
            }
            if !self.wait(ROOM, seen, patience)? {
                return Ok(None);
            }
        }
    }

    /// Whether the readers are there for which the ring waits, under the lock. Once a writer has
    /// found all of them at a time, nobody waits for them again. Readers that have died or left
    /// before that do not count: others come in their place, and each sees the first frame.
    fn has_begun(&self) -> bool {
        let awaited = &self.rows().awaited;
        let is_met = awaited.get() != 0 && self.living_readers() >= awaited.get() as usize;
        if is_met {
            awaited.commit(0);
        }
        awaited.get() == 0
    }

    /// How many readers there are that have not died, under the lock.
    fn living_readers(&self) -> usize {
        let core = self.base.block().arena().core();
        let members = self.rows().readers.iter().map(|reader| reader.member.get());
        let lives = |member: &u64| *member != 0 && !core.is_gone(Member::of_word(*member));
        members.filter(lives).count()
    }

    /// A frame that can be filled, under the lock.
    fn find_blank(&self) -> Result<Option<Blank>> {
        let rows = self.rows();
        let arena = self.base.block().arena();
        let end = match rows.overwrites.get() {
            0 => rows.consumed.get(),
            _ => u64::MAX - 1,
        };
        // From the oldest on; what holds nothing first.
        let mut from = 0;
        while let Some(filled) = self.next_filled(from) {
            if filled > end {
                break;
            }
            let all = self.frames().iter().enumerate();
            for (index, frame) in all.filter(|(_, frame)| frame.filled.get() == filled) {
                if let Some(block) = arena.claim_unheld(frame.which())? {
                    frame.filled.commit(0);
                    return Ok(Some(Blank { block, index }));
                }
            }
            from = filled + 1;
        }
        Ok(None)
    }

    /// The least `filled` of a frame that is not less than this.
    fn next_filled(&self, from: u64) -> Option<u64> {
        let all = self.frames().iter().map(|frame| frame.filled.get());
        all.filter(|filled| *filled >= from).min()
    }

    /// Drops what dead processes hold, and their rows, if that was not done a moment ago;
    /// whether it was done.
    fn forgets_the_dead(&self) -> Result<bool> {
        let now = proc::now();
        if now.saturating_sub(self.looked.get()) < LOOK {
            return Ok(false);
        }
        self.looked.set(now);
        self.base.block().arena().reap()?;
        let _held = self.lock()?;
        let core = self.base.block().arena().core();
        for reader in &self.rows().readers {
            let member = reader.member.get();
            if member != 0 && core.is_gone(Member::of_word(member)) {
                reader.member.commit(0);
            }
        }
        self.consume();
        Ok(true)
    }

    /// Shows a frame, that was [blank](Self::blank), to the readers; its number.
    ///
    /// # Errors
    /// `Invalid` if it is none, and those of taking the lock: the frame is free to be filled
    /// again then.
    pub fn write(&self, block: &Block, index: usize) -> Result<u64> {
        self.check_open()?;
        let held = self.lock()?;
        let rows = self.rows();
        let number = rows.next.get();
        let frame = self.frames().get(index);
        let blank = |frame: &&Frame| frame.which() == block.which() && frame.filled.get() == 0;
        let frame = frame.filter(blank).ok_or(Error::Invalid {
            why: "the frame was written before, or is of another ring",
        })?;
        frame.time.set(proc::monotonic());
        frame.filled.commit(number + 1);
        rows.next.commit(number + 1);
        held.happen(READY, usize::MAX);
        Ok(number)
    }

    /// Reports that a frame is not read any more, or is not filled.
    pub fn let_go(&self) -> Result<()> {
        let held = self.lock()?;
        held.happen(ROOM, 1);
        Ok(())
    }

    /// Makes this process a reader now, if it is none: writers wait for it from here on, and it gets
    /// all frames that it would get if it read now.
    ///
    /// # Errors
    /// Those of taking the lock; `Full` if there are too many readers.
    pub fn join(&self) -> Result<()> {
        self.check_open()?;
        let held = self.lock()?;
        self.reader(&held)?;
        Ok(())
    }

    /// The next frame that this process has not read; None if there was none in time.
    ///
    /// # Errors
    /// Those of waiting; `Full` if there are too many readers.
    pub fn read(&self, patience: &mut Patience) -> Result<Option<View>> {
        self.view(patience, |position| self.next_filled(position + 1))
    }

    /// The newest frame there is, whether it was read or not; None if there was none in
    /// time. Those before it will not be read by this process.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub fn latest(&self, patience: &mut Patience) -> Result<Option<View>> {
        let newest = || self.frames().iter().map(|frame| frame.filled.get()).max();
        // Not one that is older than what was seen.
        self.view(patience, |position| {
            newest().filter(|filled| *filled >= position.max(1))
        })
    }

    fn view(
        &self,
        patience: &mut Patience,
        choose: impl Fn(u64) -> Option<u64>,
    ) -> Result<Option<View>> {
        loop {
            self.check_open()?;
            let seen = {
                let held = self.lock()?;
                let reader = self.reader(&held)?;
                let position = reader.position.get();
                if let Some(filled) = choose(position) {
                    let mut all = self.frames().iter();
                    let frame = all.find(|frame| frame.filled.get() == filled);
                    let frame = frame.ok_or_else(|| held.corrupted("a frame of a ring"))?;
                    let block = self.base.block().arena().hold(frame.which())?;
                    let number = filled - 1;
                    let missed = self.missed.get();
                    self.missed.set(0);
                    reader.position.commit(position.max(filled));
                    self.read.set(position.max(filled) + 1);
                    if self.consume() {
                        held.happen(ROOM, 1);
                    }
                    return Ok(Some(View {
                        block,
                        number,
                        time: frame.time.get(),
                        skipped: number.saturating_sub(position) + missed,
                    }));
                }
                self.seen(READY)
            };
            if !self.wait(READY, seen, patience)? {
                return Ok(None);
            }
        }
    }

    /// This process's row among the readers, under the lock. A new one begins with the oldest
    /// frame of those that are there without a gap up to the newest; a forked one where its
    /// parent was, if the frames from there on are there.
    fn reader(&self, held: &LockedRing<'_>) -> Result<&Reader> {
        let rows = self.rows();
        let me = held.me.word();
        let known = rows.readers.get(self.row.get().wrapping_sub(1) as usize);
        if let Some(reader) = known.filter(|reader| reader.member.get() == me) {
            return Ok(reader);
        }
        let core = self.base.block().arena().core();
        let is_free = |reader: &&Reader| {
            let member = reader.member.get();
            member == 0 || core.is_gone(Member::of_word(member))
        };
        let mut all = rows.readers.iter();
        let index = all.position(|reader| reader.member.get() == 0);
        let index = index.or_else(|| rows.readers.iter().position(|reader| is_free(&reader)));
        let Some(index) = index else {
            return Err(Error::Full {
                what: Exhausted::Readers,
                asked: READERS as u64,
                left: 0,
            });
        };
        let oldest = self.oldest_without_gap();
        let inherited = self.read.get().checked_sub(1);
        let position = inherited.unwrap_or(oldest).max(oldest);
        self.missed.set(inherited.map_or(0, |from| position - from));
        let reader = &rows.readers[index];
        reader.member.commit(0);
        reader.position.set(position);
        // What is there still is kept for it, too.
        rows.consumed.commit(rows.consumed.get().min(position));
        reader.member.commit(me);
        self.row.set(index as u32 + 1);
        // A child that is forked now begins where this one does.
        self.read.set(position + 1);
        if rows.awaited.get() != 0 {
            held.happen(ROOM, usize::MAX);
        }
        Ok(reader)
    }

    /// The number of the first frame from which on all are there. An older one may be there,
    /// too, because somebody has kept it.
    fn oldest_without_gap(&self) -> u64 {
        let is_there = |filled| {
            self.frames()
                .iter()
                .any(|frame| frame.filled.get() == filled)
        };
        let mut oldest = self.rows().next.get();
        while oldest > 0 && is_there(oldest) {
            oldest -= 1;
        }
        oldest
    }

    /// Notes which frames all readers have read; whether they are more than before.
    fn consume(&self) -> bool {
        let rows = self.rows();
        let readers = rows.readers.iter();
        let readers = readers.filter(|reader| reader.member.get() != 0);
        let least = readers.map(|reader| reader.position.get()).min();
        let consumed = rows.consumed.get();
        let more = least.is_some_and(|least| least > consumed);
        if more {
            rows.consumed.commit(least.unwrap_or(consumed));
        }
        more
    }

    /// Ends this process's part as a reader: no frame is kept for it any more.
    pub fn leave(&self) -> Result<()> {
        let held = self.lock()?;
        let index = self.row.get().wrapping_sub(1) as usize;
        if let Some(reader) = self.rows().readers.get(index) {
            if reader.member.get() == held.me.word() {
                reader.member.commit(0);
                self.consume();
                held.happen(ROOM, 1);
            }
        }
        Ok(())
    }

    /// Why there is no frame to be filled: how many somebody looks at, fills, keeps or has sent
    /// on, and how many others wait for a reader.
    pub fn occupied(&self) -> Result<(usize, usize)> {
        let _held = self.lock()?;
        let rows = self.rows();
        let arena = self.base.block().arena();
        let (mut held, mut unread) = (0, 0);
        for frame in self.frames() {
            // Under the ring's lock, so that no writer finds it held by this look.
            if arena.claim_unheld(frame.which())?.is_none() {
                held += 1;
            } else if rows.overwrites.get() == 0 && frame.filled.get() > rows.consumed.get() {
                unread += 1;
            }
        }
        Ok((held, unread))
    }

    /// How many readers there are, and how many writers wait for; None if they wait for none.
    pub fn missing_readers(&self) -> Result<Option<(usize, usize)>> {
        let _held = self.lock()?;
        let awaited = self.rows().awaited.get() as usize;
        Ok((awaited != 0).then(|| (self.living_readers(), awaited)))
    }

    /// How many frames were written so far.
    pub fn written(&self) -> Result<u64> {
        let _held = self.lock()?;
        Ok(self.rows().next.get())
    }
}

/// How many bytes of a ring's block are its head, its readers and its frames' rows.
pub(super) const HEAD_SIZE: usize = size_of::<Rows>();

/// What the bytes of a ring of frames say; None of others.
pub(super) fn look(bytes: &Numbers<'_>) -> Option<BodyLook> {
    if bytes.magic() != Rows::MAGIC {
        return None;
    }
    let slots = bytes.u32(offset_of!(Rows, slots)) as usize;
    let frames = (0..slots.min(SLOTS)).map(|index| {
        let at = offset_of!(Rows, frames) + index * size_of::<Frame>();
        let filled = bytes.u64(at + offset_of!(Frame, filled));
        let block = bytes.u32(at + offset_of!(Frame, block));
        (filled.checked_sub(1), block)
    });
    let readers = (0..READERS).filter_map(|row| {
        let at = offset_of!(Rows, readers) + row * size_of::<Reader>();
        let member = bytes.u64(at + offset_of!(Reader, member));
        let position = bytes.u64(at + offset_of!(Reader, position));
        (member != 0).then(|| (Member::of_word(member).slot.0, position))
    });
    Some(BodyLook::Frames {
        written: bytes.u64(offset_of!(Rows, next)),
        consumed: bytes.u64(offset_of!(Rows, consumed)),
        overwrites: bytes.u32(offset_of!(Rows, overwrites)) != 0,
        awaited: bytes.u32(offset_of!(Rows, awaited)),
        frames: frames.collect(),
        readers: readers.collect(),
    })
}
