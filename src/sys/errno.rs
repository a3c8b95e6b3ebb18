//! Error numbers, and the errors made of them.

use crate::error::Error;
use nix::errno::Errno;

/// The call was interrupted by a signal handler.
pub const EINTR: i32 = libc::EINTR;

/// Something is not as it was expected, or not there yet.
pub const EAGAIN: i32 = libc::EAGAIN;

/// There is no room on the file system.
pub const ENOSPC: i32 = libc::ENOSPC;
/// There is no such file.
pub const ENOENT: i32 = libc::ENOENT;
/// There is no such descriptor.
pub const EBADF: i32 = libc::EBADF;
/// There is such a file already.
pub const EEXIST: i32 = libc::EEXIST;

/// Whether an error says nothing of the system, since the same call may succeed the next time: it
/// was interrupted, or no descriptor or no memory was left. Such an answer is not to be remembered.
pub fn is_passing(errno: i32) -> bool {
    [
        libc::EINTR,
        libc::EAGAIN,
        libc::EMFILE,
        libc::ENFILE,
        libc::ENOMEM,
    ]
    .contains(&errno)
}

/// The error number of the last call.
pub fn last() -> Errno {
    Errno::last()
}

/// Names the call in which `errno` came up.
pub fn failed(call: &'static str) -> impl Fn(Errno) -> Error {
    move |errno| Error::Os {
        call,
        errno: errno as i32,
    }
}
