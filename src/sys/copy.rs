//! Copying much memory.
//!
//! What is far larger than a cache is limited by how often it crosses the memory
//! bus. An ordinary store first reads the line that it is going to fill; the
//! processor's own string copy, on those that are made for it, does not. The C library chooses
//! it from a size on that it guesses for the machine, often too late or never.
//!
//! On others it is slow, and the flags of the processor do not tell: so it is used
//! only where it was measured to be faster, wherever source and destination lie
//! (`benchmarks/copy.rs`).

use std::sync::atomic::{AtomicU8, Ordering};

/// From so many bytes on the processor's own copy is the faster one.
const LONG: usize = 128 << 10;

/// Where the destination lies in its page so few bytes behind the source in its own, the
/// processor's own copy takes 3 to 20 times as long (measured: from 1 to 31 of them).
const CLOSE: usize = 64;

/// How long memory is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Way {
    /// By the C library's `memcpy`.
    Library = 1,
    /// By the processor's string copy, `rep movsb`.
    String = 2,
}

/// What a processor says of itself: the `cpuid` instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Processor {
    /// Its maker, as twelve letters.
    pub vendor: [u8; 12],
    /// Its family, the extended one added.
    pub family: u32,
    /// Its model, the extended one included.
    pub model: u32,
    /// Enhanced `rep movsb`.
    pub erms: bool,
    /// Fast short `rep movsb`.
    pub fsrm: bool,
}

impl Processor {
    /// Reads the registers of leaf 0 (ebx, ecx, edx), leaf 1 (eax) and leaf 7 (ebx, edx).
    #[cfg(any(test, target_arch = "x86_64"))]
    fn of(maker: [u32; 3], version: u32, features: [u32; 2]) -> Self {
        let [b, c, d] = maker.map(u32::to_le_bytes);
        let mut vendor = [0; 12];
        for (letters, part) in vendor.chunks_exact_mut(4).zip([b, d, c]) {
            letters.copy_from_slice(&part);
        }
        let (family, model) = (version >> 8 & 0xf, version >> 4 & 0xf);
        let extended = family == 0xf || (family == 6 && vendor == *b"GenuineIntel");
        Processor {
            vendor,
            family: match family {
                0xf => family + (version >> 20 & 0xff),
                _ => family,
            },
            model: match extended {
                true => model | (version >> 16 & 0xf) << 4,
                false => model,
            },
            erms: features[0] >> 9 & 1 != 0,
            fsrm: features[1] >> 4 & 1 != 0,
        }
    }

    /// This machine's.
    #[cfg(target_arch = "x86_64")]
    #[allow(unused_unsafe)] // The instruction is safe to use from Rust 1.92 on.
    pub fn this() -> Self {
        use std::arch::x86_64::{__cpuid, __cpuid_count};
        // SAFETY: every processor of 64 bits has the instruction and this leaf.
        let first = unsafe { __cpuid(0) };
        // SAFETY: every processor of 64 bits has the instruction and this leaf.
        let version = unsafe { __cpuid(1) };
        let features = match first.eax >= 7 {
            // SAFETY: the processor has this leaf.
            true => unsafe { __cpuid_count(7, 0) },
            false => return Self::of([first.ebx, first.ecx, first.edx], version.eax, [0; 2]),
        };
        Self::of(
            [first.ebx, first.ecx, first.edx],
            version.eax,
            [features.ebx, features.edx],
        )
    }

    /// How it copies long memory best, as far as that was measured.
    pub fn way(&self) -> Way {
        // Zen 3 in servers. (Its successor, of the models from 0x10 on, is slower so.)
        let known = self.vendor == *b"AuthenticAMD" && self.family == 0x19 && self.model < 0x10;
        match known && self.erms && self.fsrm {
            true => Way::String,
            false => Way::Library,
        }
    }
}

impl Way {
    /// How this machine's processor copies best; asked once.
    pub fn of_this_processor() -> Self {
        static KNOWN: AtomicU8 = AtomicU8::new(0);
        match KNOWN.load(Ordering::Relaxed) {
            1 => return Way::Library,
            2 => return Way::String,
            _ => (),
        }
        #[cfg(target_arch = "x86_64")]
        let way = Processor::this().way();
        #[cfg(not(target_arch = "x86_64"))]
        let way = Way::Library;
        KNOWN.store(way as u8, Ordering::Relaxed);
        way
    }

    /// Whether it means the string copy for `count` bytes at these places.
    fn is_string(self, from: usize, to: usize, count: usize) -> bool {
        // Pages of 4 KiB, whatever the system's are: it is the processor that compares
        // these bits of the addresses.
        let behind = to.wrapping_sub(from) % 4096;
        self == Way::String && count >= LONG && !(1..CLOSE).contains(&behind)
    }
}

/// Copies `count` bytes, the faster way.
///
/// # Safety
/// Both are valid for so many bytes, and do not overlap. Others may change what
/// is read meanwhile: the copy is then some mixture.
pub unsafe fn copy(from: *const u8, to: *mut u8, count: usize) {
    match Way::of_this_processor().is_string(from as usize, to as usize, count) {
        // SAFETY: the caller promises that both are valid for `count` bytes and do not overlap.
        true => unsafe { by_string(from, to, count) },
        // SAFETY: the caller promises that both are valid for `count` bytes and do not overlap.
        false => unsafe { by_library(from, to, count) },
    }
}

/// Copies `count` bytes by the C library.
///
/// # Safety
/// As for [`copy`].
pub unsafe fn by_library(from: *const u8, to: *mut u8, count: usize) {
    // SAFETY: the caller promises that both are valid for `count` bytes and do not overlap.
    unsafe { std::ptr::copy_nonoverlapping(from, to, count) }
}

/// Copies `count` bytes by one instruction, where the processor has it.
///
/// # Safety
/// As for [`copy`].
pub unsafe fn by_string(from: *const u8, to: *mut u8, count: usize) {
    #[cfg(target_arch = "x86_64")]
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
    #[cfg(not(target_arch = "x86_64"))]
    // SAFETY: the caller promises that both are valid for `count` bytes and do not overlap.
    unsafe {
        by_library(from, to, count)
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_copied_is_the_same() {
        let from: Vec<u8> = (0..400_000u32).map(|i| (i * 7 + (i >> 8)) as u8).collect();
        for copy in [copy, by_library, by_string] {
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

    /// The registers in which a processor names its maker: ebx, ecx, edx.
    fn maker(name: &[u8; 12]) -> [u32; 3] {
        let word = |at: usize| u32::from_le_bytes(name[at..at + 4].try_into().unwrap());
        [word(0), word(8), word(4)]
    }

    const BOTH: [u32; 2] = [1 << 9, 1 << 4];

    #[test]
    fn processors_are_known_by_their_numbers() {
        let amd = Processor::of(maker(b"AuthenticAMD"), 0x00a0_0f11, BOTH);
        assert_eq!((amd.family, amd.model), (0x19, 0x01));
        let intel = Processor::of(maker(b"GenuineIntel"), 0x0008_06f8, [1 << 9, 0]);
        assert_eq!((intel.family, intel.model), (6, 0x8f));
        assert!(intel.erms && !intel.fsrm);
        // Of its own family 6 AMD has no extended models.
        let old = Processor::of(maker(b"AuthenticAMD"), 0x0001_0671, [0; 2]);
        assert_eq!((old.family, old.model), (6, 7));
    }

    #[test]
    fn the_string_copy_is_for_processors_on_which_it_was_measured_to_be_faster() {
        let way = |name: &[u8; 12], version, features| {
            Processor::of(maker(name), version, features).way()
        };
        assert_eq!(way(b"AuthenticAMD", 0x00a0_0f11, BOTH), Way::String);
        let others: [(&[u8; 12], u32, [u32; 2]); 7] = [
            // Zen 4, in servers and desktops; Zen 3 in desktops; Zen 2; Zen 5.
            (b"AuthenticAMD", 0x00a1_0f11, BOTH),
            (b"AuthenticAMD", 0x00a6_0f12, BOTH),
            (b"AuthenticAMD", 0x00a2_0f10, BOTH),
            (b"AuthenticAMD", 0x0083_0f10, [0; 2]),
            (b"AuthenticAMD", 0x00b0_0f21, BOTH),
            // The same numbers of another maker.
            (b"GenuineIntel", 0x00a0_0f11, BOTH),
            (b"GenuineIntel", 0x0008_06f8, BOTH),
        ];
        for (name, version, features) in others {
            assert_eq!(way(name, version, features), Way::Library, "{version:#x}");
        }
        // A hypervisor may hide one of the two.
        for features in [[1 << 9, 0], [0, 1 << 4], [0, 0]] {
            assert_eq!(way(b"AuthenticAMD", 0x00a0_0f11, features), Way::Library);
        }
    }

    #[test]
    fn places_that_make_the_string_copy_slow_are_left_to_the_library() {
        let is_string = |from, to, count| Way::String.is_string(from, to, count);
        let page = 1 << 20;
        for apart in [0, 64, 100, 2048, 4032, 4095] {
            assert!(is_string(page, 8 * page + apart, LONG), "{apart}");
            assert!(is_string(8 * page, page + apart, LONG), "{apart}");
        }
        for close in [1, 8, 16, 31] {
            assert!(!is_string(page, 8 * page + close, LONG), "{close}");
            assert!(
                !is_string(8 * page + 4090, page + 4090 + close, LONG),
                "{close}"
            );
        }
        assert!(!is_string(page, 8 * page, LONG - 1));
        assert!(!Way::Library.is_string(page, 8 * page, LONG));
    }
}
