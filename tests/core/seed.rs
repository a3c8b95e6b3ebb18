//! The seed and the size of a run, for all that is random in the tests.
//!
//! One run has one seed: from SNP_SEED, or of the moment. Each test draws numbers of its own
//! from it, by its name, so that a test that runs alone draws the same. SHARED_NUMPY_TEST_FACTOR
//! says how many times as much is tried as usual.

use std::sync::OnceLock;

/// The number in an environment variable.
pub fn number_in(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}

/// The seed of the whole run.
pub fn of_the_run() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| {
        number_in("SNP_SEED").unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.unwrap().as_nanos() as u64
        })
    })
}

/// A test's own seed.
pub fn of_test(name: &str) -> u64 {
    let mix = |seed: u64, next: u64| {
        let mut mixed = (seed ^ next).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^= mixed >> 29;
        mixed.wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ mixed >> 32
    };
    let bytes = name.bytes().map(u64::from);
    bytes.fold(mix(of_the_run(), name.len() as u64), mix)
}

/// How many times something is tried: so many, times the factor.
pub fn times(usual: u64) -> u64 {
    usual * number_in("SHARED_NUMPY_TEST_FACTOR").unwrap_or(1)
}

/// Numbers that look random: xorshift.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        // It must not be zero.
        Random(seed | 1)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}
