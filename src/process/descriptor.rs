//! A file descriptor that notices when something closed it.
//!
//! Daemons close every descriptor they find, and the number may be another file's by the time it is
//! used again. So each use, none of them on a hot path, first checks whether the number still is of
//! the file that was opened. If not, the file is opened again by its name.

use crate::error::{Error, Result};
use crate::sys::fork::ForkMark;
use crate::sys::{self, shm};
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

/// O_RDWR, the same on every Linux.
pub(super) const READ_WRITE: i32 = 2;

/// A descriptor of one file for as long as the process lives.
pub(super) struct Descriptor {
    name: CString,
    file: (u64, u64),
    fd: AtomicI32,
    /// The number of the process, by its fork mark, in which a thread opens the file again; else 0.
    opening: AtomicU64,
}

/// The one thread that opens a file again, until it is dropped.
///
/// Two would leave a descriptor open that nobody knows: to close it would drop all locks that the
/// process has on the file.
struct Opening<'a>(&'a AtomicU64);

impl<'a> Opening<'a> {
    /// Waits for another thread that does.
    fn begin(word: &'a AtomicU64) -> Self {
        let here = ForkMark::get().certain();
        loop {
            let seen = word.load(Ordering::Relaxed);
            // (A thread of the parent process is not in this one.)
            let free = seen != here;
            // Acquire, pairs with the release in `drop`: what that thread has opened is seen.
            let begun = free
                && word.compare_exchange(seen, here, Ordering::Acquire, Ordering::Relaxed)
                    == Ok(seen);
            if begun {
                return Opening(word);
            }
            std::thread::yield_now();
        }
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        // Release, pairs with the acquire in `begin`.
        self.0.store(0, Ordering::Release);
    }
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
            opening: AtomicU64::new(0),
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
        match self.open() {
            Some(fd) => Ok(fd),
            None => self.reopen(reopened),
        }
    }

    /// The descriptor, if it still is of the file.
    fn open(&self) -> Option<BorrowedFd<'_>> {
        // Acquire, pairs with the release in `reopen`: the file that the number stands for is open.
        let fd = self.fd.load(Ordering::Acquire);
        // SAFETY: it is of our file. Only code that closes what is not its own closes it, and
        // then the use that follows fails with EBADF.
        self.is_ours(fd)
            .then(|| unsafe { BorrowedFd::borrow_raw(fd) })
    }

    #[cold]
    fn reopen(&self, reopened: impl FnOnce(BorrowedFd<'_>)) -> Result<BorrowedFd<'_>> {
        let _opening = Opening::begin(&self.opening);
        if let Some(fd) = self.open() {
            return Ok(fd);
        }
        let gone = Error::Os {
            call: "shm_open",
            errno: sys::ENOENT,
        };
        // It is looked at before it is opened: this process may have locks on the file that has the
        // name now, of a later arena, and to close it would drop them.
        if shm::facts_of(&self.name)?.file() != self.file() {
            return Err(gone);
        }
        let other = shm::open_object(&self.name, READ_WRITE, 0)?;
        if !self.is_ours(other.as_raw_fd()) {
            return Err(gone);
        }
        // The old number belongs to other code now and stays open.
        let number = other.into_raw_fd();
        // Release, pairs with the acquire in `open`.
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
            // SAFETY: of our file, opened by `new` or `reopen`, and lent to
            // nobody any more.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::objects::make;
    use std::os::fd::AsFd;
    use std::sync::Barrier;

    /// How many descriptors of this process are of a file.
    fn count(file: [u64; 2]) -> usize {
        let numbers = std::fs::read_dir("/proc/self/fd").unwrap();
        let numbers = numbers.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let is_same = |number: &String| {
            let number = number.parse().unwrap();
            // SAFETY: borrowed for one question.
            let fd = unsafe { BorrowedFd::borrow_raw(number) };
            shm::facts(fd).is_ok_and(|facts| facts.file() == file)
        };
        numbers.filter(is_same).count()
    }

    #[test]
    fn threads_that_open_a_file_again_at_once_open_it_once() {
        const THREADS: usize = 4;
        let name = CString::new(format!("/snp-descriptor-{}", std::process::id())).unwrap();
        let fd = make(&name).unwrap();
        let file = shm::facts(fd.as_fd()).unwrap().file();
        let descriptor = Descriptor::new(&name, fd).unwrap();
        for _ in 0..100 {
            // As a daemon closes what it finds.
            // SAFETY: nobody has borrowed it; the number is looked at before it is used again.
            drop(unsafe { OwnedFd::from_raw_fd(descriptor.fd.load(Ordering::Relaxed)) });
            let barrier = Barrier::new(THREADS);
            std::thread::scope(|scope| {
                for _ in 0..THREADS {
                    scope.spawn(|| {
                        barrier.wait();
                        let fd = descriptor.lend(|_| ()).unwrap();
                        assert_eq!(shm::facts(fd).unwrap().file(), file);
                    });
                }
            });
            assert_eq!(count(file), 1);
        }
        drop(descriptor);
        assert_eq!(count(file), 0);
        shm::unlink_object(&name).unwrap();
    }

    /// It may be that of a later arena of this process, whose locks a descriptor that closes would drop.
    #[test]
    fn the_file_that_has_the_name_by_now_is_not_opened() {
        use crate::sys::locks;
        let name = CString::new(format!("/snp-descriptor-{}-later", std::process::id())).unwrap();
        let descriptor = Descriptor::new(&name, make(&name).unwrap()).unwrap();
        // SAFETY: nobody has borrowed it; the number is looked at before it is used again.
        drop(unsafe { OwnedFd::from_raw_fd(descriptor.fd.load(Ordering::Relaxed)) });
        shm::unlink_object(&name).unwrap();
        let later = make(&name).unwrap();
        assert_eq!(locks::try_for_process(later.as_fd(), 0), Ok(true));
        assert!(descriptor.lend(|_| ()).is_err());
        // (A description of this process has locks like another process.)
        let other = shm::open_object(&name, READ_WRITE, 0).unwrap();
        assert_eq!(
            locks::try_for_description(other.as_fd(), 0, false),
            Ok(false)
        );
        shm::unlink_object(&name).unwrap();
    }

    #[test]
    fn one_thread_at_a_time_opens_a_file_again() {
        use std::sync::atomic::AtomicU32;
        let (word, inside) = (AtomicU64::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        let _opening = Opening::begin(&word);
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
    }

    /// A thread of the parent process that was opening the file is not in a forked child.
    #[test]
    fn a_forked_child_does_not_wait_for_a_thread_of_its_parent() {
        let word = AtomicU64::new(ForkMark::get().certain() + 1);
        drop(Opening::begin(&word));
        assert_eq!(word.load(Ordering::Relaxed), 0);
    }
}
