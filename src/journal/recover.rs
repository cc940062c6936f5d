//! Reading the journal back: which records are taken, and what happens at each place where there is none. The rule is the table in [`decide`]; everything else here feeds it.
//!
//! A segment needs no mark at its end. Its records are those from its header's first sequence number up to
//! its successor's; what lies behind was never flushed, or was copied into the successor by a recovery. Only
//! the last segment has a tail to be judged, by the highest offset that any record in it knows flushed.

use super::body::{self, BadBody};
use super::error::{Damage, JournalError, Why};
use super::format::{self, FRAME_BYTES, HEADER_BYTES, Seed, Stamp};
use super::read::Reader;
use super::storage::{File, Storage};
use super::survey::{Entry, Survey};
use crate::core::record::Record;

/// What is found at a place where a record may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A record with the sequence number that follows.
    Follows,
    /// A record with a lower sequence number.
    Behind,
    /// A record with a higher sequence number.
    Ahead,
    /// No record: zeros, a length that makes no sense, a wrong checksum, a place that the disk cannot read, or the
    /// end of the file.
    Nothing,
    /// Every record before the successor's first has been read.
    Complete,
}

/// Where it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Where {
    /// The file's header is readable, and its first sequence number is not below what was read before.
    pub header_ok: bool,
    /// Below the highest offset known flushed. A base, and a segment whose successor has a readable
    /// header, were flushed whole.
    pub flushed: bool,
    /// No other segment follows.
    pub last: bool,
}

/// What is done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The record is replayed.
    Take,
    /// The record was replayed already from an earlier file: it is a copy that a recovery made.
    Skip,
    /// The file's records end here.
    End,
    /// The file's records end here; what was written behind was never flushed and is cut.
    Cut,
    /// Something that was flushed is not readable: it is reported, the file is kept aside, and reading
    /// goes on at the next record whose checksum matches (`OnDamage::Continue`) or not at all (`Stop`).
    Damage,
}

/// The recovery table. Every row has a test of this name in `tests/journal_recovery.rs`.
///
/// | row | found | header | offset | segment | action |
/// | --- | --- | --- | --- | --- | --- |
/// | `takes_what_follows` | follows | any | any | any | take |
/// | `ends_where_the_successor_begins` | complete | any | any | any | end |
/// | `cuts_a_torn_tail` | nothing | any | above | last | cut |
/// | `cuts_what_does_not_follow` | behind, ahead | ok | above | last | cut |
/// | `ends_before_an_unreadable_successor` | nothing | any | above | not last | end |
/// | `ends_at_what_does_not_follow` | behind, ahead | ok | above | not last | end |
/// | `skips_copies_behind_a_bad_header` | behind | bad | any | any | skip |
/// | `reports_a_gap_behind_a_bad_header` | ahead | bad | any | any | damage |
/// | `reports_damage` | nothing | any | below | any | damage |
/// | `reports_a_broken_sequence` | behind, ahead | ok | below | any | damage |
///
/// Rows that do not depend on a record: an unreadable or foreign header is damage
/// (`reports_a_bad_header`), a header of a newer version is refused (`refuses_a_newer_version`), a first
/// sequence number above the one that follows means a missing file and is damage
/// (`reports_a_missing_segment`), and so is a last segment that is not the last one that was ever there
/// (`reports_lost_segments`, in `tests/journal_place.rs`), a base without its end is damage (`reports_a_base_without_end`), a
/// body that is impossible under a right checksum is damage (`reports_an_impossible_body`), and a kind
/// that this program does not know is refused (`refuses_an_unknown_kind`).
pub fn decide(found: Found, at: Where) -> Action {
    let Where {
        header_ok,
        flushed,
        last,
    } = at;
    match (found, header_ok, flushed, last) {
        (Found::Follows, _, _, _) => Action::Take,
        (Found::Complete, _, _, _) => Action::End,
        (Found::Nothing, _, false, true) => Action::Cut,
        (Found::Behind | Found::Ahead, true, false, true) => Action::Cut,
        (Found::Nothing, _, false, false) => Action::End,
        (Found::Behind | Found::Ahead, true, false, false) => Action::End,
        (Found::Behind, false, _, _) => Action::Skip,
        (Found::Ahead, false, _, _) => Action::Damage,
        (Found::Nothing, _, true, _) => Action::Damage,
        (Found::Behind | Found::Ahead, true, true, _) => Action::Damage,
    }
}

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: File,
    /// Bytes from its start.
    pub offset: u64,
    /// Bytes of the record, padding included.
    pub bytes: u32,
    /// Its sequence number; in a base it counts from 1.
    pub seq: u64,
    /// Number of its kind.
    pub kind: u16,
}

/// How far one file was read.
#[derive(Clone, Debug)]
pub(super) struct FileEnd {
    pub(super) file: File,
    pub(super) size: u64,
    /// Behind its last record.
    pub(super) end: u64,
    /// Highest offset known flushed.
    pub(super) known: u64,
    pub(super) records: u64,
    pub(super) first_seq: Option<u64>,
}

/// What reading everything came to.
#[derive(Clone, Debug, Default)]
pub(super) struct Walked {
    /// The sequence number that comes next.
    pub(super) next_seq: u64,
    pub(super) records: u64,
    pub(super) damage: Vec<Damage>,
    pub(super) files: Vec<FileEnd>,
    /// Records of the last segment above the highest offset known flushed: their offsets.
    pub(super) tail: Vec<u64>,
    /// Bytes written behind the last record and never flushed.
    pub(super) cut_bytes: u64,
}

/// Who is told about records.
pub(super) type Each<'a> = &'a mut dyn FnMut(Place, Stamp, Record);

/// Reads every record that counts, in order.
pub(super) fn walk<S: Storage>(
    storage: &mut S,
    survey: &Survey,
    each: Each,
) -> Result<Walked, JournalError> {
    let mut walk = Walk {
        out: Walked::default(),
        expected: Some(1),
        each,
    };
    if let Some(entry) = &survey.base {
        walk.base(storage, survey, entry)?;
    }
    let read = |entry: &&Entry| entry.file.number() != survey.before;
    for (at, entry) in survey.logs.iter().take_while(read).enumerate() {
        walk.log(storage, survey, entry, survey.logs.get(at + 1))?;
    }
    let newest = survey.logs.iter().filter_map(|entry| entry.file.number());
    // A base is written behind the segment that has its number.
    let base = survey.base.as_ref().and_then(|entry| entry.file.number());
    if let Some(noted) = survey.noted.max(base)
        && newest.max().is_none_or(|newest| newest < noted)
    {
        let end = walk.out.files.last().map_or(0, |end| end.end);
        let last = survey.files().last();
        let file = last.map_or(File::Log(noted), |entry| entry.file);
        walk.damage(storage, file, end, 0, Why::Lost(noted), 0);
    }
    walk.out.next_seq = walk.expected.unwrap_or(1);
    Ok(walk.out)
}

struct Walk<'a> {
    out: Walked,
    /// The sequence number that follows; unknown behind an unreadable base.
    expected: Option<u64>,
    each: Each<'a>,
}

impl Walk<'_> {
    fn damage<S: Storage>(
        &mut self,
        storage: &S,
        file: File,
        offset: u64,
        bytes: u64,
        why: Why,
        missing: u64,
    ) {
        self.out.damage.push(Damage {
            file,
            path: storage.path(file),
            offset,
            bytes,
            why,
            missing,
        });
    }

    /// The checksum seed of a file; without any readable header in the directory there is none, and
    /// nothing in the file can be told from noise.
    fn seed<S: Storage>(&mut self, storage: &S, survey: &Survey, entry: &Entry) -> Option<Seed> {
        if let Err(why) = &entry.header {
            let (_, known) = survey.identity.unzip();
            let lost = if known.is_some() && *why != Why::Foreign {
                u64::from(HEADER_BYTES).min(entry.size)
            } else {
                entry.size
            };
            self.damage(storage, entry.file, 0, lost, *why, 0);
            if *why == Why::Foreign {
                return None;
            }
        }
        let (_, salt) = survey.identity?;
        let number = entry.file.number()?;
        Some(Seed::new(entry.file.role(), salt, number))
    }

    fn base<S: Storage>(
        &mut self,
        storage: &mut S,
        survey: &Survey,
        entry: &Entry,
    ) -> Result<(), JournalError> {
        let Some(seed) = self.seed(storage, survey, entry) else {
            self.expected = None;
            return Ok(());
        };
        let mut reader = Reader::new(storage, entry.file, entry.size, seed);
        let (mut at, mut expected, mut ended) = (u64::from(HEADER_BYTES), 1, false);
        let mut records = 0;
        while !ended {
            let found = reader.frame(at)?;
            let why = match found {
                Ok(frame) if frame.stamp.seq == expected && frame.kind == format::KIND_END => {
                    ended = true;
                    at += u64::from(frame_bytes(frame.body));
                    continue;
                }
                Ok(frame) if frame.stamp.seq == expected => {
                    let bytes = frame_bytes(frame.body);
                    let taken = self.take(entry.file, at, &frame);
                    records += self.taken(reader.storage, entry.file, at, bytes, taken)?;
                    at += u64::from(bytes);
                    expected = expected.saturating_add(1);
                    continue;
                }
                Ok(frame) => Why::Sequence {
                    expected,
                    found: frame.stamp.seq,
                },
                Err(_) if at >= entry.size => break,
                Err(bad) => Why::Frame(bad),
            };
            let next = reader.next_valid(at, expected..u64::MAX)?;
            let (resume, found) = match next {
                Some((resume, stamp, _)) => (resume, stamp.seq),
                None => (entry.size.max(at), expected),
            };
            let storage = &*reader.storage;
            self.damage(storage, entry.file, at, resume - at, why, found - expected);
            (at, expected) = (resume, found);
        }
        self.out.records += records;
        let storage = reader.storage;
        if !ended {
            self.damage(storage, entry.file, at, 0, Why::NoEnd, 0);
        }
        self.out.files.push(FileEnd {
            file: entry.file,
            size: entry.size,
            end: at,
            known: at,
            records,
            first_seq: None,
        });
        self.expected = entry.header.as_ref().ok().map(|header| header.first_seq);
        storage.release(entry.file);
        Ok(())
    }

    fn log<S: Storage>(
        &mut self,
        storage: &mut S,
        survey: &Survey,
        entry: &Entry,
        next: Option<&Entry>,
    ) -> Result<(), JournalError> {
        let last = next.is_none();
        self.out.tail.clear();
        let Some(seed) = self.seed(storage, survey, entry) else {
            return Ok(());
        };
        let first_seq = entry.header.as_ref().ok().map(|header| header.first_seq);
        let mut header_ok = first_seq.is_some();
        match (self.expected, first_seq) {
            (Some(expected), Some(found)) if found > expected => {
                let missing = found - expected;
                self.damage(storage, entry.file, 0, 0, Why::Missing, missing);
                self.expected = Some(found);
            }
            (Some(expected), Some(found)) if found < expected => {
                let why = Why::Sequence { expected, found };
                self.damage(storage, entry.file, 0, 0, why, 0);
                header_ok = false;
            }
            (None, Some(found)) => self.expected = Some(found),
            _ => {}
        }
        let successor_seq = next
            .and_then(|next| next.header.as_ref().ok())
            .map(|header| header.first_seq);
        // The successor, where its number does not follow.
        let after = next
            .map(|next| next.file)
            .filter(|next| next.number() != entry.file.number().map(|n| n.saturating_add(1)));
        let mut known = entry
            .header
            .as_ref()
            .map_or(u64::from(HEADER_BYTES), |header| header.flushed.into());
        let mut reader = Reader::new(storage, entry.file, entry.size, seed);
        let mut at = u64::from(HEADER_BYTES);
        let mut records = 0;
        let mut reread_at = None;
        loop {
            let expected = self.expected.unwrap_or(0);
            let complete = successor_seq.is_some_and(|seq| expected >= seq);
            let (found, why) = match reader.frame(at)? {
                _ if complete => (Found::Complete, Why::Missing),
                Err(bad) => (Found::Nothing, Why::Frame(bad)),
                Ok(frame) => {
                    let seq = frame.stamp.seq;
                    let found = match self.expected {
                        Some(expected) if seq < expected => Found::Behind,
                        Some(expected) if seq > expected => Found::Ahead,
                        _ => Found::Follows,
                    };
                    // Taken wherever it is: nearly all of them, so nothing else is looked at before.
                    if found == Found::Follows {
                        let (stamp, bytes) = (frame.stamp, frame_bytes(frame.body));
                        known = known.max(stamp.flushed.into());
                        let taken = self.take(entry.file, at, &frame);
                        records += self.taken(reader.storage, entry.file, at, bytes, taken)?;
                        self.out.tail.push(at);
                        self.expected = Some(stamp.seq.saturating_add(1));
                        at += u64::from(bytes);
                        continue;
                    }
                    let why = Why::Sequence {
                        expected,
                        found: seq,
                    };
                    (found, why)
                }
            };
            let seqs = expected..successor_seq.unwrap_or(u64::MAX);
            let mut flushed = successor_seq.is_some() || at < known;
            if !flushed && found != Found::Complete {
                let highest = reader.highest_flushed(at.saturating_add(8), seqs.clone())?;
                known = known.max(highest.unwrap_or(0));
                flushed = at < known;
            }
            let place = Where {
                header_ok,
                flushed,
                last,
            };
            let action = decide(found, place);
            match action {
                Action::End => break,
                Action::Cut => {
                    self.out.cut_bytes = reader.written_end(at)? - at;
                    break;
                }
                Action::Take | Action::Skip => {
                    let Ok(frame) = reader.frame(at)? else { break };
                    known = known.max(frame.stamp.flushed.into());
                    at += u64::from(frame_bytes(frame.body));
                }
                // While the daemon runs, the place may have been written after it was looked at and
                // before the later record that knows it flushed: it is looked at once more.
                Action::Damage if reread_at != Some(at) => {
                    reread_at = Some(at);
                    reader.refresh();
                }
                Action::Damage => {
                    let next = reader.next_valid(at, seqs)?;
                    let (resume, seq) = match (next, successor_seq) {
                        (Some((resume, stamp, _)), _) => (resume, stamp.seq),
                        (None, Some(seq)) => (reader.written_end(at)?, seq),
                        (None, None) => (known.max(at), expected),
                    };
                    let missing = seq.saturating_sub(expected);
                    let (lost, storage) = (resume - at, &*reader.storage);
                    match after {
                        // The file ends cleanly; the one between it and its successor is not there.
                        Some(after) if lost == 0 && found == Found::Nothing => {
                            self.damage(storage, after, 0, 0, Why::Missing, missing);
                        }
                        _ => self.damage(storage, entry.file, at, lost, why, missing),
                    }
                    self.expected = Some(seq);
                    if next.is_none() {
                        at = resume;
                        break;
                    }
                    at = resume;
                }
            }
        }
        self.out.records += records;
        self.out.tail.retain(|&offset| offset >= known);
        self.out.files.push(FileEnd {
            file: entry.file,
            size: entry.size,
            // A file that was cut off ends before what is known flushed.
            end: at.min(entry.size.max(HEADER_BYTES.into())),
            known,
            records,
            first_seq,
        });
        storage.release(entry.file);
        Ok(())
    }

    /// What a record's body came to: how many records that makes.
    fn taken<S: Storage>(
        &mut self,
        storage: &S,
        file: File,
        offset: u64,
        bytes: u32,
        taken: Taken,
    ) -> Result<u64, JournalError> {
        match taken {
            Taken::Yes => Ok(1),
            Taken::BadBody(kind) => {
                self.damage(storage, file, offset, bytes.into(), Why::Body(kind), 1);
                Ok(0)
            }
            Taken::UnknownKind(kind) => Err(JournalError::UnknownKind {
                path: storage.path(file),
                offset,
                kind,
            }),
        }
    }

    fn take(&mut self, file: File, offset: u64, frame: &format::Frame) -> Taken {
        match body::decode(frame.kind, frame.body) {
            Ok(record) => {
                let place = Place {
                    file,
                    offset,
                    bytes: frame_bytes(frame.body),
                    seq: frame.stamp.seq,
                    kind: frame.kind,
                };
                (self.each)(place, frame.stamp, record);
                Taken::Yes
            }
            Err(BadBody::Fields) => Taken::BadBody(frame.kind),
            Err(BadBody::Kind(kind)) => Taken::UnknownKind(kind),
        }
    }
}

enum Taken {
    Yes,
    BadBody(u16),
    UnknownKind(u16),
}

/// Bytes of the record with this body, padding included.
fn frame_bytes(body: &[u8]) -> u32 {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    format::padded(length.saturating_add(FRAME_BYTES))
}
