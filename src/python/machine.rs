//! What this machine has, told to Python.

use crate::sys::copy::Way;
use crate::sys::probe;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// Adds the function of this file to the extension module.
pub fn add_to(module: &PyModule) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(machine, module)?)
}

/// Tell what this kernel and this processor have of what the package can use.
///
/// For reports of faults, and to know what to expect of a system: each of these can be missing, and
/// is then done without, but for ``byte_locks`` and ``fallocate``, which arrays need.
///
/// Returns
/// -------
/// dict
///     ``page_size``: bytes. ``byte_locks``, ``ofd_locks``: locks of bytes of files, for processes
///     and for open file descriptions. ``fallocate``, ``punch_hole``: whether the kernel takes
///     memory ahead of its use, and takes it back. ``o_tmpfile``: files without a name.
///     ``rename_exchange``: two files exchange their names in one step. ``getrandom``, ``futex``:
///     the system calls. ``copy``: how long memory is copied, ``"memcpy"`` or ``"rep movsb"``.
///     ``huge_pages``: when /dev/shm has them, ``"never"``, ``"always"``, ``"within_size"`` or
///     ``"advise"``. The others are bools; None stands for what cannot be asked here.
///
/// Examples
/// --------
/// >>> import shared_numpy as snp
/// >>> snp.machine()["page_size"] in (4096, 16384, 65536)
/// True
#[pyfunction]
#[pyo3(text_signature = "()")]
fn machine(py: Python<'_>) -> PyResult<&PyDict> {
    let machine = probe::machine();
    let told = PyDict::new(py);
    told.set_item("page_size", machine.page_size)?;
    told.set_item("byte_locks", machine.byte_locks)?;
    told.set_item("ofd_locks", machine.description_locks)?;
    told.set_item("fallocate", machine.fallocate)?;
    told.set_item("punch_hole", machine.punch_hole)?;
    told.set_item("o_tmpfile", machine.unnamed_files)?;
    told.set_item("rename_exchange", machine.rename_exchange)?;
    told.set_item("getrandom", machine.getrandom)?;
    told.set_item("futex", machine.futex)?;
    let copy = match machine.copy {
        Way::Library => "memcpy",
        Way::String => "rep movsb",
    };
    told.set_item("copy", copy)?;
    told.set_item("huge_pages", machine.huge_pages)?;
    Ok(told)
}
