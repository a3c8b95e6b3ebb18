//! A look at an arena from outside: this process does not join it, and changes nothing.
//!
//! The tables are read, not mapped: a file that is cut meanwhile yields fewer bytes and no signal, and
//! holes stay holes. Whether processes live is asked of the kernel's locks, without taking one.

use super::objects::{is_of, patiently, shows_life, LIFE_BYTE, LOCK_SUFFIX, PIN_BYTE};
use super::process_arenas;
use crate::arena::image::{Image, Kind};
use crate::error::Result;
use crate::sys::{locks, proc, shm};
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd};

/// What was seen.
#[derive(Clone, Debug)]
pub struct Look {
    /// The tables.
    pub image: Image,
    /// Of each slot of the image: whether its process shows by a lock that it lives. None where that
    /// cannot be asked.
    pub locked: Vec<Option<bool>>,
    /// Whether any process does. None where that cannot be asked: there is no lock file
    /// that may be opened, or this process has the arena itself.
    pub any_locked: Option<bool>,
    /// Whether children that got no slot hold blocks.
    pub pinned: bool,
    /// Whether this process has the arena.
    pub ours: bool,
    /// Whether the lock file is the one that the arena was made with. None if there is none.
    pub same_lock_file: Option<bool>,
    /// Whether the arena was made since this machine was started.
    pub same_boot: bool,
    /// The time now, in ms, on the clock by which tickets tell when they were opened.
    pub now: u64,
}

/// How often tables are read in which rows cannot be, since they may be between two states; and how
/// often a name is followed that others give to another arena meanwhile.
const LOOKS: usize = 4;

/// Looks at the arena whose memory is the file of this path.
///
/// # Errors
/// That its memory cannot be opened.
pub fn look(path: &str) -> Result<Look> {
    let text = CString::new(path).unwrap_or_default();
    let mut left = LOOKS;
    loop {
        let memory = patiently(|| shm::open_object(&text, 0, 0))?;
        let look = look_into(path, memory.as_fd())?;
        left -= 1;
        // Another arena may have got the name between the two files.
        if look.same_lock_file != Some(false) || left == 0 || is_of(&text, memory.as_fd()) {
            return Ok(look);
        }
    }
}

fn look_into(path: &str, memory: BorrowedFd<'_>) -> Result<Look> {
    let mut image = read(memory)?;
    let mut before = Vec::new();
    for _ in 1..LOOKS {
        // Rows that stay as they are are no step of a process at work.
        if image.odd.is_empty() || image.odd == before {
            break;
        }
        before = image.odd.clone();
        std::thread::sleep(std::time::Duration::from_millis(1));
        image = read(memory)?;
        image.odd.retain(|odd| before.contains(odd));
    }
    let lock_path = CString::new(format!("{path}{LOCK_SUFFIX}")).unwrap_or_default();
    let facts = shm::facts_of(&lock_path).ok();
    // To close the lock file would drop this process's own locks.
    let list = process_arenas::lock();
    let ours = facts.is_some_and(|facts| list.has_lock_file(facts.file()));
    let lock = (!ours)
        .then(|| shm::open_object(&lock_path, 0, 0).ok())
        .flatten();
    let is_locked = |fd: BorrowedFd<'_>, byte| patiently(|| locks::is_locked(fd, byte)).ok();
    let here = proc::namespace().unwrap_or(0);
    let locked = image.slots.iter().map(|slot| match (slot.reserved, &lock) {
        (true, _) => is_locked(memory, slot.slot.into()),
        (false, Some(lock)) => match is_locked(lock.as_fd(), slot.slot.into()) {
            // It may have lost its byte, and its number tells nothing here.
            Some(false) if slot.namespace != here => {
                is_locked(memory, LIFE_BYTE + u64::from(slot.slot))
            }
            locked => locked,
        },
        (false, None) => None,
    });
    let locked = locked.collect();
    // (The byte that is locked while names are removed is no sign of life.)
    let shown = !ours && shows_life(memory) == Ok(true);
    let any_locked = lock
        .as_ref()
        .and_then(|lock| patiently(|| locks::is_any_locked(lock.as_fd(), 0, PIN_BYTE)).ok())
        .map_or(shown.then_some(true), |locked| Some(locked || shown));
    drop(lock);
    drop(list);
    Ok(Look {
        locked,
        any_locked,
        pinned: is_locked(memory, PIN_BYTE).unwrap_or(false),
        ours,
        same_lock_file: facts.map(|facts| facts.file() == image.lock_file),
        same_boot: image.kind != Kind::Arena || proc::boot().is_ok_and(|boot| boot == image.boot),
        now: proc::now(),
        image,
    })
}

/// Reads the tables in an arena's memory.
pub(super) fn read(memory: BorrowedFd<'_>) -> Result<Image> {
    let facts = shm::facts(memory)?;
    let read = |mut offset: u64, bytes: &mut [u8]| {
        let mut count = 0;
        while count < bytes.len() {
            match patiently(|| shm::read(memory, offset, &mut bytes[count..])) {
                Ok(0) | Err(_) => break,
                Ok(more) => {
                    count += more;
                    offset += more as u64;
                }
            }
        }
        count
    };
    Ok(Image::read(&read, facts.size, facts.allocated))
}
