//! Words of shared memory: the one door to atomics.
//!
//! Whatever lies in a segment can be changed by another process at any moment,
//! so that every field is an atomic, and a row of the format is made of these
//! two types only. Which process may write a field, and under which lock, is told with
//! the format; a word knows nothing of that.
//!
//! Four accesses are enough:
//!
//! * [`get`](U64::get) and [`set`](U64::set): plain loads and stores, for fields
//!   that the arena's lock protects. The lock's acquire and release order them.
//! * [`commit`](U64::commit): the one store by which an operation takes effect.
//!   It stays between what is written before and after it in the program.
//! * [`read`](U64::read): a load without the lock. Its thread sees what was written before the
//!   commit or exchange that left the value.
//! * [`swap_if`](U64::swap_if): compare and exchange, for what is decided
//!   without the lock.
//!
//! Why `commit` needs no fence of the processor: what another process sees of a
//! *dead* one it sees after the kernel has taken the dead off its processor and
//! dropped its byte lock, which orders all that the dead had executed. Only the
//! order of its instructions matters, and that is the compiler's.
//!
//! A word is generic over [`Atomic`], so that the same lines, with their orders, run on the words of
//! a model checker: `tests/orders` runs them on such as know weak memory. The words of `process`
//! that are private to it use the same trait.

use std::sync::atomic::{compiler_fence, AtomicU32, AtomicU64, Ordering};

/// An atomic integer: the standard library's, or a model checker's.
pub trait Atomic {
    /// What it holds.
    type Value: Copy;

    /// One that holds `value`.
    fn new(value: Self::Value) -> Self;
    /// See [`AtomicU32::load`].
    fn load(&self, order: Ordering) -> Self::Value;
    /// See [`AtomicU32::store`].
    fn store(&self, value: Self::Value, order: Ordering);
    /// See [`AtomicU32::compare_exchange`].
    fn exchange(
        &self,
        old: Self::Value,
        new: Self::Value,
        success: Ordering,
        failure: Ordering,
    ) -> Result<Self::Value, Self::Value>;
    /// See [`AtomicU32::fetch_add`].
    fn fetch_add(&self, value: Self::Value, order: Ordering) -> Self::Value;
    /// See [`AtomicU32::fetch_sub`].
    fn fetch_sub(&self, value: Self::Value, order: Ordering) -> Self::Value;
    /// See [`AtomicU32::fetch_or`].
    fn fetch_or(&self, value: Self::Value, order: Ordering) -> Self::Value;
}

/// A word of shared memory.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Word<A>(A);

/// 32 bits of shared memory.
pub type U32 = Word<AtomicU32>;
/// 64 bits of shared memory.
pub type U64 = Word<AtomicU64>;

impl<A: Atomic> Word<A> {
    /// Makes a word that holds `value`.
    pub fn new(value: A::Value) -> Self {
        Word(A::new(value))
    }

    /// Reads the word; relaxed, the lock orders it.
    #[inline(always)]
    pub fn get(&self) -> A::Value {
        self.0.load(Ordering::Relaxed)
    }

    /// Writes the word; relaxed, the lock orders it.
    #[inline(always)]
    pub fn set(&self, value: A::Value) {
        self.0.store(value, Ordering::Relaxed)
    }

    /// Reads the word and all that was written before the [`commit`](Self::commit) or
    /// [`swap_if`](Self::swap_if) that left the value.
    #[inline(always)]
    pub fn read(&self) -> A::Value {
        // Acquire, pairs with the release in `commit`, `swap_if` and `step`.
        self.0.load(Ordering::Acquire)
    }

    /// Writes the word after everything that precedes it in the program
    /// and before everything that follows.
    #[inline(always)]
    pub fn commit(&self, value: A::Value) {
        compiler_fence(Ordering::SeqCst);
        // Release, pairs with the acquire in `read` and `swap_if`.
        self.0.store(value, Ordering::Release);
        compiler_fence(Ordering::SeqCst);
    }

    /// Writes `new` if the word holds `old`; the value that it had, as
    /// `Ok` if it was `old`.
    #[inline(always)]
    pub fn swap_if(&self, old: A::Value, new: A::Value) -> Result<A::Value, A::Value> {
        // Acquire, pairs with the release in `commit`, `step` and here, whether it succeeds or
        // not. Release, pairs with the acquire in `read` and here.
        self.0
            .exchange(old, new, Ordering::AcqRel, Ordering::Acquire)
    }
}

impl<A: Atomic<Value = u32>> Word<A> {
    /// Adds one in one step, without a lock.
    pub fn step(&self) {
        // Release, pairs with the acquire in `read` and `swap_if`. Acquire, pairs with the release
        // of whatever left the value before.
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

impl U32 {
    /// The word itself, to sleep on.
    pub fn as_atomic(&self) -> &AtomicU32 {
        &self.0
    }
}

macro_rules! atomic {
    ($atomic:ident, $plain:ident) => {
        impl Atomic for $atomic {
            type Value = $plain;

            #[inline(always)]
            fn new(value: $plain) -> Self {
                $atomic::new(value)
            }

            #[inline(always)]
            fn load(&self, order: Ordering) -> $plain {
                self.load(order)
            }

            #[inline(always)]
            fn store(&self, value: $plain, order: Ordering) {
                self.store(value, order)
            }

            #[inline(always)]
            fn exchange(
                &self,
                old: $plain,
                new: $plain,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$plain, $plain> {
                self.compare_exchange(old, new, success, failure)
            }

            #[inline(always)]
            fn fetch_add(&self, value: $plain, order: Ordering) -> $plain {
                self.fetch_add(value, order)
            }

            #[inline(always)]
            fn fetch_sub(&self, value: $plain, order: Ordering) -> $plain {
                self.fetch_sub(value, order)
            }

            #[inline(always)]
            fn fetch_or(&self, value: $plain, order: Ordering) -> $plain {
                self.fetch_or(value, order)
            }
        }

        impl Word<$atomic> {
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

atomic!(AtomicU32, u32);
atomic!(AtomicU64, u64);
