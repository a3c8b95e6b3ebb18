//! A handle while it is being pickled.

use super::gil::end;
use super::handles::encoded;
use super::process_tree::announce;
use crate::arena::handle::Handle;
use crate::process;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyType};

/// A handle that is being pickled: it pickles as its bytes, and is cancelled if
/// the pickling fails.
///
/// A pickler keeps all that it has pickled until its end. If it ends with an
/// exception, nobody will ever have what it wrote.
///
/// Attributes
/// ----------
/// handle : bytes
///     What it pickles as.
#[pyclass(name = "Sending", module = "shared_numpy._core")]
pub struct TicketGuard {
    arena: Option<process::Arena>,
    handle: Handle,
}

impl TicketGuard {
    pub fn new(arena: process::Arena, handle: Handle) -> Self {
        TicketGuard {
            arena: Some(arena),
            handle,
        }
    }
}

impl Drop for TicketGuard {
    fn drop(&mut self) {
        // SAFETY: Python drops objects with the GIL held.
        let py = unsafe { Python::assume_gil_acquired() };
        // SAFETY: the GIL is held; the call only reads the thread's state.
        let failed = !unsafe { ffi::PyErr_Occurred() }.is_null();
        let arena = self.arena.take();
        end(py, || {
            if let Some(arena) = arena.filter(|_| failed) {
                // One that was received all the same is not open any more.
                let _ = arena.cancel(&self.handle);
            }
        });
        announce(py);
    }
}

#[pymethods]
impl TicketGuard {
    #[getter]
    pub fn handle<'py>(&self, py: Python<'py>) -> &'py PyBytes {
        encoded(py, &self.handle)
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> (&'py PyType, (&'py PyBytes,)) {
        (py.get_type::<PyBytes>(), (encoded(py, &self.handle),))
    }
}
