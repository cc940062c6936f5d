//! The journal's bytes: file headers and record frames. `settled-journal(5)` says the same in prose.
//! Bodies are in [`super::body`]. Everything is little endian; nothing here panics on any input.

use super::body;
use crate::core::record::Record;
use crate::core::time::Wall;

/// First bytes of every file.
pub const MAGIC: [u8; 8] = *b"SETTLEDJ";
/// The version written, and the newest that is read.
pub const VERSION: u16 = 1;
/// Bytes of a file header; the first record starts behind it.
pub const HEADER_BYTES: u32 = 64;
/// Bytes of a record before its body.
pub const FRAME_BYTES: u32 = 32;
/// Largest record, frame included. Bounds what the search for the next readable record costs behind damage.
pub const RECORD_MAX: u32 = 256 * 1024;
/// Kind of the record that closes a base; its body is the number of records before it, a `u64`.
pub const KIND_END: u16 = 0x8001;

/// What a file of the journal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A segment: records in the order in which things happened.
    Log,
    /// A base: the whole state before the segment of the same number, as compaction wrote it.
    Base,
}

/// The first 64 bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the file is.
    pub role: Role,
    /// The journal's id, random, the same in all of its files; shown to users as part of job names.
    pub id: u32,
    /// Random, the same in all files of the journal, never shown: goes into every checksum, so that
    /// bytes that strangers chose (names, output) are never taken for records.
    pub salt: u64,
    /// The segment's number, or for a base that of the first segment behind it.
    pub number: u32,
    /// Offset up to which the file had been flushed before it got its name.
    pub flushed: u32,
    /// Sequence number of the segment's first record, or for a base that of the first record behind it.
    pub first_seq: u64,
    /// When it was made.
    pub created: Wall,
}

/// Why 64 bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHeader {
    /// The disk cannot read it.
    Unreadable,
    /// Fewer than 64 bytes.
    Short,
    /// Another magic.
    Magic,
    /// The checksum does not match.
    Checksum,
    /// A version that this program does not know.
    Version(u16),
    /// The checksum matches, yet a field makes no sense.
    Field,
}

impl Header {
    /// The bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES as usize] {
        let mut out = Vec::with_capacity(HEADER_BYTES as usize);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&role_number(self.role).to_le_bytes());
        out.extend_from_slice(&self.id.to_le_bytes());
        out.extend_from_slice(&self.salt.to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.flushed.to_le_bytes());
        out.extend_from_slice(&self.first_seq.to_le_bytes());
        out.extend_from_slice(&self.created.0.to_le_bytes());
        out.resize(HEADER_BYTES as usize - 4, 0);
        let crc = crc32c::crc32c(&out);
        let mut bytes = [0; HEADER_BYTES as usize];
        let (fields, checksum) = bytes.split_at_mut(HEADER_BYTES as usize - 4);
        fields.copy_from_slice(&out);
        checksum.copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header at the start of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Header, BadHeader> {
        let bytes = bytes.get(..HEADER_BYTES as usize).ok_or(BadHeader::Short)?;
        if !bytes.starts_with(&MAGIC) {
            return Err(BadHeader::Magic);
        }
        if u32_at(bytes, 60) != Some(crc32c::crc32c(bytes.get(..60).unwrap_or_default())) {
            return Err(BadHeader::Checksum);
        }
        let field = |value: Option<u32>| value.ok_or(BadHeader::Short);
        let long = |value: Option<u64>| value.ok_or(BadHeader::Short);
        let version = u16_at(bytes, 8).ok_or(BadHeader::Short)?;
        if version != VERSION {
            return Err(BadHeader::Version(version));
        }
        let header = Header {
            role: match u16_at(bytes, 10) {
                Some(1) => Role::Log,
                Some(2) => Role::Base,
                _ => return Err(BadHeader::Field),
            },
            id: field(u32_at(bytes, 12))?,
            salt: long(u64_at(bytes, 16))?,
            number: field(u32_at(bytes, 24))?,
            flushed: field(u32_at(bytes, 28))?,
            first_seq: long(u64_at(bytes, 32))?,
            created: Wall(long(u64_at(bytes, 40))?.cast_signed()),
        };
        if header.flushed < HEADER_BYTES
            || !header.flushed.is_multiple_of(8)
            || header.first_seq == 0
        {
            return Err(BadHeader::Field);
        }
        Ok(header)
    }

    /// What goes into the checksum of each of its records.
    pub fn seed(&self) -> Seed {
        Seed::new(self.role, self.salt, self.number)
    }
}

fn role_number(role: Role) -> u16 {
    match role {
        Role::Log => 1,
        Role::Base => 2,
    }
}

/// The checksum's start: a record is valid in one file of one journal only, so that bytes of another
/// file in a reused disk block are never taken for records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(u32);

impl Seed {
    /// CRC-32C of salt, number and role.
    pub fn new(role: Role, salt: u64, number: u32) -> Seed {
        let crc = crc32c::crc32c(&salt.to_le_bytes());
        let crc = crc32c::crc32c_append(crc, &number.to_le_bytes());
        Seed(crc32c::crc32c_append(crc, &role_number(role).to_le_bytes()))
    }
}

/// What the frame says about a record besides its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Sequence number: one more than that of the record before.
    pub seq: u64,
    /// When it was appended.
    pub wall: Wall,
    /// Offset in the same file that was known flushed when this record's batch was written.
    pub flushed: u32,
}

/// A frame whose checksum matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Sequence, time, flushed offset.
    pub stamp: Stamp,
    /// Kind of the body.
    pub kind: u16,
    /// The body without padding.
    pub body: &'a [u8],
}

/// Why there is no record at an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadFrame {
    /// The disk cannot read it.
    Unreadable,
    /// Zeros: nothing was ever written here.
    Empty,
    /// The length makes no sense.
    Length(u32),
    /// The record would end behind the end of the file.
    Cut,
    /// The checksum does not match.
    Checksum,
}

/// `length` rounded up to the next record's start.
pub fn padded(length: u32) -> u32 {
    length.saturating_add(7) & !7
}

/// The length that the frame at the start of `bytes` claims to have, padding included.
pub fn claimed(bytes: &[u8]) -> Result<u32, BadFrame> {
    let (Some(crc), Some(length)) = (u32_at(bytes, 0), u32_at(bytes, 4)) else {
        return Err(if bytes.iter().all(|&b| b == 0) {
            BadFrame::Empty
        } else {
            BadFrame::Cut
        });
    };
    if length == 0 && crc == 0 {
        return Err(BadFrame::Empty);
    }
    if !(FRAME_BYTES..=RECORD_MAX).contains(&length) {
        return Err(BadFrame::Length(length));
    }
    Ok(padded(length))
}

/// The sequence number that the frame at the start of `bytes` claims to have.
pub fn claimed_seq(bytes: &[u8]) -> Option<u64> {
    u64_at(bytes, 8)
}

/// The record at the start of `bytes`, which may go on behind it.
pub fn frame(bytes: &[u8], seed: Seed) -> Result<Frame<'_>, BadFrame> {
    let whole = claimed(bytes)? as usize;
    let bytes = bytes.get(..whole).ok_or(BadFrame::Cut)?;
    let covered = bytes.get(4..).ok_or(BadFrame::Cut)?;
    if u32_at(bytes, 0) != Some(crc32c::crc32c_append(seed.0, covered)) {
        return Err(BadFrame::Checksum);
    }
    let fields = || {
        let length = u32_at(bytes, 4)? as usize;
        Some(Frame {
            stamp: Stamp {
                seq: u64_at(bytes, 8)?,
                wall: Wall(u64_at(bytes, 16)?.cast_signed()),
                flushed: u32_at(bytes, 24)?,
            },
            kind: u16_at(bytes, 28)?,
            body: bytes.get(FRAME_BYTES as usize..length)?,
        })
    };
    fields().ok_or(BadFrame::Cut)
}

/// A record that would be longer than [`RECORD_MAX`]; its length in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong(pub usize);

/// Appends a frame around a body that `write` appends. On error `out` is as it was.
fn framed(
    out: &mut Vec<u8>,
    seed: Seed,
    stamp: Stamp,
    kind: u16,
    write: impl FnOnce(&mut Vec<u8>),
) -> Result<(), TooLong> {
    let start = out.len();
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&stamp.seq.to_le_bytes());
    out.extend_from_slice(&stamp.wall.0.to_le_bytes());
    out.extend_from_slice(&stamp.flushed.to_le_bytes());
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&[0; 2]);
    write(out);
    let bytes = out.len() - start;
    let length = match u32::try_from(bytes) {
        Ok(length) if length <= RECORD_MAX => length,
        _ => {
            out.truncate(start);
            return Err(TooLong(bytes));
        }
    };
    out.resize(start + padded(length) as usize, 0);
    if let Some(place) = out.get_mut(start + 4..start + 8) {
        place.copy_from_slice(&length.to_le_bytes());
    }
    let crc = crc32c::crc32c_append(seed.0, out.get(start + 4..).unwrap_or_default());
    if let Some(place) = out.get_mut(start..start + 4) {
        place.copy_from_slice(&crc.to_le_bytes());
    }
    Ok(())
}

/// Appends `record` as a frame. On error `out` is as it was.
pub fn encode(out: &mut Vec<u8>, seed: Seed, stamp: Stamp, record: &Record) -> Result<(), TooLong> {
    framed(out, seed, stamp, body::kind(record), |out| {
        body::encode(out, record);
    })
}

/// Appends a frame with a body that is bytes already: a record that is copied to another file, or
/// the end of a base. On error `out` is as it was.
pub fn encode_raw(
    out: &mut Vec<u8>,
    seed: Seed,
    stamp: Stamp,
    kind: u16,
    body: &[u8],
) -> Result<(), TooLong> {
    framed(out, seed, stamp, kind, |out| out.extend_from_slice(body))
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array_at(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array_at(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array_at(bytes, at).map(u64::from_le_bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            role: Role::Log,
            id: 0xdead_beef,
            salt: 0x0123_4567_89ab_cdef,
            number: 7,
            flushed: 64,
            first_seq: 99,
            created: Wall(-5),
        }
    }

    #[test]
    fn headers_come_back_and_any_changed_byte_is_seen() {
        let bytes = header().encode();
        assert_eq!(Header::decode(&bytes), Ok(header()));
        for at in 0..bytes.len() {
            let mut bad = bytes;
            bad[at] ^= 0x40;
            assert!(Header::decode(&bad).is_err(), "byte {at}");
            assert_eq!(Header::decode(&bytes[..at]), Err(BadHeader::Short));
        }
    }

    #[test]
    fn a_newer_version_is_named() {
        let mut bytes = header().encode();
        bytes[8] = 2;
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Header::decode(&bytes), Err(BadHeader::Version(2)));
    }

    #[test]
    fn any_changed_byte_of_a_record_is_seen_padding_included() {
        let seed = header().seed();
        let stamp = Stamp {
            seq: 3,
            wall: Wall(4),
            flushed: 64,
        };
        let mut bytes = Vec::new();
        encode_raw(&mut bytes, seed, stamp, 1, b"five!").unwrap();
        assert_eq!(bytes.len(), 40);
        let frame_back = frame(&bytes, seed).unwrap();
        assert_eq!((frame_back.stamp, frame_back.kind), (stamp, 1));
        assert_eq!(frame_back.body, b"five!");
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bad = bytes.clone();
                bad[at] ^= 1 << bit;
                assert!(frame(&bad, seed).is_err(), "byte {at} bit {bit}");
            }
            assert!(frame(&bytes[..at], seed).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_record_of_another_file_is_not_valid_here() {
        let here = header();
        let stamp = Stamp {
            seq: 1,
            wall: Wall(0),
            flushed: 64,
        };
        for other in [
            Header { number: 8, ..here },
            Header { salt: 1, ..here },
            Header {
                role: Role::Base,
                ..here
            },
        ] {
            let mut bytes = Vec::new();
            encode_raw(&mut bytes, other.seed(), stamp, 1, b"").unwrap();
            assert_eq!(frame(&bytes, here.seed()), Err(BadFrame::Checksum));
        }
    }

    #[test]
    fn what_is_too_long_leaves_nothing_behind() {
        let stamp = Stamp {
            seq: 1,
            wall: Wall(0),
            flushed: 64,
        };
        let mut out = vec![9; 8];
        let body = vec![1; RECORD_MAX as usize - 31];
        assert_eq!(
            encode_raw(&mut out, header().seed(), stamp, 1, &body),
            Err(TooLong(RECORD_MAX as usize + 1))
        );
        assert_eq!(out, vec![9; 8]);
        encode_raw(&mut out, header().seed(), stamp, 1, &body[1..]).unwrap();
        assert!(frame(&out[8..], header().seed()).is_ok());
    }

    #[test]
    fn zeros_are_empty() {
        let seed = header().seed();
        for length in [0, 4, 8, 40] {
            assert_eq!(frame(&vec![0; length], seed), Err(BadFrame::Empty));
        }
    }
}
