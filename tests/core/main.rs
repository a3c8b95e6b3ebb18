//! Tests of the core that need no Python.

#[path = "../fuzz/targets.rs"]
mod fuzz_targets;

mod fuzz;
mod layers;
mod lock;
mod model;
mod random;
mod ring;
mod room;
mod seed;
mod unfinished;
mod upkeep;
