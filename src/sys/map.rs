//! Mappings.

use super::errno::{failed, last};
use crate::error::Result;
use std::ffi::c_void;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

fn map(length: usize, flags: i32, fd: i32, offset: u64) -> Result<NonNull<u8>> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping at a place of the kernel's choice touches no other.
    let base = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            length,
            protection,
            flags,
            fd,
            offset as libc::off_t,
        )
    };
    match NonNull::new(base.cast::<u8>()) {
        Some(place) if base != libc::MAP_FAILED => Ok(place),
        _ => Err(failed("mmap")(last())),
    }
}

/// Maps `length` bytes of a file from `offset` on, a multiple of the page size,
/// shared and writable: `mmap(2)`.
pub fn shared(fd: BorrowedFd<'_>, offset: u64, length: usize) -> Result<NonNull<u8>> {
    map(length, libc::MAP_SHARED, fd.as_raw_fd(), offset)
}

/// Maps `length` bytes of zeros of this process's own: `mmap(2)`.
pub fn private(length: usize) -> Result<NonNull<u8>> {
    map(length, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
}

/// Flag of anonymous mappings: their memory is not reserved before it is used.
pub const NORESERVE: i32 = libc::MAP_NORESERVE;

/// Maps a file from its beginning on in the place of what is mapped there, shared: `mmap(2)`,
/// MAP_FIXED.
///
/// # Safety
/// The range begins with a page, all pages that it reaches into are mapped, and nobody needs
/// what is there.
pub unsafe fn over(
    base: NonNull<u8>,
    length: usize,
    fd: BorrowedFd<'_>,
    writable: bool,
) -> Result<()> {
    let write = if writable { libc::PROT_WRITE } else { 0 };
    // SAFETY: the call changes the given pages only, and the caller promises that they are mapped
    // and that nobody needs what is there.
    unsafe {
        fixed(
            base,
            length,
            libc::PROT_READ | write,
            libc::MAP_SHARED,
            fd,
            0,
        )
    }
}

/// Maps pages of a file in the place of what is mapped there: as copies that are
/// made when they are written to, or shared. `mmap(2)`, MAP_FIXED.
///
/// # Safety
/// The range is whole pages of a mapping of [`shared`], and nobody needs what is
/// there but not in the file.
#[cfg(target_os = "linux")]
pub unsafe fn again(
    base: NonNull<u8>,
    length: usize,
    fd: BorrowedFd<'_>,
    offset: u64,
    copied: bool,
) -> Result<()> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let kind = if copied {
        libc::MAP_PRIVATE
    } else {
        libc::MAP_SHARED
    };
    // SAFETY: the call changes the given pages only, and the caller promises that they are mapped
    // and that nobody needs what is there.
    unsafe { fixed(base, length, protection, kind, fd, offset) }
}

/// # Safety
/// Whole pages that are mapped, of which nobody needs what is there.
unsafe fn fixed(
    base: NonNull<u8>,
    length: usize,
    protection: i32,
    kind: i32,
    fd: BorrowedFd<'_>,
    offset: u64,
) -> Result<()> {
    // SAFETY: the call changes the given pages only, and the caller promises that they are mapped
    // and that nobody needs what is there.
    let mapped = unsafe {
        libc::mmap(
            base.as_ptr().cast::<c_void>(),
            length,
            protection,
            kind | libc::MAP_FIXED,
            fd.as_raw_fd(),
            offset as libc::off_t,
        )
    };
    match mapped {
        libc::MAP_FAILED => Err(failed("mmap")(last())),
        _ => Ok(()),
    }
}

/// Ends a mapping: `munmap(2)`.
///
/// # Safety
/// `base` and `length` are what a function of this module returned and got, and
/// nothing refers to the mapping any more.
pub unsafe fn unmap(base: NonNull<u8>, length: usize) -> Result<()> {
    // SAFETY: the caller promises that this is a mapping of this module's to which nothing refers any
    // more.
    match unsafe { libc::munmap(base.as_ptr().cast::<c_void>(), length) } {
        0 => Ok(()),
        _ => Err(failed("munmap")(last())),
    }
}

/// Frees the pages of a shared mapping, in the file too, so that they read as
/// zeros: `madvise(2)`, MADV_REMOVE.
///
/// # Safety
/// The range is whole pages of a mapping of [`shared`], whose bytes nobody
/// needs.
#[cfg(target_os = "linux")]
pub unsafe fn remove_pages(base: NonNull<u8>, length: usize) -> Result<()> {
    // SAFETY: the call changes the given pages only, and the caller promises that they are mapped
    // and that nobody needs what is there.
    match unsafe { libc::madvise(base.as_ptr().cast::<c_void>(), length, libc::MADV_REMOVE) } {
        0 => Ok(()),
        _ => Err(failed("madvise")(last())),
    }
}

/// Has a mapping of [`private`] filled with zeros in every forked child:
/// `madvise(2)`, MADV_WIPEONFORK, since Linux 4.14.
///
/// # Safety
/// The range is whole pages of a mapping of [`private`], and children can do
/// with zeros there.
#[cfg(target_os = "linux")]
pub unsafe fn wipe_on_fork(base: NonNull<u8>, length: usize) -> Result<()> {
    // SAFETY: the call changes what forked children find in these pages, and the caller promises that
    // they can do with zeros.
    match unsafe {
        libc::madvise(
            base.as_ptr().cast::<c_void>(),
            length,
            libc::MADV_WIPEONFORK,
        )
    } {
        0 => Ok(()),
        _ => Err(failed("madvise")(last())),
    }
}

/// Asks for huge pages in a mapping of [`shared`], where its file system gives them to who asks:
/// `madvise(2)`, MADV_HUGEPAGE.
///
/// # Safety
/// The range is whole pages of a mapping of [`shared`].
#[cfg(target_os = "linux")]
pub unsafe fn want_huge_pages(base: NonNull<u8>, length: usize) -> Result<()> {
    // SAFETY: the call changes how the kernel maps pages, never what they hold, and the caller
    // promises that the range is mapped.
    match unsafe { libc::madvise(base.as_ptr().cast::<c_void>(), length, libc::MADV_HUGEPAGE) } {
        0 => Ok(()),
        _ => Err(failed("madvise")(last())),
    }
}

/// Takes and maps the pages of a mapping of [`shared`], as if each was written to; bytes that are
/// there keep their values: `madvise(2)`, MADV_POPULATE_WRITE, since Linux 5.14.
///
/// # Errors
/// EFAULT where the memory is not there: no signal is raised. EINVAL on older kernels.
///
/// # Safety
/// The range is whole pages of a mapping of [`shared`].
#[cfg(target_os = "linux")]
pub unsafe fn populate(base: NonNull<u8>, length: usize) -> Result<()> {
    // SAFETY: the call maps pages that the mapping stands for already, and changes no byte.
    match unsafe {
        libc::madvise(
            base.as_ptr().cast::<c_void>(),
            length,
            libc::MADV_POPULATE_WRITE,
        )
    } {
        0 => Ok(()),
        _ => Err(failed("madvise")(last())),
    }
}
