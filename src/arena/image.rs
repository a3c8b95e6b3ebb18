//! An arena's tables as bytes that somebody has read, without being one of its processes.
//!
//! Nothing is locked, mapped or changed, and nothing that is read is trusted: the arena may be in
//! use, half made, damaged, or another version's. A change that comes between two reads shows as a
//! row that cannot be; a second look tells such a row from damage.

use super::format::*;
use super::lock::Owner;
use std::mem::{offset_of, size_of};

/// Reads bytes of an arena's memory from an offset in the file on; how many, fewer behind its end.
pub type Read<'a> = dyn Fn(u64, &mut [u8]) -> usize + 'a;

/// What the bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An arena of this version.
    Arena,
    /// An arena of another one, whose number this is.
    OtherVersion(u32),
    /// It has no magic number: a process makes it, or was killed while it did.
    Unfinished,
    /// Something else.
    Other,
    /// An arena of this version whose constants contradict each other.
    Damaged(&'static str),
}

/// A process's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The fields are the format's.
pub struct SlotImage {
    pub slot: u16,
    pub reserved: bool,
    pub pid: u64,
    pub started: u64,
    pub namespace: u64,
    pub detached: bool,
}

/// A row of the blocks that is a block, free memory or a part of the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The fields are the format's.
pub struct BlockImage {
    pub id: u32,
    pub generation: u64,
    pub state: u8,
    pub address: Address,
    pub size: u64,
    pub marks: u64,
    pub holders: SlotSet,
    /// Of free memory: how many bytes have pages, at most.
    pub warm: u64,
}

/// An open ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The fields are the format's.
pub struct TicketImage {
    pub id: u32,
    pub block: u32,
    pub owner: TicketOwner,
    pub opened: u64,
    pub lasting: bool,
}

/// A copy of an arena's tables.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // The fields are the format's.
pub struct Image {
    pub kind: Kind,
    pub uuid: [u64; 2],
    pub uid: u32,
    pub boot: u64,
    pub lock_file: [u64; 2],
    pub processes: u32,
    /// The slot whose process has the arena's lock.
    pub owner: Option<u16>,
    pub poisoned: bool,
    pub unlinked: bool,
    pub identifier: Option<[u8; 16]>,
    /// The block that the arena itself holds.
    pub root: Option<u32>,
    pub free: u64,
    pub warm: u64,
    /// How long the first segment is, and where its data begin.
    pub size: u64,
    pub data: u64,
    pub slots: Vec<SlotImage>,
    /// The number and the length of each segment that is there.
    pub segments: Vec<(usize, u64)>,
    pub blocks: Vec<BlockImage>,
    pub tickets: Vec<TicketImage>,
    /// Rows that cannot be, in words: of an arena in use they may be between two states.
    pub odd: Vec<String>,
}

/// Bytes of which numbers are read.
struct Bytes(Vec<u8>);

impl Bytes {
    /// `size` bytes from `offset` on; zeros where there are none.
    fn read(read: &Read<'_>, offset: u64, size: usize) -> Self {
        let mut bytes = vec![0; size];
        let count = read(offset, &mut bytes).min(size);
        bytes[count..].fill(0);
        Bytes(bytes)
    }

    fn u64(&self, at: usize) -> u64 {
        let bytes = self
            .0
            .get(at..at + 8)
            .and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u64::from_ne_bytes)
    }

    fn u32(&self, at: usize) -> u32 {
        let bytes = self
            .0
            .get(at..at + 4)
            .and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u32::from_ne_bytes)
    }
}

/// Where the fields before the tables end.
const FIELDS: usize = offset_of!(Header, segments);
/// The most of a table's rows that are read at a time.
const ROWS_AT_ONCE: usize = 4096;

/// Where a place of the arena is in the file of its memory.
pub fn place_in_file(address: Address) -> u64 {
    (address.segment() as u64) * LONGEST + address.offset()
}

impl Image {
    /// Reads an arena's tables. `length` is the file's, of which `allocated` bytes have storage.
    pub fn read(read: &Read<'_>, length: u64, allocated: u64) -> Self {
        let fields = Bytes::read(read, 0, FIELDS);
        let (geometry, kind) = kind_of(&fields, length);
        let u64_of = |at| fields.u64(at);
        let mut image = Image {
            kind,
            uuid: [offset_of!(Header, uuid), offset_of!(Header, uuid) + 8].map(u64_of),
            uid: fields.u32(offset_of!(Header, uid)),
            boot: fields.u64(offset_of!(Header, boot)),
            lock_file: [
                offset_of!(Header, lock_file),
                offset_of!(Header, lock_file) + 8,
            ]
            .map(u64_of),
            processes: geometry.processes,
            owner: Owner::of(fields.u32(offset_of!(Header, owner))).map(Owner::slot),
            poisoned: fields.u32(offset_of!(Header, condition)) & POISONED != 0,
            unlinked: fields.u32(offset_of!(Header, unlinked)) != 0,
            identifier: as_identifier(
                [
                    offset_of!(Header, identifier),
                    offset_of!(Header, identifier) + 8,
                ]
                .map(u64_of),
            ),
            root: fields.u32(offset_of!(Header, root)).checked_sub(1),
            free: fields.u64(offset_of!(Header, index) + offset_of!(IndexCache, free)),
            warm: fields.u64(offset_of!(Header, index) + offset_of!(IndexCache, warm)),
            size: geometry.size,
            data: geometry.size.min(fields.u64(offset_of!(Header, data))),
            slots: Vec::new(),
            segments: Vec::new(),
            blocks: Vec::new(),
            tickets: Vec::new(),
            odd: Vec::new(),
        };
        if kind == Kind::Arena {
            image.read_segments(read, &fields);
            image.read_slots(read, &fields, &geometry);
            // (All rows that were used have storage.)
            let most = (allocated / size_of::<BlockRow>() as u64).min(u32::MAX.into()) as u32;
            image.read_blocks(read, &fields, &geometry, most);
            image.read_tickets(read, &fields, &geometry, most);
            image.check(length);
        }
        image
    }

    /// The live blocks.
    pub fn live(&self) -> impl Iterator<Item = &BlockImage> {
        self.blocks.iter().filter(|block| block.state == LIVE)
    }

    fn read_segments(&mut self, read: &Read<'_>, fields: &Bytes) {
        let count = fields.u32(offset_of!(Header, segment_rows)) as usize;
        if count > SEGMENTS {
            self.odd.push(format!("{count} segments were used"));
        }
        let count = count.min(SEGMENTS);
        let size = size_of::<SegmentRow>();
        let rows = Bytes::read(read, offset_of!(Header, segments) as u64, count * size);
        for number in 0..count {
            let at = number * size;
            match state_of(rows.u64(at + offset_of!(SegmentRow, state))) {
                PRESENT => {
                    let length = rows.u64(at + offset_of!(SegmentRow, size));
                    self.segments.push((number, length));
                }
                ABSENT | BUILDING => {}
                state => self
                    .odd
                    .push(format!("segment {number} is in state {state}")),
            }
        }
    }

    fn read_slots(&mut self, read: &Read<'_>, fields: &Bytes, geometry: &Geometry) {
        let count = fields.u32(offset_of!(Header, slot_rows)) as usize;
        if count > geometry.slots() {
            self.odd.push(format!("{count} slots were used"));
        }
        let count = count.min(geometry.slots());
        let size = size_of::<SlotRow>();
        let rows = Bytes::read(read, SLOTS_AT as u64, count * size);
        for slot in 0..count {
            let field = |offset| rows.u64(slot * size + offset);
            let word = field(offset_of!(SlotRow, state));
            match state_of(word) {
                EMPTY => {}
                state @ (RESERVED | ALIVE) => self.slots.push(SlotImage {
                    slot: slot as u16,
                    reserved: state == RESERVED,
                    pid: field(offset_of!(SlotRow, pid)),
                    started: field(offset_of!(SlotRow, started)),
                    namespace: field(offset_of!(SlotRow, namespace)),
                    detached: field(offset_of!(SlotRow, detached)) == generation_of(word)
                        && generation_of(word) != 0,
                }),
                state => self.odd.push(format!("slot {slot} is in state {state}")),
            }
        }
    }

    /// Where the chunks of a table begin in the file: the first lies behind the slots, the others in
    /// blocks, whose rows are in chunks before.
    fn chunks(
        &mut self,
        read: &Read<'_>,
        fields: &Bytes,
        geometry: &Geometry,
        blocks: &[u64],
        of_blocks: bool,
    ) -> Vec<u64> {
        let (first, count, directory) = match of_blocks {
            true => (
                geometry.blocks(),
                offset_of!(Header, block_chunks),
                offset_of!(Header, block_directory),
            ),
            false => (
                geometry.tickets(),
                offset_of!(Header, ticket_chunks),
                offset_of!(Header, ticket_directory),
            ),
        };
        let count = fields.u32(count) as usize;
        if count > CHUNKS {
            self.odd.push(format!("a table has {count} chunks"));
        }
        let count = count.clamp(1, CHUNKS);
        let entries = Bytes::read(read, directory as u64, count * 4);
        let mut chunks = vec![first];
        for number in 1..count {
            let id = entries.u32(number * 4).wrapping_sub(1);
            let known = if of_blocks { &chunks } else { blocks };
            let chunk = known.get((id >> geometry.block_shift) as usize);
            let Some(chunk) = chunk else {
                self.odd
                    .push(format!("chunk {number} of a table lies in block {id}"));
                break;
            };
            let row = u64::from(id % (1 << geometry.block_shift)) * size_of::<BlockRow>() as u64;
            let row = Bytes::read(read, chunk + row, size_of::<BlockRow>());
            let state = state_of(row.u64(offset_of!(BlockRow, state)));
            let address = Address(row.u64(offset_of!(BlockRow, address)));
            if state != TABLE || address.segment() >= SEGMENTS || address.offset() >= LONGEST {
                self.odd
                    .push(format!("block {id} holds no chunk of a table"));
                break;
            }
            chunks.push(place_in_file(address));
        }
        chunks
    }

    fn read_blocks(&mut self, read: &Read<'_>, fields: &Bytes, geometry: &Geometry, most: u32) {
        let chunks = self.chunks(read, fields, geometry, &[], true);
        let rows = fields.u32(offset_of!(Header, block_rows)).min(most);
        let shift = geometry.block_shift;
        let further = geometry.further_words();
        for (first, count, chunk) in parts(&chunks, shift, rows) {
            let start = u64::from(first % (1 << shift));
            let size = size_of::<BlockRow>();
            let table = Bytes::read(read, chunk + start * size as u64, count * size);
            let behind = (size as u64) << shift;
            let cache = size_of::<BlockCache>();
            let caches = Bytes::read(read, chunk + behind + start * cache as u64, count * cache);
            let at = chunk + geometry.further() + start * (further * 8) as u64;
            let more = Bytes::read(read, at, count * further * 8);
            for row in 0..count {
                let id = first + row as u32;
                let field = |offset| table.u64(row * size + offset);
                let word = field(offset_of!(BlockRow, state));
                let state = state_of(word);
                if state == UNUSED {
                    continue;
                }
                if state > TABLE {
                    self.odd.push(format!("block {id} is in state {state}"));
                    continue;
                }
                let mut holders = SlotSet::default();
                for (number, holder) in holders.0.iter_mut().enumerate() {
                    let in_row = SLOTS_IN_ROW / 64;
                    *holder = match number.checked_sub(in_row) {
                        None => field(offset_of!(BlockRow, holders) + number * 8),
                        Some(number) if number < further => more.u64((row * further + number) * 8),
                        Some(_) => 0,
                    };
                }
                let warm = caches.u64(row * cache + offset_of!(BlockCache, warm_or_owned));
                self.blocks.push(BlockImage {
                    id,
                    generation: generation_of(word),
                    state,
                    address: Address(field(offset_of!(BlockRow, address))),
                    size: field(offset_of!(BlockRow, size)),
                    marks: field(offset_of!(BlockRow, marks)),
                    holders,
                    warm: if state == FREE { warm } else { 0 },
                });
            }
        }
    }

    fn read_tickets(&mut self, read: &Read<'_>, fields: &Bytes, geometry: &Geometry, most: u32) {
        let blocks = self.chunks(read, fields, geometry, &[], true);
        let chunks = self.chunks(read, fields, geometry, &blocks, false);
        let rows = fields.u32(offset_of!(Header, ticket_rows)).min(most);
        let shift = geometry.ticket_shift;
        for (first, count, chunk) in parts(&chunks, shift, rows) {
            let size = size_of::<TicketRow>();
            let start = u64::from(first % (1 << shift)) * size as u64;
            let table = Bytes::read(read, chunk + start, count * size);
            for row in 0..count {
                let id = first + row as u32;
                let field = |offset| table.u64(row * size + offset);
                let state = state_of(field(offset_of!(TicketRow, state)));
                let owner = TicketOwner::unpack(field(offset_of!(TicketRow, owner)));
                match (state, owner) {
                    (CLOSED, _) => {}
                    (OPEN, Ok(owner)) => self.tickets.push(TicketImage {
                        id,
                        block: table.u32(row * size + offset_of!(TicketRow, block)),
                        owner,
                        opened: field(offset_of!(TicketRow, opened)),
                        lasting: field(offset_of!(TicketRow, lasting)) != 0,
                    }),
                    (OPEN, Err(_)) => self.odd.push(format!("ticket {id} has no owner")),
                    (state, _) => self.odd.push(format!("ticket {id} is in state {state}")),
                }
            }
        }
    }

    /// Whether what was read lies where it can.
    fn check(&mut self, length: u64) {
        let mut odd = Vec::new();
        let lengths: std::collections::BTreeMap<_, _> = self.segments.iter().copied().collect();
        let first = lengths.get(&0).copied().unwrap_or(0);
        if first != self.size {
            odd.push(format!(
                "its first segment has {first} bytes in one place and {} in another",
                self.size
            ));
        }
        for (number, size) in &self.segments {
            let start = *number as u64 * LONGEST;
            if *size > LONGEST || start.saturating_add(*size) > length {
                odd.push(format!(
                    "segment {number} of {size} bytes ends behind the file"
                ));
            }
        }
        for block in &self.blocks {
            let (segment, offset) = (block.address.segment(), block.address.offset());
            let end = offset.checked_add(block.size);
            let inside = end
                .zip(lengths.get(&segment))
                .is_some_and(|(end, all)| end <= *all);
            // (A row of free memory is a cache; only a block's place is the truth.)
            if block.state != FREE && !inside {
                odd.push(format!(
                    "block {} has {} bytes at {offset} of segment {segment}, which has not so many",
                    block.id, block.size
                ));
            }
        }
        self.odd.append(&mut odd);
    }
}

/// The rows of a table in parts: the first row, how many, and where their chunk is.
fn parts(chunks: &[u64], shift: u32, rows: u32) -> Vec<(u32, usize, u64)> {
    let mut parts = Vec::new();
    for (number, chunk) in chunks.iter().enumerate() {
        let chunk_start = (number as u64) << shift;
        let chunk_end = (chunk_start + (1 << shift)).min(rows.into());
        let mut row = chunk_start;
        while row < chunk_end {
            let count = (chunk_end - row).min(ROWS_AT_ONCE as u64);
            parts.push((row as u32, count as usize, *chunk));
            row += count;
        }
    }
    parts
}

/// The sizes that the fields tell, and what they are fields of.
fn kind_of(fields: &Bytes, length: u64) -> (Geometry, Kind) {
    let geometry = Geometry {
        block_shift: fields.u32(offset_of!(Header, block_shift)),
        ticket_shift: fields.u32(offset_of!(Header, ticket_shift)),
        processes: fields.u32(offset_of!(Header, processes)),
        size: fields.u64(offset_of!(Header, size)),
    };
    let version = fields.u32(offset_of!(Header, version));
    let kind = match fields.u64(offset_of!(Header, magic)) {
        0 => Kind::Unfinished,
        MAGIC if version != VERSION => Kind::OtherVersion(version),
        MAGIC if fields.u32(offset_of!(Header, abi)) != ABI => {
            Kind::Damaged("it has the sizes of another build")
        }
        MAGIC if geometry.check().is_err() => Kind::Damaged("its tables have impossible sizes"),
        MAGIC if fields.u64(offset_of!(Header, data)) != geometry.data() => {
            Kind::Damaged("its data do not begin behind its tables")
        }
        MAGIC if geometry.size > length => Kind::Damaged("its file was cut"),
        MAGIC => Kind::Arena,
        _ => Kind::Other,
    };
    (geometry, kind)
}
