//! This process's counters, as Python has them.

use crate::activity::{Counter, Traffic, COUNTERS};
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// Adds the functions of this file to the extension module.
pub fn add_to(module: &PyModule) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(count_piped, module)?)
}

/// Count a message through a pipe.
///
/// Parameters
/// ----------
/// nbytes : int
///     Its length in bytes.
/// received : bool
///     It was taken, not put.
#[pyfunction]
#[pyo3(text_signature = "(nbytes, received)")]
fn count_piped(nbytes: u64, received: bool) {
    match received {
        true => COUNTERS.pipes.count_received(nbytes),
        false => COUNTERS.pipes.count_sent(1, nbytes),
    }
}

/// Adds the counters to a dict.
pub fn add_counters(numbers: &PyDict) -> PyResult<()> {
    let add = |name: &str, counter: &Counter| numbers.set_item(name, counter.get());
    add("lock_waits", &COUNTERS.lock_waits)?;
    add("longest_lock_wait", &COUNTERS.longest_lock_wait)?;
    add("spins", &COUNTERS.spins)?;
    add("sleeps", &COUNTERS.sleeps)?;
    for (traffic, [sent, sent_bytes, received, received_bytes]) in names() {
        add(sent, &traffic.sent)?;
        add(sent_bytes, &traffic.sent_bytes)?;
        add(received, &traffic.received)?;
        add(received_bytes, &traffic.received_bytes)?;
    }
    Ok(())
}

/// The kinds of channels, with the names of their counters.
fn names() -> [(&'static Traffic, [&'static str; 4]); 3] {
    [
        (
            &COUNTERS.rings,
            [
                "ring_sent",
                "ring_sent_bytes",
                "ring_received",
                "ring_received_bytes",
            ],
        ),
        (
            &COUNTERS.pipes,
            [
                "pipe_sent",
                "pipe_sent_bytes",
                "pipe_received",
                "pipe_received_bytes",
            ],
        ),
        (
            &COUNTERS.frames,
            [
                "frames_written",
                "frames_written_bytes",
                "frames_read",
                "frames_read_bytes",
            ],
        ),
    ]
}
