//! What became of files, read from the journal's records: for those who ask, beside a running daemon or without one.
//!
//! Names are resolved as they were when a record was written. Compaction carries a summary of each job over that is
//! not too long ago; what was compacted by an older program tells only that a file was concluded, and when.

use super::error::{Damage, JournalError};
use super::inspect;
use crate::core::files::{FileKey, name_hash, version_digest};
use crate::core::ids::{DirId, JobId, WatchId};
pub use crate::core::record::Attempt;
use crate::core::record::{Disposal, DisposedHow, Outcome, Record, Summary};
use crate::core::time::Wall;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// How many attempts of a job, and how many of the names its file had, compaction carries over; the last.
const CARRIED: usize = 8;
/// How much of their output, all together; of what does not fit whole, the end of the last.
const CARRIED_OUTPUT: usize = 4096;

/// A job from its settling on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// Its number; users see it with the journal's id before it.
    pub job: u64,
    /// The watch's name.
    pub watch: String,
    /// The path below the watch's root, as it was last.
    pub rel: Vec<u8>,
    /// When it settled.
    pub settled: Wall,
    /// Bytes.
    pub size: u64,
    /// Modification time, nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Names that it had, the first first, and until when.
    pub before: Vec<(Vec<u8>, Wall)>,
    /// Its attempts, in order. Compaction keeps the last ones only.
    pub attempts: Vec<Attempt>,
    /// How it ended and when.
    pub concluded: Option<(Outcome, Wall)>,
    /// What was to happen to the file; a move with its last target.
    pub disposal: Disposal,
    /// Whether that was done, and when.
    pub disposed: Option<(DisposedHow, Wall)>,
    key: FileKey,
    watch_id: WatchId,
    /// Digest of the version.
    version: u64,
}

impl Past {
    /// Nothing of it is left to do.
    pub fn is_over(&self) -> bool {
        match self.disposal {
            Disposal::Keep => self.concluded.is_some(),
            _ => self.disposed.is_some(),
        }
    }

    /// What compaction carries over of it.
    pub(super) fn summary(self) -> Summary {
        let mut attempts = self.attempts;
        attempts.drain(..attempts.len().saturating_sub(CARRIED));
        let mut room = CARRIED_OUTPUT;
        for (place, made) in attempts.iter_mut().rev().enumerate() {
            let surplus = made.output.len().saturating_sub(room);
            made.output.drain(
                ..match (surplus, place) {
                    (0, _) => 0,
                    (_, 0) => surplus,
                    _ => made.output.len(),
                },
            );
            room -= made.output.len();
        }
        let mut before = self.before;
        before.drain(..before.len().saturating_sub(CARRIED));
        Summary {
            job: JobId(self.job),
            watch: self.watch_id,
            dir: self.key.dir(),
            rel: self.rel,
            version: self.version,
            size: self.size,
            mtime_ns: self.mtime_ns,
            concluded: self.concluded,
            disposal: self.disposal,
            disposed: self.disposed,
            attempts,
            before,
        }
    }

    /// Where the file went, where it was moved.
    pub fn target(&self) -> Option<Vec<u8>> {
        match &self.disposal {
            Disposal::Move { dir, rel } => Some(joined(dir, rel)),
            _ => None,
        }
    }
}

/// What the journal has about one path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OfPath {
    /// The journal's id.
    pub id: u32,
    /// Jobs of files that had this path, in the order in which they settled.
    pub jobs: Vec<Past>,
    /// Jobs whose files were moved to this path.
    pub brought: Vec<Past>,
    /// The watch, and when the file was concluded before the last compaction.
    pub concluded: Option<(String, Wall)>,
    /// The watch, and when it was found there at the first start and left.
    pub baseline: Option<(String, Wall)>,
    /// The watch, and when the file was seen gone.
    pub gone: Option<(String, Wall)>,
    /// What cannot be read.
    pub damage: Vec<Damage>,
}

/// State bit of a remembered file, see settled-journal(5).
const GONE: u8 = 1;

/// Directories and watches as they were at each record.
#[derive(Default)]
struct Names {
    watches: BTreeMap<u32, String>,
    dirs: BTreeMap<u32, (u32, u32, Vec<u8>)>,
}

impl Names {
    fn note(&mut self, record: &Record) {
        match record {
            Record::Watch { watch, name } => {
                self.watches.insert(watch.0, name.clone());
            }
            Record::Dir {
                dir,
                watch,
                parent,
                name,
                ..
            } => {
                self.dirs.insert(dir.0, (watch.0, parent.0, name.clone()));
            }
            _ => {}
        }
    }

    fn watch_id(&self, dir: u32) -> WatchId {
        WatchId(self.dirs.get(&dir).map_or(0, |(id, ..)| *id))
    }

    fn named(&self, watch: WatchId) -> &str {
        self.watches.get(&watch.0).map_or("", String::as_str)
    }

    /// The directories in which `name` is the path that is asked about. `above` is the last name on the way to it.
    fn homes(&self, above: &[u8], name: &[u8], is: &dyn Fn(&str, &[u8]) -> bool) -> BTreeSet<u32> {
        let may = self
            .dirs
            .iter()
            .filter(|(_, (_, parent, last))| *parent == 0 || last == above);
        let ids = may.map(|(id, _)| *id);
        ids.filter(|id| is(self.named(self.watch_id(*id)), &self.rel(*id, name)))
            .collect()
    }

    fn watch(&self, dir: u32) -> String {
        self.named(self.watch_id(dir)).to_owned()
    }

    fn rel(&self, dir: u32, name: &[u8]) -> Vec<u8> {
        let mut names = vec![name];
        let mut at = dir;
        // A journal that is not damaged has no circles; one that is must not make this one go round.
        for _ in 0..4096 {
            match self.dirs.get(&at) {
                Some((_, parent, name)) if *parent != 0 => {
                    names.push(name);
                    at = *parent;
                }
                _ => break,
            }
        }
        names.reverse();
        names.join(&b'/')
    }
}

/// Names that files lose by being renamed, from a pass over all records: of other files nobody asks later under which
/// name they were.
#[derive(Default)]
pub(super) struct Leaving {
    keys: BTreeSet<FileKey>,
    dirs: BTreeSet<DirId>,
}

impl Leaving {
    pub(super) fn note(&mut self, record: &Record) {
        if let Record::Renamed {
            dir,
            name_hash,
            to_dir,
            to_name,
        } = record
        {
            let from = FileKey::from_hash(*dir, *name_hash);
            if from != FileKey::new(*to_dir, to_name) {
                self.keys.insert(from);
                self.dirs.insert(*dir);
            }
        }
    }

    fn has(&self, key: &FileKey) -> bool {
        self.keys.contains(key)
    }

    /// The key of a name, if it is one of these; a hash of every name would take longer than all else.
    fn key(&self, dir: DirId, name: &[u8]) -> Option<FileKey> {
        let key = self.dirs.contains(&dir).then(|| FileKey::new(dir, name))?;
        self.has(&key).then_some(key)
    }
}

fn last_name(rel: &[u8]) -> &[u8] {
    rel.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

fn joined(dir: &[u8], rel: &[u8]) -> Vec<u8> {
    let dir = dir.strip_suffix(b"/").unwrap_or(dir);
    [dir, b"/", rel].concat()
}

/// Everything about `path`. `is`: whether the path below the root of a watch is the one that is asked about. A file in a
/// directory that was renamed is found by the path that it had when a record was written, and by the one it has.
///
/// # Errors
/// The journal cannot be read.
pub fn of_path(
    state: &Path,
    path: &[u8],
    is: &dyn Fn(&str, &[u8]) -> bool,
) -> Result<OfPath, JournalError> {
    let mut parts = path.rsplit(|byte| *byte == b'/');
    let name = parts.next().unwrap_or(path);
    let hash = name_hash(name);
    let mut found = OfPath::default();
    let mut leaving = Leaving::default();
    let mut last = Names::default();
    inspect::each(state, &mut |_, record| {
        leaving.note(record);
        last.note(record);
    })?;
    let homes = last.homes(parts.next().unwrap_or_default(), name, is);
    let mut names = Names::default();
    let mut at: BTreeMap<FileKey, u64> = BTreeMap::new();
    let mut moves: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let (mut wanted, mut brought) = (BTreeSet::new(), BTreeSet::new());
    let hits = |names: &Names, dir: u32| {
        homes.contains(&dir) || is(names.named(names.watch_id(dir)), &names.rel(dir, name))
    };
    let (id, damage) = inspect::each(state, &mut |wall, record| {
        names.note(record);
        match record {
            Record::Settled {
                job, dir, name: n, ..
            } if dir.0 != 0 => {
                if let Some(key) = leaving.key(*dir, n) {
                    at.insert(key, job.0);
                }
                if n == name && hits(&names, dir.0) {
                    wanted.insert(job.0);
                }
            }
            Record::Renamed {
                dir,
                name_hash,
                to_dir,
                to_name,
            } => {
                if let Some(job) = at.remove(&FileKey::from_hash(*dir, *name_hash)) {
                    if let Some(key) = leaving.key(*to_dir, to_name) {
                        at.insert(key, job);
                    }
                    if to_name == name && hits(&names, to_dir.0) {
                        wanted.insert(job);
                    }
                }
            }
            Record::Summary(of) => {
                let last = last_name(&of.rel);
                if let Some(key) = leaving.key(of.dir, last) {
                    let latest = at.entry(key).or_insert(of.job.0);
                    *latest = of.job.0.max(*latest);
                }
                let mut rels = std::iter::once(&of.rel).chain(of.before.iter().map(|(rel, _)| rel));
                let here = last == name && homes.contains(&of.dir.0);
                if here || rels.any(|rel| rel.ends_with(name) && is(names.named(of.watch), rel)) {
                    wanted.insert(of.job.0);
                }
                if let (Some(_), Disposal::Move { dir, rel }) = (of.concluded, &of.disposal) {
                    if joined(dir, rel) == path {
                        brought.insert(of.job.0);
                    }
                    if of.disposed.is_none() {
                        moves.insert(of.job.0, dir.clone());
                    }
                }
            }
            Record::Concluded {
                job,
                disposal: Disposal::Move { dir, rel },
                ..
            } => {
                if joined(dir, rel) == path {
                    brought.insert(job.0);
                }
                moves.insert(job.0, dir.clone());
            }
            Record::Retarget { job, rel } => {
                let now = moves.get(&job.0).map(|dir| joined(dir, rel));
                match now.is_some_and(|now| now == path) {
                    true => brought.insert(job.0),
                    false => brought.remove(&job.0),
                };
            }
            Record::Disposed { job, .. } => {
                moves.remove(&job.0);
            }
            Record::Remembered {
                dir,
                name_hash,
                state,
                at,
                ..
            } if *name_hash == hash && hits(&names, dir.0) => {
                let what = Some((names.watch(dir.0), *at));
                match state & GONE {
                    0 => found.concluded = what,
                    _ => found.gone = what,
                }
            }
            Record::Gone { dir, name_hash } if *name_hash == hash && hits(&names, dir.0) => {
                found.gone = Some((names.watch(dir.0), wall));
            }
            Record::Baseline { dir, name: n, .. } if n == name && hits(&names, dir.0) => {
                found.baseline = Some((names.watch(dir.0), wall));
            }
            _ => {}
        }
    })?;
    found.id = id;
    found.damage = damage;
    let all: BTreeSet<u64> = wanted.union(&brought).copied().collect();
    if !all.is_empty() {
        let mut jobs = Jobs {
            only: Some(all),
            leaving,
            ..Jobs::default()
        };
        let mut done = Vec::new();
        inspect::each(state, &mut |wall, record| {
            jobs.note(wall, record, &mut |past| done.push(past));
        })?;
        done.extend(jobs.rest());
        done.sort_by_key(|past| past.job);
        for mut past in done {
            if brought.contains(&past.job) {
                found.brought.push(past.clone());
            }
            if wanted.contains(&past.job) {
                let dir = past.key.dir();
                if homes.contains(&dir.0) && past.key == FileKey::new(dir, name) {
                    past.rel = last.rel(dir.0, name);
                }
                found.jobs.push(past);
            }
        }
    }
    Ok(found)
}

/// Calls `each` with every job that the journal knows: with those that are over as they end, then with those that are
/// not. The journal's id, and what cannot be read.
///
/// # Errors
/// The journal cannot be read.
pub fn jobs(state: &Path, each: &mut dyn FnMut(Past)) -> Result<(u32, Vec<Damage>), JournalError> {
    let mut jobs = Jobs::default();
    let read = inspect::each(state, &mut |wall, record| jobs.note(wall, record, each))?;
    jobs.rest().for_each(each);
    Ok(read)
}

/// Jobs that are not over at some record.
#[derive(Default)]
pub(super) struct Jobs {
    names: Names,
    /// Those that are over, too, where their file's name is one of `leaving`.
    open: BTreeMap<u64, Past>,
    keys: BTreeMap<FileKey, u64>,
    /// These alone.
    only: Option<BTreeSet<u64>>,
    /// The file may be one whose job is over, and what is told of it goes by the new name.
    pub(super) leaving: Leaving,
}

impl Jobs {
    pub(super) fn note(&mut self, wall: Wall, record: &Record, over: &mut dyn FnMut(Past)) {
        self.names.note(record);
        let mut ended = None;
        match record {
            Record::Settled {
                job,
                dir,
                name,
                version,
                ..
            } if dir.0 != 0 && self.wants(*job) => {
                let key = FileKey::new(*dir, name);
                self.comes(key, job.0, over);
                let watch_id = self.names.watch_id(dir.0);
                self.open.insert(
                    job.0,
                    Past {
                        job: job.0,
                        watch: self.names.named(watch_id).to_owned(),
                        rel: self.names.rel(dir.0, name),
                        settled: wall,
                        size: version.size,
                        mtime_ns: version.mtime_ns,
                        before: Vec::new(),
                        attempts: Vec::new(),
                        concluded: None,
                        disposal: Disposal::Keep,
                        disposed: None,
                        key,
                        watch_id,
                        version: version_digest(version),
                    },
                );
            }
            // Of others it only matters whose name it is.
            Record::Settled { job, dir, name, .. } if dir.0 != 0 => {
                if let Some(key) = self.leaving.key(*dir, name) {
                    self.comes(key, job.0, over);
                }
            }
            Record::Summary(of) if self.wants(of.job) => self.carried(wall, of, over),
            Record::Summary(of) => {
                if let Some(key) = self.leaving.key(of.dir, last_name(&of.rel))
                    && self.keys.get(&key) < Some(&of.job.0)
                {
                    self.comes(key, of.job.0, over);
                }
            }
            Record::Renamed {
                dir,
                name_hash,
                to_dir,
                to_name,
            } => {
                let (from, key) = (
                    FileKey::from_hash(*dir, *name_hash),
                    FileKey::new(*to_dir, to_name),
                );
                if let Some(job) = self.keys.remove(&from) {
                    // Another file has come under its name: it has lost that, and has no other.
                    if from == key {
                        if self.open.get(&job).is_some_and(Past::is_over) {
                            self.ends(job, over);
                        }
                        return;
                    }
                    let now = self.names.rel(to_dir.0, to_name);
                    self.comes(key, job, over);
                    if let Some(past) = self.open.get_mut(&job) {
                        past.key = key;
                        let old = std::mem::replace(&mut past.rel, now);
                        past.before.push((old, wall));
                        ended = past.is_over().then_some(job);
                    }
                }
            }
            Record::Started { job, attempt, .. } => {
                if let Some(past) = self.open.get_mut(&job.0) {
                    past.attempts.push(Attempt {
                        number: *attempt,
                        started: wall,
                        end: None,
                        output: Vec::new(),
                    });
                }
            }
            Record::Ended {
                job,
                attempt,
                end,
                output,
                ..
            } => {
                let past = self.open.get_mut(&job.0);
                let mut attempts = past.into_iter().flat_map(|past| &mut past.attempts);
                if let Some(made) = attempts.find(|made| made.number == *attempt) {
                    made.end = Some((*end, wall));
                    made.output.clone_from(output);
                }
            }
            Record::Concluded {
                job,
                outcome,
                end,
                disposal,
                version,
                output,
                ..
            } => {
                if let Some(past) = self.open.get_mut(&job.0) {
                    past.concluded = Some((*outcome, wall));
                    past.disposal = disposal.clone();
                    past.version = version_digest(version);
                    if let (Some(last), Some(end)) = (past.attempts.last_mut(), end)
                        && last.end.is_none()
                    {
                        last.end = Some((*end, wall));
                        last.output.clone_from(output);
                    }
                    ended = past.is_over().then_some(job.0);
                }
            }
            Record::Retarget { job, rel: to } => {
                if let Some(past) = self.open.get_mut(&job.0)
                    && let Disposal::Move { rel, .. } = &mut past.disposal
                {
                    rel.clone_from(to);
                }
            }
            Record::Disposed { job, how } => {
                if let Some(past) = self.open.get_mut(&job.0) {
                    past.disposed = Some((*how, wall));
                    ended = Some(job.0);
                }
            }
            _ => {}
        }
        if let Some(job) = ended {
            self.ends(job, over);
        }
    }

    /// All that are left, those that are over among them.
    pub(super) fn rest(self) -> impl Iterator<Item = Past> {
        self.open.into_values()
    }

    fn wants(&self, job: JobId) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(&job.0))
    }

    /// The job's file has this name now; one that had it before and is over goes.
    fn comes(&mut self, key: FileKey, job: u64, over: &mut dyn FnMut(Past)) {
        if let Some(old) = self.keys.insert(key, job).filter(|old| *old != job)
            && self.open.get(&old).is_some_and(Past::is_over)
            && let Some(past) = self.open.remove(&old)
        {
            over(past);
        }
    }

    /// The job is over: it goes, unless its file is renamed later.
    fn ends(&mut self, job: u64, over: &mut dyn FnMut(Past)) {
        let Some(past) = self.open.remove(&job) else {
            return;
        };
        let named = self.keys.get(&past.key) == Some(&job);
        if named && self.leaving.has(&past.key) {
            self.open.insert(job, past);
            return;
        }
        if named {
            self.keys.remove(&past.key);
        }
        over(past);
    }

    /// What compaction wrote down of a job. Of one that is not over it has written what is to be done, too: before
    /// this, and with less about it.
    fn carried(&mut self, wall: Wall, of: &Summary, over: &mut dyn FnMut(Past)) {
        let past = Past {
            job: of.job.0,
            watch: self.names.named(of.watch).to_owned(),
            rel: of.rel.clone(),
            settled: wall,
            size: of.size,
            mtime_ns: of.mtime_ns,
            before: of.before.clone(),
            attempts: of.attempts.clone(),
            concluded: of.concluded,
            disposal: of.disposal.clone(),
            disposed: of.disposed,
            key: FileKey::new(of.dir, last_name(&of.rel)),
            watch_id: of.watch,
            version: of.version,
        };
        let (job, key, is_over) = (past.job, past.key, past.is_over());
        if is_over && !self.leaving.has(&key) {
            // One that the base has as owed: it ended before the base's state was taken.
            if self.open.remove(&job).is_some() && self.keys.get(&key) == Some(&job) {
                self.keys.remove(&key);
            }
            return over(past);
        }
        // One that is owed may have the name by now.
        if self.open.insert(job, past).is_none() && self.keys.get(&key) < Some(&job) {
            self.comes(key, job, over);
        }
        if is_over {
            self.ends(job, over);
        }
    }
}
