//! Handles: a block, and perhaps a ticket for it, as bytes that travel.
//!
//! ```text
//! byte  what
//! 0     'S' 'N'
//! 2     version   u8
//! 3     length of the name, u8
//! 4     uuid of the arena, 2 x u64
//! 20    boot      u64    hash of the machine's boot id
//! 28    uid       u32
//! 32    block     u32
//! 36    its generation   u64
//! 44    ticket    u32    or NIL
//! 48    its generation   u64
//! 56    checksum  u32    of all other bytes
//! 60    name      at most 40 bytes; with the path of its folder, without the first '/', if it
//!                 lies elsewhere than POSIX's objects: at most 64 bytes more
//! ```
//!
//! Numbers are little-endian. The checksum tells accidents from handles; what
//! is forged with a right one is refused by the tables, row by row.

use super::format::{BlockId, TicketId, NIL};
use super::refs::{BlockRef, TicketRef};
use crate::error::{Error, Result};

/// The most bytes that a handle has.
pub const LONGEST_HANDLE: usize = START + LONGEST_FOLDER + LONGEST_NAME;
/// The most bytes that an arena's name has, without a folder's path.
pub const LONGEST_NAME: usize = 40;
/// The most bytes that the path of a folder has in which there are arenas.
pub const LONGEST_FOLDER: usize = 64;

/// What names begin with that identifiers give; 32 hexadecimal digits follow.
const IDENTIFIED: &str = "snp-id-";

const VERSION: u8 = 1;
const START: usize = 60;
const CHECKSUM: std::ops::Range<usize> = 56..60;

/// The name of an arena, as its control segment's; with the path of the folder where it lies if
/// that is not the one of POSIX's objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    bytes: [u8; LONGEST_FOLDER + 1 + LONGEST_NAME],
    length: u8,
}

/// Whether an arena can lie in the folder of this path, by its letters.
pub fn is_folder(path: &str) -> bool {
    let is_plain = |part: &str| !["", ".", ".."].contains(&part) && !part.contains('\0');
    let parts = path.strip_prefix('/').map(|path| path.split('/'));
    path.len() <= LONGEST_FOLDER && parts.is_some_and(|mut parts| parts.all(is_plain))
}

impl Name {
    /// A name of 1 to 40 letters, digits, `-`, `_` and `.`, the first of them no
    /// dot; before it may stand the path of a folder and `/`.
    ///
    /// # Errors
    /// `Invalid` for any other.
    pub fn new(name: &str) -> Result<Self> {
        let (folder, plain) = match name.rsplit_once('/') {
            Some((folder, plain)) => (Some(folder), plain),
            None => (None, name),
        };
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        let right = (1..=LONGEST_NAME).contains(&plain.len())
            && plain.bytes().all(allowed)
            && !plain.starts_with('.')
            && folder.is_none_or(is_folder);
        if !right {
            return Err(Error::Invalid {
                why: "an arena's name has 1 to 40 letters, digits, '-', '_' and '.', \
                      and does not begin with '.'",
            });
        }
        let mut bytes = [0; LONGEST_FOLDER + 1 + LONGEST_NAME];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        Ok(Name {
            bytes,
            length: name.len() as u8,
        })
    }

    /// The name of the arena with an identifier, in a folder or with POSIX's objects.
    ///
    /// # Errors
    /// `Invalid` for a folder that cannot be.
    pub fn of_identifier(folder: Option<&str>, identifier: [u8; 16]) -> Result<Self> {
        let path = folder.map_or(String::new(), |folder| format!("{folder}/"));
        let number = u128::from_be_bytes(identifier);
        Name::new(&format!("{path}{IDENTIFIED}{number:032x}"))
    }

    /// Whether an identifier gave it.
    pub fn is_of_identifier(&self) -> bool {
        let plain = self.as_str().rsplit('/').next();
        let digits = plain.and_then(|plain| plain.strip_prefix(IDENTIFIED));
        digits.is_some_and(|digits| {
            let is_digit = |digit: u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
            digits.len() == 32 && digits.bytes().all(is_digit)
        })
    }

    /// The path of the folder where it lies; None for that of POSIX's objects.
    pub fn folder(&self) -> Option<&str> {
        self.as_str().rsplit_once('/').map(|(folder, _)| folder)
    }

    /// The name, with the folder's path.
    pub fn as_str(&self) -> &str {
        // (`new` takes text.)
        std::str::from_utf8(&self.bytes[..self.length as usize]).unwrap_or_default()
    }
}

/// A block on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    /// Its arena's number.
    pub uuid: [u64; 2],
    /// A hash of the boot id of the machine.
    pub boot: u64,
    /// The user whose arena it is.
    pub uid: u32,
    /// Its arena's name.
    pub name: Name,
    /// The block.
    pub block: BlockRef,
    /// The reference that travels with it.
    pub ticket: Option<TicketRef>,
}

fn checksum(bytes: &[u8]) -> u32 {
    // FNV-1a, over all bytes but its own.
    let parts = bytes[..CHECKSUM.start].iter().chain(&bytes[START..]);
    parts.fold(0x811c_9dc5, |hash: u32, byte| {
        (hash ^ *byte as u32).wrapping_mul(0x0100_0193)
    })
}

impl Handle {
    /// The handle as bytes, at most [`LONGEST_HANDLE`].
    pub fn encode(&self) -> Vec<u8> {
        let name = self.name.as_str();
        let name = name.strip_prefix('/').unwrap_or(name).as_bytes();
        let ticket = self.ticket.unwrap_or(TicketRef {
            id: TicketId(NIL),
            generation: 0,
        });
        let mut bytes = Vec::with_capacity(LONGEST_HANDLE);
        bytes.extend([b'S', b'N', VERSION, name.len() as u8]);
        bytes.extend(self.uuid.iter().flat_map(|part| part.to_le_bytes()));
        bytes.extend(self.boot.to_le_bytes());
        bytes.extend(self.uid.to_le_bytes());
        bytes.extend(self.block.id.0.to_le_bytes());
        bytes.extend(self.block.generation.to_le_bytes());
        bytes.extend(ticket.id.0.to_le_bytes());
        bytes.extend(ticket.generation.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(name);
        let sum = checksum(&bytes);
        bytes[CHECKSUM].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads a handle.
    ///
    /// # Errors
    /// `BadHandle` for bytes that [`encode`](Handle::encode) did not make, `OtherVersion` for
    /// those that one of another version has made.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let bad = |why| Error::BadHandle { why };
        if bytes.len() < START || bytes[..2] != *b"SN" {
            return Err(bad("it does not begin like one"));
        }
        if bytes[2] != VERSION {
            return Err(Error::OtherVersion {
                what: "this handle",
                found: bytes[2].into(),
                known: VERSION.into(),
            });
        }
        if bytes.len() != START + bytes[3] as usize {
            return Err(bad("it has another length than it says"));
        }
        if checksum(bytes).to_le_bytes() != bytes[CHECKSUM] {
            return Err(bad("its checksum is wrong"));
        }
        let name = std::str::from_utf8(&bytes[START..]).ok();
        let name = name.and_then(|name| match name.contains('/') {
            true => Name::new(&format!("/{name}")).ok(),
            false => Name::new(name).ok(),
        });
        let u32_at = |at: usize| {
            let bytes = bytes[at..at + 4].try_into();
            bytes.map_or(0, u32::from_le_bytes)
        };
        let u64_at = |at: usize| {
            let bytes = bytes[at..at + 8].try_into();
            bytes.map_or(0, u64::from_le_bytes)
        };
        let ticket = TicketRef {
            id: TicketId(u32_at(44)),
            generation: u64_at(48),
        };
        let block = BlockRef {
            id: BlockId(u32_at(32)),
            generation: u64_at(36),
        };
        if block.generation >> 56 != 0 || ticket.generation >> 56 != 0 {
            return Err(bad("it names a generation that cannot be"));
        }
        if ticket.id.0 == NIL && ticket.generation != 0 {
            return Err(bad("it names a life of no ticket"));
        }
        Ok(Handle {
            uuid: [u64_at(4), u64_at(12)],
            boot: u64_at(20),
            uid: u32_at(28),
            name: name.ok_or(bad("it names no arena"))?,
            block,
            ticket: (ticket.id.0 != NIL).then_some(ticket),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(name: &str, ticket: bool) -> Handle {
        Handle {
            uuid: [1, u64::MAX],
            boot: 3,
            uid: 1000,
            name: Name::new(name).unwrap(),
            block: BlockRef {
                id: BlockId(7),
                generation: 1 << 55,
            },
            ticket: ticket.then_some(TicketRef {
                id: TicketId(9),
                generation: 10,
            }),
        }
    }

    #[test]
    fn a_handle_survives_its_bytes() {
        let longest = "n".repeat(LONGEST_NAME);
        let folder = format!(
            "/{}",
            "é".repeat(LONGEST_FOLDER / 2)[..LONGEST_FOLDER - 2].to_owned()
        );
        for folder in ["", "/a", "/mnt/a b", &folder] {
            for name in ["a", &longest] {
                for ticket in [true, false] {
                    let name = match folder {
                        "" => name.to_owned(),
                        folder => format!("{folder}/{name}"),
                    };
                    let handle = example(&name, ticket);
                    let bytes = handle.encode();
                    assert!(bytes.len() <= 100 + folder.len());
                    assert_eq!(Handle::decode(&bytes), Ok(handle));
                }
            }
        }
    }

    #[test]
    fn no_changed_byte_passes() {
        let bytes = example("name", true).encode();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut other = bytes.clone();
                other[at] ^= 1 << bit;
                assert!(Handle::decode(&other).is_err(), "byte {at}, bit {bit}");
            }
            assert!(Handle::decode(&bytes[..at]).is_err());
        }
    }

    #[test]
    fn identifiers_give_names() {
        let name = Name::of_identifier(None, *b"0123456789abcdef").unwrap();
        assert_eq!(name.as_str(), "snp-id-30313233343536373839616263646566");
        assert!(name.is_of_identifier());
        let name = Name::of_identifier(Some("/mnt/a b"), [0xff; 16]).unwrap();
        assert_eq!(name.folder(), Some("/mnt/a b"));
        assert!(name.is_of_identifier());
        let digits = "0".repeat(31);
        for other in [
            "x".to_owned(),
            format!("snp-id-{digits}"),
            format!("snp-id-{digits}G"),
        ] {
            assert!(!Name::new(&other).unwrap().is_of_identifier(), "{other}");
        }
    }

    #[test]
    fn names_are_plain() {
        for name in ["", ".", ".a", "a/b", "a b", "é", "a\0", &"n".repeat(41)] {
            assert!(Name::new(name).is_err(), "{name:?}");
        }
        for folder in ["", "a", "a/b", "/", "//a", "/a/", "/a/../b", "/a/.", "/a\0"] {
            assert!(Name::new(&format!("{folder}/name")).is_err(), "{folder:?}");
        }
        let long = "f".repeat(LONGEST_FOLDER);
        assert!(Name::new(&format!("/{long}/name")).is_err());
        assert!(Name::new(&format!("/{}/name", &long[1..])).is_ok());
        let name = Name::new("snp-1.x_Y").unwrap();
        assert_eq!((name.as_str(), name.folder()), ("snp-1.x_Y", None));
        let name = Name::new("/mnt/a b/snp-1").unwrap();
        assert_eq!(
            (name.as_str(), name.folder()),
            ("/mnt/a b/snp-1", Some("/mnt/a b"))
        );
    }
}
