//! The extension module `shared_numpy._core`: the only place with pyo3.
//!
//! Its functions turn Python's arguments into the core's, let other threads run
//! while the system works, and turn the core's errors into exceptions.
//! `shared_memory/shared_numpy/_core.pyi` mirrors what is added here.

mod error;
mod posixshmem;

use pyo3::prelude::*;

/// The compiled core of shared_numpy.
#[pymodule]
fn _core(_py: Python<'_>, module: &PyModule) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    posixshmem::add_to(module)
}
