//! Huge pages: where the file system gives them, segments are as long as whole ones, and their
//! memory is reserved and mapped so that they serve.
//!
//! One huge page takes one fault instead of 512, and one entry where the processor looks addresses
//! up. A segment begins at a multiple of every page's length, and the kernel maps it at such an
//! address; so what is left to do depends on how the file system gives them:
//!
//! * `always`, `within_size`: to a reservation that covers a whole one within the file, whose length
//!   must be known before: see [`HugePages::extend`].
//! * `advise`: to faults in a mapping that asked for them, not to reservations. So what is to be
//!   reserved is mapped for the moment, with that wish, and its pages are taken through the mapping;
//!   the reservation after that finds them there, or says that there is no memory.
//!
//! Nothing here can fail: without huge pages memory is as it is elsewhere.

use super::objects::{self, patiently};
use crate::arena::format::LONGEST;
use crate::error::Result;
use crate::segment::CHUNK;
use crate::sys::probe::{self, HUGE_PAGE};
use crate::sys::{map, proc, shm};
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};

/// Shorter segments have pages of the common length: they would be mostly unused.
const LEAST: u64 = 4 * HUGE_PAGE;

// Else a call that reserves would end within a huge page.
const _: () = assert!(CHUNK % HUGE_PAGE == 0);

/// How an arena's file system gives huge pages, which is asked when it is first needed. (No lock: a
/// child may ask that was forked while another thread was asking.)
#[derive(Default)]
pub struct HugePages(AtomicU8);

impl HugePages {
    fn of(&self, fd: BorrowedFd<'_>) -> probe::HugePages {
        use probe::HugePages::{Advised, Always, Never};
        let known = match self.0.load(Ordering::Relaxed) {
            1 => Some(Never),
            2 => Some(Always),
            3 => Some(Advised),
            _ => None,
        };
        known.unwrap_or_else(|| {
            // (What could not be asked is not remembered.)
            let Ok(found) = probe::huge_pages_for(fd) else {
                return Never;
            };
            let word = match found {
                Never => 1,
                Always => 2,
                Advised => 3,
            };
            self.0.store(word, Ordering::Relaxed);
            found
        })
    }

    /// The length that a segment of at least `size` bytes is best a multiple of; None if any does.
    pub fn unit(&self, fd: BorrowedFd<'_>, size: u64) -> Option<u64> {
        let granted = size >= LEAST && self.of(fd) != probe::HugePages::Never;
        granted.then_some(HUGE_PAGE)
    }

    /// Makes the file longer than the segment that is to end at `end`: huge pages are given within
    /// its length only.
    pub fn extend(&self, fd: BorrowedFd<'_>, end: u64, size: u64) {
        let page = probe::page_size() as u64;
        // (Behind the longest segment the next one begins.)
        if self.unit(fd, size).is_none() || size >= LONGEST || proc::file_size_limit() < end + page
        {
            return;
        }
        // One page behind the end, which goes again: other processes may make the file longer at
        // the same time, and none may make it shorter.
        if patiently(|| shm::allocate(fd, end, page)).is_ok() {
            let _ = patiently(|| shm::deallocate(fd, end, page));
        }
    }

    /// Reserves `size` bytes of the arena's memory from `start` on.
    ///
    /// # Errors
    /// What the reservation reports, ENOSPC above all.
    pub fn reserve(&self, fd: BorrowedFd<'_>, start: u64, size: u64) -> Result<()> {
        if size >= LEAST && self.of(fd) == probe::HugePages::Advised {
            let _ = take_by_mapping(fd, start, size);
        }
        objects::reserve(fd, start, size)
    }
}

/// Takes the whole huge pages of a range through a mapping of this moment.
fn take_by_mapping(fd: BorrowedFd<'_>, start: u64, size: u64) -> Result<()> {
    let first = start.next_multiple_of(HUGE_PAGE);
    let end = (start + size) / HUGE_PAGE * HUGE_PAGE;
    let base = map::shared(fd, first, (end - first) as usize)?;
    // SAFETY: the mapping that was made above, as long as that.
    let mut done = unsafe { map::want_huge_pages(base, (end - first) as usize) };
    let mut at = 0;
    while done.is_ok() && first + at < end {
        let place = NonNull::new(base.as_ptr().wrapping_add(at as usize));
        let place = place.expect("within a mapping");
        // SAFETY: whole pages of the same mapping, before its end.
        done = patiently(|| unsafe { map::populate(place, HUGE_PAGE as usize) });
        at += HUGE_PAGE;
    }
    // SAFETY: mapped above, and nothing refers to it.
    let _ = unsafe { map::unmap(base, (end - first) as usize) };
    done
}
