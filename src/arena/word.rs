//! Words of shared memory: the one door to atomics.
//!
//! Whatever lies in a segment can be changed by another process at any moment,
//! so that every field is an atomic, and a row of the format is made of these
//! two types only. Which process may write a field, and under which lock, is told with
//! the format; a word knows nothing of that.
//!
//! Three strengths are enough:
//!
//! * [`get`](U64::get) and [`set`](U64::set): plain loads and stores, for fields
//!   that the arena's lock protects. The lock's acquire and release order them.
//! * [`commit`](U64::commit): the one store by which an operation takes effect.
//!   It stays between what is written before and after it in the program.
//! * [`swap_if`](U64::swap_if): compare and exchange, for what is decided
//!   without the lock.
//!
//! Why `commit` needs no fence of the processor: what another process sees of a
//! *dead* one it sees after the kernel has taken the dead off its processor and
//! dropped its byte lock, which orders all that the dead had executed. Only the
//! order of its instructions matters, and that is the compiler's.

use std::sync::atomic::{compiler_fence, AtomicU32, AtomicU64, Ordering};

macro_rules! word {
    ($name:ident, $atomic:ident, $plain:ident, $what:literal) => {
        #[doc = $what]
        #[derive(Debug, Default)]
        #[repr(transparent)]
        pub struct $name($atomic);

        impl $name {
            /// Makes a word that holds `value`.
            pub const fn new(value: $plain) -> Self {
                $name($atomic::new(value))
            }

            /// Reads the word; relaxed, the lock orders it.
            #[inline(always)]
            pub fn get(&self) -> $plain {
                self.0.load(Ordering::Relaxed)
            }

            /// Writes the word; relaxed, the lock orders it.
            #[inline(always)]
            pub fn set(&self, value: $plain) {
                self.0.store(value, Ordering::Relaxed)
            }

            /// Reads the word and all that was written before the
            /// [`commit`](Self::commit) or [`swap_if`](Self::swap_if) that left
            /// the value; acquire, pairs with their release.
            #[inline(always)]
            pub fn read(&self) -> $plain {
                self.0.load(Ordering::Acquire)
            }

            /// Writes the word after everything that precedes it in the program
            /// and before everything that follows.
            #[inline(always)]
            pub fn commit(&self, value: $plain) {
                compiler_fence(Ordering::SeqCst);
                self.0.store(value, Ordering::Release);
                compiler_fence(Ordering::SeqCst);
            }

            /// Writes `new` if the word holds `old`; the value that it had, as
            /// `Ok` if it was `old`.
            #[inline(always)]
            pub fn swap_if(&self, old: $plain, new: $plain) -> Result<$plain, $plain> {
                self.0
                    .compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire)
            }

            /// Adds `more` without a locked instruction, under the arena's lock.
            #[inline(always)]
            pub fn add(&self, more: $plain) {
                self.set(self.get().wrapping_add(more))
            }

            /// Takes `less` away without a locked instruction, under the
            /// arena's lock.
            #[inline(always)]
            pub fn sub(&self, less: $plain) {
                self.set(self.get().wrapping_sub(less))
            }
        }
    };
}

word!(U32, AtomicU32, u32, "32 bits of shared memory.");
word!(U64, AtomicU64, u64, "64 bits of shared memory.");

impl U32 {
    /// Adds one in one step, without a lock.
    pub fn step(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }

    /// The word itself, to sleep on.
    pub fn as_atomic(&self) -> &AtomicU32 {
        &self.0
    }
}
