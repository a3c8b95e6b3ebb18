//! What the arena costs, beside what the machine costs.
//!
//! ```text
//! cargo bench --no-default-features --bench arena [-- [quick] [processes=N] [out=FILE]]
//! ```
//!
//! Arenas are made for 256 processes, or for so many. With `out` figures are written into a file, too, as
//! `benchmarks/costs.py` reads them.
//!
//! Times are the least of several rounds, of CPU where one process works and of
//! the clock where several do. Compare the ratios: machines differ, and so do
//! the hours of one machine.

use shared_numpy::arena::handle::Name;
use shared_numpy::arena::plain::World;
use shared_numpy::arena::Core;
use shared_numpy::process::{Arena, Block, Settings};
use std::hint::black_box;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::Mutex;
use std::time::Instant;

/// The CPU time of this process in ns.
fn cpu() -> f64 {
    // SAFETY: a struct of numbers, for which zero is a value.
    let mut time: libc::timespec = unsafe { std::mem::zeroed() };
    // SAFETY: the struct is lent to the call.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// The least CPU time of one turn of `work`, in ns.
fn least(turns: u32, mut work: impl FnMut()) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..15 {
        let start = cpu();
        for _ in 0..turns {
            work();
        }
        best = best.min((cpu() - start) / turns as f64);
    }
    best
}

/// The name of the condition that there are no blocks.
const EMPTY: &str = "no blocks";

/// A number with its digits in groups.
fn grouped(number: usize) -> String {
    match number {
        0..1000 => number.to_string(),
        _ => format!("{},{:03}", grouped(number / 1000), number % 1000),
    }
}

fn clock<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let start = Instant::now();
    let result = work();
    (start.elapsed().as_nanos() as f64, result)
}

/// What an argument of the form `name=value` says.
fn argument(name: &str) -> Option<String> {
    std::env::args().find_map(|each| Some(each.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
}

/// What was measured: of what, under which condition, and how many seconds (or bytes) it takes.
static FIGURES: Mutex<Vec<(String, String, f64)>> = Mutex::new(Vec::new());

fn note(what: &str, condition: &str, figure: f64) {
    let row = (what.to_string(), condition.to_string(), figure);
    FIGURES.lock().unwrap().push(row);
}

/// Writes the figures into a file, as {what: {condition: figure}}.
fn write(path: &str) {
    let figures = FIGURES.lock().unwrap();
    let mut all: Vec<(&str, Vec<String>)> = Vec::new();
    for (what, condition, figure) in figures.iter() {
        let text = format!("{condition:?}: {figure:e}");
        match all.iter_mut().find(|each| each.0 == what) {
            Some(each) => each.1.push(text),
            None => all.push((what, vec![text])),
        }
    }
    let rows = all
        .iter()
        .map(|(what, texts)| format!("{what:?}: {{{}}}", texts.join(", ")));
    let text = format!("{{{}}}\n", rows.collect::<Vec<_>>().join(",\n "));
    std::fs::write(path, text).unwrap();
}

/// For how many processes arenas are made.
fn processes() -> u32 {
    argument("processes").map_or(256, |number| number.parse().expect("a number of processes"))
}

fn create(size: u64) -> Arena {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = Name::new(&format!("snp-bench-{}-{number}", std::process::id())).unwrap();
    let settings = Settings {
        size,
        least: size,
        warm: 1 << 40,
        processes: processes(),
        ..Settings::default()
    };
    Arena::create(name, settings).unwrap()
}

/// Memory that this process shares with its children.
fn board() -> &'static [AtomicU64; 8] {
    // SAFETY: a new mapping touches no other.
    let place = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    assert_ne!(place, libc::MAP_FAILED);
    // SAFETY: zeros, and long enough; it is never unmapped.
    unsafe { &*place.cast() }
}

fn one_process() {
    println!("\none process, ns of CPU");
    println!(
        "{:<34}{:>14}{:>22}",
        "", "empty arena", "100,000 live blocks"
    );
    let arena = create(64 << 20);
    let turns = 100_000;
    let mut rows: Vec<(String, Vec<f64>)> = Vec::new();
    let mut live: Vec<Block> = Vec::new();
    for round in 0..2 {
        let mut add = |what: &str, value: f64| match rows.iter_mut().find(|row| row.0 == what) {
            Some(row) => row.1.push(value),
            None => rows.push((what.to_string(), vec![value])),
        };
        let (core, me) = (arena.core(), arena.member().unwrap());
        let word = AtomicU32::new(0);
        let locked = least(turns, || {
            black_box(&word).swap(1, Ordering::SeqCst);
            black_box(&word).swap(0, Ordering::SeqCst);
        });
        add("two locked instructions", locked);
        let lock = least(turns, || {
            black_box(core.is_unlinked(me).unwrap());
        });
        add("lock + unlock", lock);
        for size in [64, 4096, 65536, 1 << 20] {
            let time = least(turns, || {
                let (which, _) = black_box(core.allocate(me, size).unwrap());
                core.release(me, which).unwrap();
            });
            add(&format!("allocate + free, {size} bytes"), time);
        }
        let block = arena.allocate(4096).unwrap();
        let which = block.which();
        let time = least(turns, || {
            let ticket = black_box(core.send(me, which).unwrap());
            core.receive(me, which, Some(ticket)).unwrap();
        });
        add("send + receive", time);
        let time = least(turns, || drop(black_box(arena.allocate(4096).unwrap())));
        add("a `Block` of 4096 bytes", time);
        let time = least(turns, || {
            let handle = arena.send(&block).unwrap();
            drop(black_box(arena.receive(&handle).unwrap()));
        });
        add("a `Handle` sent and received", time);
        let time = least(turns, || drop(black_box(block.clone())));
        add("clone + drop of a reference", time);
        if round == 0 {
            live = (0..100_000).map(|_| arena.allocate(300).unwrap()).collect();
            // Holes among them, as in life.
            let mut i = 0;
            live.retain(|_| {
                i += 1;
                i % 4 != 0
            });
            live.extend((0..25_000).map(|_| arena.allocate(200).unwrap()));
        }
    }
    for (what, values) in rows {
        let ratio = values[1] / values[0];
        println!(
            "{what:<34}{:>14.1}{:>16.1} ({ratio:.2}x)",
            values[0], values[1]
        );
        note(&what, EMPTY, values[0] / 1e9);
        note(&what, "100,000 blocks", values[1] / 1e9);
    }
    drop(live);
}

fn contention() {
    println!("\nseveral processes at once, millions of pairs a second in all");
    println!(
        "{:<14}{:>24}{:>18}",
        "processes", "allocate + free 4 KiB", "send + receive"
    );
    for count in [1, 2, 4] {
        let mut cells = Vec::new();
        for sends in [false, true] {
            let arena = create(64 << 20);
            let board = board();
            let turns = 300_000 / count;
            for i in 0..count {
                // SAFETY: this process has one thread.
                if unsafe { libc::fork() } == 0 {
                    board[7].fetch_add(1, Ordering::SeqCst);
                    while board[7].load(Ordering::SeqCst) < count {
                        std::thread::yield_now();
                    }
                    let block = arena.allocate(4096).unwrap();
                    let (time, ()) = clock(|| {
                        for _ in 0..turns {
                            if sends {
                                let handle = arena.send(&block).unwrap();
                                drop(arena.receive(&handle).unwrap());
                            } else {
                                drop(arena.allocate(4096).unwrap());
                            }
                        }
                    });
                    board[i as usize].store(time as u64, Ordering::SeqCst);
                    // SAFETY: ends the child.
                    unsafe { libc::_exit(0) };
                }
            }
            for _ in 0..count {
                // SAFETY: waits for a child.
                unsafe { libc::wait(std::ptr::null_mut()) };
            }
            let slowest = board[..count as usize]
                .iter()
                .map(|t| t.load(Ordering::SeqCst))
                .max();
            cells.push((turns * count) as f64 * 1e3 / slowest.unwrap() as f64);
        }
        println!("{count:<14}{:>24.2}{:>18.2}", cells[0], cells[1]);
    }
}

fn by_number_of_blocks(quick: bool) {
    println!("\nby the number of live blocks, of 64 bytes");
    println!(
        "{:<12}{:>16}{:>14}{:>14}{:>14}{:>16}",
        "blocks", "ns to allocate", "recovery, ms", "reap, ms", "check, ms", "bytes of table"
    );
    let numbers: &[usize] = match quick {
        true => &[1000, 100_000],
        false => &[1000, 10_000, 100_000, 1_000_000],
    };
    for number in numbers {
        let arena = create(8 << 20);
        let (time, blocks) = clock(|| {
            let blocks = (0..*number).map(|_| arena.allocate(64).unwrap());
            blocks.collect::<Vec<Block>>()
        });
        let (core, me) = (arena.core(), arena.member().unwrap());
        let (recovery, _) = clock(|| {
            // As if the lock's last owner had died.
            core.header().condition.set(2);
            core.is_unlinked(me).unwrap()
        });
        // A dead child that held everything.
        // SAFETY: this process has one thread.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: ends the child.
            unsafe { libc::_exit(0) };
        }
        // SAFETY: waits for a child.
        unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
        let (reap, dead) = clock(|| arena.reap().unwrap());
        assert_eq!(dead, 1);
        let (check, wrong) = clock(|| arena.check().unwrap());
        assert!(wrong.is_empty());
        let stats = arena.stats().unwrap();
        let table = stats.table_bytes + core.geometry().block_chunk();
        println!(
            "{number:<12}{:>16.0}{:>14.2}{:>14.2}{:>14.1}{:>16.1}",
            time / *number as f64,
            recovery / 1e6,
            reap / 1e6,
            check / 1e6,
            table as f64 / *number as f64,
        );
        let condition = format!("{} blocks", grouped(*number));
        note("recovery", &condition, recovery / 1e9);
        note("reap", &condition, reap / 1e9);
        note("check", &condition, check / 1e9);
        note("bytes of table", &condition, table as f64 / *number as f64);
        drop(blocks);
    }
}

fn forks() {
    println!("\nfork, ms of the clock, least of 20");
    for number in [0, 100_000] {
        let arena = create(8 << 20);
        let blocks: Vec<Block> = (0..number).map(|_| arena.allocate(64).unwrap()).collect();
        let mut best = f64::MAX;
        for _ in 0..20 {
            let (time, child) = clock(|| {
                // SAFETY: this process has one thread.
                let child = unsafe { libc::fork() };
                if child == 0 {
                    // SAFETY: ends the child.
                    unsafe { libc::_exit(0) };
                }
                child
            });
            // SAFETY: waits for a child.
            unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
            best = best.min(time);
        }
        println!("  {number:>7} live blocks: {:.2}", best / 1e6);
        let condition = match number {
            0 => EMPTY.to_string(),
            _ => format!("{} blocks", grouped(number)),
        };
        note("fork", &condition, best / 1e9);
        drop(blocks);
    }
    // The tables' part alone.
    let arena = create(8 << 20);
    let blocks: Vec<Block> = (0..100_000).map(|_| arena.allocate(64).unwrap()).collect();
    let (core, me) = (arena.core(), arena.member().unwrap());
    let time = least(1, || {
        core.prepare_fork(me, |_| true, |_| true, || true).unwrap();
        core.finish_fork(me);
        core.reap(me).unwrap();
    });
    println!(
        "  hand-over of 100,000 blocks and reaping of the child: {:.2} of CPU",
        time / 1e6
    );
    drop(blocks);
}

/// What a look for the dead takes that finds none, by the number of other members.
fn living() {
    println!("\na look for the dead among the living, ms of CPU, least of 15");
    for number in [100, 250, 900] {
        if number >= processes() {
            continue;
        }
        let arena = create(8 << 20);
        let (core, me) = (arena.core(), arena.member().unwrap());
        let here = board();
        let start = || {
            // SAFETY: this process has one thread.
            let child = unsafe { libc::fork() };
            if child == 0 {
                // SAFETY: the child ends when its parent does.
                unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
                let _block = arena.allocate(64).unwrap();
                here[0].fetch_add(1, Ordering::SeqCst);
                loop {
                    // SAFETY: waits to be killed.
                    unsafe { libc::pause() };
                }
            }
            child
        };
        let children: Vec<_> = (0..number).map(|_| start()).collect();
        while here[0].load(Ordering::SeqCst) < number as u64 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let time = least(5, || assert_eq!(core.reap(me).unwrap(), 0));
        println!("  {number:>4} members: {:.2}", time / 1e6);
        note(
            "look for the dead",
            &format!("{number} members"),
            time / 1e9,
        );
        for child in children {
            // SAFETY: a child of ours, which was not waited for.
            unsafe { libc::kill(child, libc::SIGKILL) };
            // SAFETY: waits for it.
            unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
        }
    }
}

fn pages() {
    const SIZE: usize = 64 << 20;
    let fill = |place: *mut u8, value: u8| {
        // SAFETY: the callers have this many bytes there.
        unsafe { place.write_bytes(value, SIZE) };
        black_box(place);
    };
    let arena = create(8 << 20);
    let (first, block) = clock(|| {
        let block = arena.allocate(SIZE as u64).unwrap();
        fill(block.bytes().as_ptr(), 1);
        block
    });
    drop(block);
    let mut warm = f64::MAX;
    for value in 0..5 {
        let (time, block) = clock(|| {
            let block = arena.allocate(SIZE as u64).unwrap();
            fill(block.bytes().as_ptr(), value);
            block
        });
        drop(block);
        warm = warm.min(time);
    }
    let mut fresh = f64::MAX;
    for _ in 0..5 {
        let name =
            std::ffi::CString::new(format!("/snp-bench-fresh-{}", std::process::id())).unwrap();
        let (time, place) = clock(|| {
            let flags = libc::O_CREAT | libc::O_EXCL | libc::O_RDWR;
            // SAFETY: a C string.
            let fd = unsafe { libc::shm_open(name.as_ptr(), flags, 0o600) };
            // SAFETY: our own descriptor.
            unsafe { libc::ftruncate(fd, SIZE as i64) };
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            // SAFETY: a new mapping touches no other.
            let place = unsafe {
                libc::mmap(
                    std::ptr::null_mut(),
                    SIZE,
                    protection,
                    libc::MAP_SHARED,
                    fd,
                    0,
                )
            };
            // SAFETY: our own.
            unsafe { libc::close(fd) };
            fill(place.cast(), 1);
            place
        });
        // SAFETY: mapped above.
        unsafe { libc::munmap(place, SIZE) };
        // SAFETY: a C string.
        unsafe { libc::shm_unlink(name.as_ptr()) };
        fresh = fresh.min(time);
    }
    for (condition, time) in [("a segment of its own", fresh), ("warm memory", warm)] {
        note("64 MiB filled", condition, time / 1e9);
    }
    println!("\n64 MiB allocated and filled, ms of the clock");
    println!(
        "  a segment of its own (ftruncate, mmap): {:.1}",
        fresh / 1e6
    );
    println!("  the arena, first time: {:.1}", first / 1e6);
    println!("  the arena, freed and allocated again: {:.1}", warm / 1e6);
    println!(
        "  a fresh segment takes {:.1} times as long as warm memory",
        fresh / warm
    );
}

fn plain() {
    let world = World::new(1 << 30);
    let geometry = shared_numpy::arena::format::Geometry {
        block_shift: 12,
        ticket_shift: 10,
        processes: processes(),
        size: 8 << 20,
    };
    let core = Core::create(world.process(0), geometry, |header| {
        header.budget.set(1 << 40);
        header.longest.set(1 << 30);
    });
    let (core, me) = core.unwrap();
    let time = least(100_000, || {
        let (block, _) = core.allocate(me, 4096).unwrap();
        core.release(me, block).unwrap();
    });
    println!(
        "\nthe tables alone, over plain memory: allocate + free, 4096 bytes: {time:.1} ns of CPU"
    );
}

fn main() {
    let quick = std::env::args().any(|argument| argument == "quick");
    one_process();
    plain();
    contention();
    by_number_of_blocks(quick);
    forks();
    living();
    pages();
    if let Some(path) = argument("out") {
        write(&path);
    }
}
