//! Packets through a pipe that does not wait.
//!
//! The GIL is held meanwhile: such a call takes less than a microsecond, and to release the GIL for
//! it would cost several.

use super::error::os_error;
use super::posixshmem::borrowed;
use crate::error::Error;
use crate::sys::{packet, EBADF};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use std::os::fd::BorrowedFd;
use std::os::raw::c_int;

/// Adds the functions of this file to the extension module.
pub fn add_to(module: &PyModule) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(write_packet, module)?)?;
    module.add_function(wrap_pyfunction!(read_packets, module)?)
}

/// Lends the descriptor `fd`; one that was closed is -1.
fn open<'f>(py: Python<'_>, fd: &'f c_int, call: &'static str) -> PyResult<BorrowedFd<'f>> {
    if *fd < 0 {
        let errno = EBADF;
        return Err(os_error(py, Error::Os { call, errno }, None));
    }
    borrowed(fd)
}

/// The most that a packet holds (PIPE_BUF).
const PACKET: usize = 4096;

/// Write a packet to a descriptor that does not wait.
///
/// Parameters
/// ----------
/// fd : int
///     A pipe or socket of packets, O_NONBLOCK.
/// packet : bytes
///     At most 4096 of them.
///
/// Returns
/// -------
/// bool
///     False if there was no room.
///
/// Raises
/// ------
/// OSError
///     The call failed.
#[pyfunction]
#[pyo3(text_signature = "(fd, packet)")]
fn write_packet(py: Python<'_>, fd: c_int, packet: &[u8]) -> PyResult<bool> {
    let fd = open(py, &fd, "write")?;
    packet::write(fd, packet).map_err(|error| os_error(py, error, None))
}

/// Read the packets that there are.
///
/// Parameters
/// ----------
/// fd : int
///     A pipe or socket of packets, O_NONBLOCK.
/// most : int
///     How many at most.
///
/// Returns
/// -------
/// list of bytes
///     Empty if there is none now; the last is empty if there will be no more.
///
/// Raises
/// ------
/// OSError
///     The call failed; nothing was read.
#[pyfunction]
#[pyo3(text_signature = "(fd, most)")]
fn read_packets(py: Python<'_>, fd: c_int, most: usize) -> PyResult<&PyList> {
    let fd = open(py, &fd, "read")?;
    let packets = PyList::empty(py);
    let mut bytes = [0; PACKET];
    while packets.len() < most {
        match packet::read(fd, &mut bytes) {
            Ok(None) => break,
            Ok(Some(length)) => {
                packets.append(PyBytes::new(py, &bytes[..length]))?;
                if length == 0 {
                    break;
                }
            }
            // What was read before is not lost.
            Err(_) if !packets.is_empty() => break,
            Err(error) => return Err(os_error(py, error, None)),
        }
    }
    Ok(packets)
}
