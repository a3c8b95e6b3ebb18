//! Costs that must not grow: what operations take before and after what happens to an arena.
//!
//! ```text
//! cargo bench --no-default-features --bench growth [-- NAME ...]
//! ```
//!
//! The names are `pages`, `burst`, `held` and `processes`; without one, all of them run.

use shared_numpy::arena::format::UNSETTLED;
use shared_numpy::arena::handle::Name;
use shared_numpy::arena::{Core, Member};
use shared_numpy::process::{Arena, Settings};
use std::hint::black_box;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The CPU time of this process in ns.
fn cpu() -> f64 {
    // SAFETY: a struct of numbers, for which zero is a value.
    let mut time: libc::timespec = unsafe { std::mem::zeroed() };
    // SAFETY: the struct is lent to the call.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// The CPU time of one turn of `work` in each of several rounds, in ns.
fn rounds(turns: u32, mut work: impl FnMut()) -> Vec<f64> {
    let round = |_| {
        let start = cpu();
        for _ in 0..turns {
            work();
        }
        (cpu() - start) / turns as f64
    };
    (0..9).map(round).collect()
}

fn create(settings: Settings) -> Arena {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = Name::new(&format!("snp-bench-{}-{number}", std::process::id())).unwrap();
    Arena::create(name, settings).unwrap()
}

/// Pseudo-random numbers, the same in each run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

/// Sizes of blocks, and how many turns a round has.
const SIZES: [(u64, u32); 8] = [
    (64, 20_000),
    (300, 20_000),
    (4096, 20_000),
    (8192, 20_000),
    (64 << 10, 20_000),
    (1 << 20, 2000),
    (6 << 20, 500),
    (16 << 20, 200),
];

/// What allocating and freeing takes, of each size and of mixed ones among many that live.
fn allocations(arena: &Arena) -> Vec<(String, Vec<f64>)> {
    let (core, me) = (arena.core(), arena.member().unwrap());
    let mut rows = Vec::new();
    for (size, turns) in SIZES {
        let times = rounds(turns, || {
            let (which, _) = black_box(core.allocate(me, size).unwrap());
            core.release(me, which).unwrap();
        });
        rows.push((format!("{size} bytes"), times));
    }
    let mut numbers = Numbers(1);
    let next = |numbers: &mut Numbers| {
        let most = 64 << numbers.next(11);
        core.allocate(me, 1 + numbers.next(most)).unwrap().0
    };
    let mut live: Vec<_> = (0..1000).map(|_| next(&mut numbers)).collect();
    let times = rounds(20_000, || {
        let place = numbers.next(1000) as usize;
        core.release(me, live[place]).unwrap();
        live[place] = next(&mut numbers);
    });
    rows.push(("1,000 of mixed sizes".to_string(), times));
    for which in live {
        core.release(me, which).unwrap();
    }
    let mut blocks = Vec::new();
    let start = cpu();
    for _ in 0..50_000 {
        blocks.push(core.allocate(me, 300).unwrap().0);
    }
    rows.push((
        "50,000 of 300 bytes".to_string(),
        vec![(cpu() - start) / 5e4],
    ));
    for which in blocks {
        core.release(me, which).unwrap();
    }
    rows
}

/// Allocation before and after a recovery, and before and after pages went back.
fn pages() {
    println!("\nallocate + free, ns of CPU: the first of 9 rounds, median");
    let settings = || Settings {
        size: 64 << 20,
        ..Settings::default()
    };
    let arena = create(settings());
    let before = allocations(&arena);
    let header = arena.core().header();
    // As if the lock's last owner had died.
    header.condition.commit(header.condition.get() | UNSETTLED);
    let recovered = allocations(&arena);
    drop(arena);
    let arena = create(settings());
    allocations(&arena);
    drop(arena.allocate(400 << 20).unwrap());
    let returned = allocations(&arena);
    arena.trim().unwrap();
    let trimmed = allocations(&arena);
    println!(
        "{:<24}{:>20}{:>20}{:>20}{:>20}",
        "", "before", "after a recovery", "after a return", "after a trim"
    );
    for (i, (what, times)) in before.iter().enumerate() {
        print!("{what:<24}");
        for times in [times, &recovered[i].1, &returned[i].1, &trimmed[i].1] {
            let mut sorted = times.clone();
            sorted.sort_by(f64::total_cmp);
            print!("{:>12.0}{:>8.0}", times[0], sorted[sorted.len() / 2]);
        }
        println!();
    }
}

/// The least CPU time of several turns of `work`, in µs.
fn least(work: impl FnMut()) -> f64 {
    rounds(1, work).into_iter().fold(f64::MAX, f64::min) / 1e3
}

/// Forks a child that runs `work` and exits; its number.
fn spawn(work: impl FnOnce()) -> libc::pid_t {
    // SAFETY: this process has one thread.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        work();
        // SAFETY: ends the child.
        unsafe { libc::_exit(0) };
    }
    pid
}

fn wait() {
    // SAFETY: waits for a child.
    unsafe { libc::wait(std::ptr::null_mut()) };
}

/// Forks, and reaps what the child held.
fn fork_and_reap(arena: &Arena) {
    let (core, me) = (arena.core(), arena.member().unwrap());
    core.prepare_fork(me, |_| true, |_| true, || true).unwrap();
    core.finish_fork(me);
    core.reap(me).unwrap();
}

/// Reaping and forking before, during and after a burst of blocks and tickets.
fn burst() {
    println!("\na burst of 1,000,000 blocks and tickets, µs of CPU, least of 9");
    println!("{:<24}{:>14}{:>14}", "", "reap", "fork + reap");
    let arena = create(Settings {
        size: 64 << 20,
        ..Settings::default()
    });
    let show = |what: &str| {
        let reap = least(|| {
            black_box(arena.reap().unwrap());
        });
        let fork = least(|| fork_and_reap(&arena));
        println!("{what:<24}{reap:>14.1}{fork:>14.1}");
    };
    show("new");
    for reverse in [false, true] {
        let mut handles: Vec<_> = (0..1_000_000)
            .map(|_| arena.send(&arena.allocate(64).unwrap()).unwrap())
            .collect();
        show("during it");
        match reverse {
            true => handles.reverse(),
            false => {
                let mut numbers = Numbers(3);
                for i in 0..handles.len() {
                    handles.swap(i, numbers.next(1_000_000) as usize);
                }
            }
        }
        for handle in &handles {
            arena.cancel(handle).unwrap();
        }
        show(if reverse {
            "after it"
        } else {
            "after it, in disorder"
        });
        let few: Vec<_> = (0..1000).map(|_| arena.allocate(9000).unwrap()).collect();
        show("with 1,000 blocks");
        drop(few);
    }
}

/// What operations that look at many rows take at 100,000 blocks and tickets.
fn held() {
    println!("\nat 100,000 blocks and tickets of a process, µs of CPU, least of 9");
    let arena = create(Settings {
        size: 64 << 20,
        ..Settings::default()
    });
    let (core, me) = (arena.core(), arena.member().unwrap());
    let blocks: Vec<_> = (0..100_000)
        .map(|_| core.allocate(me, 300).unwrap().0)
        .collect();
    for which in &blocks {
        core.send(me, *which).unwrap();
    }
    let header = core.header();
    println!(
        "  reap, nobody dead: {:.0}",
        least(|| {
            black_box(core.reap(me).unwrap());
        })
    );
    println!("  fork: {:.0}", {
        let mut best = f64::MAX;
        for _ in 0..9 {
            let start = cpu();
            core.prepare_fork(me, |_| true, |_| true, || true).unwrap();
            best = best.min((cpu() - start) / 1e3);
            core.finish_fork(me);
            core.reap(me).unwrap();
        }
        best
    });
    println!(
        "  fork, and reap of its child: {:.0}",
        least(|| fork_and_reap(&arena))
    );
    println!(
        "  upkeep: {:.0}",
        least(|| {
            header.checked.commit(0);
            core.do_upkeep(me).unwrap()
        })
    );
    println!(
        "  stats: {:.0}",
        least(|| {
            black_box(core.stats(me).unwrap());
        })
    );
    println!("  recovery: {:.0}", recovery(core, me));
    for which in blocks.iter().step_by(2) {
        core.release(me, *which).unwrap();
    }
    println!(
        "  recovery, every second one free: {:.0}",
        recovery(core, me)
    );
    println!(
        "  a request that no free extent fits: {:.0}",
        least(|| {
            let (which, _) = core.allocate(me, 70 << 20).unwrap();
            core.release(me, which).unwrap();
            core.trim(me, 0).unwrap();
            core.remove_empty_segments(me, u64::MAX).unwrap();
        })
    );
    println!(
        "  trim: {:.0}",
        least(|| {
            black_box(core.trim(me, 0).unwrap());
        })
    );
    println!(
        "  remove empty segments: {:.0}",
        least(|| {
            {
                black_box(core.remove_empty_segments(me, 0).unwrap());
            }
        })
    );
    // Else the arena waits for who receives them.
    arena.cancel_unreceived(0).unwrap();
    drop(arena);
    let arena = create(Settings {
        size: 64 << 20,
        ..Settings::default()
    });
    let (core, me) = (arena.core(), arena.member().unwrap());
    let mut numbers = Numbers(5);
    let mut blocks = Vec::new();
    for _ in 0..3 {
        while blocks.len() < 100_000 {
            blocks.push(core.allocate(me, 300).unwrap().0);
        }
        for i in 0..blocks.len() {
            blocks.swap(i, numbers.next(100_000) as usize);
        }
        blocks.drain(1..).for_each(|which| {
            core.release(me, which).unwrap();
        });
    }
    while blocks.len() < 100_000 {
        blocks.push(core.allocate(me, 300).unwrap().0);
    }
    println!("  recovery, rows in disorder: {:.0}", recovery(core, me));
    println!("  the same again: {:.0}", recovery(core, me));
}

/// What a recovery takes, in µs: as if the lock's last owner had died.
fn recovery(core: &Core, me: Member) -> f64 {
    let header = core.header();
    least(|| {
        header.condition.commit(header.condition.get() | UNSETTLED);
        core.is_unlinked(me).unwrap();
    })
}

/// Memory that this process shares with its children.
fn board(words: usize) -> &'static [AtomicU64] {
    // SAFETY: a new mapping touches no other.
    let place = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            words * 8,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    assert_ne!(place, libc::MAP_FAILED);
    // SAFETY: zeros, and long enough; it is never unmapped.
    unsafe { std::slice::from_raw_parts(place.cast(), words) }
}

/// The rate of several processes at one arena: pairs in a second of the clock, and of CPU.
fn rate(count: usize, sends: bool) -> (f64, f64) {
    let arena = create(Settings {
        size: 64 << 20,
        processes: 1024,
        ..Settings::default()
    });
    // How many are there; whether to go on; the pairs and the time of each.
    let board = board(2 + 2 * count);
    for i in 0..count {
        spawn(|| {
            let block = arena.allocate(8192).unwrap();
            let turn = || match sends {
                true => {
                    let handle = arena.send(&block).unwrap();
                    drop(arena.receive(&handle).unwrap());
                }
                false => drop(arena.allocate(8192).unwrap()),
            };
            turn();
            board[0].fetch_add(1, Ordering::SeqCst);
            while board[1].load(Ordering::SeqCst) == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
            let start = cpu();
            let mut pairs = 0;
            while board[1].load(Ordering::Relaxed) == 1 {
                (0..16).for_each(|_| turn());
                pairs += 16;
            }
            board[2 + 2 * i].store(pairs, Ordering::SeqCst);
            board[3 + 2 * i].store((cpu() - start) as u64, Ordering::SeqCst);
        });
    }
    while board[0].load(Ordering::SeqCst) < count as u64 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let start = Instant::now();
    board[1].store(1, Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(400));
    board[1].store(2, Ordering::SeqCst);
    let time = start.elapsed().as_secs_f64();
    (0..count).for_each(|_| wait());
    let sum = |first: usize| {
        let words = board.iter().skip(first).step_by(2);
        words
            .map(|word| word.load(Ordering::SeqCst) as f64)
            .sum::<f64>()
    };
    (sum(2) / time, sum(2) / sum(3) * 1e9)
}

/// How total rates change with the number of processes.
fn processes() {
    println!("\nprocesses at one arena, thousands of pairs a second in all: best of 3, of the");
    println!("clock and of CPU");
    println!(
        "{:<12}{:>24}{:>24}",
        "processes", "create + drop", "send + receive"
    );
    for count in [1, 2, 4, 8, 64, 256] {
        print!("{count:<12}");
        for sends in [false, true] {
            let rates: Vec<_> = (0..3).map(|_| rate(count, sends)).collect();
            let best = |of: fn(&(f64, f64)) -> f64| rates.iter().map(of).fold(0.0, f64::max);
            print!("{:>12.0}{:>12.0}", best(|r| r.0) / 1e3, best(|r| r.1) / 1e3);
        }
        println!();
    }
}

fn main() {
    let arguments = std::env::args().skip(1);
    let wanted: Vec<String> = arguments.filter(|each| !each.starts_with('-')).collect();
    let parts: [(&str, fn()); 4] = [
        ("pages", pages),
        ("burst", burst),
        ("held", held),
        ("processes", processes),
    ];
    for (name, part) in parts {
        if wanted.is_empty() || wanted.iter().any(|each| each == name) {
            part();
        }
    }
}
