//! Control groups: what they leave this process, by their files (`cgroups(7)`).
//!
//! A process is in one group of each hierarchy, and in all groups above that; the limits of all
//! of them hold. In a container the path that `/proc/self/cgroup` tells may be the host's, while
//! what is mounted begins with the container's group: folders that are not there have no limit.

use super::system_files::text_of;
use crate::error::Result;
use std::fs::read_to_string;
use std::path::{Path, PathBuf};

/// Where the hierarchies are mounted.
const MOUNT: &str = "/sys/fs/cgroup";
/// What tells the groups of this process.
const PROC: &str = "/proc";

/// The folders of the groups that this process is in, as `groups`, the text of
/// `/proc/self/cgroup`, has them: of the version 2 of control groups, and of the hierarchy of
/// version 1 that has `controller`.
fn folders(groups: &str, mount: &Path, controller: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let mounts = match controllers.is_empty() {
            // (Beside version 1 it is mounted in a folder of its own.)
            true => vec![mount.to_owned(), mount.join("unified")],
            false if controllers.split(',').any(|name| name == controller) => {
                vec![mount.join(controllers)]
            }
            false => continue,
        };
        for mount in mounts {
            for group in Path::new(path).ancestors() {
                found.push(mount.join(group.strip_prefix("/").unwrap_or(group)));
            }
        }
    }
    found
}

/// How many processors the groups of this process let it use; infinite if there is no quota, or
/// it cannot be known.
///
/// # Errors
/// That no descriptor or no memory was left to ask.
pub fn processors() -> Result<f64> {
    processors_by(Path::new(PROC), Path::new(MOUNT))
}

fn processors_by(proc: &Path, mount: &Path) -> Result<f64> {
    let groups = text_of(proc.join("self/cgroup"))?.unwrap_or_default();
    let mut least = f64::INFINITY;
    for folder in folders(&groups, mount, "cpu") {
        least = quota_of(&folder)?.map_or(least, |quota| least.min(quota));
    }
    Ok(least)
}

/// The quota that is written in a group's folder, of either version.
fn quota_of(folder: &Path) -> Result<Option<f64>> {
    let read = |name| text_of(folder.join(name));
    let words = match read("cpu.max")? {
        Some(both) => both,
        None => {
            let parts = [read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?];
            parts.map(Option::unwrap_or_default).join(" ")
        }
    };
    // ("max" and -1 are no quota.)
    let mut words = words.split_whitespace().map(|word| {
        let number: Option<f64> = word.parse().ok();
        number.filter(|number| *number > 0.0)
    });
    let both = words.next().flatten().zip(words.next().flatten());
    Ok(both.map(|(quota, period)| quota / period))
}

/// How many bytes of memory the groups of this process leave it, before the kernel ends some
/// process for want of it; None if there is no limit.
///
/// Pages of files count as free: the kernel gives them up first. (Those of shared memory are
/// not among them.) A group whose memory may be swapped has no such limit.
pub fn memory() -> Option<u64> {
    memory_by(Path::new(PROC), Path::new(MOUNT))
}

fn memory_by(proc: &Path, mount: &Path) -> Option<u64> {
    let groups = read_to_string(proc.join("self/cgroup")).ok()?;
    let swap = || {
        let facts = read_to_string(proc.join("meminfo")).unwrap_or_default();
        line_of(&facts, "SwapTotal:").is_some_and(|amount| amount > 0)
    };
    let folders = folders(&groups, mount, "memory");
    let left = folders.iter().filter_map(|folder| memory_of(folder, &swap));
    left.min()
}

/// What the limit of one group leaves, of either version.
fn memory_of(folder: &Path, has_swap: &dyn Fn() -> bool) -> Option<u64> {
    /// Version 1 has no word for "no limit", but a number that no machine has.
    const NO_LIMIT: u64 = 1 << 62;
    let text = |name| read_to_string(folder.join(name)).ok();
    let number = |name| text(name)?.trim().parse::<u64>().ok();
    let (limit, used, pages, may_swap) = match number("memory.max") {
        Some(limit) => (
            limit,
            number("memory.current")?,
            ["inactive_file", "active_file"],
            number("memory.swap.max") != Some(0),
        ),
        None => {
            let limit = number("memory.limit_in_bytes")?;
            let both = number("memory.memsw.limit_in_bytes");
            (
                limit,
                number("memory.usage_in_bytes")?,
                ["total_inactive_file", "total_active_file"],
                both.is_none_or(|both| both > limit),
            )
        }
    };
    if limit >= NO_LIMIT || (may_swap && has_swap()) {
        return None;
    }
    let facts = text("memory.stat").unwrap_or_default();
    let files = pages.map(|name| line_of(&facts, name).unwrap_or(0));
    let used = used.saturating_sub(files[0].saturating_add(files[1]));
    Some(limit.saturating_sub(used))
}

/// The number behind a name at the beginning of a line.
fn line_of(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(name)).then(|| words.next()?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir_all, remove_dir_all, write};

    /// A folder that looks like /proc and /sys/fs/cgroup.
    struct System(PathBuf);

    impl System {
        fn new(name: &str, groups: &str) -> Self {
            let folder = format!("snp-cgroup-{name}-{}", std::process::id());
            let system = System(std::env::temp_dir().join(folder));
            system.set("self/cgroup", groups);
            system
        }

        fn set(&self, file: &str, text: &str) {
            let path = self.0.join(file);
            create_dir_all(path.parent().unwrap()).unwrap();
            write(path, text).unwrap();
        }

        fn memory(&self) -> Option<u64> {
            memory_by(&self.0, &self.0)
        }
    }

    impl Drop for System {
        fn drop(&mut self) {
            let _ = remove_dir_all(&self.0);
        }
    }

    #[test]
    fn quotas_of_all_groups_count() {
        let system = System::new("quota", "4:cpu,cpuacct:/c\n3:memory:/d\n0::/a/b\n");
        let quota = || processors_by(&system.0, &system.0).unwrap();
        assert_eq!(quota(), f64::INFINITY);
        system.set("a/b/cpu.max", "max 100000\n");
        assert_eq!(quota(), f64::INFINITY);
        system.set("a/cpu.max", "250000 100000\n");
        assert_eq!(quota(), 2.5);
        system.set("cpu,cpuacct/c/cpu.cfs_quota_us", "-1\n");
        system.set("cpu,cpuacct/c/cpu.cfs_period_us", "100000\n");
        assert_eq!(quota(), 2.5);
        system.set("cpu,cpuacct/c/cpu.cfs_quota_us", "150000\n");
        assert_eq!(quota(), 1.5);
        system.set("a/b/cpu.max", "50000 100000\n");
        assert_eq!(quota(), 0.5);
    }

    #[test]
    fn the_least_of_all_levels_is_what_memory_there_is() {
        let system = System::new("memory", "0::/a/b\n");
        assert_eq!(system.memory(), None);
        system.set("a/b/memory.max", "max\n");
        system.set("a/b/memory.current", "500\n");
        assert_eq!(system.memory(), None);
        system.set("a/memory.max", "1000\n");
        system.set("a/memory.current", "600\n");
        assert_eq!(system.memory(), Some(400));
        let stat = "anon 5\nfile 400\ninactive_file 50\nactive_file 100\nshmem 250\n";
        system.set("a/memory.stat", stat);
        assert_eq!(system.memory(), Some(550));
        system.set("a/b/memory.max", "520\n");
        assert_eq!(system.memory(), Some(20));
        system.set("a/b/memory.current", "600\n");
        assert_eq!(system.memory(), Some(0));
        // A group that may swap is not killed, if there is anything to swap to.
        system.set("meminfo", "MemTotal: 7 kB\nSwapTotal:       0 kB\n");
        assert_eq!(system.memory(), Some(0));
        system.set("meminfo", "MemTotal: 7 kB\nSwapTotal:       9 kB\n");
        assert_eq!(system.memory(), None);
        system.set("a/memory.swap.max", "0\n");
        assert_eq!(system.memory(), Some(550));
    }

    #[test]
    fn version_1_is_understood() {
        let system = System::new("memory1", "9:cpu:/x\n4:memory:/a\n0::/\n");
        system.set("memory/a/memory.limit_in_bytes", "9223372036854771712\n");
        system.set("memory/a/memory.usage_in_bytes", "300\n");
        assert_eq!(system.memory(), None);
        system.set("memory/memory.limit_in_bytes", "1000\n");
        system.set("memory/memory.usage_in_bytes", "700\n");
        let stat = "inactive_file 1\ntotal_inactive_file 30\ntotal_active_file 70\n";
        system.set("memory/memory.stat", stat);
        assert_eq!(system.memory(), Some(400));
        system.set("meminfo", "SwapTotal: 9 kB\n");
        assert_eq!(system.memory(), None);
        system.set("memory/memory.memsw.limit_in_bytes", "1000\n");
        assert_eq!(system.memory(), Some(400));
        system.set("memory/memory.memsw.limit_in_bytes", "2000\n");
        assert_eq!(system.memory(), None);
    }
}
