//! The arena: an allocator in shared memory that survives the death of any process at any
//! instruction.
//!
//! Many processes allocate, hand over and release blocks in a few segments, without system calls.
//! Any of them may be killed at any moment. The others go on: nothing is corrupted, leaked or hung.
//!
//! **Truth and caches.** The truth is in a few tables: the *slots* of processes; the *blocks*, each
//! with the set of processes that hold it; the *tickets*, which are references in flight; the
//! segments, and the chunks in which the tables grow. Every operation changes the truth by single
//! stores to words of these tables, in an order that leaves it consistent after each of them. Free
//! lists, bins, links between neighbours and counts of tickets are caches. An operation that dies
//! may leave them half changed; the process that takes over its lock rebuilds them from the truth.
//!
//! **One lock**, a word that names its owner, so that other processes can find out that the owner
//! is dead. Code under the lock does not wait, allocate memory of the process's heap, or panic.
//!
//! **Generations.** A row is reused, and each of its lives has its own generation. A reference to a
//! row names the life that it means and fails when that life is over, so it never reaches another
//! block's data.
//!
//! The files, from the bottom to the top:
//!
//! | module       | holds                                                                 |
//! |--------------|-----------------------------------------------------------------------|
//! | `word`       | the words of shared memory: the only place with their atomics         |
//! | `format`     | the layout of segments: each field, its writer, its lock              |
//! | `lock`       | the algorithm of the lock word                                        |
//! | `refs`       | what names a row in one of its lives                                  |
//! | `platform`   | what the arena needs of the system; `plain` is one without a system   |
//! | `half_done`  | what this process began outside the lock                              |
//! | `core`       | a process's mappings of the segments                                  |
//! | `waiting`    | waiting for a lock in the arena's memory                              |
//! | `locked`     | the arena under its lock: the rows of its tables                      |
//! | `rows`       | which rows are in use, and which are taken next: a cache              |
//! | `space`      | the index of free space: a cache                                      |
//! | `recovery`   | rebuilding every cache from the truth                                 |
//! | `page_state` | which free memory keeps its pages                                     |
//! | `upkeep`     | when members look for dead members and for idle memory                |
//! | `blocks`     | allocating, holding and releasing blocks                              |
//! | `tickets`    | sending, receiving and cancelling                                     |
//! | `growth`     | more segments, more rows                                              |
//! | `slots`      | registering, leaving, reaping                                         |
//! | `residents`  | which members keep the arena for those that look for its identifier   |
//! | `root`       | the block that the arena itself holds                                 |
//! | `fork`       | a forked child's slot and its blocks                                  |
//! | `unfinished` | finishing what is half done                                           |
//! | `entry`      | making and opening an arena, taking its lock                          |
//! | `stats`      | counters                                                              |
//! | `handle`     | a block and a ticket as bytes                                         |
//! | `check`      | a check of every invariant, independent of the code above             |
//!
//! `locked` defines the type `Locked`, and the files after it in this table add their operations
//! to it, and to [`Core`]. A file imports only files that come before it in the table. Calls may
//! also go the other way: releasing a block may trim free memory, and trimming releases a block.
//!
//! Nothing here makes a system call; `process` puts the arena on the system's shared memory.

mod blocks;
pub mod check;
mod core;
mod entry;
mod fork;
pub mod format;
mod growth;
mod half_done;
pub mod handle;
pub mod image;
pub mod lock;
mod locked;
mod page_state;
pub mod plain;
pub mod platform;
mod recovery;
mod refs;
mod residents;
mod root;
mod rows;
mod slots;
mod space;
mod stats;
mod tickets;
mod unfinished;
mod upkeep;
mod waiting;
pub mod word;

pub use core::{Core, Work};
pub use fork::ForkedChild;
pub use refs::{BlockRef, Extent, Member, TicketRef};
pub use residents::Entry;
pub use slots::Detachment;
pub use stats::Stats;
