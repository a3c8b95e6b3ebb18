//! Locks on single bytes of a file: `fcntl(2)`.
//!
//! Two kinds, which conflict with each other but belong to different owners.
//! A *process's* lock is not inherited by a fork and dropped by the kernel when
//! the process ends, or when it closes any descriptor of the file. A
//! *description's* lock (since Linux 3.15) belongs to all processes that have
//! the open file description, and ends with the last of them. Where there are none of these,
//! a description can lock the whole file: `flock(2)`.

use super::errno::{failed, last};
use crate::error::{Error, Result};
use std::ffi::c_short;
use std::os::fd::{AsRawFd, BorrowedFd};

// Their types differ between systems.
#[cfg(target_os = "linux")]
const READ: c_short = libc::F_RDLCK as c_short;
const WRITE: c_short = libc::F_WRLCK as c_short;
const NONE: c_short = libc::F_UNLCK as c_short;

fn byte(kind: c_short, at: u64) -> libc::flock {
    // SAFETY: a struct of numbers, for which zero is a value.
    let mut range: libc::flock = unsafe { std::mem::zeroed() };
    range.l_type = kind;
    range.l_whence = libc::SEEK_SET as c_short;
    range.l_start = at as libc::off_t;
    range.l_len = 1;
    range
}

fn control(fd: BorrowedFd<'_>, command: i32, range: &mut libc::flock) -> Result<()> {
    // SAFETY: these commands read and write the struct that is lent to the call.
    match unsafe { libc::fcntl(fd.as_raw_fd(), command, range as *mut libc::flock) } {
        -1 => Err(failed("fcntl")(last())),
        _ => Ok(()),
    }
}

fn try_lock(fd: BorrowedFd<'_>, command: i32, kind: c_short, at: u64) -> Result<bool> {
    match control(fd, command, &mut byte(kind, at)) {
        Ok(()) => Ok(true),
        // Which of the two is up to the system.
        Err(Error::Os { errno, .. }) if errno == libc::EAGAIN || errno == libc::EACCES => Ok(false),
        Err(error) => Err(error),
    }
}

/// Locks byte `at` for this process, F_SETLK; false if another has it.
pub fn try_for_process(fd: BorrowedFd<'_>, at: u64) -> Result<bool> {
    try_lock(fd, libc::F_SETLK, WRITE, at)
}

/// Gives back this process's lock of byte `at`, F_SETLK.
pub fn release_for_process(fd: BorrowedFd<'_>, at: u64) -> Result<()> {
    control(fd, libc::F_SETLK, &mut byte(NONE, at))
}

/// Locks byte `at` for this open file description, F_OFD_SETLK; `shared` locks
/// go together. False if another has it.
#[cfg(target_os = "linux")]
pub fn try_for_description(fd: BorrowedFd<'_>, at: u64, shared: bool) -> Result<bool> {
    let kind = if shared { READ } else { WRITE };
    try_lock(fd, libc::F_OFD_SETLK, kind, at)
}

/// Asks for the locks of open file descriptions on the first byte, F_OFD_GETLK, and for nothing
/// but whether that can be asked.
#[cfg(target_os = "linux")]
pub fn ask_description(fd: BorrowedFd<'_>) -> Result<()> {
    control(fd, libc::F_OFD_GETLK, &mut byte(WRITE, 0))
}

/// Locks the whole file for this open file description: `flock(2)`, which every Linux has,
/// and which is apart from the locks of bytes. False if another has it.
#[cfg(target_os = "linux")]
pub fn try_for_file(fd: BorrowedFd<'_>, shared: bool) -> Result<bool> {
    let kind = if shared { libc::LOCK_SH } else { libc::LOCK_EX };
    // SAFETY: changes a lock of the descriptor, which lives during the call.
    match unsafe { libc::flock(fd.as_raw_fd(), kind | libc::LOCK_NB) } {
        0 => Ok(true),
        _ if last() as i32 == libc::EWOULDBLOCK => Ok(false),
        _ => Err(failed("flock")(last())),
    }
}

/// Whether anybody but this process has a lock on byte `at`, F_GETLK. Locks of
/// descriptions count, its own among them.
pub fn is_locked(fd: BorrowedFd<'_>, at: u64) -> Result<bool> {
    is_range_locked(fd, &mut byte(WRITE, at))
}

/// A process that has a lock on one of the first `length` bytes, as it is numbered here; 0 if it has
/// no number here. None if nobody but this process has one. F_GETLK.
pub fn owner_of_any(fd: BorrowedFd<'_>, length: u64) -> Result<Option<u32>> {
    let mut range = byte(WRITE, 0);
    range.l_len = length as libc::off_t;
    let locked = is_range_locked(fd, &mut range)?;
    Ok(locked.then_some(range.l_pid.max(0) as u32))
}

/// Whether anybody but this process has a lock on one of `length` bytes from `start` on, F_GETLK.
pub fn is_any_locked(fd: BorrowedFd<'_>, start: u64, length: u64) -> Result<bool> {
    let mut range = byte(WRITE, start);
    range.l_len = length as libc::off_t;
    is_range_locked(fd, &mut range)
}

fn is_range_locked(fd: BorrowedFd<'_>, range: &mut libc::flock) -> Result<bool> {
    control(fd, libc::F_GETLK, range)?;
    Ok(range.l_type != NONE)
}
