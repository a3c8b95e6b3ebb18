//! Segments: policy over the single calls of `sys::shm`.

use crate::error::Result;
use crate::sys::shm;
use std::os::fd::BorrowedFd;

/// How much is reserved by one call, which ends at a multiple of it: a huge page.
///
/// Between calls the caller can attend to signals. Kernels differ in what a
/// signal does to a call: some finish it first, and some give up all of its
/// pages, so that a long one would never end under a fast timer. 2 MiB take
/// about a millisecond, and the calls' own cost vanishes beside it. Where the file system has huge
/// pages, a call that reaches over a whole one takes it as one.
pub const CHUNK: u64 = 2 << 20;

/// Takes storage for a segment, so that writing there can no longer fail for
/// want of memory (which would be a SIGBUS). Bytes that exist keep their values.
pub struct Reservation {
    start: u64,
    size: u64,
    done: u64,
}

impl Reservation {
    /// Plans to reserve the first `size` bytes; nothing is reserved yet.
    pub fn new(size: u64) -> Self {
        Self::of(0, size)
    }

    /// Plans to reserve `size` bytes from `start` on.
    pub fn of(start: u64, size: u64) -> Self {
        Reservation {
            start,
            size,
            done: 0,
        }
    }

    /// Reserves the next chunk; true when everything is.
    ///
    /// # Errors
    /// What `posix_fallocate` reports: ENOSPC when the memory is not there,
    /// EINTR. The next call tries the same chunk again.
    pub fn step(&mut self, fd: BorrowedFd<'_>) -> Result<bool> {
        self.step_by(|offset, length| shm::allocate(fd, offset, length))
    }

    /// [`Reservation::step`], over any `allocate(offset, length)`.
    fn step_by(&mut self, allocate: impl FnOnce(u64, u64) -> Result<()>) -> Result<bool> {
        let start = self.start + self.done;
        let length = (CHUNK - start % CHUNK).min(self.size - self.done);
        if length > 0 {
            allocate(start, length)?;
            self.done += length;
        }
        Ok(self.done == self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    const EINTR: Error = Error::Os {
        call: "posix_fallocate",
        errno: crate::sys::EINTR,
    };

    /// The chunks cover the range exactly once and in order, and no huge page is cut but at its ends.
    #[test]
    fn chunks_tile_the_range() {
        let sizes = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK + 7];
        for (start, size) in [0, 1, CHUNK - 1, CHUNK, 3 * CHUNK + 5]
            .into_iter()
            .flat_map(|start| sizes.map(|size| (start, size)))
        {
            let mut end = start;
            let mut reservation = Reservation::of(start, size);
            let mut step = || {
                reservation.step_by(|offset, length| {
                    assert_eq!(offset, end);
                    assert!(length > 0 && length <= CHUNK);
                    end = offset + length;
                    assert!(end % CHUNK == 0 || end == start + size);
                    Ok(())
                })
            };
            while !step().unwrap() {}
            assert_eq!(step(), Ok(true));
            assert_eq!(end, start + size);
        }
    }

    /// After a failure the work goes on with the chunk that failed.
    #[test]
    fn a_failed_chunk_is_repeated() {
        let mut calls = Vec::new();
        let mut reservation = Reservation::new(2 * CHUNK);
        let mut step = |result: Result<()>| {
            reservation.step_by(|offset, _| {
                calls.push(offset);
                result
            })
        };
        assert_eq!(step(Ok(())), Ok(false));
        assert_eq!(step(Err(EINTR)), Err(EINTR));
        assert_eq!(step(Err(EINTR)), Err(EINTR));
        assert_eq!(step(Ok(())), Ok(true));
        assert_eq!(calls, [0, CHUNK, CHUNK, CHUNK]);
    }
}
