//! Residents: the members for which an arena with an identifier goes on.
//!
//! Processes that look for an arena by its identifier want one that is in use, or a new one, and
//! never what dead processes have left. But to look at an arena a process has to be a member, and so
//! has one that cleans up: while it looks, another one sees a living member. So some members are
//! *residents*: its maker, members that came while there was a resident, and their forked children.
//! An arena without a living resident is *deserted*: it is marked as unlinked by the next process that
//! looks for its identifier, which makes a new one, and no process ever becomes a resident of it.
//!
//! All of this is decided under the arena's lock. So of two processes that come to a deserted arena one
//! ends it, and the other finds that; and a process that comes while the last resident leaves either is
//! a resident before, and the arena goes on, or finds it deserted.

use super::core::Core;
use super::format::generation_of;
use super::refs::Member;
use crate::error::Result;

/// As what a process enters an arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// As a resident, and ends the arena if there is no other.
    Resident,
    /// As a resident if there is another one.
    Member,
    /// To look after what dead processes have left, and not as a resident.
    Caretaker,
}

impl Core {
    /// Lets a member in. False if the arena has lost its names, or
    /// is about to.
    ///
    /// # Errors
    /// As for any operation of the arena.
    pub fn admit(&self, me: Member, entry: Entry) -> Result<bool> {
        let row = self.slot(me.slot);
        if row.resident.get() == me.generation {
            // Without the lock, which somebody may keep: this process wrote the row, or its parent
            // did before it ran, and while there is a resident only `unlink` takes the names away.
            return Ok(self.header().unlinked.read() == 0);
        }
        // (Its tables may be gone, which the lock would find damaged. The word stays.)
        if self.header().unlinked.read() != 0 {
            return Ok(false);
        }
        let locked = self.lock(me)?;
        if locked.header.unlinked.get() != 0 {
            return Ok(false);
        }
        if entry == Entry::Caretaker {
            return Ok(true);
        }
        let mut others = self.others(me);
        if others.any(|row| row.resident.get() == generation_of(row.state.read())) {
            row.resident.set(me.generation);
        } else if entry == Entry::Resident {
            locked.header.unlinked.commit(1);
            return Ok(false);
        }
        Ok(true)
    }
}
