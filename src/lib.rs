//! Shared memory for Python: the core under the package `shared_numpy`.
//!
//! The modules are layers. Imports point down only, between layers and between the files of each;
//! `tests/core/layers.rs` has both orders and checks them.
//!
//! | module    | imports                   | holds                                           |
//! |-----------|---------------------------|-------------------------------------------------|
//! | `python`  | all below, pyo3           | the extension `shared_numpy._core`              |
//! | `ring`    | `process`, `arena`, `sys` | messages and frames between processes           |
//! | `process` | `arena`, `segment`, `sys` | the arena on POSIX shared memory, in a process  |
//! | `arena`   | `error`, `activity`       | an allocator that survives the death of any     |
//! |           |                           | process at any instruction; no system call      |
//! | `segment` | `sys`                     | policy over system calls: reserving memory      |
//! | `sys`     | libc, nix                 | one wrapper for each system call                |
//! | `activity`| nothing                   | counters and events of this process             |
//! | `error`   | nothing                   | the core's one error type                       |
//!
//! Only `sys` uses libc and nix, only `python` uses pyo3. Without the feature `python` the crate
//! builds and is tested on a machine that has no interpreter.

#![warn(missing_docs)]

pub mod activity;
pub mod arena;
pub mod error;
#[cfg(arenas)]
pub mod process;
#[cfg(arenas)]
pub mod ring;
pub mod segment;
pub mod sys;

#[cfg(feature = "python")]
mod python;
