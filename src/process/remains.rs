//! The objects of an arena that no process has attached.

use super::descriptor::READ_WRITE;
use super::objects::{is_of, lock_name, memory_name, memory_of, Memory, MODE, REMOVAL_BYTE};
use crate::arena::handle::Name;
use crate::sys::{locks, proc, shm};
use std::os::fd::{AsFd, OwnedFd};
use std::time::SystemTime;

/// The lock file of an arena that nobody has.
///
/// While there is one, this process must not attach the arena: closing this
/// descriptor drops the locks of the other.
pub(super) struct Remains {
    name: Name,
    lock: OwnedFd,
    facts: shm::Facts,
}

impl Remains {
    /// Opens a lock file of this user's on which nobody has a lock; `is_ours`
    /// says of a file whether this process has its arena.
    pub fn find(name: Name, is_ours: impl Fn([u64; 2]) -> bool) -> Option<Self> {
        let path = lock_name(name);
        let facts = shm::facts_of(&path).ok()?;
        let mine = facts.uid == proc::user() && facts.permissions == MODE && facts.size == 0;
        if !mine || is_ours(facts.file()) {
            return None;
        }
        let lock = shm::open_object(&path, READ_WRITE, 0).ok()?;
        let same = is_of(&path, lock.as_fd());
        let free = locks::is_any_locked(lock.as_fd(), REMOVAL_BYTE + 1) == Ok(false);
        (same && free).then_some(Remains { name, lock, facts })
    }

    /// When the lock file was made: nobody writes to it.
    pub fn modified(&self) -> SystemTime {
        self.facts.modified
    }

    /// Whether there is an arena that can be attached.
    pub fn is_finished(&self) -> bool {
        memory_of(self.name, self.facts.file()) == Memory::Arena { finished: true }
    }

    /// Removes what there is, unless another process has taken a slot meanwhile or removes it. Memory that is not the lock file's is not an arena's.
    pub fn remove(self) {
        let take = |byte| locks::try_for_process(self.lock.as_fd(), byte) == Ok(true);
        if take(REMOVAL_BYTE) && take(0) && is_of(&lock_name(self.name), self.lock.as_fd()) {
            if let Memory::Arena { .. } = memory_of(self.name, self.facts.file()) {
                let _ = shm::unlink_object(&memory_name(self.name));
            }
            let _ = shm::unlink_object(&lock_name(self.name));
        }
    }
}
