//! Memory that goes back to the system, or is made private, takes nothing of its neighbours
//! along, whatever the size of the system's pages.

use crate::mounts::in_a_tmpfs;
use crate::run::seed::{self, times, Random};
use crate::tools::*;
use crate::Test;
use shared_numpy::process::{Block, Settings};
use shared_numpy::sys::probe::page_size;
use std::path::{Path, PathBuf};
use std::process::Command;

pub const TESTS: &[Test] = &[
    ("neighbours_of_free_memory_stay", |_| free_memory()),
    ("neighbours_of_private_copies_stay", |_| private_copies()),
    ("huge_pages_serve", |_| huge_pages()),
    ("with_pages_of_64_kib", |full| with_large_pages(full)),
];

/// The unit of the format, which pages of the system may be larger than.
const UNIT: u64 = 4096;

fn bytes(block: &Block) -> &[u8] {
    // SAFETY: the block is held, and this thread alone writes to it.
    unsafe { std::slice::from_raw_parts(block.bytes().as_ptr(), block.size() as usize) }
}

fn fill(block: &Block, byte: u8) {
    // SAFETY: the block is ours, and this long.
    unsafe { block.bytes().write_bytes(byte, block.size() as usize) }
}

/// Blocks of some units come and go, and what is free goes back at once.
fn free_memory() {
    let test = TestArena::new(Settings {
        size: 8 << 20,
        warm: 0,
        ..small()
    });
    let mut random = Random::new(seed::of_test("neighbours_of_free_memory_stay"));
    let mut blocks: Vec<(Block, u8)> = Vec::new();
    for step in 0..times(2000) {
        if blocks.len() > 40 || (random.below(2) == 0 && !blocks.is_empty()) {
            let (block, byte) = blocks.swap_remove(random.below(blocks.len() as u64) as usize);
            let lost = bytes(&block).iter().filter(|found| **found != byte).count();
            assert_eq!(lost, 0, "step {step}: of {} bytes", block.size());
            continue;
        }
        let block = test.allocate(UNIT * (1 + random.below(200))).unwrap();
        let byte = 1 + (step % 255) as u8;
        fill(&block, byte);
        blocks.push((block, byte));
    }
    assert!(test.stats().unwrap().returned_bytes > 0);
}

/// Every second block is its process's own: a child and its parent see what the other writes
/// to the others, and to the whole pages of these not.
fn private_copies() {
    let test = TestArena::new(Settings {
        size: 8 << 20,
        ..small()
    });
    for first in [0, 1] {
        let made = |_| test.allocate(17 * UNIT).unwrap();
        let blocks: Vec<Block> = (0..40).map(made).collect();
        blocks.iter().for_each(|block| fill(block, 1));
        let private = |index: usize| index % 2 == first;
        let own: Vec<_> = (0..blocks.len())
            .filter(|index| private(*index))
            .filter_map(|index| blocks[index].make_private().unwrap())
            .collect();
        assert!(!own.is_empty());
        fork(|| {
            blocks.iter().for_each(|block| fill(block, 2));
            0
        })
        .succeed();
        for (index, block) in blocks.iter().enumerate() {
            let page = page_size();
            let start = bytes(block).as_ptr() as usize;
            let whole = start.next_multiple_of(page)..(start + bytes(block).len()) / page * page;
            for (at, byte) in bytes(block).iter().enumerate() {
                let own = private(index) && whole.contains(&(start + at));
                assert_eq!(*byte, if own { 1 } else { 2 }, "byte {at} of block {index}");
            }
        }
        own.into_iter().for_each(|own| assert!(own.end()));
    }
}

/// Where the file system has huge pages a long segment has nothing else, and a hole in one of them
/// leaves what is around it.
fn huge_pages() {
    const HUGE: u64 = 2 << 20;
    for option in ["always", "within_size", "advise"] {
        in_a_tmpfs(&format!("huge={option}"), || {
            if std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")
                .map_or(true, |size| size.trim() != HUGE.to_string())
            {
                println!("  skipped: no huge pages of 2 MiB here");
                return;
            }
            let test = TestArena::new(small());
            let block = test.allocate(15 * HUGE).unwrap();
            fill(&block, 1);
            let mapped = mapped_huge(&block);
            // The segment begins with a header, so that the block's end lies in one more.
            assert!(mapped >= 16 * HUGE, "huge={option}: {mapped}");
            drop(block);
            let blocks = [3, 5, 7].map(|units| test.allocate(units * HUGE / 2).unwrap());
            blocks.iter().for_each(|block| fill(block, 2));
            let [first, middle, last] = blocks;
            drop(middle);
            test.trim().unwrap();
            for block in [&first, &last] {
                assert!(bytes(block).iter().all(|byte| *byte == 2), "huge={option}");
            }
        });
    }
}

/// How many bytes of the mapping that a block lies in are mapped by huge pages.
fn mapped_huge(block: &Block) -> u64 {
    let place = block.bytes().as_ptr() as usize;
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut here = false;
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap();
        if let Some((from, to)) = first.split_once('-') {
            let number = |text| usize::from_str_radix(text, 16).unwrap();
            here = (number(from)..number(to)).contains(&place);
        }
        if here && first == "ShmemPmdMapped:" {
            return words.next().unwrap().parse::<u64>().unwrap() << 10;
        }
    }
    panic!("no mapping there");
}

/// Compiles a library of `tests/shims`, which changes what the system does; or finds it in the
/// folder SNP_SHIMS, where this program runs on another machine than the one that has made it.
pub fn shim(name: &str) -> PathBuf {
    if let Some(folder) = std::env::var_os("SNP_SHIMS") {
        return Path::new(&folder).join(format!("{name}.so"));
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/shims/{name}.c"));
    let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.so"));
    // Made under another name: a test that runs at the same time may be loading it.
    let made = library.with_extension(std::process::id().to_string());
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut compiler = cc::Build::new()
        .target(&target)
        .host(&target)
        .opt_level(1)
        .cargo_metadata(false)
        .get_compiler()
        .to_command();
    compiler.args(["-shared", "-fPIC", "-o"]);
    let status = compiler.arg(&made).arg(source).arg("-ldl").status();
    assert!(status.unwrap().success());
    std::fs::rename(made, &library).unwrap();
    library
}

/// Runs tests of this program where a shim changes what the system does.
pub fn with_shim(name: &str, variables: &[(&str, &str)], tests: &[&str], full: bool) {
    if cfg!(target_env = "musl") {
        println!("  skipped: a static program loads no shim");
        return;
    }
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.env("LD_PRELOAD", shim(name)).args(tests);
    again.envs(variables.iter().copied());
    if full {
        again.arg("--full");
    }
    let output = again.output().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn with_large_pages(full: bool) {
    let all: &[&str] = &["neighbours_", "storm", "a_child_", "page"];
    let tests = if full { all } else { &["neighbours_"] };
    with_shim("large_pages", &[], tests, full);
}
