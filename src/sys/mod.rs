//! The operating system: the only place with libc and nix.
//!
//! A wrapper makes one call, names the manual page it follows and decides
//! nothing: an interrupted call is an error like any other, and what to do
//! about it is the caller's policy.

pub mod shm;

use crate::error::Error;
use nix::errno::Errno;

/// The call was interrupted by a signal handler.
pub const EINTR: i32 = libc::EINTR;

/// Names the call in which `errno` came up.
fn failed(call: &'static str) -> impl Fn(Errno) -> Error {
    move |errno| Error::Os {
        call,
        errno: errno as i32,
    }
}
