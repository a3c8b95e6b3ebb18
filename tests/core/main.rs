//! Tests of the core that need no Python.

#[path = "../fuzz/targets.rs"]
mod fuzz_targets;

mod faulty;
mod fuzz;
mod layers;
mod lock;
mod model;
mod random;
mod ring;
mod seed;
mod slots;
mod unfinished;
mod upkeep;
