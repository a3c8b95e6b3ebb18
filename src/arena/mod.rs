//! The arena: an allocator in shared memory that survives death at any
//! instruction.
//!
//! Many blocks in a few segments, allocated, handed over and released by many
//! processes without system calls. Any of them may be killed at any moment, and
//! the others go on: nothing is corrupted, leaked or hung.
//!
//! **A tiny truth, everything else a cache.** The truth is in a few tables:
//! the *slots* of processes; the *blocks*, each with the set of processes that
//! hold it; the *tickets*, references in flight; the segments and the chunks of
//! the tables themselves. Every operation takes effect by single stores to
//! words of these tables, in an order in which the truth is right after each of
//! them. Free lists, bins, the links between neighbours and the counts of
//! tickets are caches: an operation may leave them half changed, and then
//! whoever takes over the lock rebuilds them from the truth.
//!
//! **One lock**, a word that names its owner, so that a dead one is found out.
//! Under it nothing waits, allocates or panics.
//!
//! **One generation each.** Rows are used again and again, and each life of a
//! row has a number of its own. Whatever refers to a row names the life it
//! means, and fails when that is over: never is another block's data returned.
//!
//! | module       | holds                                                         |
//! |--------------|---------------------------------------------------------------|
//! | `format`     | what lies where in the segments; who writes it                |
//! | `word`       | the words it is made of: the one door to atomics              |
//! | `platform`   | what is needed of the world; `plain`: a world without one     |
//! | `lock`       | the owner word                                                |
//! | `core`       | a process's view: mappings, rows, the locked arena            |
//! | `blocks`     | allocate, hold, release                                       |
//! | `tickets`    | send, receive, cancel                                         |
//! | `slots`      | register, leave, reap                                         |
//! | `fork`       | fork                                                          |
//! | `growth`     | more segments, more rows                                      |
//! | `page_state` | which free memory keeps its pages                             |
//! | `unfinished` | what the lock was not to be had for again                     |
//! | `upkeep`     | when the dead and idle memory are looked for                  |
//! | `space`      | the index of free space: a cache                              |
//! | `recovery`   | every cache from the truth                                    |
//! | `stats`      | numbers                                                       |
//! | `handle`     | what travels: a block and a ticket as bytes                   |
//! | `check`      | every invariant, seen with other eyes                         |
//!
//! Nothing here makes a system call: `process` puts it on the system's shared
//! memory.

mod blocks;
pub mod check;
mod core;
mod entry;
mod fork;
pub mod format;
mod growth;
mod half_done;
pub mod handle;
pub mod lock;
mod locked;
mod page_state;
pub mod plain;
pub mod platform;
mod recovery;
mod refs;
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
pub use slots::Detachment;
pub use stats::Stats;
