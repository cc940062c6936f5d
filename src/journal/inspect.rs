//! `settled journal stat | verify | dump`: reading only, beside a running daemon or on a copied directory.
//!
//! A directory that is written meanwhile shows a moment of it: the files that were there when it was listed,
//! each up to where it had got when it was read. What is being written looks like a tail, never like damage.

use super::body;
use super::error::{Damage, JournalError};
use super::format::Role;
use super::recover::{self, FileEnd, Place, Walked};
use super::segment::Disk;
use super::storage::{File, Storage, errno};
use super::survey::{self, Survey};
use crate::core::record::{AttemptEnd, Disposal, Record, Summary};
use crate::core::time::Wall;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::Path;

/// What a journal consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Its id.
    pub id: u32,
    /// Files that count, in the order of reading.
    pub files: Vec<FileStat>,
    /// Bytes of files that no longer count and are yet to be removed.
    pub stale_files: u64,
    /// How many records of each kind, by name, base included.
    pub kinds: BTreeMap<&'static str, u64>,
    /// Earliest and latest time of a record.
    pub span: Option<(Wall, Wall)>,
    /// The sequence number that comes next.
    pub next_seq: u64,
    /// Records of the last segment of which nothing proves that they were flushed.
    pub unproven: u64,
    /// Bytes behind the last record that were never flushed.
    pub cut_bytes: u64,
    /// What was flushed and cannot be read.
    pub damage: Vec<Damage>,
}

/// One file of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileStat {
    /// Full path.
    pub path: String,
    /// Segment or base.
    pub role: Role,
    /// Bytes of the file.
    pub size: u64,
    /// Bytes up to the end of its last record.
    pub used: u64,
    /// Offset known flushed.
    pub flushed: u64,
    /// Records that were read.
    pub records: u64,
    /// Sequence number of its first record, where its header is readable and it is a segment.
    pub first_seq: Option<u64>,
}

/// Reads everything and counts.
pub fn stat(dir: &Path) -> Result<Stat, JournalError> {
    let mut kinds = BTreeMap::new();
    let mut span: Option<(Wall, Wall)> = None;
    let mut reader = open(dir)?;
    let walked = reader.walk(&mut |place, wall, _| {
        *kinds.entry(kind_name(place.kind)).or_insert(0) += 1;
        span = Some(span.map_or((wall, wall), |(a, b)| (a.min(wall), b.max(wall))));
    })?;
    let files = walked.files.iter();
    Ok(Stat {
        id: reader.id()?,
        files: files.map(|file| file_stat(&reader.disk, file)).collect(),
        stale_files: reader.survey.stale.len() as u64,
        kinds,
        span,
        next_seq: walked.next_seq,
        unproven: walked.tail.len() as u64,
        cut_bytes: walked.cut_bytes,
        damage: walked.damage,
    })
}

/// Reads everything and says what is damaged; empty is good.
pub fn verify(dir: &Path) -> Result<Vec<Damage>, JournalError> {
    Ok(open(dir)?.walk(&mut |_, _, _| ())?.damage)
}

/// Calls `each` with every record and its time, in order. The journal's id, and what is damaged: the records around
/// it are given.
pub fn each(
    dir: &Path,
    each: &mut dyn FnMut(Wall, &Record),
) -> Result<(u32, Vec<Damage>), JournalError> {
    let mut reader = open(dir)?;
    let walked = reader.walk(&mut |_, wall, record| each(wall, record))?;
    Ok((reader.id()?, walked.damage))
}

/// Why a dump ended early.
#[derive(Debug)]
pub enum DumpError {
    /// The journal.
    Journal(JournalError),
    /// The place that the dump is written to.
    Output(io::Error),
}

/// Writes one line for each record: text, or a JSON object. Gives what is damaged; the records around it
/// are written.
///
/// In JSON, bytes that are not UTF-8 are shown with replacement characters, and once more under the same
/// key with `_hex` behind it. In text they are escaped as in C.
pub fn dump(dir: &Path, json: bool, out: &mut dyn Write) -> Result<Vec<Damage>, DumpError> {
    let mut reader = open(dir).map_err(DumpError::Journal)?;
    let mut line = Vec::new();
    let mut failed = None;
    let walked = reader.walk(&mut |place, wall, record| {
        if failed.is_some() {
            return;
        }
        line.clear();
        let mut row = Row {
            out: &mut line,
            json,
        };
        row.record(place, wall, record);
        failed = out.write_all(&line).err();
    });
    match failed {
        Some(error) => Err(DumpError::Output(error)),
        None => Ok(walked.map_err(DumpError::Journal)?.damage),
    }
}

struct Inspector {
    disk: Disk,
    survey: Survey,
}

/// How often the directory is listed again when files go while their headers are read.
const LISTINGS_MAX: u32 = 10;

fn open(dir: &Path) -> Result<Inspector, JournalError> {
    let mut tries = 0;
    loop {
        // The headers are read by the survey, and the files stay open: what goes away after that is
        // read all the same.
        let mut disk = Disk::read_only(dir)?;
        let before = names(&mut disk)?;
        let error = match survey::survey(&mut disk) {
            Ok(survey) if names(&mut disk)? == before || tries == LISTINGS_MAX => {
                if survey.files().next().is_none() {
                    return Err(JournalError::NotAJournal(dir.display().to_string()));
                }
                return Ok(Inspector { disk, survey });
            }
            // A listing that is made while files come and go may miss both the old and the new.
            Ok(_) => None,
            Err(JournalError::Storage(fault)) if fault.errno == errno::ENOENT => Some(fault),
            Err(error) => return Err(error),
        };
        match error {
            Some(fault) if tries == LISTINGS_MAX => return Err(fault.into()),
            Some(_) | None => tries += 1,
        }
    }
}

fn names(disk: &mut Disk) -> Result<BTreeSet<File>, JournalError> {
    let files = disk.list()?.into_iter().map(|(file, _)| file);
    // Segments are made from these all the time; they do not count.
    Ok(files
        .filter(|file| !matches!(file, File::Spare | File::NewBase))
        .collect())
}

impl Inspector {
    fn walk(&mut self, each: &mut dyn FnMut(Place, Wall, &Record)) -> Result<Walked, JournalError> {
        recover::walk(&mut self.disk, &self.survey, &mut |place, stamp, record| {
            each(place, stamp.wall, &record);
        })
    }

    fn id(&self) -> Result<u32, JournalError> {
        let first = self.survey.files().next();
        self.survey.identity.map(|(id, _)| id).ok_or_else(|| {
            JournalError::NotAJournal(first.map_or_else(String::new, |e| self.disk.path(e.file)))
        })
    }
}

fn file_stat(disk: &Disk, read: &FileEnd) -> FileStat {
    FileStat {
        path: disk.path(read.file),
        role: read.file.role(),
        size: read.size,
        used: read.end,
        flushed: read.known,
        records: read.records,
        first_seq: read.first_seq,
    }
}

fn kind_name(kind: u16) -> &'static str {
    body::kind_name(kind).unwrap_or("unknown")
}

/// One line of a dump.
struct Row<'a> {
    out: &'a mut Vec<u8>,
    json: bool,
}

impl Row<'_> {
    fn record(&mut self, place: Place, wall: Wall, record: &Record) {
        let text = if self.json { "{" } else { "" };
        self.out.extend_from_slice(text.as_bytes());
        self.text_first("file", &place.file.to_string());
        self.number("offset", place.offset);
        self.number("seq", place.seq);
        self.number("wall_ns", wall.0);
        self.text("kind", kind_name(place.kind));
        self.fields(record);
        let end = if self.json { "}\n" } else { "\n" };
        self.out.extend_from_slice(end.as_bytes());
    }

    fn fields(&mut self, record: &Record) {
        match record {
            Record::Watch { watch, name } => {
                self.number("watch", watch.0);
                self.text("name", name);
            }
            Record::Dir {
                dir,
                watch,
                parent,
                name,
                ino,
                btime_ns,
            } => {
                self.number("dir", dir.0);
                self.number("watch", watch.0);
                self.number("parent", parent.0);
                self.bytes("name", name);
                self.number("ino", *ino);
                self.number("btime_ns", *btime_ns);
            }
            Record::DirGone { dir } => self.number("dir", dir.0),
            Record::Settled {
                job,
                dir,
                name,
                version,
                ctime_ns,
                reruns,
            } => {
                self.number("job", job.0);
                self.number("dir", dir.0);
                self.bytes("name", name);
                self.version(version, *ctime_ns);
                self.number("reruns", *reruns);
            }
            Record::Baseline {
                dir,
                name,
                version,
                ctime_ns,
            } => {
                self.number("dir", dir.0);
                self.bytes("name", name);
                self.version(version, *ctime_ns);
            }
            Record::Started { job, attempt, slot } => {
                self.number("job", job.0);
                self.number("attempt", *attempt);
                // The older kind has none, and is shown as it always was.
                if *slot != 0 {
                    self.number("slot", *slot);
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
                self.number("job", job.0);
                self.number("attempt", *attempt);
                self.text("end", &end_text(*end));
                self.number("counted", *counted);
                self.number("not_before_ns", not_before.0);
                self.bytes("output", output);
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
                self.number("job", job.0);
                self.text("outcome", &format!("{outcome:?}").to_lowercase());
                if let Some(end) = end {
                    self.text("end", &end_text(*end));
                }
                self.disposal(disposal);
                self.version(version, *ctime_ns);
                self.bytes("output", output);
            }
            Record::Retarget { job, rel } => {
                self.number("job", job.0);
                self.bytes("rel", rel);
            }
            Record::Disposed { job, how } => {
                self.number("job", job.0);
                self.text("how", &format!("{how:?}").to_lowercase());
            }
            Record::Renamed {
                dir,
                name_hash,
                to_dir,
                to_name,
            } => {
                self.number("dir", dir.0);
                self.text("name_hash", &hex(name_hash));
                self.number("to_dir", to_dir.0);
                self.bytes("to_name", to_name);
            }
            Record::Paused { watch, paused } => {
                self.number("watch", watch.0);
                self.number("paused", u8::from(*paused));
            }
            Record::Retried { job } => self.number("job", job.0),
            Record::Gone { dir, name_hash } | Record::Forgotten { dir, name_hash } => {
                self.number("dir", dir.0);
                self.text("name_hash", &hex(name_hash));
            }
            Record::Scanned { watch } => self.number("watch", watch.0),
            Record::Key { job, key } => {
                self.number("job", job.0);
                self.bytes("key", key);
            }
            Record::Expected {
                watch,
                opens,
                day,
                count,
                told,
            } => {
                self.number("watch", watch.0);
                self.number("opens_ns", opens.0);
                self.number("day", *day);
                self.number("count", *count);
                self.text("told", &format!("{told:?}").to_lowercase());
            }
            Record::Remembered {
                dir,
                name_hash,
                version,
                ctime,
                state,
                at,
            } => {
                self.number("dir", dir.0);
                self.text("name_hash", &hex(name_hash));
                self.text("version", &format!("{version:016x}"));
                self.text("ctime", &format!("{ctime:08x}"));
                self.number("state", *state);
                self.number("at_ns", at.0);
            }
            Record::Summary(of) => self.summary(of),
        }
    }

    fn disposal(&mut self, disposal: &Disposal) {
        match disposal {
            Disposal::Keep => self.text("disposal", "keep"),
            Disposal::Mark => self.text("disposal", "mark"),
            Disposal::Delete => self.text("disposal", "delete"),
            Disposal::Move { dir, rel } => {
                self.text("disposal", "move");
                self.bytes("to", dir);
                self.bytes("rel", rel);
            }
        }
    }

    /// A row has no lists: each attempt and each name has its place in the order in its keys.
    fn summary(&mut self, of: &Summary) {
        self.number("job", of.job.0);
        self.number("watch", of.watch.0);
        self.number("dir", of.dir.0);
        self.bytes("path", &of.rel);
        self.text("version", &format!("{:016x}", of.version));
        self.number("size", of.size);
        self.number("mtime_ns", of.mtime_ns);
        if let Some((outcome, at)) = of.concluded {
            self.text("outcome", &format!("{outcome:?}").to_lowercase());
            self.number("concluded_ns", at.0);
        }
        self.disposal(&of.disposal);
        if let Some((how, at)) = of.disposed {
            self.text("how", &format!("{how:?}").to_lowercase());
            self.number("disposed_ns", at.0);
        }
        for (place, made) in (1..).zip(&of.attempts) {
            self.number(&format!("attempt_{place}"), made.number);
            self.number(&format!("started_{place}_ns"), made.started.0);
            if let Some((end, at)) = made.end {
                self.text(&format!("end_{place}"), &end_text(end));
                self.number(&format!("ended_{place}_ns"), at.0);
            }
            self.bytes(&format!("output_{place}"), &made.output);
        }
        for (place, (name, until)) in (1..).zip(&of.before) {
            self.bytes(&format!("name_{place}"), name);
            self.number(&format!("until_{place}_ns"), until.0);
        }
    }

    fn version(&mut self, version: &crate::core::ask::Version, ctime_ns: i64) {
        self.number("ino", version.ino);
        self.number("btime_ns", version.btime_ns);
        self.number("generation", version.generation);
        self.number("size", version.size);
        self.number("mtime_ns", version.mtime_ns);
        self.number("ctime_ns", ctime_ns);
    }

    fn key(&mut self, key: &str) {
        let text = if self.json {
            format!(",\"{key}\":")
        } else {
            format!(" {key}=")
        };
        self.out.extend_from_slice(text.as_bytes());
    }

    fn number(&mut self, key: &str, value: impl std::fmt::Display) {
        self.key(key);
        self.out.extend_from_slice(value.to_string().as_bytes());
    }

    fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        self.value(value.as_bytes());
    }

    fn text_first(&mut self, key: &str, value: &str) {
        let text = if self.json {
            format!("\"{key}\":")
        } else {
            format!("{key}=")
        };
        self.out.extend_from_slice(text.as_bytes());
        self.value(value.as_bytes());
    }

    fn bytes(&mut self, key: &str, value: &[u8]) {
        self.key(key);
        self.value(value);
        if self.json && std::str::from_utf8(value).is_err() {
            self.text(&format!("{key}_hex"), &hex(value));
        }
    }

    fn value(&mut self, value: &[u8]) {
        if !self.json {
            self.out.push(b'"');
            self.out.extend(value.escape_ascii().to_string().bytes());
            self.out.push(b'"');
            return;
        }
        self.out.push(b'"');
        for c in String::from_utf8_lossy(value).chars() {
            match c {
                '"' => self.out.extend_from_slice(b"\\\""),
                '\\' => self.out.extend_from_slice(b"\\\\"),
                c if u32::from(c) < 0x20 || c == '\u{7f}' => {
                    let text = format!("\\u{:04x}", u32::from(c));
                    self.out.extend_from_slice(text.as_bytes());
                }
                c => {
                    let mut room = [0; 4];
                    self.out
                        .extend_from_slice(c.encode_utf8(&mut room).as_bytes());
                }
            }
        }
        self.out.push(b'"');
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn end_text(end: AttemptEnd) -> String {
    match end {
        AttemptEnd::Exit(status) => format!("exit {status}"),
        AttemptEnd::Signal(signal) => format!("signal {signal}"),
        AttemptEnd::TimedOut => "timed out".into(),
        AttemptEnd::NotStarted { step, errno } => {
            format!("not started, step {step}, errno {errno}")
        }
        AttemptEnd::NotTheFile => "not the file".into(),
        AttemptEnd::StillWritten => "still written".into(),
        AttemptEnd::CutShort => "cut short".into(),
        AttemptEnd::Together => "failed together with others".into(),
        AttemptEnd::AskedRetry => "the worker asked for a retry".into(),
        AttemptEnd::AskedDead => "the worker said dead".into(),
        AttemptEnd::SaidDone => "the worker said done".into(),
        AttemptEnd::WorkerLost => "the worker was lost".into(),
        AttemptEnd::Elsewhere => "elsewhere".into(),
    }
}
