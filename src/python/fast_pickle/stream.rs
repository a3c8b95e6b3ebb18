//! Simple things as bytes, without a pickler.
//!
//! Most of what processes say to each other is simple: a function and small arrays, numbers,
//! text, in tuples, lists and dicts. To pickle that takes longer than to carry it, and most of
//! the time goes into what could be else. Here it is written down, or refused as soon as
//! anything in it is not of these very classes.
//!
//! ```text
//! stream    1, thing, and what may follow
//! thing     N | T | F
//!           i i64 | f f64
//!           s length u32, UTF-8 | b length u32, bytes
//!           t count u32, things | l count u32, things | d count u32, keys and values
//!           g length u32, module, length u32, name
//!           a number of the dtype u8, flags u8, dimensions u8, lengths i64, items
//!           r number of the dtype u8, flags u8, dimensions u8, lengths and strides i64,
//!             offset u64, reference
//!           B length u64, reference
//! reference length u8, handle, to 100 bytes
//! ```
//!
//! An array in shared memory is written as the handle of its block and where it lies in that; a
//! large plain one is copied into a block first, which becomes the receiver's own, and so are long
//! bytes, which the receiver copies out of it. No handle is made, nor anything copied, before all
//! else was written. No pickle begins with 1.

/// The first byte of a stream.
pub(super) const MARK: u8 = 1;

/// A pickler is as fast with more things than that.
pub(super) const MOST: usize = 256;

/// How deep things may lie in each other.
pub(super) const DEEP: usize = 20;

/// Flags of arrays.
pub(super) const FORTRAN: u8 = 1;
pub(super) const WRITEABLE: u8 = 2;
/// The class is `shared_numpy.ndarray`.
pub(super) const OWN_CLASS: u8 = 4;
/// The block becomes the receiver's own.
pub(super) const PRIVATE: u8 = 8;
