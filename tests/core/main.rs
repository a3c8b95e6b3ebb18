//! Tests of the core that need no Python.

mod layers;
