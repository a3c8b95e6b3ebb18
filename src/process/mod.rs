//! The arena on the system's shared memory: what a process has of it.
//!
//! | module       | holds                                                       |
//! |--------------|-------------------------------------------------------------|
//! | `descriptor` | a descriptor that notices when somebody closed it           |
//! | `shared`     | the arena's platform: segments, byte locks, liveness        |
//! | `family`     | the arenas of this process, and its forks                   |
//! | `attached`   | [`Arena`] and [`Block`]: what a user of the crate has       |
//!
//! An arena `NAME` is these objects of `shm_overview(7)`, all of mode 0600:
//!
//! * `NAME`, the control segment. The kernel's locks on its bytes are signs of
//!   life that forked children inherit: byte s for a child in the making in
//!   slot s, byte 256 for families that hold pinned blocks.
//! * `NAME.lock`, empty. The lock of its byte s belongs to the process in slot
//!   s, that of byte 257 to a process that removes the names. Nothing else may
//!   open it: closing any descriptor of it would drop the locks of the process.
//! * `NAME.1`, `NAME.2`, …, the data segments.
//!
//! The lock file is made first and removed last.

mod attached;
mod descriptor;
mod family;
mod shared;

pub use attached::{Arena, Block, Settings};
