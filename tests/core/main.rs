//! Tests of the core that need no Python.

mod layers;
mod model;
