//! The objects of an arena that no process has attached.

use super::descriptor::READ_WRITE;
use super::objects::{is_of, lock_name, memory_name, memory_of, Memory, MODE, REMOVAL_BYTE};
use crate::arena::handle::Name;
use crate::error::{Error, Result};
use crate::sys::{self, locks, proc, shm};
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
        let remains = Self::find_any(name, is_ours).ok()??;
        let facts = remains.facts;
        let mine = facts.uid == proc::user() && facts.permissions == MODE && facts.size == 0;
        mine.then_some(remains)
    }

    /// The same for a lock file that may be of another user, and may have been damaged; None if a
    /// process has a lock on it.
    ///
    /// # Errors
    /// ENOENT if there is no lock file; that it may not be opened.
    pub fn find_any(name: Name, is_ours: impl Fn([u64; 2]) -> bool) -> Result<Option<Self>> {
        let path = lock_name(name);
        let facts = shm::facts_of(&path)?;
        if is_ours(facts.file()) {
            return Ok(None);
        }
        let lock = shm::open_object(&path, READ_WRITE, 0)?;
        let same = is_of(&path, lock.as_fd());
        let locked = locks::is_any_locked(lock.as_fd(), REMOVAL_BYTE + 1)?;
        Ok((same && !locked).then_some(Remains { name, lock, facts }))
    }

    /// A process that has a lock on the lock file, as it is numbered here.
    pub fn owner(name: Name, is_ours: impl Fn([u64; 2]) -> bool) -> Option<u32> {
        let path = lock_name(name);
        if is_ours(shm::facts_of(&path).ok()?.file()) {
            return None;
        }
        let lock = shm::open_object(&path, READ_WRITE, 0).ok()?;
        locks::owner_of_any(lock.as_fd(), REMOVAL_BYTE + 1).ok()?
    }

    /// The lock file's inode and device.
    pub fn file(&self) -> [u64; 2] {
        self.facts.file()
    }

    /// When the lock file was made: nobody writes to it.
    pub fn modified(&self) -> SystemTime {
        self.facts.modified
    }

    /// Whether there is an arena that can be attached.
    pub fn is_finished(&self) -> bool {
        memory_of(self.name, self.facts.file()) == Memory::Arena { finished: true }
    }

    /// Removes what there is, unless another process has taken a slot meanwhile or removes it.
    ///
    /// Where the memory is not this lock file's both stay: it may be somebody else's object, or an
    /// arena whose header was overwritten. Without the lock file nothing would tell of the latter any
    /// more, and its memory would be lost.
    pub fn remove(self) {
        match memory_of(self.name, self.facts.file()) {
            Memory::Other => (),
            Memory::Nothing | Memory::Arena { .. } => drop(self.remove_all()),
        }
    }

    /// Removes both objects, whatever is in them, unless another process has taken a slot meanwhile or
    /// removes them; whether it has.
    ///
    /// # Errors
    /// That the system refuses it.
    pub fn remove_all(self) -> Result<bool> {
        let take = |byte| locks::try_for_process(self.lock.as_fd(), byte);
        let path = lock_name(self.name);
        if !(take(REMOVAL_BYTE)? && take(0)? && is_of(&path, self.lock.as_fd())) {
            return Ok(false);
        }
        // (The lock file is the last: while it is there, the rest is found.)
        match shm::unlink_object(&memory_name(self.name)) {
            Err(Error::Os { errno, .. }) if errno == sys::ENOENT => (),
            result => result?,
        }
        shm::unlink_object(&path)?;
        Ok(true)
    }
}
