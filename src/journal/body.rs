//! Record bodies. A kind's number and layout never change; what needs other fields gets a new number.

mod summary;

use crate::core::ask::Version;
use crate::core::ids::{DirId, JobId, WatchId};
use crate::core::record::{AttemptEnd, Disposal, DisposedHow, Outcome, Record, Told};
use crate::core::time::Wall;

/// The number of the record's kind.
pub fn kind(record: &Record) -> u16 {
    match record {
        Record::Watch { .. } => 1,
        Record::Dir { .. } => 2,
        Record::DirGone { .. } => 3,
        Record::Settled { .. } => 4,
        Record::Baseline { .. } => 5,
        Record::Started { slot: 0, .. } => 6,
        Record::Started { .. } => 16,
        Record::Ended { .. } => 7,
        Record::Concluded {
            disposal: Disposal::Mark,
            ..
        } => 17,
        Record::Concluded { .. } => 8,
        Record::Retarget { .. } => 9,
        Record::Disposed { .. } => 10,
        Record::Renamed { .. } => 11,
        Record::Gone { .. } => 12,
        Record::Remembered { .. } => 13,
        Record::Scanned { .. } => 14,
        Record::Key { .. } => 15,
        Record::Paused { .. } => 18,
        Record::Retried { .. } => 19,
        Record::Forgotten { .. } => 20,
        Record::Expected { .. } => 21,
        Record::Summary(_) => 22,
    }
}

/// The kind's name, as `settled journal dump` shows it.
pub fn kind_name(kind: u16) -> Option<&'static str> {
    Some(match kind {
        1 => "watch",
        2 => "dir",
        3 => "dir-gone",
        4 => "settled",
        5 => "baseline",
        6 => "started",
        7 => "ended",
        8 => "concluded",
        9 => "retarget",
        10 => "disposed",
        11 => "renamed",
        12 => "gone",
        13 => "remembered",
        14 => "scanned",
        15 => "key",
        16 => "started-slot",
        17 => "concluded-mark",
        18 => "paused",
        19 => "retried",
        20 => "forgotten",
        21 => "expected",
        22 => "summary",
        super::format::KIND_END => "end",
        _ => return None,
    })
}

/// The highest tag of an end.
const LAST_END: u8 = 13;

/// Why a body whose checksum matches is no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadBody {
    /// A kind that this program does not know, or an end in it.
    Kind(u16),
    /// Too short, too long, or a field out of its range.
    Fields,
}

/// Appends the body of `record`.
pub fn encode(out: &mut Vec<u8>, record: &Record) {
    match record {
        Record::Watch { watch, name } => {
            u32(out, watch.0);
            bytes(out, name.as_bytes());
        }
        Record::Dir {
            dir,
            watch,
            parent,
            name,
            ino,
            btime_ns,
        } => {
            u32(out, dir.0);
            u32(out, watch.0);
            u32(out, parent.0);
            u64(out, *ino);
            i64(out, *btime_ns);
            bytes(out, name);
        }
        Record::DirGone { dir } => u32(out, dir.0),
        Record::Settled {
            job,
            dir,
            name,
            version,
            ctime_ns,
            reruns,
        } => {
            u64(out, job.0);
            u32(out, dir.0);
            put_version(out, version);
            i64(out, *ctime_ns);
            out.push(*reruns);
            bytes(out, name);
        }
        Record::Baseline {
            dir,
            name,
            version,
            ctime_ns,
        } => {
            u32(out, dir.0);
            put_version(out, version);
            i64(out, *ctime_ns);
            bytes(out, name);
        }
        Record::Started { job, attempt, slot } => {
            u64(out, job.0);
            u32(out, *attempt);
            if *slot != 0 {
                u32(out, *slot);
            }
        }
        Record::Ended {
            job,
            attempt,
            end,
            counted,
            not_before,
            output,
        } => {
            u64(out, job.0);
            u32(out, *attempt);
            u32(out, *counted);
            i64(out, not_before.0);
            put_end(out, Some(end));
            bytes(out, output);
        }
        Record::Concluded {
            job,
            outcome,
            end,
            disposal,
            version,
            ctime_ns,
            output,
        } => {
            u64(out, job.0);
            out.push(outcome_number(*outcome));
            put_end(out, end.as_ref());
            put_version(out, version);
            i64(out, *ctime_ns);
            put_disposal(out, disposal);
            bytes(out, output);
        }
        Record::Retarget { job, rel } => {
            u64(out, job.0);
            bytes(out, rel);
        }
        Record::Disposed { job, how } => {
            u64(out, job.0);
            out.push(how_number(*how));
        }
        Record::Renamed {
            dir,
            name_hash,
            to_dir,
            to_name,
        } => {
            u32(out, dir.0);
            u32(out, to_dir.0);
            out.extend_from_slice(name_hash);
            bytes(out, to_name);
        }
        Record::Gone { dir, name_hash } | Record::Forgotten { dir, name_hash } => {
            u32(out, dir.0);
            out.extend_from_slice(name_hash);
        }
        Record::Paused { watch, paused } => {
            u32(out, watch.0);
            out.push(u8::from(*paused));
        }
        Record::Retried { job } => u64(out, job.0),
        Record::Scanned { watch } => u32(out, watch.0),
        Record::Key { job, key } => {
            u64(out, job.0);
            bytes(out, key);
        }
        Record::Expected {
            watch,
            opens,
            day,
            count,
            told,
        } => {
            u32(out, watch.0);
            i64(out, opens.0);
            out.extend_from_slice(&day.to_le_bytes());
            u32(out, *count);
            out.push(match told {
                Told::Not => 0,
                Told::Owed => 1,
                Told::Told => 2,
            });
        }
        Record::Remembered {
            dir,
            name_hash,
            version,
            ctime,
            state,
            at,
        } => {
            u32(out, dir.0);
            out.extend_from_slice(name_hash);
            u64(out, *version);
            i64(out, at.0);
            u32(out, *ctime);
            out.push(*state);
        }
        Record::Summary(of) => summary::encode(out, of),
    }
}

/// The record with this kind and body; the body must be used up exactly.
pub fn decode(kind: u16, body: &[u8]) -> Result<Record, BadBody> {
    let mut from = Cursor {
        rest: body,
        newer: false,
    };
    let Some(record) = fields(kind, &mut from)? else {
        return Err(if from.newer {
            BadBody::Kind(kind)
        } else {
            BadBody::Fields
        });
    };
    if from.rest.is_empty() {
        Ok(record)
    } else {
        Err(BadBody::Fields)
    }
}

fn fields(kind: u16, from: &mut Cursor) -> Result<Option<Record>, BadBody> {
    Ok(match kind {
        1 => from.watch(),
        2 => from.dir(),
        3 => from.u32().map(|dir| Record::DirGone { dir: DirId(dir) }),
        4 => from.settled(),
        5 => from.baseline(),
        6 => from.started(false),
        16 => from.started(true),
        7 => from.ended(),
        8 => from.concluded(false),
        17 => from.concluded(true),
        9 => from.retarget(),
        10 => from.disposed(),
        11 => from.renamed(),
        12 => from.gone(),
        13 => from.remembered(),
        14 => from.u32().map(|watch| Record::Scanned {
            watch: WatchId(watch),
        }),
        15 => from.key(),
        18 => from.paused(),
        19 => from.u64().map(|job| Record::Retried { job: JobId(job) }),
        20 => from.forgotten(),
        21 => from.expected(),
        22 => from.summary(),
        other => return Err(BadBody::Kind(other)),
    })
}

fn u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn i64(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// A length, then that many bytes. What is longer than `u32` can say is longer than any record may
/// be: the frame refuses it by the bytes that were written, whatever the length says.
fn bytes(out: &mut Vec<u8>, value: &[u8]) {
    u32(out, u32::try_from(value.len()).unwrap_or(u32::MAX));
    out.extend_from_slice(value);
}

fn put_version(out: &mut Vec<u8>, version: &Version) {
    u64(out, version.ino);
    i64(out, version.btime_ns);
    u32(out, version.generation);
    u64(out, version.size);
    i64(out, version.mtime_ns);
}

/// Tag, step and number: six bytes whatever the end is.
fn put_end(out: &mut Vec<u8>, end: Option<&AttemptEnd>) {
    let (tag, step, number) = match end {
        None => (0, 0, 0),
        Some(AttemptEnd::Exit(status)) => (1, 0, *status),
        Some(AttemptEnd::Signal(signal)) => (2, 0, *signal),
        Some(AttemptEnd::TimedOut) => (3, 0, 0),
        Some(AttemptEnd::NotStarted { step, errno }) => (4, *step, *errno),
        Some(AttemptEnd::NotTheFile) => (5, 0, 0),
        Some(AttemptEnd::StillWritten) => (6, 0, 0),
        Some(AttemptEnd::CutShort) => (7, 0, 0),
        Some(AttemptEnd::Together) => (8, 0, 0),
        Some(AttemptEnd::AskedRetry) => (9, 0, 0),
        Some(AttemptEnd::AskedDead) => (10, 0, 0),
        Some(AttemptEnd::SaidDone) => (11, 0, 0),
        Some(AttemptEnd::WorkerLost) => (12, 0, 0),
        Some(AttemptEnd::Elsewhere) => (13, 0, 0),
    };
    out.push(tag);
    out.push(step);
    out.extend_from_slice(&number.to_le_bytes());
}

fn outcome_number(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Done => 1,
        Outcome::Dead => 2,
        Outcome::Superseded => 3,
        Outcome::Gone => 4,
        Outcome::Held => 5,
    }
}

fn how_number(how: DisposedHow) -> u8 {
    match how {
        DisposedHow::Done => 1,
        DisposedHow::Gone => 2,
        DisposedHow::Changed => 3,
    }
}

fn outcome_of(number: u8) -> Option<Outcome> {
    Some(match number {
        1 => Outcome::Done,
        2 => Outcome::Dead,
        3 => Outcome::Superseded,
        4 => Outcome::Gone,
        5 => Outcome::Held,
        _ => return None,
    })
}

fn how_of(number: u8) -> Option<DisposedHow> {
    Some(match number {
        1 => DisposedHow::Done,
        2 => DisposedHow::Gone,
        3 => DisposedHow::Changed,
        _ => return None,
    })
}

fn put_disposal(out: &mut Vec<u8>, disposal: &Disposal) {
    match disposal {
        // The kind tells them apart.
        Disposal::Keep | Disposal::Mark => out.push(1),
        Disposal::Delete => out.push(2),
        Disposal::Move { dir, rel } => {
            out.push(3);
            bytes(out, dir);
            bytes(out, rel);
        }
    }
}

/// What is left of a body. Each method takes one field, or says `None` where it is not there.
struct Cursor<'a> {
    rest: &'a [u8],
    /// An end was met that only a newer program can have written.
    newer: bool,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (field, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(field)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    fn bytes(&mut self) -> Option<Vec<u8>> {
        let length = self.u32()?;
        Some(self.take(usize::try_from(length).ok()?)?.to_vec())
    }

    fn version(&mut self) -> Option<Version> {
        Some(Version {
            ino: self.u64()?,
            btime_ns: self.i64()?,
            generation: self.u32()?,
            size: self.u64()?,
            mtime_ns: self.i64()?,
        })
    }

    fn end(&mut self) -> Option<Option<AttemptEnd>> {
        let (tag, step, number) = (self.u8()?, self.u8()?, self.i32()?);
        Some(Some(match (tag, step, number) {
            (0, 0, 0) => return Some(None),
            (1, 0, status) => AttemptEnd::Exit(status),
            (2, 0, signal) => AttemptEnd::Signal(signal),
            (3, 0, 0) => AttemptEnd::TimedOut,
            (4, step, errno) => AttemptEnd::NotStarted { step, errno },
            (5, 0, 0) => AttemptEnd::NotTheFile,
            (6, 0, 0) => AttemptEnd::StillWritten,
            (7, 0, 0) => AttemptEnd::CutShort,
            (8, 0, 0) => AttemptEnd::Together,
            (9, 0, 0) => AttemptEnd::AskedRetry,
            (10, 0, 0) => AttemptEnd::AskedDead,
            (11, 0, 0) => AttemptEnd::SaidDone,
            (12, 0, 0) => AttemptEnd::WorkerLost,
            (13, 0, 0) => AttemptEnd::Elsewhere,
            _ => {
                self.newer = tag > LAST_END;
                return None;
            }
        }))
    }

    fn watch(&mut self) -> Option<Record> {
        Some(Record::Watch {
            watch: WatchId(self.u32()?),
            name: String::from_utf8(self.bytes()?).ok()?,
        })
    }

    fn dir(&mut self) -> Option<Record> {
        Some(Record::Dir {
            dir: DirId(self.u32()?),
            watch: WatchId(self.u32()?),
            parent: DirId(self.u32()?),
            ino: self.u64()?,
            btime_ns: self.i64()?,
            name: self.bytes()?,
        })
    }

    fn settled(&mut self) -> Option<Record> {
        Some(Record::Settled {
            job: JobId(self.u64()?),
            dir: DirId(self.u32()?),
            version: self.version()?,
            ctime_ns: self.i64()?,
            reruns: self.u8()?,
            name: self.bytes()?,
        })
    }

    fn baseline(&mut self) -> Option<Record> {
        Some(Record::Baseline {
            dir: DirId(self.u32()?),
            version: self.version()?,
            ctime_ns: self.i64()?,
            name: self.bytes()?,
        })
    }

    fn started(&mut self, has_slot: bool) -> Option<Record> {
        let (job, attempt) = (JobId(self.u64()?), self.u32()?);
        let slot = match has_slot {
            false => 0,
            // Without one it has the other kind.
            true => self.u32().filter(|slot| *slot != 0)?,
        };
        Some(Record::Started { job, attempt, slot })
    }

    fn ended(&mut self) -> Option<Record> {
        Some(Record::Ended {
            job: JobId(self.u64()?),
            attempt: self.u32()?,
            counted: self.u32()?,
            not_before: Wall(self.i64()?),
            end: self.end()??,
            output: self.bytes()?,
        })
    }

    fn concluded(&mut self, marked: bool) -> Option<Record> {
        Some(Record::Concluded {
            job: JobId(self.u64()?),
            outcome: outcome_of(self.u8()?)?,
            end: self.end()?,
            version: self.version()?,
            ctime_ns: self.i64()?,
            disposal: match self.u8()? {
                1 if marked => Disposal::Mark,
                _ if marked => return None,
                1 => Disposal::Keep,
                2 => Disposal::Delete,
                3 => Disposal::Move {
                    dir: self.bytes()?,
                    rel: self.bytes()?,
                },
                _ => return None,
            },
            output: self.bytes()?,
        })
    }

    fn retarget(&mut self) -> Option<Record> {
        Some(Record::Retarget {
            job: JobId(self.u64()?),
            rel: self.bytes()?,
        })
    }

    fn key(&mut self) -> Option<Record> {
        Some(Record::Key {
            job: JobId(self.u64()?),
            key: self.bytes()?,
        })
    }

    fn expected(&mut self) -> Option<Record> {
        Some(Record::Expected {
            watch: WatchId(self.u32()?),
            opens: Wall(self.i64()?),
            day: self.i32()?,
            count: self.u32()?,
            told: match self.u8()? {
                0 => Told::Not,
                1 => Told::Owed,
                2 => Told::Told,
                _ => return None,
            },
        })
    }

    fn disposed(&mut self) -> Option<Record> {
        Some(Record::Disposed {
            job: JobId(self.u64()?),
            how: how_of(self.u8()?)?,
        })
    }

    fn renamed(&mut self) -> Option<Record> {
        Some(Record::Renamed {
            dir: DirId(self.u32()?),
            to_dir: DirId(self.u32()?),
            name_hash: self.array()?,
            to_name: self.bytes()?,
        })
    }

    fn gone(&mut self) -> Option<Record> {
        Some(Record::Gone {
            dir: DirId(self.u32()?),
            name_hash: self.array()?,
        })
    }

    fn paused(&mut self) -> Option<Record> {
        Some(Record::Paused {
            watch: WatchId(self.u32()?),
            paused: match self.u8()? {
                0 => false,
                1 => true,
                _ => return None,
            },
        })
    }

    fn forgotten(&mut self) -> Option<Record> {
        Some(Record::Forgotten {
            dir: DirId(self.u32()?),
            name_hash: self.array()?,
        })
    }

    fn remembered(&mut self) -> Option<Record> {
        Some(Record::Remembered {
            dir: DirId(self.u32()?),
            name_hash: self.array()?,
            version: self.u64()?,
            at: Wall(self.i64()?),
            ctime: self.u32()?,
            state: self.u8()?,
        })
    }
}
