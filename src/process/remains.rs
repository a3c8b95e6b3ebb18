//! The objects of an arena that no process has attached.

use super::descriptor::READ_WRITE;
use super::objects::{
    is_of, lock_name, memory_name, memory_of, shows_life, Memory, MODE, REMOVAL_BYTE,
};
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
        remains.is_as_made().then_some(remains)
    }

    /// Whether the lock file is as this user's processes make them.
    pub fn is_as_made(&self) -> bool {
        let facts = self.facts;
        facts.uid == proc::user() && facts.permissions == MODE && facts.size == 0
    }

    /// The device and the inode of the lock file, in the order in which an arena's header has them.
    pub fn file(&self) -> [u64; 2] {
        self.facts.file()
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
        let remains = Remains { name, lock, facts };
        Ok((same && !remains.is_locked()?).then_some(remains))
    }

    /// Whether another process has a lock on the lock file, or has lost it and shows by the memory file
    /// that it lives.
    fn is_locked(&self) -> Result<bool> {
        if locks::is_any_locked(self.lock.as_fd(), 0, REMOVAL_BYTE + 1)? {
            return Ok(true);
        }
        // (To look is enough. Locks of processes, which closing it drops, nobody has there.)
        match shm::open_object(&memory_name(self.name), 0, 0) {
            Ok(memory) => shows_life(memory.as_fd()),
            Err(error @ Error::Os { errno, .. }) if sys::is_passing(errno) => Err(error),
            // It is missing, or may not be opened: then it is no arena of this user's processes.
            Err(_) => Ok(false),
        }
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

    /// When the lock file was made: nobody writes to it.
    pub fn modified(&self) -> SystemTime {
        self.facts.modified
    }

    /// Removes what there is, unless another process has taken a slot meanwhile or removes it; a
    /// finished arena only if `even_finished`.
    ///
    /// Where the memory is not this lock file's both stay: it may be somebody else's object, or an
    /// arena whose header was overwritten. Without the lock file nothing would tell of the latter any
    /// more, and its memory would be lost.
    pub fn remove(self, even_finished: bool) {
        // The locks first: whoever had others may have changed what is there until now.
        if self.lock_all() != Ok(true) {
            return;
        }
        let goes = match memory_of(self.name, self.facts.file()) {
            Ok(Memory::Other) | Err(_) => false,
            Ok(Memory::Nothing) => true,
            Ok(Memory::Arena { finished }) => even_finished || !finished,
        };
        if goes {
            let _ = self.unlink();
        }
    }

    /// Removes both objects, whatever is in them, unless another process has taken a slot meanwhile or
    /// removes them; whether it has.
    ///
    /// # Errors
    /// That the system refuses it.
    pub fn remove_all(self) -> Result<bool> {
        if !self.lock_all()? {
            return Ok(false);
        }
        self.unlink()?;
        Ok(true)
    }

    /// Keeps other processes from making the arena and from removing it; false if one has a lock
    /// on the lock file, or has removed that.
    fn lock_all(&self) -> Result<bool> {
        let lock = self.lock.as_fd();
        let take = |byte| locks::try_for_process(lock, byte);
        // (Nobody has taken any other slot since this process has looked.)
        Ok(take(REMOVAL_BYTE)?
            && take(0)?
            && !self.is_locked()?
            && is_of(&lock_name(self.name), lock))
    }

    fn unlink(&self) -> Result<()> {
        // (The lock file is the last: while it is there, the rest is found.)
        match shm::unlink_object(&memory_name(self.name)) {
            Err(Error::Os { errno, .. }) if errno == sys::ENOENT => (),
            result => result?,
        }
        shm::unlink_object(&lock_name(self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::objects::{exists, make, LIFE_BYTE};

    /// What another process does between the look at a lock file and its removal counts.
    #[test]
    fn an_arena_that_was_attached_meanwhile_stays() {
        for slot in [None, Some(0), Some(1), Some(255)] {
            let number = slot.map_or("none".to_string(), |slot: u64| slot.to_string());
            let name = format!("snp-remains-{}-{number}", std::process::id());
            let name = Name::new(&name).unwrap();
            drop(make(&lock_name(name)).unwrap());
            drop(make(&memory_name(name)).unwrap());
            // (Two descriptions of one process have locks like two processes.)
            let other = shm::open_object(&lock_name(name), READ_WRITE, 0).unwrap();
            let remains = Remains::find(name, |_| false).unwrap();
            if let Some(slot) = slot {
                assert_eq!(
                    locks::try_for_description(other.as_fd(), slot, false),
                    Ok(true)
                );
            }
            assert_eq!(remains.remove_all(), Ok(slot.is_none()));
            assert_eq!(exists(name), slot.is_some());
            drop(other);
            if let Some(remains) = Remains::find(name, |_| false) {
                remains.remove_all().unwrap();
            }
            assert!(!exists(name));
        }
    }
    /// So does one of a process that has lost its byte: its memory file shows that it lives.
    #[test]
    fn an_arena_whose_process_lost_its_byte_stays() {
        let name = Name::new(&format!("snp-remains-{}-life", std::process::id())).unwrap();
        drop(make(&lock_name(name)).unwrap());
        drop(make(&memory_name(name)).unwrap());
        let look = || Remains::find(name, |_| false);
        let found = look().unwrap();
        let life = shm::open_object(&memory_name(name), READ_WRITE, 0).unwrap();
        let byte = LIFE_BYTE + 255;
        assert_eq!(
            locks::try_for_description(life.as_fd(), byte, true),
            Ok(true)
        );
        assert!(look().is_none());
        assert_eq!(found.remove_all(), Ok(false));
        drop(life);
        assert_eq!(look().unwrap().remove_all(), Ok(true));
        assert!(!exists(name));
    }
}
