//! The two objects of an arena in the file system: their names, and what lies there.

use super::descriptor::READ_WRITE;
use crate::arena::format::{Header, MAGIC, SLOTS};
use crate::arena::handle::Name;
use crate::arena::platform::Room;
use crate::error::{Error, Result};
use crate::segment::Reservation;
use crate::sys::{self, cgroup, locks, probe, proc, shm};
use std::ffi::{CStr, CString};
use std::mem::{offset_of, size_of};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What the name of a lock file ends with, which others' objects do not.
pub const LOCK_SUFFIX: &str = ".snp-lock";
/// The one mode that an arena's objects may have.
pub(super) const MODE: u32 = 0o600;
/// The byte of the memory file whose lock shows that a process, or its children, hold pinned blocks.
pub(super) const PIN_BYTE: u64 = SLOTS as u64;
/// The byte of the memory file, of slot 0, whose lock shows that the slot's process lives, should it
/// have lost its byte of the lock file. Those of the other slots follow.
pub(super) const LIFE_BYTE: u64 = PIN_BYTE + 1;
/// The byte of the lock file that a process locks while it removes the names.
pub(super) const REMOVAL_BYTE: u64 = PIN_BYTE + 1;
/// O_CREAT | O_EXCL, the same on every Linux that Rust runs on but MIPS.
const CREATE: i32 = 0o300;

/// What the system says if there is no memory.
pub(super) const NO_SPACE: Error = Error::Os {
    call: "posix_fallocate",
    errno: sys::ENOSPC,
};

/// An object of an arena, as `shm::open_object` takes it.
fn object_name(name: Name, suffix: &str) -> CString {
    let slash = if name.folder().is_some() { "" } else { "/" };
    CString::new(format!("{slash}{}{suffix}", name.as_str())).expect("names have no zeros")
}

/// The arena's memory.
pub(super) fn memory_name(name: Name) -> CString {
    object_name(name, "")
}

/// The arena's lock file.
pub(super) fn lock_name(name: Name) -> CString {
    object_name(name, LOCK_SUFFIX)
}

/// Makes an object that this user can open again, whatever the process's umask.
pub(super) fn make(name: &CStr) -> Result<OwnedFd> {
    let made = patiently(|| shm::open_object(name, CREATE | READ_WRITE, MODE))?;
    if let Err(error) = patiently(|| shm::set_mode(made.as_fd(), MODE)) {
        let _ = shm::unlink_object(name);
        return Err(error);
    }
    Ok(made)
}

/// Whether a process shows by its memory file that it has an arena. (Or a child of one, that was made
/// without the C library's fork.)
pub(super) fn shows_life(memory: BorrowedFd<'_>) -> Result<bool> {
    patiently(|| locks::is_any_locked(memory, LIFE_BYTE, SLOTS as u64))
}

/// Repeats a call that a signal interrupted.
pub(super) fn patiently<T>(mut call: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match call() {
            Err(Error::Os { errno, .. }) if errno == sys::EINTR => continue,
            result => return result,
        }
    }
}

/// Turns the error of a call that the system lacks into one that says what is `Missing`.
pub(super) fn needing(what: &'static str) -> impl Fn(Error) -> Error {
    move |error| match error {
        Error::Os { call, errno } if probe::is_missing(errno) => {
            Error::Missing { what, call, errno }
        }
        error => error,
    }
}

/// What there is for an object: of its file system, and of the memory that this process's
/// control groups may use.
pub(super) fn room_for(fd: BorrowedFd<'_>) -> Result<Room> {
    let (all, free) = match patiently(|| shm::room(fd))? {
        Some(room) => (room.all, room.free),
        None => (u64::MAX, u64::MAX),
    };
    let free = free.min(cgroup::memory().unwrap_or(u64::MAX));
    Ok(Room { all, free })
}

/// Refuses if there are not `size` bytes for an object.
///
/// # Errors
/// ENOSPC, before anything is taken. Memory that is taken bit by bit would first use up the last of
/// all processes' memory; and beyond the limit of a control group the kernel kills instead of
/// refusing.
pub(super) fn has_room(fd: BorrowedFd<'_>, size: u64) -> Result<()> {
    match room_for(fd)?.free < size {
        true => Err(NO_SPACE),
        false => Ok(()),
    }
}

/// Reserves `size` bytes of an object from `start` on.
pub(super) fn reserve(fd: BorrowedFd<'_>, start: u64, size: u64) -> Result<()> {
    let mut reservation = Reservation::of(start, size);
    while !patiently(|| reservation.step(fd))? {}
    Ok(())
}

/// Opens the memory of an arena, and says which file it is.
///
/// # Errors
/// ENOENT if there is none, `Foreign` if it is not this user's alone.
pub fn open_memory(name: Name) -> Result<(OwnedFd, [u64; 2])> {
    let memory = patiently(|| shm::open_object(&memory_name(name), READ_WRITE, 0))?;
    let facts = shm::facts(memory.as_fd())?;
    if facts.uid != proc::user() {
        return Err(Error::Foreign {
            why: "another user's arena, or made before this program changed its user",
        });
    }
    if facts.permissions != MODE {
        return Err(Error::Foreign {
            why: "other users may write to it",
        });
    }
    Ok((memory, facts.file()))
}

/// Whether the object `name` is the one that is open.
pub(super) fn is_of(name: &CStr, fd: BorrowedFd<'_>) -> bool {
    let (named, open) = (shm::facts_of(name), shm::facts(fd));
    matches!((named, open), (Ok(named), Ok(open)) if named.file() == open.file())
}

/// Whether there is an arena of this name, one in the making, or another object.
pub fn exists(name: Name) -> bool {
    let objects = [lock_name(name), memory_name(name)];
    objects.iter().any(|object| shm::facts_of(object).is_ok())
}

/// What is under the name of an arena's memory.
#[derive(PartialEq, Eq)]
pub(super) enum Memory {
    /// Nothing.
    Nothing,
    /// An arena of this lock file, with its magic number or without.
    Arena { finished: bool },
    /// Something else.
    Other,
}

/// What is under the name of the memory of the arena of a lock file.
///
/// # Errors
/// That it cannot be told now, for want of a descriptor perhaps.
pub(super) fn memory_of(name: Name, lock: [u64; 2]) -> Result<Memory> {
    let memory = match open_memory(name) {
        Ok((memory, _)) => memory,
        Err(Error::Os { errno, .. }) if errno == sys::ENOENT => return Ok(Memory::Nothing),
        Err(error @ Error::Os { errno, .. }) if sys::is_passing(errno) => return Err(error),
        Err(_) => return Ok(Memory::Other),
    };
    let number = |at: usize| {
        let mut bytes = [0; 8];
        let read = shm::read(memory.as_fd(), at as u64, &mut bytes);
        read.map(|_| u64::from_ne_bytes(bytes)).unwrap_or(0)
    };
    let at = offset_of!(Header, lock_file);
    let size = shm::facts(memory.as_fd()).map_or(u64::MAX, |facts| facts.size);
    if name.is_of_identifier() && size < at as u64 + 16 {
        // Nobody else makes objects of such names: its maker writes the number now, or was killed.
        return Ok(Memory::Arena { finished: false });
    }
    Ok(match [number(at), number(at + 8)] == lock {
        true => Memory::Arena {
            finished: number(offset_of!(Header, magic)) != 0,
        },
        false => Memory::Other,
    })
}

/// Whether the name of an identifier's memory has that of an arena whose lock file was removed, which
/// no process can attach. The caller has seen that there is no lock file, or has made it.
///
/// # Errors
/// As for [`memory_of`].
pub(super) fn is_remnant(name: Name) -> Result<bool> {
    if !name.is_of_identifier() {
        return Ok(false);
    }
    let memory = match open_memory(name) {
        Ok((memory, _)) => memory,
        Err(error @ Error::Os { errno, .. }) if sys::is_passing(errno) => return Err(error),
        Err(_) => return Ok(false),
    };
    let mut magic = [0; 8];
    let at = offset_of!(Header, magic) as u64;
    let read = patiently(|| shm::read(memory.as_fd(), at, &mut magic));
    // (Its maker may have died before it wrote any.)
    let begins = |read| read < 8 || [0, MAGIC].contains(&u64::from_ne_bytes(magic));
    Ok(read.is_ok_and(begins))
}

/// Whether the object whose memory was opened as `file` is a finished arena, or
/// something else. None if a process is making an arena of this name, or ending it, or was killed
/// while it did.
pub(super) fn is_arena(name: Name, file: [u64; 2]) -> Option<bool> {
    let lock = shm::facts_of(&lock_name(name)).map(|facts| facts.file());
    let what = lock.and_then(|lock| memory_of(name, lock));
    let memory = shm::facts_of(&memory_name(name)).ok()?;
    if memory.file() != file {
        return None;
    }
    match what {
        Ok(Memory::Arena { finished }) => finished.then_some(true),
        // (Too short: the number of its lock file was not written yet.)
        Ok(Memory::Other) => (memory.size >= size_of::<Header>() as u64).then_some(false),
        // (It cannot be told now.)
        Err(Error::Os { errno, .. }) if sys::is_passing(errno) => None,
        // (A lock file is made before the memory, and removed after it.)
        Err(_) => Some(false),
        Ok(Memory::Nothing) => None,
    }
}
