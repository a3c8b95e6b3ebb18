//! Finishing what is half done, because the lock was not to be had again.
//!
//! Work outside the lock ends under it: a segment is opened, a block that was taken for the time
//! is released. If the lock's owner is stopped, or the thread is told to give up, the memory would
//! stay taken until the process exits. So what is half done is noted, and finished before the next
//! operation: by the upkeep, or by an operation that asks for all that can be had (reap, trim,
//! stats, check).

use super::core::Core;
use super::format::*;
use super::growth::building;
use super::half_done::HalfDone;
use super::locked::Locked;
use super::refs::Member;
use crate::error::{Error, Result};

impl Core {
    /// Takes the arena's lock for the rest of `what`, which is noted if it is not to be had.
    ///
    /// # Errors
    /// As for [`lock`](Core::lock).
    pub(super) fn lock_to_finish(&self, me: Member, what: HalfDone) -> Result<Locked<'_>> {
        let locked = self.lock(me);
        if locked.is_err() {
            self.unfinished.note(what);
        }
        locked
    }

    /// Finishes what is half done; what cannot be is left for the next time.
    ///
    /// # Errors
    /// `Interrupted`: the thread is told to give up.
    pub(super) fn finish(&self, me: Member) -> Result<()> {
        match self.unfinished.is_empty() {
            true => Ok(()),
            false => self.finish_all(me),
        }
    }

    #[cold]
    fn finish_all(&self, me: Member) -> Result<()> {
        let mut all = self.unfinished.take().into_iter();
        while let Some(what) = all.next() {
            let finished = match what {
                HalfDone::Segment(number) => self.abandon_segment(me, number),
                HalfDone::Block(which) => self.release_if(me, which, || true).map(drop),
            };
            match finished {
                Err(Error::Busy { .. }) => self.unfinished.note(what),
                Err(Error::Interrupted) => {
                    self.unfinished.note(what);
                    all.for_each(|what| self.unfinished.note(what));
                    return Err(Error::Interrupted);
                }
                // Or it is no more: this process has left, or the arena is poisoned.
                _ => (),
            }
        }
        Ok(())
    }

    /// Removes a segment that this process has begun to make.
    fn abandon_segment(&self, me: Member, number: usize) -> Result<()> {
        let _work = {
            let locked = self.lock(me)?;
            if locked.header.segments[number].state.get() != building(me.slot) {
                return Ok(());
            }
            locked.begin_work()
        };
        self.platform().remove(number);
        let locked = self.lock(me)?;
        let state = &locked.header.segments[number].state;
        // (Another process may have taken this one for dead, and the number for a segment of its own.)
        if state.get() == building(me.slot) {
            state.commit(ABSENT as u64);
        }
        Ok(())
    }
}
