//! Which processes have which files: `proc_pid_maps(5)`, `proc_pid_fd(5)`, `proc_pid_fdinfo(5)`.
//!
//! All of it is read from `/proc`, from outside: nobody is stopped, and what is told may have changed
//! by the time that it is told.
//!
//! A file is asked for its numbers only if it lies on one of the file systems in question. Another one
//! may be a network's whose server is gone, where `stat` waits without end. On which file system an
//! open file lies is known without touching it: `/proc` tells the number of its mount, and which mounts
//! there are.

use super::errno::failed;
use crate::error::{Error, Result};
use nix::errno::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A file that a process has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct File {
    /// Whether it is mapped. (If not it is open only.)
    pub mapped: bool,
    /// Whether it has no name any more.
    pub deleted: bool,
    /// How many of its bytes have memory, where that could be asked: of open files, and of those
    /// without a name.
    pub size: Option<u64>,
}

/// A process, as `/proc` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Its number in the namespace of the `/proc` that is mounted.
    pub pid: u64,
    /// Its number as it numbers itself: in its own namespace, which may be inside that one.
    pub own_pid: u64,
    /// The inode of its namespace of numbers; 0 if this process may not know.
    pub namespace: u64,
    /// The real user's number.
    pub uid: u32,
    /// When it started, in the kernel's ticks since boot.
    pub started: u64,
    /// Its command line, cut; or the name of its program if that says nothing.
    pub command: String,
    /// The files that it has among those that were asked for, by device and inode.
    pub files: BTreeMap<[u64; 2], File>,
    /// Whether all its mappings and descriptors could be read.
    pub readable: bool,
}

/// The processes that there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Processes {
    /// The processes, but for the kernel's own threads and those that have ended.
    pub list: Vec<Process>,
    /// Whether no process can be missing: this one is in the machine's first namespace of numbers,
    /// and `/proc` hides nobody.
    pub complete: bool,
}

/// The number of the first namespace of processes' numbers, PROC_PID_INIT_INO.
const FIRST_NAMESPACE: u64 = 0xefff_fffc;
/// PF_KTHREAD, among the kernel's flags of a process.
const KERNEL_THREAD: u64 = 0x0020_0000;
/// How many descriptors are open at once, at most, while processes are looked at.
const DESCRIPTORS: usize = 3;
/// How much of a command line is told, in bytes.
const LONGEST_COMMAND: usize = 4096;

/// All processes, with the files that they have on these devices.
///
/// # Errors
/// That there is no `/proc`, or that it cannot be read.
pub fn processes(devices: &[u64]) -> Result<Processes> {
    let cannot = |error: io::Error| failed("readdir")(errno_of(&error));
    // What cannot be read for want of descriptors would look like a process without files: as many as
    // are open at once below must be there.
    let spare = (0..DESCRIPTORS).map(|_| fs::File::open("/proc"));
    drop(spare.collect::<io::Result<Vec<_>>>().map_err(cannot)?);
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc").map_err(cannot)? {
        let name = entry.map_err(cannot)?.file_name();
        pids.extend(name.to_str().and_then(|name| name.parse::<u64>().ok()));
    }
    let mounts = Mounts::of(&pids, devices);
    // (A process may end at any step.)
    let list: Vec<_> = pids
        .iter()
        .filter_map(|pid| process(*pid, &mounts))
        .collect();
    if list.is_empty() {
        return Err(Error::Os {
            call: "readdir",
            errno: libc::ENOENT,
        });
    }
    let first = inode("/proc/self/ns/pid") == Some(FIRST_NAMESPACE);
    // A `/proc` that hides other users' processes hides the first one, too (hidepid).
    let complete = first && fs::read("/proc/1/stat").is_ok();
    Ok(Processes { list, complete })
}

fn errno_of(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}

fn inode(path: &str) -> Option<u64> {
    fs::metadata(path).ok().map(|facts| facts.ino())
}

/// The file systems in question, and where they are mounted.
struct Mounts<'a> {
    devices: &'a [u64],
    /// The numbers of the mounts, in all namespaces: each number is one mount's on the machine.
    ids: BTreeSet<u64>,
    /// Where they are mounted here.
    points: Vec<PathBuf>,
}

impl<'a> Mounts<'a> {
    /// The mounts that these processes see.
    fn of(pids: &[u64], devices: &'a [u64]) -> Self {
        let mut ids = BTreeSet::new();
        let mut namespaces = BTreeSet::new();
        let mut add = |folder: &str| {
            let mounts = fs::read(format!("{folder}/mountinfo")).unwrap_or_default();
            let mounts = mounts.split(|byte| *byte == b'\n').filter_map(mounted);
            let mounts = mounts.filter(|(_, device, _)| devices.contains(device));
            let (numbers, points): (Vec<u64>, Vec<_>) =
                mounts.map(|(id, _, point)| (id, point)).unzip();
            ids.extend(numbers);
            points
        };
        let points = add("/proc/self");
        namespaces.extend(inode("/proc/self/ns/mnt"));
        for pid in pids {
            // (Of a process whose namespace cannot be asked for no file is told either.)
            let namespace = inode(&format!("/proc/{pid}/ns/mnt"));
            if namespace.is_some_and(|namespace| namespaces.insert(namespace)) {
                add(&format!("/proc/{pid}"));
            }
        }
        Mounts {
            devices,
            ids,
            points,
        }
    }

    /// Whether a file lies on one of the file systems: by its `fdinfo`, or by its path where that
    /// tells no mount (before Linux 3.15, and in sandboxes).
    fn have(&self, fdinfo: &str, path: &Path) -> bool {
        let mut lines = fdinfo.lines();
        let id = lines.find_map(|line| line.strip_prefix("mnt_id:"));
        match id.and_then(|id| id.trim().parse().ok()) {
            Some(id) => self.ids.contains(&id),
            None => self.points.iter().any(|point| path.starts_with(point)),
        }
    }
}

/// The number, the device and the place of a mount in a line of `/proc/PID/mountinfo`.
fn mounted(line: &[u8]) -> Option<(u64, u64, PathBuf)> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let device = device_of(fields.nth(1)?, 10)?;
    let point = OsStr::from_bytes(fields.nth(1)?);
    Some((id, device, PathBuf::from(point)))
}

/// The device of a pair of numbers, as in `0:26`.
fn device_of(pair: &[u8], radix: u32) -> Option<u64> {
    let (major, minor) = std::str::from_utf8(pair).ok()?.split_once(':')?;
    let number = |text| u32::from_str_radix(text, radix).ok();
    let device = libc::makedev(number(major)?, number(minor)?);
    // The type differs between systems.
    #[allow(clippy::unnecessary_cast)]
    let device = device as u64;
    Some(device)
}

/// One process; None if it has ended, or is a thread of the kernel.
fn process(pid: u64, mounts: &Mounts<'_>) -> Option<Process> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let folder = living(pid, &stat)?;
    let (flags, started) = facts_of(&stat)?;
    if flags & KERNEL_THREAD != 0 {
        return None;
    }
    let status = fs::read(format!("{folder}/status")).ok()?;
    let status = String::from_utf8_lossy(&status);
    let field = |name: &str| {
        let mut lines = status.lines();
        lines
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
    };
    let number = |text: &str| text.parse().ok();
    // (Before Linux 4.1 there is no such line.)
    let own = field("NStgid:").and_then(|line| line.split_ascii_whitespace().last());
    let uid = field("Uid:").and_then(|line| line.split_ascii_whitespace().next());
    let mut files = BTreeMap::new();
    let readable =
        add_mapped(&folder, mounts.devices, &mut files) & add_open(&folder, mounts, &mut files);
    if !readable {
        // It may have ended meanwhile.
        living(pid, &fs::read(format!("/proc/{pid}/stat")).ok()?)?;
    }
    Some(Process {
        pid,
        own_pid: own.and_then(number).unwrap_or(pid),
        namespace: inode(&format!("{folder}/ns/pid")).unwrap_or(0),
        uid: uid.and_then(|uid| uid.parse().ok())?,
        started,
        command: command(&folder).or_else(|| Some(field("Name:")?.to_owned()))?,
        files,
        readable,
    })
}

/// The folder in which `/proc` tells of a process; None if that has ended. A process whose first
/// thread has ended goes on in others, and that thread's folder tells nothing any more.
fn living(pid: u64, stat: &[u8]) -> Option<String> {
    let folder = format!("/proc/{pid}");
    if !is_over(stat)? {
        return Some(folder);
    }
    let threads = fs::read_dir(folder + "/task").ok()?;
    threads.flatten().find_map(|thread| {
        let folder = thread.path().to_str()?.to_owned();
        let stat = fs::read(format!("{folder}/stat")).ok()?;
        (!is_over(&stat)?).then_some(folder)
    })
}

/// The fields of a process or thread from the third on: the state.
fn fields_of(stat: &[u8]) -> Option<std::str::SplitAsciiWhitespace<'_>> {
    // The program's name may hold anything.
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let text = std::str::from_utf8(&stat[end + 1..]).ok()?;
    Some(text.split_ascii_whitespace())
}

/// Whether a process or thread has ended.
fn is_over(stat: &[u8]) -> Option<bool> {
    Some(matches!(fields_of(stat)?.next()?, "Z" | "X" | "x"))
}

/// The kernel's flags, and the time of the start, of a process.
fn facts_of(stat: &[u8]) -> Option<(u64, u64)> {
    let mut fields = fields_of(stat)?.skip(1);
    let flags = fields.nth(9 - 4)?.parse().ok()?;
    let started = fields.nth(22 - 10)?.parse().ok()?;
    Some((flags, started))
}

/// The command line of a process; None if it has none.
fn command(folder: &str) -> Option<String> {
    let mut bytes = fs::read(format!("{folder}/cmdline")).ok()?;
    bytes.truncate(LONGEST_COMMAND);
    let text = String::from_utf8_lossy(&bytes);
    // What is no letter for a terminal must not reach it.
    let shown = |letter: char| if letter.is_control() { ' ' } else { letter };
    let text: String = text.chars().map(shown).collect();
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// Adds the files that a process has mapped; whether that could be read.
fn add_mapped(folder: &str, devices: &[u64], files: &mut BTreeMap<[u64; 2], File>) -> bool {
    let Ok(maps) = fs::read(format!("{folder}/maps")) else {
        return false;
    };
    for line in maps.split(|byte| *byte == b'\n') {
        let Some([device, inode]) = mapped(line).filter(|file| devices.contains(&file[0])) else {
            continue;
        };
        let file = files.entry([device, inode]).or_default();
        if !file.mapped && line.ends_with(b" (deleted)") {
            // (Only root may ask so.)
            let facts = range_of(line).map(|range| format!("{folder}/map_files/{range}"));
            let facts = facts.and_then(|path| fs::metadata(path).ok());
            let facts = facts.filter(|facts| [facts.dev(), facts.ino()] == [device, inode]);
            // A name may end so, too.
            file.deleted = facts.as_ref().is_none_or(|facts| facts.nlink() == 0);
            file.size = facts.map(|facts| facts.blocks() * 512);
        }
        file.mapped = true;
    }
    true
}

/// The device and the inode of the file in a line of `/proc/PID/maps`, if there is one.
fn mapped(line: &[u8]) -> Option<[u64; 2]> {
    let mut fields = line.split(|byte| *byte == b' ').skip(3);
    let device = device_of(fields.next()?, 16)?;
    let inode: u64 = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    (inode != 0).then_some([device, inode])
}

/// The addresses in a line of `/proc/PID/maps`, as `/proc/PID/map_files` has them.
fn range_of(line: &[u8]) -> Option<String> {
    let (start, end) = std::str::from_utf8(line.split(|byte| *byte == b' ').next()?)
        .ok()?
        .split_once('-')?;
    let plain = |address: &str| address.trim_start_matches('0').to_owned();
    Some(format!("{}-{}", plain(start), plain(end)))
}

/// Adds the files that a process has open; whether that could be read.
fn add_open(folder: &str, mounts: &Mounts<'_>, files: &mut BTreeMap<[u64; 2], File>) -> bool {
    let Ok(entries) = fs::read_dir(format!("{folder}/fd")) else {
        return false;
    };
    for entry in entries {
        let Ok(entry) = entry else {
            return false;
        };
        let path = entry.path();
        // (Sockets and pipes are in no folder. A descriptor may be closed at any step.)
        let Some(target) = fs::read_link(&path).ok().filter(|path| path.has_root()) else {
            continue;
        };
        let number = entry.file_name();
        match fs::read_to_string(Path::new(folder).join("fdinfo").join(number)) {
            Ok(fdinfo) if mounts.have(&fdinfo, &target) => (),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return false,
            _ => continue,
        }
        if let Ok(facts) = fs::metadata(&path) {
            if mounts.devices.contains(&facts.dev()) {
                let file = files.entry([facts.dev(), facts.ino()]).or_default();
                file.deleted = facts.nlink() == 0;
                file.size = Some(facts.blocks() * 512);
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn lines_of_maps_tell_files() {
        let line = b"7f00-7f01 rw-s 00000000 00:1a 4321      /dev/shm/a b (deleted)";
        assert_eq!(mapped(line), Some([libc::makedev(0, 0x1a), 4321]));
        assert_eq!(mapped(b"7f00-7f01 rw-p 00000000 00:00 0"), None);
        assert_eq!(mapped(b""), None);
    }

    #[test]
    fn addresses_have_no_zeros_in_front() {
        let range = range_of(b"00400000-0040b000 r-xp 00000000 00:1a 4321 /x").unwrap();
        assert_eq!(range, "400000-40b000");
    }

    #[test]
    fn files_lie_on_the_mounts_of_their_numbers() {
        let line = b"36 35 0:29 / /dev/shm rw,nosuid shared:5 - tmpfs tmpfs rw";
        let device = libc::makedev(0, 29);
        assert_eq!(mounted(line), Some((36, device, "/dev/shm".into())));
        assert_eq!(mounted(b""), None);
        let mounts = Mounts {
            devices: &[],
            ids: BTreeSet::from([36]),
            points: vec!["/dev/shm".into()],
        };
        let [here, there] = ["/dev/shm/x (deleted)", "/net/x"].map(Path::new);
        assert!(mounts.have("pos:\t0\nmnt_id:\t36\n", there));
        assert!(!mounts.have("pos:\t0\nmnt_id:\t37\n", here));
        // Where the mount is not told the path counts.
        assert!(mounts.have("pos:\t0\n", here));
        assert!(!mounts.have("pos:\t0\n", there));
    }

    #[test]
    fn zombies_and_names_of_programs_do_not_confuse() {
        let text = b"17 (a) b (c) S 1 2 3 4 5 99 7 8 9 10 11 12 13 14 15 16 17 18 4242 20";
        assert_eq!(facts_of(text), Some((99, 4242)));
        assert_eq!(facts_of(b"17 (a) S 1 2 3 4 5 99"), None);
        assert_eq!(is_over(text), Some(false));
        assert_eq!(is_over(b"17 (S) Z 1 2 3 4 5 99"), Some(true));
        assert_eq!(is_over(b"17"), None);
    }

    #[test]
    fn this_process_is_seen_with_its_file() {
        let file = fs::File::open("/proc/self/exe").unwrap();
        let facts = file.metadata().unwrap();
        let found = processes(&[facts.dev()]).unwrap();
        let me = std::process::id() as u64;
        let me = found.list.iter().find(|process| process.own_pid == me);
        let me = me.unwrap();
        assert!(me.readable && me.started > 0 && !me.command.is_empty());
        // (The program is mapped, too.)
        assert!(me.files[&[facts.dev(), facts.ino()]].mapped);
        assert!(file.as_raw_fd() >= 0);
        let none = processes(&[]).unwrap();
        assert!(none.list.iter().all(|process| process.files.is_empty()));
    }
}
