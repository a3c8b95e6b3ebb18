//! The operating system: the only place with libc and nix.
//!
//! A wrapper makes one call, names the manual page it follows and decides
//! nothing: an interrupted call is an error like any other, and what to do
//! about it is the caller's policy.

#[cfg(target_os = "linux")]
pub mod cgroup;
#[cfg(target_os = "linux")]
pub mod copy;
mod errno;
#[cfg(target_os = "linux")]
pub mod fork;
#[cfg(target_os = "linux")]
pub mod futex;
#[cfg(target_os = "linux")]
pub mod loaded;
pub mod locks;
pub mod map;
#[cfg(target_os = "linux")]
pub mod open_files;
pub mod packet;
#[cfg(target_os = "linux")]
pub mod page_map;
pub mod probe;
pub mod proc;
pub mod shm;
#[cfg(target_os = "linux")]
mod system_files;

pub use errno::{is_passing, EAGAIN, EBADF, EEXIST, EINTR, ENOENT, ENOSPC};
