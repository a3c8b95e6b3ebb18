//! Named shared memory objects and their storage.

use super::errno::failed;
use crate::error::Result;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::mman;
use nix::sys::stat::Mode;
use std::ffi::{c_int, CStr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[cfg(target_os = "linux")]
use {
    crate::error::Error,
    std::{
        ffi::OsStr,
        io::Write,
        os::{
            fd::{AsFd, AsRawFd},
            unix::ffi::OsStrExt,
        },
        path::{Path, PathBuf},
    },
};

/// Opens the shared memory object `name`: `shm_open(3)`.
///
/// `flags` and `mode` go to the system as they are. The descriptor is
/// close-on-exec.
pub fn open(name: &CStr, flags: c_int, mode: u32) -> Result<OwnedFd> {
    let flags = OFlag::from_bits_retain(flags);
    let mode = Mode::from_bits_retain(mode as libc::mode_t);
    mman::shm_open(name, flags, mode).map_err(failed("shm_open"))
}

/// Removes the name of a shared memory object: `shm_unlink(3)`.
///
/// Descriptors and mappings that exist stay valid.
pub fn unlink(name: &CStr) -> Result<()> {
    mman::shm_unlink(name).map_err(failed("shm_unlink"))
}

/// Opens an arena's object: by [`open`], or, if its name is a path, the file there: `open(2)`,
/// if it lies on a tmpfs, `fstatfs(2)`.
///
/// # Errors
/// What the calls report; `Foreign` for another file system.
#[cfg(target_os = "linux")]
pub fn open_object(name: &CStr, flags: c_int, mode: u32) -> Result<OwnedFd> {
    if !is_path(name) {
        return open(name, flags, mode);
    }
    // As `shm_open` has it: nobody else's link or pipe can be in the way.
    let also = OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let flags = OFlag::from_bits_retain(flags) | also;
    let mode = Mode::from_bits_retain(mode as libc::mode_t);
    let file = nix::fcntl::open(name, flags, mode).map_err(failed("open"))?;
    match is_on_tmpfs(file.as_fd())? {
        true => Ok(file),
        false => Err(Error::Foreign {
            why: "its folder is not on a tmpfs",
        }),
    }
}

/// Removes the name of an arena's object, as [`open_object`] takes it.
#[cfg(target_os = "linux")]
pub fn unlink_object(name: &CStr) -> Result<()> {
    match is_path(name) {
        true => nix::unistd::unlink(name).map_err(failed("unlink")),
        false => unlink(name),
    }
}

/// Whether a name is the path of a file in another folder than that of POSIX's objects.
#[cfg(target_os = "linux")]
fn is_path(name: &CStr) -> bool {
    name.to_bytes().iter().filter(|byte| **byte == b'/').count() > 1
}

/// Whether a file lies on a tmpfs: `fstatfs(2)`.
#[cfg(target_os = "linux")]
pub fn is_on_tmpfs(fd: BorrowedFd<'_>) -> Result<bool> {
    let system = nix::sys::statfs::fstatfs(fd).map_err(failed("fstatfs"))?;
    Ok(system.filesystem_type() == nix::sys::statfs::TMPFS_MAGIC)
}

/// Whether a folder, which must be one, is on a tmpfs: `open(2)`, `fstatfs(2)`.
#[cfg(target_os = "linux")]
pub fn is_tmpfs(folder: &str) -> Result<bool> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let folder = nix::fcntl::open(folder, flags, Mode::empty()).map_err(failed("open"))?;
    is_on_tmpfs(folder.as_fd())
}

/// Sets the permissions of an open file, which an object that is made has less what the
/// process's umask takes away: `fchmod(2)`.
pub fn set_mode(fd: BorrowedFd<'_>, mode: u32) -> Result<()> {
    let mode = Mode::from_bits_retain(mode as libc::mode_t);
    nix::sys::stat::fchmod(fd, mode).map_err(failed("fchmod"))
}

/// How a name is given to what has another.
#[cfg(target_os = "linux")]
#[derive(Clone, Copy, Debug)]
pub enum Rename {
    /// If nobody has the new name: RENAME_NOREPLACE.
    New,
    /// What had the new name gets the old one, in one step: RENAME_EXCHANGE.
    Exchange,
}

/// Renames a file: `renameat2(2)`, through `syscall` since glibc has it from 2.28 on.
#[cfg(target_os = "linux")]
pub fn rename(old: &CStr, new: &CStr, how: Rename) -> Result<()> {
    let flags = match how {
        Rename::New => libc::RENAME_NOREPLACE,
        Rename::Exchange => libc::RENAME_EXCHANGE,
    };
    // SAFETY: two texts that end with a zero, and live during the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            libc::AT_FDCWD,
            old.as_ptr(),
            libc::AT_FDCWD,
            new.as_ptr(),
            flags,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(failed("renameat2")(super::errno::last())),
    }
}

/// What the file system knows of an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The number of the file in its file system.
    pub inode: u64,
    /// The number of the file system.
    pub device: u64,
    /// The file's length in bytes.
    pub size: u64,
    /// How many bytes have storage.
    pub allocated: u64,
    /// Its owner.
    pub uid: u32,
    /// Its permissions, the lowest nine bits.
    pub permissions: u32,
    /// When it was last written to.
    pub modified: SystemTime,
}

/// Asks about an open file: `fstat(2)`.
pub fn facts(fd: BorrowedFd<'_>) -> Result<Facts> {
    let status = nix::sys::stat::fstat(fd).map_err(failed("fstat"))?;
    Ok(Facts::of(&status))
}

/// Whether an open file still has a name: `fstat(2)`.
pub fn has_name(fd: BorrowedFd<'_>) -> Result<bool> {
    let status = nix::sys::stat::fstat(fd).map_err(failed("fstat"))?;
    Ok(status.st_nlink > 0)
}

impl Facts {
    // The types of these fields differ between systems.
    #[allow(clippy::unnecessary_cast)]
    fn of(status: &libc::stat) -> Self {
        Facts {
            inode: status.st_ino as u64,
            device: status.st_dev as u64,
            size: status.st_size as u64,
            allocated: status.st_blocks as u64 * 512,
            uid: status.st_uid,
            permissions: status.st_mode as u32 & 0o777,
            modified: UNIX_EPOCH + Duration::from_secs(status.st_mtime.max(0) as u64),
        }
    }

    /// What tells the file from all others: its inode and device.
    pub fn file(&self) -> [u64; 2] {
        [self.inode, self.device]
    }
}

/// Where glibc and musl keep shared memory objects, see `shm_overview(7)`.
#[cfg(target_os = "linux")]
pub const FOLDER: &str = "/dev/shm";

/// Opens the folder of shared memory objects, to ask about its file system: `open(2)`.
#[cfg(target_os = "linux")]
pub fn open_folder() -> Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    nix::fcntl::open(FOLDER, flags, Mode::empty()).map_err(failed("open"))
}

/// Makes a file without a name where shared memory objects are: `open(2)`, O_TMPFILE, since Linux
/// 3.11.
#[cfg(target_os = "linux")]
pub fn open_unnamed() -> Result<OwnedFd> {
    let flags = OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC;
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    nix::fcntl::open(FOLDER, flags, mode).map_err(failed("open"))
}

/// Lists the names of all files in a folder: `readdir(3)`.
///
/// Names that are no text are left out.
#[cfg(target_os = "linux")]
pub fn names_in(folder: &str) -> Result<Vec<String>> {
    let failed = |error: std::io::Error| Error::Os {
        call: "readdir",
        errno: error.raw_os_error().unwrap_or(0),
    };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        names.extend(name.into_string());
    }
    Ok(names)
}

/// Asks about the shared memory object `name` without opening it: `stat(2)`,
/// where the C library keeps them.
#[cfg(target_os = "linux")]
pub fn facts_of(name: &CStr) -> Result<Facts> {
    let name_or_path = OsStr::from_bytes(name.to_bytes());
    let path = match is_path(name) {
        true => PathBuf::from(name_or_path),
        false => Path::new(FOLDER).join(name_or_path.to_string_lossy().trim_start_matches('/')),
    };
    let status = nix::sys::stat::stat(&path).map_err(failed("stat"))?;
    Ok(Facts::of(&status))
}

/// Opens once more the file that `fd` is of, with a description of its own:
/// `open(2)` of its entry in `/proc/self/fd`, so that it needs no name.
#[cfg(target_os = "linux")]
pub fn reopen(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC;
    nix::fcntl::open(path.as_str(), flags, Mode::empty()).map_err(failed("open"))
}

/// How [`open_for_locks`] opens a file: O_RDONLY | O_NONBLOCK. The latter changes nothing for such
/// files, and tells these descriptors from others.
#[cfg(target_os = "linux")]
pub const FOR_LOCKS: c_int = libc::O_RDONLY | libc::O_NONBLOCK;

/// As [`reopen`], to have shared locks of the new description, and without allocating.
#[cfg(target_os = "linux")]
pub fn open_for_locks(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    let mut path = [0; 32];
    // The path fits: 14 + 11 bytes, and a zero.
    let _ = write!(&mut path[..31], "/proc/self/fd/{}", fd.as_raw_fd());
    let path = CStr::from_bytes_until_nul(&path).unwrap_or(c"");
    let flags = OFlag::from_bits_retain(FOR_LOCKS) | OFlag::O_CLOEXEC;
    nix::fcntl::open(path, flags, Mode::empty()).map_err(failed("open"))
}

/// Whether a descriptor was opened by [`open_for_locks`], or likewise: `fcntl(2)`, F_GETFL.
#[cfg(target_os = "linux")]
pub fn is_for_locks(fd: BorrowedFd<'_>) -> bool {
    let asked = OFlag::O_ACCMODE | OFlag::O_NONBLOCK;
    let flags = nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_GETFL);
    flags.is_ok_and(|flags| flags & asked.bits() == FOR_LOCKS)
}

/// A place in a file, as `call` takes it: 32 bits of it on systems of 32 bits.
fn offset_for(call: &'static str, place: u64) -> Result<libc::off_t> {
    libc::off_t::try_from(place).map_err(|_| failed(call)(Errno::EOVERFLOW))
}

/// Takes storage for `length` bytes from `offset` on: `posix_fallocate(3)`.
///
/// Bytes that are there already keep their values; the file grows if the range
/// ends behind its end.
#[cfg(not(target_vendor = "apple"))]
pub fn allocate(fd: BorrowedFd<'_>, offset: u64, length: u64) -> Result<()> {
    let place = |place| offset_for("posix_fallocate", place);
    nix::fcntl::posix_fallocate(fd, place(offset)?, place(length)?)
        .map_err(failed("posix_fallocate"))
}

/// [`allocate`], by the kernel or not at all: `fallocate(2)`. (The C library writes to each page
/// where the kernel has no such call.)
#[cfg(target_os = "linux")]
pub fn allocate_natively(fd: BorrowedFd<'_>, offset: u64, length: u64) -> Result<()> {
    let flags = nix::fcntl::FallocateFlags::empty();
    let place = |place| offset_for("fallocate", place);
    nix::fcntl::fallocate(fd, flags, place(offset)?, place(length)?).map_err(failed("fallocate"))
}

/// Frees the storage of `length` bytes from `offset` on, which read as zeros
/// then: `fallocate(2)`, FALLOC_FL_PUNCH_HOLE. The length of the file stays.
#[cfg(target_os = "linux")]
pub fn deallocate(fd: BorrowedFd<'_>, offset: u64, length: u64) -> Result<()> {
    use nix::fcntl::FallocateFlags;
    let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    let place = |place| offset_for("fallocate", place);
    nix::fcntl::fallocate(fd, hole, place(offset)?, place(length)?).map_err(failed("fallocate"))
}

/// Reads bytes of a file from `offset` on: `pread(2)`. How many, which is fewer
/// than `bytes` has at the file's end.
pub fn read(fd: BorrowedFd<'_>, offset: u64, bytes: &mut [u8]) -> Result<usize> {
    let offset = offset_for("pread", offset)?;
    nix::sys::uio::pread(fd, bytes, offset).map_err(failed("pread"))
}

/// Writes bytes of a file from `offset` on, all or none: `pwrite(2)`.
///
/// # Errors
/// ENOSPC also if only some could be written.
pub fn write(fd: BorrowedFd<'_>, offset: u64, bytes: &[u8]) -> Result<()> {
    let offset = offset_for("pwrite", offset)?;
    let written = nix::sys::uio::pwrite(fd, bytes, offset).map_err(failed("pwrite"))?;
    match written == bytes.len() {
        true => Ok(()),
        false => Err(failed("pwrite")(Errno::ENOSPC)),
    }
}

/// The bytes that a file system holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// All that it can hold.
    pub all: u64,
    /// How many more.
    pub free: u64,
}

impl Room {
    /// None if there is no limit.
    // The types of these numbers differ between systems.
    #[allow(clippy::unnecessary_cast)]
    fn of(system: &nix::sys::statvfs::Statvfs) -> Option<Self> {
        let bytes = |blocks: u64| blocks.saturating_mul(system.fragment_size() as u64);
        (system.blocks() > 0).then(|| Room {
            all: bytes(system.blocks() as u64),
            free: bytes(system.blocks_available() as u64),
        })
    }
}

/// Returns how many bytes the file system of `fd` can hold: `fstatvfs(3)`.
///
/// None stands for a file system without a limit, which reports no blocks, and for
/// shared memory that lies in no file system.
pub fn room(fd: BorrowedFd<'_>) -> Result<Option<Room>> {
    match nix::sys::statvfs::fstatvfs(fd) {
        Err(Errno::EINVAL | Errno::ENOTSUP) => Ok(None),
        system => Ok(Room::of(&system.map_err(failed("fstatvfs"))?)),
    }
}

/// Returns how many bytes the file system of a folder can hold: `statvfs(3)`. None if it has no
/// limit.
#[cfg(target_os = "linux")]
pub fn room_in(folder: &str) -> Result<Option<Room>> {
    let system = nix::sys::statvfs::statvfs(folder).map_err(failed("statvfs"))?;
    Ok(Room::of(&system))
}

/// Says that this system cannot take storage ahead of its use.
#[cfg(target_vendor = "apple")]
pub fn allocate(_fd: BorrowedFd<'_>, _offset: u64, _length: u64) -> Result<()> {
    Err(failed("posix_fallocate")(Errno::ENOTSUP))
}
