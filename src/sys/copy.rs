//! Copying much memory.
//!
//! What is far larger than a cache is limited by how often it crosses the memory
//! bus. An ordinary store first reads the line that it is going to fill; the
//! processor's own string copy, on those that are made for it, does not, and
//! takes half to two thirds of the time. The C library chooses it from a size on
//! that it guesses for the machine, often too late or never.

/// From so many bytes on the processor's own copy is the faster one.
#[cfg(target_arch = "x86_64")]
const LONG: usize = 128 << 10;

/// Copies `count` bytes.
///
/// # Safety
/// Both are valid for so many bytes, and do not overlap. Others may change what
/// is read meanwhile: the copy is then some mixture.
pub unsafe fn copy(from: *const u8, to: *mut u8, count: usize) {
    #[cfg(target_arch = "x86_64")]
    if count >= LONG && is_x86_feature_detected!("ermsb") {
        // SAFETY: the instruction reads and writes these bytes and nothing else,
        // as the caller promises that it may; the direction flag is clear, by the
        // calling convention.
        unsafe {
            std::arch::asm!(
                "rep movsb",
                inout("rcx") count => _,
                inout("rsi") from => _,
                inout("rdi") to => _,
                options(nostack, preserves_flags)
            )
        };
        return;
    }
    // SAFETY: as the caller promises.
    unsafe { std::ptr::copy_nonoverlapping(from, to, count) }
}

#[cfg(test)]
mod tests {
    use super::copy;

    #[test]
    fn what_is_copied_is_the_same() {
        let from: Vec<u8> = (0..400_000u32).map(|i| (i * 7 + (i >> 8)) as u8).collect();
        for count in [0, 1, 63, 4096, 131_071, 131_072, 131_073, 399_000] {
            for shift in [0, 1, 17] {
                let mut to = vec![0xA5u8; count + 64];
                // SAFETY: both are longer, and are two.
                unsafe { copy(from[shift..].as_ptr(), to[shift..].as_mut_ptr(), count) };
                assert_eq!(to[shift..shift + count], from[shift..shift + count]);
                let around = to[..shift].iter().chain(&to[shift + count..]);
                assert!(around.into_iter().all(|byte| *byte == 0xA5));
            }
        }
    }
}
