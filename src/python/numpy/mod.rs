//! Arrays on blocks.

mod arrays;

pub use arrays::*;
