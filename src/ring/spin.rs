//! Whether, and for how long, a waiter looks again and again before it sleeps.
//!
//! A wake-up costs some 5 microseconds, or 50 where it must start a processor that sleeps;
//! who looks all the time sees a change within a tenth of one. But he takes a processor, which
//! is wasted if the change takes long, and worse if whoever is to make it needs that processor.
//! So a waiter spins only where there are two for this process, by its affinity and by its
//! cgroups' quotas, and only if the waits of late were as short as that.

use crate::sys::proc;
use std::fs::read_to_string;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The longest that a waiter spins, and the longest wait that makes the next one spin.
pub const LIMIT: Duration = Duration::from_micros(50);
/// A shorter time is none.
const LEAST: u32 = 2_000;
/// Looks between two looks at the clock.
const LOOKS: u32 = 16;
/// For how long the number of processors is believed, in ms.
const BELIEVED: u64 = 100;

/// How one end of a ring spins, in this process.
pub struct Spin {
    /// For how long, in ns.
    budget: AtomicU32,
    enabled: AtomicU32,
}

impl Default for Spin {
    fn default() -> Self {
        Spin {
            budget: AtomicU32::new(LIMIT.as_nanos() as u32),
            enabled: AtomicU32::new(1),
        }
    }
}

impl Spin {
    /// Lets it spin, or not.
    pub fn enable(&self, enabled: bool) {
        self.enabled.store(enabled as u32, Ordering::Relaxed);
    }

    /// Whether it may.
    pub fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed) != 0
    }

    /// Looks until `changed`, or for as long as pays; whether it has.
    pub fn until(&self, start: Instant, changed: impl Fn() -> bool) -> bool {
        let budget = self.budget.load(Ordering::Relaxed);
        if budget < LEAST || !self.is_enabled() || !has_processors() {
            return changed();
        }
        let budget = Duration::from_nanos(budget as u64);
        loop {
            for _ in 0..LOOKS {
                if changed() {
                    return true;
                }
                std::hint::spin_loop();
            }
            if start.elapsed() >= budget {
                return false;
            }
        }
    }

    /// Learns how long a wait has taken, that of a sleeper with his wake-up.
    pub fn learn(&self, waited: Duration) {
        let budget = match waited <= LIMIT {
            true => LIMIT.as_nanos() as u32,
            false => self.budget.load(Ordering::Relaxed) / 2,
        };
        self.budget.store(budget, Ordering::Relaxed);
    }
}

/// Whether this process has two processors or more.
fn has_processors() -> bool {
    static LOOKED: AtomicU64 = AtomicU64::new(0);
    static HAS: AtomicU32 = AtomicU32::new(0);
    let now = proc::now();
    if now.saturating_sub(LOOKED.load(Ordering::Relaxed)) >= BELIEVED {
        let has = proc::processors() >= 2 && quota() >= 2.0;
        HAS.store(has as u32, Ordering::Relaxed);
        LOOKED.store(now, Ordering::Relaxed);
    }
    HAS.load(Ordering::Relaxed) != 0
}

/// How many processors this process's cgroups let it use, as they were when it was first
/// asked; infinite if there is no quota, or it cannot be known.
fn quota() -> f64 {
    static QUOTA: OnceLock<f64> = OnceLock::new();
    *QUOTA.get_or_init(|| {
        let groups = read_to_string("/proc/self/cgroup").unwrap_or_default();
        least_quota(&groups, Path::new("/sys/fs/cgroup"))
    })
}

/// The least quota of the groups that `/proc/self/cgroup` lists, and of those that
/// they are in.
fn least_quota(groups: &str, root: &Path) -> f64 {
    let mut least = f64::INFINITY;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let mount: PathBuf = match controllers.is_empty() {
            true => root.to_owned(),
            false if controllers.split(',').any(|name| name == "cpu") => root.join(controllers),
            false => continue,
        };
        for group in Path::new(path).ancestors() {
            let folder = mount.join(group.strip_prefix("/").unwrap_or(group));
            least = least.min(quota_of(&folder).unwrap_or(f64::INFINITY));
        }
    }
    least
}

/// The quota that is written in a group's folder, of either version of cgroups.
fn quota_of(folder: &Path) -> Option<f64> {
    let read = |name| read_to_string(folder.join(name)).ok();
    let (quota, period) = match read("cpu.max") {
        Some(both) => {
            let (quota, period) = both.trim().split_once(' ')?;
            (quota.to_owned(), period.to_owned())
        }
        None => (read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?),
    };
    // ("max" and -1 are no quota.)
    let quota: f64 = quota.trim().parse().ok().filter(|quota| *quota > 0.0)?;
    let period: f64 = period.trim().parse().ok().filter(|period| *period > 0.0)?;
    Some(quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir_all, remove_dir_all, write};

    #[test]
    fn quotas_of_all_groups_count() {
        let root = std::env::temp_dir().join(format!("snp-quota-{}", std::process::id()));
        let group = root.join("a/b");
        create_dir_all(&group).unwrap();
        create_dir_all(root.join("cpu,cpuacct/c")).unwrap();
        let both = "4:cpu,cpuacct:/c\n3:memory:/d\n0::/a/b\n";
        assert_eq!(least_quota(both, &root), f64::INFINITY);
        write(group.join("cpu.max"), "max 100000\n").unwrap();
        assert_eq!(least_quota(both, &root), f64::INFINITY);
        write(root.join("a/cpu.max"), "250000 100000\n").unwrap();
        assert_eq!(least_quota(both, &root), 2.5);
        let old = root.join("cpu,cpuacct/c");
        write(old.join("cpu.cfs_quota_us"), "-1\n").unwrap();
        write(old.join("cpu.cfs_period_us"), "100000\n").unwrap();
        assert_eq!(least_quota(both, &root), 2.5);
        write(old.join("cpu.cfs_quota_us"), "150000\n").unwrap();
        assert_eq!(least_quota(both, &root), 1.5);
        write(group.join("cpu.max"), "50000 100000\n").unwrap();
        assert_eq!(least_quota(both, &root), 0.5);
        remove_dir_all(root).unwrap();
    }

    #[test]
    fn long_waits_end_the_spinning_and_short_ones_begin_it() {
        let spin = Spin::default();
        let budget = || spin.budget.load(Ordering::Relaxed);
        for _ in 0..6 {
            spin.learn(Duration::from_millis(5));
        }
        assert!(budget() < LEAST);
        spin.learn(Duration::from_micros(20));
        assert_eq!(budget(), LIMIT.as_nanos() as u32);
        spin.enable(false);
        assert!(!spin.until(Instant::now(), || false));
    }
}
