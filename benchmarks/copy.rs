//! Ways to copy, side by side: the processor's own string copy and the C library's `memcpy`.
//!
//! ```text
//! cargo bench --no-default-features --bench copy
//! ```
//!
//! For each size the tables have the time that a copy takes by that of `memcpy`, for several
//! places of source and destination: their offsets from a page's beginning. The copies take
//! turns, and the median counts. Memory is warm, or so much that it comes from no cache.
//! The first table is of the string copy, by which `sys::copy` was decided, the second of what
//! was decided for this processor.

use shared_numpy::sys::copy::{by_library, by_string, copy, Way};
use std::time::Instant;

const PAGE: usize = 4096;
/// Offsets of source and destination from a page's beginning.
const PLACES: [(usize, usize); 7] = [(0, 0), (0, 64), (64, 0), (16, 0), (0, 16), (1, 0), (0, 33)];
const SIZES: [usize; 6] = [128 << 10, 512 << 10, 1 << 20, 4 << 20, 32 << 20, 128 << 20];

/// One copy.
type Copy = unsafe fn(*const u8, *mut u8, usize);

/// The median of several times, in ns for each copy.
fn median(times: impl Iterator<Item = f64>) -> f64 {
    let mut times: Vec<f64> = times.collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Memory, and where its first page begins.
type Memory = (Vec<u8>, usize);

/// So much memory and some pages more, and where its first page begins.
fn pages(size: usize) -> Memory {
    let memory = vec![1u8; size + 3 * PAGE];
    let first = memory.as_ptr() as usize;
    (memory, first.next_multiple_of(PAGE) - first)
}

fn main() {
    if std::env::args().any(|argument| argument == "--test" || argument == "--list") {
        return;
    }
    let largest = SIZES[SIZES.len() - 1];
    let (from, mut to) = (pages(largest), pages(largest));
    println!("The string copy, by memcpy:");
    compare(&from, &mut to, by_string);
    println!(
        "What was decided, {:?}, by memcpy:",
        Way::of_this_processor()
    );
    compare(&from, &mut to, copy);
}

/// Prints the time that a copy takes, by that of `memcpy`.
fn compare(from: &Memory, to: &mut Memory, other: Copy) {
    let from = from.0[from.1..].as_ptr();
    let to = to.0[to.1..].as_mut_ptr();
    print!("{:>12}", "KiB; at");
    for (at, to_at) in PLACES {
        print!("{:>10}", format!("{at},{to_at}"));
    }
    println!("{:>14}", "memcpy, GB/s");
    for size in SIZES {
        print!("{:>12}", size >> 10);
        let repeats = ((4 << 20) / size).max(1);
        let mut rate: f64 = 0.0;
        for (at, to_at) in PLACES {
            let time = |copy: Copy| {
                let start = Instant::now();
                for _ in 0..repeats {
                    // SAFETY: both are longer, and are two.
                    unsafe { copy(from.wrapping_add(at), to.wrapping_add(to_at), size) };
                }
                start.elapsed().as_nanos() as f64 / repeats as f64
            };
            let rounds = if size > 8 << 20 { 9 } else { 41 };
            let times: Vec<[f64; 2]> = (0..rounds)
                .map(|_| [time(other), time(by_library)])
                .collect();
            let [other, library] = [0, 1].map(|i| median(times.iter().map(|each| each[i])));
            print!("{:>10.2}", other / library);
            rate = rate.max(size as f64 / library);
        }
        println!("{rate:>14.1}");
    }
}
