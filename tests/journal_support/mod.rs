//! What the journal's tests share: random records from a seed, and a storage in memory that loses, tears and
//! reorders what was not flushed.
// Each test file uses its part of this.
#![allow(dead_code, unreachable_pub)]

use settled::core::ask::Version;
use settled::core::ids::{DirId, JobId, WatchId};
use settled::core::record::{
    Attempt, AttemptEnd, Disposal, DisposedHow, Outcome, Record, Summary, Told,
};
use settled::core::time::Wall;
use settled::journal::storage::{Fault, File, Storage, errno};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// splitmix64: the same seed gives the same story.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`, which is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn bytes(&mut self, most: usize) -> Vec<u8> {
        let length = self.below(most + 1);
        (0..length).map(|_| self.next() as u8).collect()
    }

    fn version(&mut self) -> Version {
        Version {
            ino: self.next(),
            btime_ns: self.next() as i64,
            generation: self.next() as u32,
            size: self.next(),
            mtime_ns: self.next() as i64,
        }
    }

    fn end(&mut self) -> AttemptEnd {
        match self.below(7) {
            0 => AttemptEnd::Exit(self.next() as i32),
            1 => AttemptEnd::Signal(self.next() as i32),
            2 => AttemptEnd::TimedOut,
            3 => AttemptEnd::NotStarted {
                step: self.next() as u8,
                errno: self.next() as i32,
            },
            4 => AttemptEnd::NotTheFile,
            5 => AttemptEnd::StillWritten,
            _ => AttemptEnd::CutShort,
        }
    }

    /// A record of the kind with this index; indices go on for ever.
    pub fn record_of(&mut self, kind: usize) -> Record {
        let job = JobId(self.next());
        let dir = DirId(self.next() as u32);
        match kind % KINDS {
            0 => Record::Watch {
                watch: WatchId(self.next() as u32),
                name: format!("wätch-{}", self.next()),
            },
            1 => Record::Dir {
                dir,
                watch: WatchId(self.next() as u32),
                parent: DirId(self.next() as u32),
                name: self.bytes(255),
                ino: self.next(),
                btime_ns: self.next() as i64,
            },
            2 => Record::DirGone { dir },
            3 => Record::Settled {
                job,
                dir,
                name: self.bytes(255),
                version: self.version(),
                ctime_ns: self.next() as i64,
                reruns: self.next() as u8,
            },
            4 => Record::Baseline {
                dir,
                name: self.bytes(255),
                version: self.version(),
                ctime_ns: self.next() as i64,
            },
            5 => Record::Started {
                job,
                attempt: self.next() as u32,
                slot: 0,
            },
            6 => Record::Ended {
                job,
                attempt: self.next() as u32,
                end: self.end(),
                counted: self.next() as u32,
                not_before: Wall(self.next() as i64),
                output: self.bytes(300),
            },
            7 => {
                let disposal = match self.below(3) {
                    0 => Disposal::Keep,
                    1 => Disposal::Delete,
                    _ => Disposal::Move {
                        dir: self.bytes(300),
                        rel: self.bytes(300),
                    },
                };
                self.concluded(job, disposal)
            }
            8 => Record::Retarget {
                job,
                rel: self.bytes(300),
            },
            9 => Record::Disposed {
                job,
                how: match self.below(3) {
                    0 => DisposedHow::Done,
                    1 => DisposedHow::Gone,
                    _ => DisposedHow::Changed,
                },
            },
            10 => Record::Renamed {
                dir,
                name_hash: std::array::from_fn(|_| self.next() as u8),
                to_dir: DirId(self.next() as u32),
                to_name: self.bytes(255),
            },
            11 => Record::Gone {
                dir,
                name_hash: std::array::from_fn(|_| self.next() as u8),
            },
            12 => Record::Remembered {
                dir,
                name_hash: std::array::from_fn(|_| self.next() as u8),
                version: self.next(),
                ctime: self.next() as u32,
                state: self.next() as u8,
                at: Wall(self.next() as i64),
            },
            13 => Record::Scanned {
                watch: WatchId(self.next() as u32),
            },
            14 => Record::Key {
                job: JobId(self.next()),
                key: self.bytes(40),
            },
            17 => Record::Paused {
                watch: WatchId(self.next() as u32),
                paused: self.below(2) == 1,
            },
            18 => Record::Retried { job },
            19 => Record::Forgotten {
                dir,
                name_hash: std::array::from_fn(|_| self.next() as u8),
            },
            15 => Record::Started {
                job,
                attempt: self.next() as u32,
                slot: 1 + self.below(1000) as u32,
            },
            // A kind of its own.
            16 => self.concluded(job, Disposal::Mark),
            21 => self.summary(job, dir),
            _ => Record::Expected {
                watch: WatchId(self.next() as u32),
                opens: Wall(self.next() as i64),
                day: self.next() as i32,
                count: self.next() as u32,
                told: match self.below(3) {
                    0 => Told::Not,
                    1 => Told::Owed,
                    _ => Told::Told,
                },
            },
        }
    }

    fn summary(&mut self, job: JobId, dir: DirId) -> Record {
        let wall = |random: &mut Random| Wall(random.next() as i64);
        let outcome = match self.below(6) {
            0 => None,
            1 => Some(Outcome::Done),
            2 => Some(Outcome::Dead),
            3 => Some(Outcome::Superseded),
            4 => Some(Outcome::Gone),
            _ => Some(Outcome::Held),
        };
        let disposed = match self.below(4) {
            0 => None,
            1 => Some(DisposedHow::Done),
            2 => Some(DisposedHow::Gone),
            _ => Some(DisposedHow::Changed),
        };
        let attempts = (0..self.below(3)).map(|_| Attempt {
            number: self.next() as u32,
            started: wall(self),
            end: match self.below(3) {
                0 => None,
                _ => Some((self.end(), wall(self))),
            },
            output: self.bytes(100),
        });
        let attempts = attempts.collect();
        let before = (0..self.below(3)).map(|_| (self.bytes(60), wall(self)));
        let before = before.collect();
        Record::Summary(Box::new(Summary {
            job,
            watch: WatchId(self.next() as u32),
            dir,
            rel: self.bytes(255),
            version: self.next(),
            size: self.next(),
            mtime_ns: self.next() as i64,
            concluded: outcome.map(|outcome| (outcome, wall(self))),
            disposal: match self.below(4) {
                0 => Disposal::Keep,
                1 => Disposal::Delete,
                2 => Disposal::Mark,
                _ => Disposal::Move {
                    dir: self.bytes(100),
                    rel: self.bytes(100),
                },
            },
            disposed: disposed.map(|how| (how, wall(self))),
            attempts,
            before,
        }))
    }

    fn concluded(&mut self, job: JobId, disposal: Disposal) -> Record {
        Record::Concluded {
            job,
            outcome: match self.below(5) {
                0 => Outcome::Done,
                1 => Outcome::Dead,
                2 => Outcome::Superseded,
                3 => Outcome::Gone,
                _ => Outcome::Held,
            },
            end: match self.below(3) {
                0 => None,
                _ => Some(self.end()),
            },
            disposal,
            version: self.version(),
            ctime_ns: self.next() as i64,
            output: self.bytes(300),
        }
    }

    pub fn record(&mut self) -> Record {
        let kind = self.below(KINDS);
        self.record_of(kind)
    }
}

/// How many kinds of records there are.
pub const KINDS: usize = 22;

/// The record that the tests count with.
pub fn numbered(n: u64) -> Record {
    Record::Started {
        job: JobId(n),
        attempt: 1,
        slot: 0,
    }
}

/// The number of [`numbered`].
pub fn number(record: &Record) -> u64 {
    match record {
        Record::Started { job, .. } => job.0,
        other => panic!("{other:?}"),
    }
}

/// Like the record of a file that has settled, with a name of 30 bytes: what measurements write.
pub fn settled(n: u64) -> Record {
    Record::Settled {
        job: JobId(n),
        dir: DirId(3),
        name: b"a-file-with-a-name-of-30-bytes".to_vec(),
        version: Version {
            ino: n,
            btime_ns: 1,
            generation: 0,
            size: 1,
            mtime_ns: 1,
        },
        ctime_ns: 1,
        reruns: 0,
    }
}

/// Bytes of [`settled`] in the journal.
pub const SETTLED_BYTES: usize = (32 + 8 + 4 + 36 + 8 + 1 + 4 + 30_usize).next_multiple_of(8);

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

#[derive(Clone, Debug, Default)]
struct Inode {
    /// What reads see.
    seen: Vec<u8>,
    /// What a power cut leaves for certain.
    sure: Vec<u8>,
    /// What was done since the last good flush, in order.
    pending: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

/// What happens to names: it is seen at once, and survives a power cut for certain after the directory's flush only.
#[derive(Clone, Debug)]
pub enum Naming {
    Make(File, usize),
    Rename(File, File),
    Remove(File),
}

/// The state behind [`Memory`].
#[derive(Clone, Debug)]
pub struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<File, usize>,
    sure_names: BTreeMap<File, usize>,
    pending_names: Vec<Naming>,
    kept: BTreeMap<String, Vec<u8>>,
    random: Random,
    /// Calls that change something, so far.
    pub calls: u64,
    /// From this call on, every call fails: the machine is off.
    pub off_at: Option<u64>,
    /// This call fails with EIO; a flush that fails has lost what it should have written, and reads do
    /// not show it.
    pub fail_at: Option<u64>,
    /// What was written to this file cannot be flushed, nor its name be removed.
    pub bad: Option<File>,
    /// Bytes that all files together may have.
    pub room: Option<usize>,
    /// Flushes so far, by file.
    pub flushes: Vec<File>,
    /// Reads that touch this file at this offset fail with EIO.
    pub unreadable: Option<(File, u64)>,
}

/// A directory in memory; clones are the same directory.
#[derive(Clone, Debug)]
pub struct Memory(pub Rc<RefCell<State>>);

impl Memory {
    pub fn new(seed: u64) -> Memory {
        Memory(Rc::new(RefCell::new(State {
            inodes: Vec::new(),
            names: BTreeMap::new(),
            sure_names: BTreeMap::new(),
            pending_names: Vec::new(),
            kept: BTreeMap::new(),
            random: Random(seed),
            calls: 0,
            off_at: None,
            fail_at: None,
            bad: None,
            room: None,
            flushes: Vec::new(),
            unreadable: None,
        })))
    }

    /// A copy that goes its own way.
    pub fn copy(&self) -> Memory {
        Memory(Rc::new(RefCell::new(self.0.borrow().clone())))
    }

    /// The process is gone, the machine is not: everything is as it was seen.
    pub fn process_ends(&self) {
        let mut state = self.0.borrow_mut();
        state.off_at = None;
        state.fail_at = None;
        state.bad = None;
    }

    /// The machine loses its power.
    pub fn power_cut(&self) {
        let state = &mut *self.0.borrow_mut();
        state.off_at = None;
        state.fail_at = None;
        state.bad = None;
        let random = &mut state.random;
        let mut names = state.sure_names.clone();
        for naming in std::mem::take(&mut state.pending_names) {
            if random.below(2) == 0 {
                naming.apply(&mut names);
            }
        }
        for inode in &mut state.inodes {
            inode.lose_some(random);
        }
        state.sure_names.clone_from(&names);
        state.names = names;
    }

    pub fn files(&self) -> Vec<File> {
        self.0.borrow().names.keys().copied().collect()
    }

    pub fn kept(&self) -> Vec<String> {
        self.0.borrow().kept.keys().cloned().collect()
    }

    pub fn bytes(&self, file: File) -> Vec<u8> {
        let state = self.0.borrow();
        state.inodes[state.names[&file]].seen.clone()
    }

    /// Changes a file behind the journal's back, for good.
    pub fn edit(&self, file: File, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.0.borrow_mut();
        let inode = state.names[&file];
        let inode = &mut state.inodes[inode];
        change(&mut inode.seen);
        inode.sure = inode.seen.clone();
        inode.pending.clear();
    }

    /// Puts a file there, for good.
    pub fn put(&self, file: File, bytes: Vec<u8>) {
        let mut state = self.0.borrow_mut();
        state.inodes.push(Inode {
            seen: bytes.clone(),
            sure: bytes,
            pending: Vec::new(),
        });
        let inode = state.inodes.len() - 1;
        state.names.insert(file, inode);
        state.sure_names.insert(file, inode);
    }

    /// Takes a file away, for good.
    pub fn take_away(&self, file: File) {
        let mut state = self.0.borrow_mut();
        state.names.remove(&file);
        state.sure_names.remove(&file);
    }

    fn fault(&self, act: &'static str, file: File, errno: i32) -> Fault {
        Fault {
            act,
            path: self.path(file),
            errno,
        }
    }

    /// Counts a call that changes something; the second value says that it has to fail.
    fn call(&self, act: &'static str, file: File) -> Result<bool, Fault> {
        let mut state = self.0.borrow_mut();
        let this = state.calls;
        state.calls += 1;
        if state.off_at.is_some_and(|off| this >= off) {
            drop(state);
            return Err(self.fault(act, file, errno::EIO));
        }
        let bad = state.bad == Some(file)
            && matches!(act, "flush" | "remove")
            && state.names.contains_key(&file);
        Ok(bad || state.fail_at == Some(this))
    }
}

impl Naming {
    pub fn apply(&self, names: &mut BTreeMap<File, usize>) {
        match *self {
            Naming::Make(file, inode) => {
                names.insert(file, inode);
            }
            Naming::Rename(from, to) => {
                if let Some(inode) = names.remove(&from) {
                    names.insert(to, inode);
                }
            }
            Naming::Remove(file) => {
                names.remove(&file);
            }
        }
    }
}

impl Inode {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.seen);
        self.pending.push(change);
    }

    /// Each sector is as it was after some number of the pending changes, and so is the length.
    fn lose_some(&mut self, random: &mut Random) {
        let pending = std::mem::take(&mut self.pending);
        if !pending.is_empty() {
            // Most of the time every sector has its own fate; sometimes nothing or all is lost.
            let style = random.below(6);
            let pick = |random: &mut Random| match style {
                0 => 0,
                1 => pending.len(),
                _ => random.below(pending.len() + 1),
            };
            let kept = pick(random);
            let mut length = self.sure.len();
            for change in &pending[..kept] {
                length = match change {
                    Change::Write(offset, data) => length.max(offset + data.len()),
                    Change::Truncate(to) => length.min(*to),
                };
            }
            let mut result = std::mem::take(&mut self.sure);
            result.resize(length, 0);
            for from in (0..length).step_by(SECTOR) {
                let kept = pick(random);
                let to = (from + SECTOR).min(length);
                for change in &pending[..kept] {
                    match change {
                        Change::Write(offset, data) => {
                            let (a, b) = (from.max(*offset), to.min(offset + data.len()));
                            if a < b {
                                result[a..b].copy_from_slice(&data[a - offset..b - offset]);
                            }
                        }
                        Change::Truncate(end) => {
                            let a = from.max(*end);
                            if a < to {
                                result[a..to].fill(0);
                            }
                        }
                    }
                }
            }
            self.sure = result;
        }
        self.seen = self.sure.clone();
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Change::Write(offset, data) => {
                let end = offset + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*offset..end].copy_from_slice(data);
            }
            Change::Truncate(length) => bytes.truncate(*length),
        }
    }
}

impl Storage for Memory {
    fn list(&mut self) -> Result<Vec<(File, u64)>, Fault> {
        let state = self.0.borrow();
        Ok(state
            .names
            .iter()
            .map(|(file, inode)| (*file, state.inodes[*inode].seen.len() as u64))
            .collect())
    }

    fn path(&self, file: File) -> String {
        format!("/memory/{file}")
    }

    fn read_at(&mut self, file: File, offset: u64, into: &mut [u8]) -> Result<usize, Fault> {
        let state = self.0.borrow();
        let Some(inode) = state.names.get(&file) else {
            return Err(self.fault("open", file, errno::ENOENT));
        };
        let bytes = &state.inodes[*inode].seen;
        let from = (offset as usize).min(bytes.len());
        let mut to = (from + into.len()).min(bytes.len());
        if let Some((bad, at)) = state.unreadable
            && bad == file
        {
            let page = at as usize & !4095;
            if (page..page + 4096).contains(&from) {
                return Err(self.fault("read", file, errno::EIO));
            }
            if from < page {
                to = to.min(page);
            }
        }
        into[..to - from].copy_from_slice(&bytes[from..to]);
        Ok(to - from)
    }

    fn allocate(&mut self, file: File, offset: u64, length: u64) -> Result<(), Fault> {
        if self.call("allocate", file)? {
            return Err(self.fault("allocate", file, errno::EIO));
        }
        let mut state = self.0.borrow_mut();
        let inode = match state.names.get(&file) {
            Some(inode) => *inode,
            None => {
                state.inodes.push(Inode::default());
                let inode = state.inodes.len() - 1;
                state.names.insert(file, inode);
                state.pending_names.push(Naming::Make(file, inode));
                inode
            }
        };
        let end = (offset + length) as usize;
        let all: usize = state
            .names
            .values()
            .map(|n| state.inodes[*n].seen.len())
            .sum();
        let more = end.saturating_sub(state.inodes[inode].seen.len());
        if state.room.is_some_and(|room| all + more > room) {
            drop(state);
            return Err(self.fault("allocate", file, errno::ENOSPC));
        }
        let inode = &mut state.inodes[inode];
        if offset == 0 && inode.seen.len() > end {
            inode.change(Change::Truncate(end));
        }
        inode.change(Change::Write(offset as usize, vec![0; length as usize]));
        Ok(())
    }

    fn write(&mut self, file: File, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        if self.call("write", file)? {
            return Err(self.fault("write", file, errno::EIO));
        }
        let mut state = self.0.borrow_mut();
        let base = file == File::NewBase;
        let inode = match state.names.get(&file) {
            Some(inode) => *inode,
            None if base => {
                state.inodes.push(Inode::default());
                let inode = state.inodes.len() - 1;
                state.names.insert(file, inode);
                state.pending_names.push(Naming::Make(file, inode));
                inode
            }
            None => panic!("write to {file}, which was never made"),
        };
        let inode = &mut state.inodes[inode];
        if base && offset == 0 {
            inode.change(Change::Truncate(0));
        }
        let end = offset as usize + bytes.len();
        assert!(base || end <= inode.seen.len(), "write behind {file}'s end");
        inode.change(Change::Write(offset as usize, bytes.to_vec()));
        Ok(())
    }

    fn flush(&mut self, file: File) -> Result<(), Fault> {
        let fails = self.call("flush", file)?;
        let state = &mut *self.0.borrow_mut();
        let inode = &mut state.inodes[state.names[&file]];
        if fails {
            // The pages are marked clean and were not written: reads go on to show them.
            let seen = inode.seen.clone();
            inode.lose_some(&mut state.random);
            inode.seen = seen;
            return Err(self.fault("flush", file, errno::EIO));
        }
        for change in std::mem::take(&mut inode.pending) {
            change.apply(&mut inode.sure);
        }
        state.flushes.push(file);
        Ok(())
    }

    fn rename(&mut self, from: File, to: File) -> Result<(), Fault> {
        if self.call("rename", from)? {
            return Err(self.fault("rename", from, errno::EIO));
        }
        let state = &mut *self.0.borrow_mut();
        let naming = Naming::Rename(from, to);
        naming.apply(&mut state.names);
        state.pending_names.push(naming);
        Ok(())
    }

    fn sync_dir(&mut self) -> Result<(), Fault> {
        if self.call("flush", File::Spare)? {
            return Err(self.fault("flush", File::Spare, errno::EIO));
        }
        let state = &mut *self.0.borrow_mut();
        for naming in std::mem::take(&mut state.pending_names) {
            naming.apply(&mut state.sure_names);
        }
        Ok(())
    }

    fn truncate(&mut self, file: File, length: u64) -> Result<(), Fault> {
        if self.call("truncate", file)? {
            return Err(self.fault("truncate", file, errno::EIO));
        }
        let mut state = self.0.borrow_mut();
        let inode = state.names[&file];
        state.inodes[inode].change(Change::Truncate(length as usize));
        Ok(())
    }

    fn remove(&mut self, file: File) -> Result<(), Fault> {
        if self.call("remove", file)? {
            return Err(self.fault("remove", file, errno::EIO));
        }
        let mut state = self.0.borrow_mut();
        if state.names.remove(&file).is_some() {
            state.pending_names.push(Naming::Remove(file));
        }
        Ok(())
    }

    fn keep_aside(&mut self, file: File) -> Result<String, Fault> {
        self.call("keep aside", file)?;
        let bytes = self.bytes(file);
        let name = format!("{}.damaged", self.path(file));
        let mut state = self.0.borrow_mut();
        state.kept.entry(name.clone()).or_insert(bytes);
        Ok(name)
    }

    fn release(&mut self, _: File) {}
}
