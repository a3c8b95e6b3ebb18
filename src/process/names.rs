//! The names of an arena's objects: their removal, and what is done where they cannot be removed.

use super::objects::{lock_name, memory_name, REMOVAL_BYTE};
use super::shm_platform::ShmPlatform;
use super::wait_hooks;
use crate::sys::{locks, probe, shm};
use std::time::Duration;

/// How often, and after how long each time, to look whether another process, which may be stopped, is
/// done with the names: for about 0.3 s.
const TRIES: u32 = 1000;
const MOMENT: Duration = Duration::from_micros(200);

/// Whether to wait for another process that is at the names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// For a moment: nobody else would remove them soon.
    Some,
    /// No: it is up to others, too.
    None,
}

impl ShmPlatform {
    /// Removes the names, the lock file's last; false if the memory still has its name, or that is not
    /// known.
    ///
    /// While the lock file is there nobody can make another arena of the same
    /// name. One process removes at a time: so whatever has the names then, has
    /// them of this arena. Another one that is at it may find that they are not its to remove.
    pub(super) fn unlink(&self, patience: Patience) -> bool {
        let is_gone = || self.memory().and_then(shm::has_name) == Ok(false);
        let tries = match patience {
            Patience::Some => TRIES,
            Patience::None => 1,
        };
        for _ in 0..tries {
            let Ok(lock) = self.lock_fd() else { break };
            if locks::try_for_process(lock, REMOVAL_BYTE) == Ok(true) {
                self.remove_names();
                let _ = locks::release_for_process(lock, REMOVAL_BYTE);
                break;
            }
            if is_gone() && !self.owns_name() {
                break;
            }
            if patience == Patience::Some {
                wait_hooks::before_waiting();
                std::thread::sleep(MOMENT);
            }
        }
        is_gone()
    }

    /// Removes the names of an arena that could not be made. Nobody else does: they need the
    /// byte of slot 0 for it, which this process has had since before there was a memory.
    pub(super) fn unmake(&self) {
        self.remove_names();
    }

    fn remove_names(&self) {
        if self.owns_name() {
            let found = shm::facts_of(&memory_name(self.name()));
            if found.is_ok_and(|found| found.file() == self.memory_file()) {
                let _ = shm::unlink_object(&memory_name(self.name()));
            }
            let _ = shm::unlink_object(&lock_name(self.name()));
        }
    }

    /// Whether the lock file of this name is this arena's.
    fn owns_name(&self) -> bool {
        let found = shm::facts_of(&lock_name(self.name()));
        found.is_ok_and(|found| found.file() == self.lock_file())
    }

    /// Gives back all memory from `start` on, which is behind the slots: a process that comes needs a
    /// slot, to see that the arena is gone. For the last member, where the names cannot be
    /// removed and nobody has blocks.
    pub(super) fn empty(&self, start: u64) {
        let start = start.next_multiple_of(probe::page_size() as u64);
        if let Ok(memory) = self.memory() {
            let size = shm::facts(memory).map_or(0, |facts| facts.size);
            let _ = shm::deallocate(memory, start, size.saturating_sub(start));
        }
    }
}
