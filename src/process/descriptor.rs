//! A file descriptor that notices when something closed it.
//!
//! Daemons close every descriptor they find, and the number may be another file's by the time it is
//! used again. So each use, none of them on a hot path, first checks whether the number still is of
//! the file that was opened. If not, the file is opened again by its name.

use crate::error::{Error, Result};
use crate::sys::{self, shm};
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

/// O_RDWR, the same on every Linux.
pub(super) const READ_WRITE: i32 = 2;

/// A descriptor of one file for as long as the process lives.
pub(super) struct Descriptor {
    name: CString,
    file: (u64, u64),
    fd: AtomicI32,
}

impl Descriptor {
    /// Keeps `fd`, which is of the object `name`.
    pub fn new(name: &CStr, fd: OwnedFd) -> Result<Self> {
        use std::os::fd::AsFd;
        let facts = shm::facts(fd.as_fd())?;
        Ok(Descriptor {
            name: name.to_owned(),
            file: (facts.inode, facts.device),
            fd: AtomicI32::new(fd.into_raw_fd()),
        })
    }

    /// The file's inode and device.
    pub fn file(&self) -> [u64; 2] {
        [self.file.0, self.file.1]
    }

    fn is_ours(&self, fd: RawFd) -> bool {
        // SAFETY: borrowed for one question; a number that is nobody's gets
        // EBADF for an answer.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        shm::facts(fd).is_ok_and(|facts| (facts.inode, facts.device) == self.file)
    }

    /// Lends the descriptor. `reopened` is called after it had to be opened again.
    ///
    /// # Errors
    /// What opening reports; ENOENT if the name is another file's by now.
    pub fn lend(&self, reopened: impl FnOnce(BorrowedFd<'_>)) -> Result<BorrowedFd<'_>> {
        // Acquire, pairs with the release below: the file that the number stands for is open.
        let fd = self.fd.load(Ordering::Acquire);
        if self.is_ours(fd) {
            // SAFETY: it is of our file. Only code that closes what is not its own closes it, and
            // then the use that follows fails with EBADF.
            return Ok(unsafe { BorrowedFd::borrow_raw(fd) });
        }
        let other = shm::open_object(&self.name, READ_WRITE, 0)?;
        if !self.is_ours(other.as_raw_fd()) {
            // Closing it is safe: it is not the file whose locks we have.
            return Err(Error::Os {
                call: "shm_open",
                errno: sys::ENOENT,
            });
        }
        // The old number belongs to other code now and stays open.
        let number = other.into_raw_fd();
        // Release, pairs with the acquire above. (If two threads open the file at once, one number
        // stays open and unused.)
        self.fd.store(number, Ordering::Release);
        // SAFETY: opened above and not closed before `self` is dropped.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        reopened(fd);
        Ok(fd)
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        let fd = *self.fd.get_mut();
        if self.is_ours(fd) {
            // SAFETY: of our file, opened by `new` or `lend`, and lent to
            // nobody any more.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
}
