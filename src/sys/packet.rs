//! Packets through a descriptor that does not wait.

use super::errno::failed;
use crate::error::Result;
use nix::errno::Errno;
use std::os::fd::BorrowedFd;

/// Writes a packet, `write(2)`; false if there is no room.
pub fn write(fd: BorrowedFd<'_>, packet: &[u8]) -> Result<bool> {
    match nix::unistd::write(fd, packet) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN) => Ok(false),
        Err(errno) => Err(failed("write")(errno)),
    }
}

/// Reads a packet, `read(2)`, and returns its length, 0 if no more will come;
/// None if there is none now.
pub fn read(fd: BorrowedFd<'_>, packet: &mut [u8]) -> Result<Option<usize>> {
    match nix::unistd::read(fd, packet) {
        Ok(length) => Ok(Some(length)),
        Err(Errno::EAGAIN) => Ok(None),
        Err(errno) => Err(failed("read")(errno)),
    }
}
