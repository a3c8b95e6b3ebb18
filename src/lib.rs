//! Shared memory for Python: the core under the package `shared_numpy`.
//!
//! The modules are layers, and imports point down only:
//!
//! | module    | knows                     | holds                                      |
//! |-----------|---------------------------|--------------------------------------------|
//! | `python`  | all below, pyo3           | the extension `shared_numpy._core`         |
//! | `ring`    | `process`, `arena`, `sys` | messages and frames between processes      |
//! | `process` | `arena`, `segment`, `sys` | the arena on the system's shared memory    |
//! | `arena`   | `error`                   | an allocator that survives any death       |
//! | `segment` | `sys`                     | policy over single calls: reserving memory |
//! | `sys`     | libc, nix                 | one wrapper for one system call            |
//! | `error`   | nothing                   | the one error type of the core             |
//!
//! `sys` is the only place that reaches libc or nix, `python` the only one that
//! reaches pyo3; `tests/core/layers.rs` holds both. Without the feature
//! `python` the crate builds and is tested on a machine with no interpreter.

#![warn(missing_docs)]

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
