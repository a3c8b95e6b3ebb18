//! Fast pickling: simple things as bytes, without a pickler.
//!
//! | module   | holds                                  |
//! |----------|----------------------------------------|
//! | `stream` | the format of a stream, and its limits |
//! | `writer` | writing one                            |
//! | `reader` | reading one                            |

mod reader;
mod stream;
mod writer;

use pyo3::prelude::*;

/// Adds the functions of this folder to the extension module.
pub fn add_to(module: &PyModule) -> PyResult<()> {
    writer::add_to(module)?;
    reader::add_to(module)
}
