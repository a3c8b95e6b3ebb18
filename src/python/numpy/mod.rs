//! numpy: arrays on blocks.
//!
//! | module   | holds                                                |
//! |----------|------------------------------------------------------|
//! | `capi`   | numpy's functions in C, found at run time            |
//! | `layout` | dtype, shape and strides                             |
//! | `arrays` | making arrays on blocks, and reading how they lie    |

mod arrays;
mod capi;
mod layout;

pub use arrays::{
    array, array_like, block_view, bytes_of, is_large, is_writeable, made_of, owner, small,
    BlockView, Contiguous, Small,
};
pub use capi::{add_to, set_handler, way};
pub use layout::{Items, Layout, Shape};
