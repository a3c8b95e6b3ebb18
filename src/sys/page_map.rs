//! Which pages of its memory this process has mapped: `/proc/self/pagemap`, see `proc_pid_pagemap(5)`.

use super::shm::read;
use nix::fcntl::{open, OFlag};
use nix::sys::stat::Mode;
use std::os::fd::{AsFd, OwnedFd};

/// The process's page table, as it was opened: a forked child must open its own.
pub struct PageMap {
    file: OwnedFd,
    page: usize,
}

/// A page is in memory, or on swap.
const PRESENT: u64 = 0b11 << 62;

impl PageMap {
    /// Opens it; None where there is none. `page` is the system's page size.
    pub fn open(page: usize) -> Option<Self> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let file = open("/proc/self/pagemap", flags, Mode::empty()).ok()?;
        Some(PageMap { file, page })
    }

    /// Whether the page of an address is mapped; None if that cannot be known.
    pub fn has(&self, address: usize) -> Option<bool> {
        let mut entry = [0; 8];
        let place = (address / self.page * entry.len()) as u64;
        match read(self.file.as_fd(), place, &mut entry) {
            Ok(8) => Some(u64::from_ne_bytes(entry) & PRESENT != 0),
            _ => None,
        }
    }
}
