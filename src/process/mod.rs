//! The arena on the system's shared memory: what a process has of it.
//!
//! | module       | holds                                                       |
//! |--------------|-------------------------------------------------------------|
//! | `descriptor` | a descriptor that notices when somebody closed it           |
//! | `caller`     | whom a thread tells before it waits                         |
//! | `shared`     | the arena's platform: segments, byte locks, liveness        |
//! | `family`     | the arenas of this process, and its forks                   |
//! | `counts`     | how many references the process has to each block           |
//! | `spares`     | small blocks that it keeps for its next allocation          |
//! | `own`        | memory that is private also against forked children         |
//! | `folder`     | where arenas lie, and which there are                       |
//! | `settings`   | what an arena is made with                                  |
//! | `room`       | what is given back before memory is said to be wanting      |
//! | `sweep`      | arenas that nobody has any more                             |
//! | `attached`   | [`Arena`] and [`Block`]: what a user of the crate has       |
//!
//! An arena `NAME` is two objects of `shm_overview(7)`, both of mode 0600:
//!
//! * `NAME`, its memory: segment n begins at byte n << 47, and between them are
//!   holes. So its two names are known before it is made, a process that has
//!   it open can map segments that are added when the names are gone, and
//!   descriptors do not grow with it. The kernel's locks on its bytes are signs
//!   of life that forked children inherit: byte s for a child in the making in
//!   slot s, byte 1024 for children that hold pinned blocks.
//! * `NAME.snp-lock`, empty. The lock of its byte s belongs to the process in
//!   slot s, that of byte 1025 to a process that removes the names. Nothing else
//!   may open it: closing any descriptor of it would drop the locks of the
//!   process.
//!
//! The lock file is made first and removed last.

mod arena;
mod attaching;
pub mod block;
pub mod block_cache;
pub mod counts;
mod descriptor;
mod exit;
pub mod folder;
mod forks;
mod membership;
mod objects;
mod operation;
mod orphans;
mod private_pages;
mod process_arenas;
mod registration;
mod remains;
mod settings;
mod shm_platform;
mod shm_space;
mod wait_hooks;

pub use arena::{all, find};
pub use attaching::random_number;
pub use block::Block;
pub use exit::{end_tracking, retire_all};
pub use forks::{fork_number, watch_forks};
pub use membership::Arena;
pub use objects::{exists, open_memory, LOCK_SUFFIX};
pub use orphans::{remove_orphan, remove_orphans};
pub use private_pages::{
    allocate_private, can_make_private, free_private, lend_private, private_size, PrivatePages,
};
pub use registration::unregistered;
pub use settings::{number, Settings, Wishes};
pub use shm_platform::ShmPlatform;
pub use shm_space::{make as make_room, situation};
pub use wait_hooks::{before_waiting, gives_up, use_hooks, HooksGuard, Uninterruptible, WaitHooks};
