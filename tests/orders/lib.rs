//! The orders of the core's atomics under `loom`, a model checker that lets a thread read every
//! value that the memory model allows, not only the newest.
//!
//! `tests/core` runs the same lines over many more schedules, in which all memory is in one order.
//! Here few threads do little, and each execution is tried that a weak processor could have, up to
//! a bound of preemptions. The lines are the code's own, generic over their words: of this package
//! are the words, the sleep on them, and what uses them.
//!
//! What an order is for is a [`loom::cell::UnsafeCell`] here: `loom` reports an access that is not
//! ordered with another thread's.
//!
//! Not modelled: the orders that need one order of all threads (`SeqCst`: `loom` takes it for
//! acquire and release), death as such (the kernel orders what the dead did, which is a mutex
//! here), and words that are not generic, whose partners are told beside them.

#![cfg(test)]

mod block_cache;
mod events;
mod lock;
mod model;
mod references;
mod words;
