//! The format once more, from `settled-journal(5)` alone and as plainly as it can be said: what the harness
//! judges the journal's code by. None of it is shared with that code, on purpose, though it looks alike in places: a
//! judge that calls the one it judges finds nothing.

use settled::journal::storage::File;

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut n = 0;
    while n < 256 {
        let mut crc = n as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                crc >> 1 ^ 0x82f6_3b78
            } else {
                crc >> 1
            };
            bit += 1;
        }
        table[n] = crc;
        n += 1;
    }
    table
}

const TABLE: [u32; 256] = table();

/// CRC-32C of what gave `crc`, followed by `bytes`.
pub fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!crc, |crc, byte| {
        crc >> 8 ^ TABLE[((crc ^ u32::from(*byte)) & 0xff) as usize]
    })
}

pub fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

pub const HEADER: usize = 64;
pub const FRAME: usize = 32;
const LONGEST: usize = 256 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub salt: u64,
    pub flushed: u32,
    pub first_seq: u64,
}

/// The header of a file with this name, if it is one of version 1.
pub fn head(bytes: &[u8], file: File) -> Option<Head> {
    let bytes = bytes.get(..HEADER)?;
    let role = match file {
        File::Log(_) | File::Spare => 1,
        File::Base(_) | File::NewBase => 2,
    };
    let good = bytes.starts_with(b"SETTLEDJ")
        && u32_at(bytes, 60) == crc32c(0, &bytes[..60])
        && u16_at(bytes, 8) == 1
        && u16_at(bytes, 10) == role
        && Some(u32_at(bytes, 24)) == file.number();
    good.then(|| Head {
        salt: u64_at(bytes, 16),
        flushed: u32_at(bytes, 28),
        first_seq: u64_at(bytes, 32),
    })
}

/// What every checksum in the file begins with.
pub fn start(file: File, salt: u64) -> u32 {
    let role: u16 = match file {
        File::Log(_) | File::Spare => 1,
        File::Base(_) | File::NewBase => 2,
    };
    let crc = crc32c(0, &salt.to_le_bytes());
    let crc = crc32c(crc, &file.number().unwrap_or(0).to_le_bytes());
    crc32c(crc, &role.to_le_bytes())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Where it begins.
    pub at: usize,
    /// Where the next one does.
    pub end: usize,
    pub seq: u64,
    pub wall: i64,
    pub flushed: u32,
    pub kind: u16,
    pub body: &'a [u8],
}

/// The length that stands here, and where the record would end; `None` if that makes no sense.
fn extent(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    if at + FRAME > bytes.len() {
        return None;
    }
    let length = u32_at(bytes, at + 4) as usize;
    let end = at + length.next_multiple_of(8);
    ((FRAME..=LONGEST).contains(&length) && end <= bytes.len()).then_some((length, end))
}

/// The record at this offset.
pub fn frame(bytes: &[u8], at: usize, start: u32) -> Option<Frame<'_>> {
    let (length, end) = extent(bytes, at)?;
    (u32_at(bytes, at) == crc32c(start, &bytes[at + 4..end])).then(|| Frame {
        at,
        end,
        seq: u64_at(bytes, at + 8),
        wall: u64_at(bytes, at + 16).cast_signed(),
        flushed: u32_at(bytes, at + 24),
        kind: u16_at(bytes, at + 28),
        body: &bytes[at + FRAME..at + length],
    })
}

/// Every record that stands anywhere in the file, whatever it follows; also such as lie inside others.
pub fn frames(bytes: &[u8], start: u32) -> Vec<Frame<'_>> {
    (HEADER..bytes.len())
        .step_by(8)
        .filter_map(|at| frame(bytes, at, start))
        .collect()
}

/// The records from the header on, each with the sequence number that follows, below `before`.
pub fn chain(bytes: &[u8], start: u32, first_seq: u64, before: u64) -> Vec<Frame<'_>> {
    let (mut at, mut seq, mut out) = (HEADER, first_seq, Vec::new());
    while let Some(found) = frame(bytes, at, start)
        && found.seq == seq
        && seq < before
    {
        out.push(found);
        at = found.end;
        seq += 1;
    }
    out
}

/// Makes the checksum at `at` right, if a length that makes sense stands there; the next record's start.
pub fn seal(bytes: &mut [u8], at: usize, start: u32) -> Option<usize> {
    let (_, end) = extent(bytes, at)?;
    let crc = crc32c(start, &bytes[at + 4..end]);
    bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
    Some(end)
}

/// Makes the header's checksum right.
pub fn seal_head(bytes: &mut [u8]) {
    if bytes.len() >= HEADER {
        let crc = crc32c(0, &bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    }
}
