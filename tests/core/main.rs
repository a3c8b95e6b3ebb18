//! Tests of the core that need no Python.

#[path = "../conformance/mod.rs"]
mod conformance;
#[path = "../fuzz/targets.rs"]
mod fuzz_targets;

mod conformance_on_plain;
mod fuzz;
mod layers;
mod lock;
mod many;
mod model;
mod owned;
mod page_state;
mod places;
mod random;
mod recovery;
mod references;
mod ring;
mod room;
mod rows;
mod seed;
mod slots;
mod unfinished;
mod upkeep;
