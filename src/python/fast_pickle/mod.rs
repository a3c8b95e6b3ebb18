//! Simple things as bytes, without a pickler.

mod writer;

pub use writer::add_to;
