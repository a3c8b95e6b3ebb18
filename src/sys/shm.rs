//! Named shared memory objects and their storage.

use super::failed;
use crate::error::Result;
use nix::fcntl::OFlag;
use nix::sys::mman;
use nix::sys::stat::Mode;
use std::ffi::{c_int, CStr};
use std::os::fd::{BorrowedFd, OwnedFd};

/// Opens the shared memory object `name`: `shm_open(3)`.
///
/// `flags` and `mode` go to the system as they are. The descriptor is
/// close-on-exec.
pub fn open(name: &CStr, flags: c_int, mode: u32) -> Result<OwnedFd> {
    let flags = OFlag::from_bits_retain(flags);
    let mode = Mode::from_bits_retain(mode as libc::mode_t);
    mman::shm_open(name, flags, mode).map_err(failed("shm_open"))
}

/// Removes the name of a shared memory object: `shm_unlink(3)`.
///
/// Descriptors and mappings that exist stay valid.
pub fn unlink(name: &CStr) -> Result<()> {
    mman::shm_unlink(name).map_err(failed("shm_unlink"))
}

/// Takes storage for `length` bytes from `offset` on: `posix_fallocate(3)`.
///
/// Bytes that are there already keep their values; the file grows if the range
/// ends behind its end.
#[cfg(not(target_vendor = "apple"))]
pub fn allocate(fd: BorrowedFd<'_>, offset: i64, length: i64) -> Result<()> {
    nix::fcntl::posix_fallocate(fd, offset, length).map_err(failed("posix_fallocate"))
}

/// Returns how many more bytes the file system of `fd` can hold: `fstatvfs(3)`.
///
/// None stands for a file system without a limit, which reports no blocks.
pub fn room(fd: BorrowedFd<'_>) -> Result<Option<u64>> {
    let system = nix::sys::statvfs::fstatvfs(fd).map_err(failed("fstatvfs"))?;
    if system.blocks() == 0 {
        return Ok(None);
    }
    Ok(Some(
        system.blocks_available() as u64 * system.fragment_size() as u64,
    ))
}

/// Says that this system cannot take storage ahead of its use.
#[cfg(target_vendor = "apple")]
pub fn allocate(_fd: BorrowedFd<'_>, _offset: i64, _length: i64) -> Result<()> {
    Err(failed("posix_fallocate")(nix::errno::Errno::ENOTSUP))
}
