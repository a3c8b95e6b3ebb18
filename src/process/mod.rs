//! The arena on POSIX shared memory, as one process has it attached. Linux only.
//!
//! The files, from the bottom to the top:
//!
//! | module           | holds                                                             |
//! |------------------|-------------------------------------------------------------------|
//! | `settings`       | what an arena is made with                                        |
//! | `folder`         | the folders where arenas lie                                      |
//! | `wait_hooks`     | functions that are called before a thread waits                   |
//! | `descriptor`     | a file descriptor that notices when something closed it           |
//! | `objects`        | the two objects of an arena: names, modes, space                  |
//! | `life`           | how a process is seen to live that has lost its byte              |
//! | `remains`        | the objects of an arena that no process has attached              |
//! | `huge_pages`     | memory that huge pages can serve                                  |
//! | `shm_platform`   | the arena's platform: mappings, byte locks, liveness              |
//! | `names`          | the removal of an arena's names                                   |
//! | `counts`         | reference counts of blocks                                        |
//! | `block_cache`    | small blocks for the next allocations                             |
//! | `process_arenas` | the list of the arenas that this process has attached             |
//! | `registration`   | which process removes an arena's names                            |
//! | `membership`     | joining, forking and leaving an arena, and postponed work         |
//! | `attaching`      | making or opening an arena, and joining it                        |
//! | `identified`     | the arena of an identifier: attached or made, whatever others do  |
//! | `shm_space`      | giving memory back before an error says that there is none        |
//! | `operation`      | an operation, begun again after a fork or with more memory        |
//! | `block`          | [`Block`], and the rules for counting references to it            |
//! | `private_pages`  | memory that is private also against forked children               |
//! | `forks`          | the handlers that run around a fork                               |
//! | `arena`          | the methods of [`Arena`]                                          |
//! | `orphans`        | removing arenas that no process has any more                      |
//! | `exit`           | giving the arenas back before the process exits                   |
//!
//! # The objects of an arena
//!
//! An arena `NAME` is two objects of `shm_overview(7)`, both of mode 0600:
//!
//! * `NAME`, its memory. Segment n begins at byte n << 47, and between segments are holes. So both
//!   names are known before the arena is made, a process can map segments that are added after the
//!   names were removed, and an arena needs two descriptors however large it grows. The kernel's
//!   locks on bytes of this file are signs of life that forked children inherit: byte s for the
//!   child for which slot s is reserved, byte 1024 for children that hold pinned blocks. Byte
//!   1025 + s is the sign of life of the process in slot s itself, which no child keeps (`life`).
//! * `NAME.snp-lock`, empty. The process in slot s locks byte s; a process that removes the names
//!   locks byte 1025. Nothing else should open this file: closing any descriptor of it drops the locks
//!   of the process. Other code in it may, and the sign in the memory file remains then.
//!
//! The lock file is made first and removed last.

mod arena;
mod attaching;
pub mod block;
pub mod block_cache;
pub mod counts;
mod descriptor;
mod exit;
mod first_copy;
pub mod folder;
mod forks;
mod huge_pages;
mod identified;
mod life;
mod look;
mod membership;
mod names;
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
pub use look::{look, Look};
pub use membership::Arena;
pub use objects::{exists, open_memory, LOCK_SUFFIX};
pub use orphans::{judge, remove_anyway, remove_deserted, remove_orphan, remove_orphans, Verdict};
pub use private_pages::{
    allocate_private, can_make_private, free_private, lend_private, private_size, PrivatePages,
};
pub use registration::unregistered;
pub use settings::{number, Settings, Wishes};
pub use shm_platform::ShmPlatform;
pub use shm_space::{make as make_room, situation};
pub use wait_hooks::{
    before_waiting, gives_up, gives_up_now, use_hooks, HooksGuard, Uninterruptible, WaitHooks,
};
