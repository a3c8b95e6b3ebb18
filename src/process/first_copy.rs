//! The first copy into a block.
//!
//! A store to a page that this process has not mapped yet is a fault, which costs more than the copy
//! of the page. So what goes to such pages is written through the memory object: the kernel copies it
//! there without a fault. Where pages are mapped an ordinary copy is two or three times as fast.
//!
//! But then they still are not mapped, and the next copy into the same memory takes as long again. To
//! map pages costs as much as a few such copies lose. So a process that has written as many bytes
//! that way into memory that was used before maps it, and does better from then on; one that copies
//! seldom never pays for it.
//!
//! The kernel lets one process write to the memory object at a time. A writer that had to sleep until
//! another one was done goes on with an ordinary copy, which processes do side by side.

use super::block::Block;
use crate::sys::page_map::PageMap;
use crate::sys::{copy, map, probe, proc};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Shorter copies are not worth a look at the page table.
const LONG: usize = 4 << 20;
/// The pages of so many bytes are taken for mapped, or not, as the middle one is.
const CHUNK: usize = 2 << 20;

/// How many bytes this process has written through memory objects into memory that was used before,
/// without those for which it has mapped pages since. (A guess, for which threads need no order.)
static UNMAPPED: AtomicUsize = AtomicUsize::new(0);

/// Whether it has written so much that way that it had better map `count` bytes; if so, that is paid.
fn pays_to_map(count: usize) -> bool {
    let pay = |written: usize| written.checked_sub(count);
    UNMAPPED
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay)
        .is_ok()
}

impl Block {
    /// Copies `count` bytes into the block, from `at` bytes behind its begin on.
    ///
    /// # Safety
    /// `from` is valid for so many bytes. Others may change them meanwhile: the copy is then some
    /// mixture. Nobody else uses those of the block.
    ///
    /// # Panics
    /// If the block is shorter than that.
    pub unsafe fn copy_in(&self, at: usize, from: *const u8, count: usize) {
        let fits = at as u64 <= self.size() && count as u64 <= self.size() - at as u64;
        assert!(fits, "{count} bytes at {at} of {}", self.size());
        let to = self.bytes().as_ptr().wrapping_add(at);
        let done = match count >= LONG {
            // SAFETY: the caller promises the same of `from`, and the block is as long (asserted).
            true => unsafe { self.write_in(at, from, count) },
            false => 0,
        };
        // SAFETY: the rest of the same bytes, which do not overlap: nobody else uses the block's.
        unsafe { copy::copy(from.wrapping_add(done), to.wrapping_add(done), count - done) }
    }

    /// Copies as much of it as is best done here, chunk by chunk; how many bytes.
    ///
    /// # Safety
    /// As for [`copy_in`](Self::copy_in).
    unsafe fn write_in(&self, at: usize, from: *const u8, count: usize) -> usize {
        let platform = self.platform();
        let (Some(place), Some(pages)) = (self.place(), PageMap::open(probe::page_size())) else {
            return 0;
        };
        let first = self.bytes().as_ptr() as usize + at;
        let is_new = self.is_new();
        // Decided where the first page is that is not mapped.
        let mut maps = is_new.then_some(false);
        let mut done = 0;
        while done < count {
            let more = CHUNK.min(count - done);
            let source = from.wrapping_add(done);
            // SAFETY: `more` bytes that the caller has, from `done` on. Only the kernel, or a copy of
            // memory, reads them: should others write there, the copy is some mixture.
            let chunk = unsafe { std::slice::from_raw_parts(source, more) };
            let Some(is_mapped) = pages.has(first + done + more / 2) else {
                break;
            };
            match is_mapped || *maps.get_or_insert_with(|| pays_to_map(count - done)) {
                true => {
                    let to = (first + done) as *mut u8;
                    if !is_mapped {
                        self.map_pages(to, more);
                    }
                    // SAFETY: as above, and as many bytes of the block.
                    unsafe { copy::copy(chunk.as_ptr(), to, more) }
                }
                false => {
                    let sleeps = proc::sleeps();
                    let written = platform.write_memory(place, (at + done) as u64, chunk);
                    if written.is_err() {
                        break;
                    }
                    if !is_new {
                        UNMAPPED.fetch_add(more, Ordering::Relaxed);
                    }
                    if proc::sleeps() != sleeps {
                        return done + more;
                    }
                }
            }
            done += more;
        }
        done
    }

    /// Maps the whole pages of a part of the block, where the kernel can do so at once.
    fn map_pages(&self, from: *mut u8, count: usize) {
        let page = probe::page_size();
        let ahead = from.align_offset(page);
        let length = count.saturating_sub(ahead) / page * page;
        if let (Some(first), true) = (NonNull::new(from.wrapping_add(ahead)), length > 0) {
            // SAFETY: whole pages within the block, which is mapped as long as it is held.
            let _ = unsafe { map::populate(first, length) };
        }
    }
}
