//! How a process is seen to live that has lost its byte of the lock file: by its number, or by a
//! sign of life beside that byte.
//!
//! The kernel drops the byte's lock when the process closes any descriptor of the lock file, as a
//! program does that reads all files in /dev/shm. So where it can the process also locks a byte of
//! the memory file, through an open file description that it shares with nobody: only to close that
//! one drops the lock. A forked child inherits it, and closes it at once.

use super::objects::LIFE_BYTE;
use crate::arena::format::SlotRow;
use crate::error::{Error, Result};
use crate::sys::{self, locks, proc, shm};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

const NONE: RawFd = -1;

/// The descriptor that has the lock; or none.
///
/// A number, and no mutex: a forked child closes it at once, whatever its parent's other threads were
/// at.
pub(super) struct Life {
    /// The memory file's inode and device.
    file: [u64; 2],
    fd: AtomicI32,
}

impl Life {
    /// None yet, of the memory file `file`.
    pub fn new(file: [u64; 2]) -> Self {
        Life {
            file,
            fd: AtomicI32::new(NONE),
        }
    }

    /// Whether there is one.
    pub fn is_shown(&self) -> bool {
        self.fd.load(Ordering::Relaxed) != NONE
    }

    /// Shows that the process of a slot lives, by a descriptor that [`shm::open_for_locks`] has opened.
    ///
    /// # Errors
    /// What the lock reports.
    pub fn show(&self, fd: OwnedFd, slot: u64) -> Result<()> {
        // (Shared, since a child that was made without the C library's fork may have the one of the
        // dead process that had the slot before.)
        if locks::try_for_description(fd.as_fd(), LIFE_BYTE + slot, true)? {
            self.replace(fd.into_raw_fd());
        }
        Ok(())
    }

    /// Ends it, if there is one.
    pub fn end(&self) {
        self.replace(NONE);
    }

    /// Forgets a descriptor that other code has closed.
    pub fn check(&self) {
        let fd = self.fd.load(Ordering::Relaxed);
        if fd != NONE && !self.is_ours(fd) {
            let _ = self
                .fd
                .compare_exchange(fd, NONE, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    fn replace(&self, new: RawFd) {
        // Acquire and release, pairs with itself: whoever closes it comes after who opened it.
        let old = self.fd.swap(new, Ordering::AcqRel);
        if old != NONE && self.is_ours(old) {
            // SAFETY: opened for this, and the swap takes it once.
            drop(unsafe { OwnedFd::from_raw_fd(old) });
        }
    }

    /// Whether a number still is of the file, and was opened for locks: code that closes what is not its
    /// own may have closed it, and another descriptor of the file may have its number.
    fn is_ours(&self, fd: RawFd) -> bool {
        // SAFETY: borrowed for two questions; a number that is nobody's gets EBADF for an answer.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        shm::is_for_locks(fd) && shm::facts(fd).is_ok_and(|facts| facts.file() == self.file)
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.end();
    }
}

/// Whether the process that wrote a row lives, whatever became of its byte. None if its number means
/// nothing here: locks alone decide.
pub(super) fn lives(row: &SlotRow) -> Option<bool> {
    let namespace = row.namespace.get();
    match proc::namespace() {
        Ok(here) if here == namespace && namespace != 0 => (),
        // It cannot be told now; the next time perhaps.
        Err(Error::Os { errno, .. }) if namespace != 0 && sys::is_passing(errno) => {
            return Some(true);
        }
        _ => return None,
    }
    let pid = row.pid.get();
    Some(match proc::status(pid) {
        Ok(Some(status)) => {
            let started = row.started.get();
            let other = started != 0 && status.started != started;
            let known = status.stack != 0 && row.stack.get() != 0;
            // It has executed another program: its attached arenas are gone.
            let executed = known && status.stack != row.stack.get();
            !(status.is_zombie() || status.exiting || other || executed)
        }
        Ok(None) => false,
        // No /proc, or no descriptor left to look there.
        Err(_) => proc::exists(pid),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::descriptor::READ_WRITE;
    use crate::process::objects::{make, shows_life};
    use std::ffi::CString;
    use std::os::fd::AsRawFd;

    #[test]
    fn it_is_shown_until_it_ends() {
        let name = CString::new(format!("/snp-life-{}", std::process::id())).unwrap();
        let memory = make(&name).unwrap();
        let other = shm::open_object(&name, READ_WRITE, 0).unwrap();
        shm::unlink_object(&name).unwrap();
        let life = Life::new(shm::facts(memory.as_fd()).unwrap().file());
        let open = || shm::open_for_locks(memory.as_fd()).unwrap();
        for slot in [0, 3, 1023] {
            life.show(open(), slot).unwrap();
            // A descriptor of the file that is closed takes nothing away.
            drop(shm::reopen(memory.as_fd()).unwrap());
            for each in 0..1024 {
                let locked = locks::is_locked(other.as_fd(), LIFE_BYTE + each);
                assert_eq!(locked, Ok(each == slot));
            }
        }
        assert!(life.is_shown() && shows_life(other.as_fd()) == Ok(true));
        life.end();
        assert!(!life.is_shown() && shows_life(other.as_fd()) == Ok(false));
        life.show(open(), 0).unwrap();
        drop(life);
        assert_eq!(shows_life(other.as_fd()), Ok(false));
    }

    /// Daemons close every descriptor that they find, and the number may be another's by then.
    #[test]
    fn what_has_its_number_by_now_stays_open() {
        let name = CString::new(format!("/snp-life-{}-closed", std::process::id())).unwrap();
        let memory = make(&name).unwrap();
        let life = Life::new(shm::facts(memory.as_fd()).unwrap().file());
        life.show(shm::open_for_locks(memory.as_fd()).unwrap(), 7)
            .unwrap();
        // Another descriptor of the same file has the number by now, as after `dup2`.
        let other = shm::open_object(&name, READ_WRITE, 0).unwrap();
        shm::unlink_object(&name).unwrap();
        let number = life.fd.swap(other.as_raw_fd(), Ordering::Relaxed);
        life.end();
        assert!(!life.is_shown() && shm::facts(other.as_fd()).is_ok());
        life.fd.store(other.as_raw_fd(), Ordering::Relaxed);
        life.check();
        assert!(!life.is_shown() && shm::facts(other.as_fd()).is_ok());
        life.fd.store(number, Ordering::Relaxed);
        life.check();
        assert!(life.is_shown());
    }
}
