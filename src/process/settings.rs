//! What an arena is made with, and how a user says that.

use crate::arena::format::{Geometry, LONGEST, SHARE, SLOTS};

/// What an arena is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The length of the first segment in bytes, its tables included: those are as long as
    /// they can become, and have little memory at first, the rest has all of it. More is added
    /// when it is needed.
    pub size: u64,
    /// The most that a segment is made of ahead of need, in bytes.
    pub longest: u64,
    /// How long the tickets of a killed sender live, in ms.
    pub grace: u64,
    /// How many bytes of free memory may keep their pages, for quick reuse; or [`SHARE`].
    /// Pages that are given back cost ten times a copy to have again.
    pub warm: u64,
    /// How many of them keep their pages even if nobody uses them for long, at most.
    pub least: u64,
    /// How many processes can be attached at one time.
    pub processes: u32,
    /// How long to wait for a living owner of the arena's lock, in ms.
    pub patience: u64,
    /// The tables grow by `1 <<` this many rows for blocks.
    pub block_shift: u32,
    /// The tables grow by `1 <<` this many rows for tickets.
    pub ticket_shift: u32,
    /// This process's tree of processes, whose end removes the names from before
    /// they are there; 0 for none.
    pub tree: u64,
}

impl Default for Settings {
    fn default() -> Self {
        let settings = Settings {
            size: 0,
            longest: 1 << 30,
            grace: 30_000,
            warm: SHARE,
            least: 8 << 20,
            processes: 256,
            patience: 30_000,
            block_shift: 12,
            ticket_shift: 10,
            tree: 0,
        };
        settings.with_first(LEAST_FIRST)
    }
}

/// The least memory that a new arena takes, in bytes.
const LEAST_FIRST: u64 = 64 << 10;

impl Settings {
    /// The same for an arena that takes so many bytes when it is made, its tables included.
    fn with_first(self, bytes: u64) -> Self {
        let geometry = self.geometry();
        let (tables, taken) = (geometry.data(), geometry.first_tables());
        Settings {
            size: tables + bytes.saturating_sub(taken),
            least: self.least.max(bytes),
            ..self
        }
    }

    /// The sizes of the arena's tables.
    pub fn geometry(&self) -> Geometry {
        Geometry {
            block_shift: self.block_shift,
            ticket_shift: self.ticket_shift,
            processes: self.processes,
            size: self.size,
        }
    }
}

/// What a user says of an arena that is to be made; the rest is as usual.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wishes([Option<u64>; 4]);

/// The names of the settings, and the least and the most that each may be.
const KEYS: [(&str, u64, u64); 4] = [
    ("first", LEAST_FIRST, LONGEST / 2),
    ("segment", LEAST_FIRST, LONGEST),
    ("warm", 0, 1 << 62),
    ("processes", 2, SLOTS as u64),
];

/// Which of them says how many places for processes there are.
const PLACES: usize = 3;

impl Wishes {
    /// Reads `first=64K,segment=1G,warm=64M,processes=256`: each of them or none.
    ///
    /// # Errors
    /// What is wrong, and what would be right.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut wishes = Wishes::default();
        for part in text.split(',').filter(|part| !part.trim().is_empty()) {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let (key, value) = (key.trim(), value.trim());
            wishes.set(key, number(value).ok_or(value))?;
        }
        Ok(wishes)
    }

    /// Sets one of them; a value that is no number of bytes is an error, as text.
    ///
    /// # Errors
    /// As for `read`.
    pub fn set(&mut self, key: &str, value: Result<u64, &str>) -> Result<(), String> {
        let Some(which) = KEYS.iter().position(|(known, ..)| *known == key) else {
            let known = KEYS.map(|(known, ..)| known).join(", ");
            return Err(format!("'{key}' is not known; there are {known}"));
        };
        let (_, least, most) = KEYS[which];
        match value {
            Ok(number) if (least..=most).contains(&number) => {
                self.0[which] = Some(number);
                Ok(())
            }
            _ => {
                let value = value.map_or_else(|text| format!("'{text}'"), |n| n.to_string());
                let how = match key {
                    "processes" => "a number",
                    _ => "a number of bytes, or one with K, M, G or T (64M),",
                };
                Err(format!(
                    "{key}={value} cannot be: it is {how} from {least} to {most}"
                ))
            }
        }
    }

    /// These, and where they say nothing, others.
    pub fn or(self, others: Wishes) -> Wishes {
        let both = |i: usize| self.0[i].or(others.0[i]);
        Wishes([0, 1, 2, 3].map(both))
    }

    /// Wishes for places for so many processes, and nothing else; no more than there can be.
    pub fn places(processes: u32) -> Self {
        let (_, least, most) = KEYS[PLACES];
        let mut wishes = Wishes::default();
        wishes.0[PLACES] = Some((processes as u64).clamp(least, most));
        wishes
    }

    /// The settings for an arena.
    pub fn settings(&self) -> Settings {
        let [first, segment, warm, processes] = self.0;
        let usual = Settings::default();
        let settings = Settings {
            longest: segment.unwrap_or(usual.longest),
            warm: warm.unwrap_or(usual.warm),
            processes: processes.map_or(usual.processes, |number| number as u32),
            ..usual
        };
        settings.with_first(first.unwrap_or(LEAST_FIRST))
    }
}

/// Reads a number of bytes: `65536`, `64K`, `1g`.
pub fn number(text: &str) -> Option<u64> {
    let unit = text.chars().last()?.to_ascii_uppercase();
    let shift = match unit {
        'K' => 10,
        'M' => 20,
        'G' => 30,
        'T' => 40,
        _ => 0,
    };
    let digits = if shift > 0 {
        &text[..text.len() - 1]
    } else {
        text
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_units() {
        let right = [
            ("0", 0),
            ("65536", 1 << 16),
            ("64K", 1 << 16),
            ("64m", 64 << 20),
            ("1G", 1 << 30),
            ("2T", 2 << 40),
        ];
        for (text, bytes) in right {
            assert_eq!(number(text), Some(bytes), "{text}");
        }
        let wrong = ["", "K", "-1", "+1", "1.5G", "64KB", "99999999T", "ü", "1 K"];
        for text in wrong {
            assert_eq!(number(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_said_is_set_and_the_rest_is_as_usual() {
        let usual = Settings::default();
        assert_eq!(Wishes::read("").unwrap().settings(), usual);
        let all = Wishes::read(" first=1M, segment=2G,warm=3M,processes=64,").unwrap();
        let settings = all.settings();
        assert_eq!(settings.size - usual.size, (1 << 20) - (64 << 10));
        assert_eq!(settings.longest, 2 << 30);
        assert_eq!((settings.warm, settings.processes), (3 << 20, 64));
        let other = Wishes::read("warm=5M").unwrap();
        assert_eq!(other.or(all).settings().warm, 5 << 20);
        assert_eq!(other.or(all).settings().processes, 64);
        assert_eq!(other.or(Wishes::places(300)).settings().processes, 300);
        assert_eq!(all.or(Wishes::places(300)).settings().processes, 64);
        assert_eq!(Wishes::places(u32::MAX).settings().processes, 1024);
    }

    #[test]
    fn what_cannot_be_is_told_with_what_can() {
        for (text, parts) in [
            ("frist=1M", ["frist", "first, segment, warm, processes"]),
            ("first", ["first=''", "65536"]),
            ("first=1", ["first=1", "from 65536"]),
            ("segment=1X", ["segment='1X'", "64M"]),
            ("processes=1", ["processes=1 ", "from 2 to 1024"]),
            ("processes=1025", ["processes=1025 ", "from 2 to 1024"]),
        ] {
            let error = Wishes::read(text).unwrap_err();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
    }
}
