//! Files of arbitrary bytes, and files that were once good: every reader ends, agrees with the others, and takes
//! nothing for a record that is none.

use super::damage::{Image, seal_all};
use super::history::{Records, SALT, open};
use super::input::Input;
use super::naive;
use settled::core::time::Wall;
use settled::journal::error::Why;
use settled::journal::format::{self, Header, RECORD_MAX, Role, Seed, Stamp};
use settled::journal::inspect::{DumpError, Stat, dump, stat, verify};
use settled::journal::storage::{Fault, File, Storage};
use settled::journal::{Damage, JournalError, OnDamage, Report};
use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::rc::Rc;

/// Raw bytes as a segment, or files that are built from choices and damaged then. `scratch` is an empty directory.
pub fn segment(data: &[u8], scratch: &Path) {
    let mut input = Input(data);
    let mut image = Image::default();
    match input.u8() % 6 {
        0 => {
            image.files.insert(File::Log(1), input.0.to_vec());
        }
        1 => {
            let length = usize::from(input.u16());
            image
                .files
                .insert(File::Base(1), input.take(length).to_vec());
            image.files.insert(File::Log(1), input.0.to_vec());
        }
        2 => {
            let mut bytes = input.0.to_vec();
            seal_all(&mut bytes, File::Log(1), SALT);
            image.files.insert(File::Log(1), bytes);
        }
        _ => {
            build(&mut image, &mut input);
            image.damage(&mut input, SALT);
        }
    }
    image.unreadable = None;
    readers_agree(&image, scratch);
}

/// Up to four files, most of whose records follow each other.
fn build(image: &mut Image, input: &mut Input) {
    let (mut number, mut seq) = (1 + u32::from(input.u8() % 3), 1);
    let with_base = input.flag();
    let logs = input.below(4);
    if with_base {
        number += 1;
        let head = header(input, File::Base(number), &mut 5);
        seq = head.first_seq;
        let file = file(input, File::Base(number), head, &mut 1);
        image.files.insert(File::Base(number), file);
    }
    for _ in 0..logs {
        let head = header(input, File::Log(number), &mut seq);
        let file = file(input, File::Log(number), head, &mut seq);
        image.files.insert(File::Log(number), file);
        number += 1 + u32::from(input.u8() == 255);
    }
}

fn header(input: &mut Input, file: File, seq: &mut u64) -> Header {
    match input.u8() {
        0..8 => *seq = seq.saturating_add(3),
        8..16 => *seq = seq.saturating_sub(3).max(1),
        16..18 => *seq = u64::MAX - 2,
        _ => {}
    }
    Header {
        role: file.role(),
        id: 7,
        salt: SALT,
        number: file.number().unwrap_or(0),
        flushed: match input.u8() {
            0..40 => u32::from(input.u16()) & !7,
            _ => 64,
        },
        first_seq: *seq,
        created: Wall(1),
    }
}

fn file(input: &mut Input, file: File, head: Header, seq: &mut u64) -> Vec<u8> {
    let mut bytes = head.encode().to_vec();
    let seed = Seed::new(file.role(), SALT, head.number);
    let mut flushed = 64;
    let records = input.below(24);
    for n in 0..records as u64 {
        let what = input.u8();
        let stamp = Stamp {
            seq: match what {
                0..6 => seq.saturating_add(2),
                6..12 => seq.saturating_sub(2),
                _ => *seq,
            },
            wall: Wall(n.cast_signed()),
            flushed: match what {
                12..18 => u32::from(input.u16()),
                18..22 => u32::MAX,
                _ => flushed,
            },
        };
        match what {
            // Nothing here, or something else.
            22..28 => {
                let gap = input.below(64);
                bytes.resize(bytes.len() + gap, 0);
            }
            28..34 => {
                let length = input.below(64);
                bytes.extend_from_slice(input.take(length));
            }
            34..60 => {
                let (kind, length) = (u16::from(input.u8() % 18), input.below(64));
                let body = input.take(length);
                format::encode_raw(&mut bytes, seed, stamp, kind, body).unwrap();
                *seq = stamp.seq.saturating_add(1);
            }
            _ => {
                let record = input.record(n);
                format::encode(&mut bytes, seed, stamp, &record).unwrap();
                *seq = stamp.seq.saturating_add(1);
            }
        }
        if input.u8() < 128 {
            flushed = bytes.len() as u32 & !7;
        }
    }
    if file.role() == Role::Base && input.u8() < 200 {
        let stamp = Stamp {
            seq: *seq,
            wall: Wall(0),
            flushed: 0,
        };
        let count = (*seq - 1).to_le_bytes();
        format::encode_raw(&mut bytes, seed, stamp, format::KIND_END, &count).unwrap();
    }
    let behind = usize::from(input.u8());
    bytes.resize(bytes.len() + behind, 0);
    bytes
}

fn readers_agree(image: &Image, scratch: &Path) {
    let mut paths = Vec::new();
    for (file, bytes) in &image.files {
        let path = scratch.join(file.to_string());
        fs::write(&path, bytes).unwrap();
        paths.push(path);
    }
    let memory = image.memory(1);
    let size: usize = image.files.values().map(Vec::len).sum();
    let counted = Counted::new(memory, size);
    let opened = open(counted.clone(), OnDamage::Continue);
    let opened = opened.map(|(_, report, records)| (report, records));
    let mut text = Vec::new();
    let dumped = dump(scratch, false, &mut text);
    let mut json = Vec::new();
    let dumped_json = dump(scratch, true, &mut json);
    let dumped = [dumped, dumped_json].map(|dumped| {
        dumped.map_err(|error| match error {
            DumpError::Journal(error) => error,
            DumpError::Output(error) => panic!("{error}"),
        })
    });
    let verified = verify(scratch);
    let stat = stat(scratch);
    for path in paths {
        fs::remove_file(path).unwrap();
    }
    for dumped in dumped {
        assert_eq!(dumped, verified);
    }
    match (&verified, &stat) {
        // Without any readable header there is damage and no identity.
        (Ok(damage), Err(JournalError::NotAJournal(_))) => {
            assert!(damage.iter().any(|d| matches!(d.why, Why::Header(_))));
        }
        (Ok(damage), Ok(stat)) => assert_eq!(*damage, stat.damage),
        (Err(verify), Err(stat)) => assert_eq!(verify, stat),
        (verify, stat) => panic!("{verify:?} and {stat:?}"),
    }
    match (opened, verified) {
        (Ok((report, records)), Ok(damage)) => {
            let places = |damage: &[Damage]| -> Vec<_> {
                let each = damage.iter();
                each.map(|d| (d.file, d.offset, d.bytes, d.why, d.missing))
                    .collect()
            };
            assert_eq!(places(&report.damage), places(&damage));
            reported_places(image, &damage);
            let lines = String::from_utf8(text).unwrap();
            let json = String::from_utf8(json).unwrap();
            shown(image, &lines, &json, &records);
            if let Ok(stat) = stat {
                counts(&stat, &report, &records);
            }
        }
        (Err(JournalError::Storage(fault)), _) => {
            assert_eq!(fault.act, "number a segment after");
        }
        (Err(error), Err(other)) => {
            assert!(matches!(
                (&error, &other),
                (JournalError::Newer { .. }, JournalError::Newer { .. })
                    | (
                        JournalError::UnknownKind { .. },
                        JournalError::UnknownKind { .. }
                    )
            ));
        }
        // An empty directory is a new journal for the one and none for the other.
        (Ok((report, records)), Err(JournalError::NotAJournal(_))) => {
            assert!(image.counted().is_empty());
            assert_eq!((report, records), (Report::default(), vec![]));
        }
        (opened, verified) => panic!("{opened:?} and {verified:?}"),
    }
}

fn counts(stat: &Stat, report: &Report, records: &Records) {
    let each = records.len() as u64;
    assert_eq!(report.records, each);
    assert_eq!(stat.kinds.values().sum::<u64>(), each);
    assert_eq!(stat.cut_bytes, report.cut_bytes);
    assert_eq!(stat.unproven, report.rewritten);
    let walls = records.iter().map(|(wall, _)| *wall);
    assert_eq!(stat.span, walls.clone().min().zip(walls.max()));
    assert_eq!(
        stat.files.iter().map(|file| file.records).sum::<u64>(),
        each,
        "{:?}",
        stat.files
    );
    for file in &stat.files {
        assert!(file.used <= file.size.max(64), "{file:?}");
    }
}

/// What is said to be damaged lies in the file, or is missing at its end.
fn reported_places(image: &Image, damage: &[Damage]) {
    for place in damage {
        let size = image.files[&place.file].len() as u64;
        let most = size.max(u64::from(u32::MAX));
        assert!(
            place.offset <= size.max(64) && place.bytes <= most,
            "{place:?} in a file of {size} bytes"
        );
    }
}

/// Every line names a record that stands there with a right checksum, each one once, in order.
fn shown(image: &Image, lines: &str, json: &str, records: &Records) {
    assert_eq!(lines.lines().count(), records.len());
    assert_eq!(json.lines().count(), records.len());
    let mut last: Option<(File, usize)> = None;
    for ((line, json), (wall, _)) in lines.lines().zip(json.lines()).zip(records) {
        let number = |key: &str| -> u64 {
            let (_, rest) = line.split_once(&format!(" {key}=")).unwrap();
            rest.split(' ').next().unwrap().parse().unwrap()
        };
        let name = line.split('"').nth(1).unwrap();
        let file = File::parse(name.as_bytes()).unwrap();
        let at = number("offset") as usize;
        let bytes = &image.files[&file];
        let frame = naive::frame(bytes, at, naive::start(file, salt(image)));
        let frame = frame.unwrap_or_else(|| panic!("no record there: {line}"));
        assert_eq!(
            (frame.seq, Wall(frame.wall)),
            (number("seq"), *wall),
            "{line}"
        );
        if let Some((before, end)) = last
            && before == file
        {
            assert!(at >= end, "{line}");
        }
        last = Some((file, frame.end));
        let start = format!(
            "{{\"file\":\"{name}\",\"offset\":{at},\"seq\":{},",
            frame.seq
        );
        assert!(json.starts_with(&start) && json.ends_with('}'), "{json}");
        assert!(!json.chars().any(|c| u32::from(c) < 0x20), "{json:?}");
        assert!(line.is_ascii(), "{line}");
    }
}

/// The salt that counts: of the first file that has any.
fn salt(image: &Image) -> u64 {
    let files = image.counted();
    let salts = files.iter().filter_map(|file| {
        Header::decode(&image.files[file])
            .ok()
            .map(|head| head.salt)
    });
    salts.into_iter().next().unwrap_or(SALT)
}

/// A storage that counts what is asked of it: a reader that goes round in circles, or wants memory for more than
/// there is, is found out.
#[derive(Clone)]
struct Counted {
    memory: crate::journal_support::Memory,
    size: usize,
    reads: Rc<Cell<usize>>,
}

impl Counted {
    fn new(memory: crate::journal_support::Memory, size: usize) -> Counted {
        let reads = Rc::default();
        Counted {
            memory,
            size,
            reads,
        }
    }
}

impl Storage for Counted {
    fn list(&mut self) -> Result<Vec<(File, u64)>, Fault> {
        self.memory.list()
    }
    fn path(&self, file: File) -> String {
        self.memory.path(file)
    }
    fn read_at(&mut self, file: File, offset: u64, into: &mut [u8]) -> Result<usize, Fault> {
        let most = self.size.max(RECORD_MAX as usize + 8);
        assert!(into.len() <= most, "{} bytes are asked for", into.len());
        self.reads.set(self.reads.get() + 1);
        assert!(self.reads.get() <= 64 + self.size, "reading has no end");
        self.memory.read_at(file, offset, into)
    }
    fn allocate(&mut self, file: File, offset: u64, length: u64) -> Result<(), Fault> {
        self.memory.allocate(file, offset, length)
    }
    fn write(&mut self, file: File, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        self.memory.write(file, offset, bytes)
    }
    fn flush(&mut self, file: File) -> Result<(), Fault> {
        self.memory.flush(file)
    }
    fn rename(&mut self, from: File, to: File) -> Result<(), Fault> {
        self.memory.rename(from, to)
    }
    fn sync_dir(&mut self) -> Result<(), Fault> {
        self.memory.sync_dir()
    }
    fn truncate(&mut self, file: File, length: u64) -> Result<(), Fault> {
        self.memory.truncate(file, length)
    }
    fn remove(&mut self, file: File) -> Result<(), Fault> {
        self.memory.remove(file)
    }
    fn keep_aside(&mut self, file: File) -> Result<String, Fault> {
        self.memory.keep_aside(file)
    }
    fn release(&mut self, file: File) {
        self.memory.release(file);
    }
}
