//! Whether, and for how long, a waiter spins before it sleeps.
//!
//! A wake-up costs some 5 microseconds, or 50 where it must start a processor that sleeps. A waiter
//! that spins sees a change within a tenth of a microsecond. But spinning takes a processor: a
//! waste if the change takes long, and worse if the process that is to make the change needs the
//! processor. So a waiter spins only where this process has two processors or more, by its affinity
//! and by the quotas of its control groups, and only if recent waits took [`LIMIT`] at most.
//!
//! Two processes that send messages to and fro, and both sleep, take a wake-up each in every round:
//! no wait is short any more. So now and then a few waits in a row spin for longer than a wake-up
//! takes: then the other process's wait was short, as it learns from the time at which its message
//! was there, and both spin from the next rounds on.
//!
//! Linux may wake the other process on the very processor on which this one spins, though another
//! one is idle. Then spinning is in vain: the event happens as soon as the waiter sleeps. A waiter
//! to whom this happens spins no more until the next trial. Asleep the two take turns at once, and
//! the kernel moves one of them when it sees fit.

use crate::sys::{cgroup, proc};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The longest that a waiter spins (except in a trial, see [`TRIAL`]), and the longest wait after
/// which the next one spins.
pub const LIMIT: Duration = Duration::from_micros(50);
/// How long the waits spin that try to find the other process awake, and how many of so many they
/// are. The time is some wake-ups; the share of the processor that it takes is small however
/// long waits are.
const TRIAL: Duration = Duration::from_micros(200);
const TRIALS: u32 = 4;
const TRIED_OF: u32 = 64;
/// An event that happens so soon after a trial that has seen nothing had to wait for the waiter's
/// processor.
const AT_ONCE: Duration = Duration::from_micros(20);
/// With a budget below this, in ns, a waiter does not spin.
const LEAST: u32 = 2_000;
/// Looks between two looks at the clock.
const LOOKS: u32 = 16;
/// For how long the number of processors is believed, in ms.
const BELIEVED: u64 = 100;

/// How long the waiters for one event of a ring spin, in this process.
pub struct Spin {
    /// For how long, in ns.
    budget: AtomicU32,
    enabled: AtomicU32,
    /// How many waits there were.
    waits: AtomicU32,
    /// Whether the other process needs this one's processor, as the last trial has found.
    crowded: AtomicBool,
}

impl Default for Spin {
    fn default() -> Self {
        Spin {
            budget: AtomicU32::new(LIMIT.as_nanos() as u32),
            enabled: AtomicU32::new(1),
            waits: AtomicU32::new(0),
            crowded: AtomicBool::new(false),
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

    /// Spins until `changed()` is true, or until the budget is used up, counted from `start`;
    /// returns for how long it has spun in vain. Without a budget it checks once.
    pub fn until(&self, start: Instant, changed: impl Fn() -> bool) -> Option<Duration> {
        let budget = self.next_budget();
        if budget < LEAST || !self.is_enabled() || !has_processors() {
            return (!changed()).then(|| start.elapsed());
        }
        let budget = Duration::from_nanos(budget as u64);
        loop {
            for _ in 0..LOOKS {
                if changed() {
                    return None;
                }
                std::hint::spin_loop();
            }
            let spun = start.elapsed();
            if spun >= budget {
                return Some(spun);
            }
        }
    }

    /// For how long the next wait spins, in ns.
    fn next_budget(&self) -> u32 {
        let number = self.waits.fetch_add(1, Ordering::Relaxed) % TRIED_OF;
        let budget = self.budget.load(Ordering::Relaxed);
        let trial = number.checked_sub(TRIED_OF - TRIALS);
        match (trial, self.crowded.load(Ordering::Relaxed)) {
            (None | Some(1..), true) => 0,
            (None, false) => budget,
            (Some(_), _) => budget.max(TRIAL.as_nanos() as u32),
        }
    }

    /// Learns how long it took until what was waited for happened, and for how long of that it has
    /// spun if it saw nothing.
    pub fn learn(&self, waited: Duration, in_vain: Option<Duration>) {
        match in_vain {
            None => self.crowded.store(false, Ordering::Relaxed),
            Some(spun) if spun >= TRIAL => {
                let crowded = waited.saturating_sub(spun) < AT_ONCE;
                self.crowded.store(crowded, Ordering::Relaxed);
            }
            Some(_) => {}
        }
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

/// How many processors this process's control groups let it use, as they were when it was
/// first asked.
fn quota() -> f64 {
    static QUOTA: OnceLock<f64> = OnceLock::new();
    match QUOTA.get() {
        Some(quota) => *quota,
        None => match cgroup::processors() {
            Ok(quota) => *QUOTA.get_or_init(|| quota),
            // It could not be asked; the next time perhaps.
            Err(_) => f64::INFINITY,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_waits_end_the_spinning_and_short_ones_begin_it() {
        let spin = Spin::default();
        let budget = || spin.budget.load(Ordering::Relaxed);
        for _ in 0..6 {
            spin.learn(Duration::from_millis(5), None);
        }
        assert!(budget() < LEAST);
        spin.learn(Duration::from_micros(20), None);
        assert_eq!(budget(), LIMIT.as_nanos() as u32);
        spin.enable(false);
        assert!(spin.until(Instant::now(), || false).is_some());
        assert_eq!(spin.until(Instant::now(), || true), None);
    }

    #[test]
    fn a_few_waits_in_a_row_spin_for_longer_than_a_wake_up_takes() {
        let spin = Spin::default();
        let trial = TRIAL.as_nanos() as u32;
        let budgets: Vec<u32> = (0..2 * TRIED_OF)
            .map(|_| {
                spin.learn(Duration::from_millis(5), None);
                spin.next_budget()
            })
            .collect();
        let tried: Vec<usize> = (0..budgets.len())
            .filter(|wait| budgets[*wait] == trial)
            .collect();
        assert_eq!(tried, [60, 61, 62, 63, 124, 125, 126, 127]);
        assert!(budgets[20..60].iter().all(|budget| *budget < LEAST));
    }

    #[test]
    fn a_trial_in_vain_ends_the_spinning_until_the_next_one() {
        let spin = Spin::default();
        let budgets = |count| (0..count).map(|_| spin.next_budget()).collect::<Vec<_>>();
        budgets(TRIED_OF - TRIALS + 1);
        let (soon, late) = (TRIAL + Duration::from_micros(8), 2 * TRIAL);
        spin.learn(soon, Some(TRIAL));
        assert_eq!(budgets(TRIALS - 1 + 60), [0; 63]);
        // Waits without a spin tell nothing.
        spin.learn(Duration::from_micros(8), Some(Duration::ZERO));
        assert_eq!(budgets(1), [TRIAL.as_nanos() as u32]);
        for (waited, in_vain) in [(late, Some(TRIAL)), (soon, None)] {
            spin.learn(soon, Some(TRIAL));
            assert_eq!(spin.next_budget(), 0);
            spin.learn(waited, in_vain);
            assert_ne!(spin.next_budget(), 0);
        }
    }
}
