//! What became of files, read from the journal's records: for those who ask, beside a running daemon or without one.
//!
//! Names are resolved as they were when a record was written. What compaction has thrown together tells less: of a
//! file that was concluded before it, only that and when.

use super::error::{Damage, JournalError};
use super::inspect;
use crate::core::files::{FileKey, name_hash};
use crate::core::record::{AttemptEnd, Disposal, DisposedHow, Outcome, Record};
use crate::core::time::Wall;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// An attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// From 1.
    pub number: u32,
    /// When it was begun.
    pub started: Wall,
    /// How it ended and when.
    pub end: Option<(AttemptEnd, Wall)>,
    /// The next one is not made before.
    pub not_before: Wall,
    /// The last of its output.
    pub output: Vec<u8>,
}

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
    /// Its attempts, in order. Compaction keeps the last only.
    pub attempts: Vec<Attempt>,
    /// How it ended and when.
    pub concluded: Option<(Outcome, Wall)>,
    /// What was to happen to the file; a move with its last target.
    pub disposal: Disposal,
    /// Whether that was done, and when.
    pub disposed: Option<(DisposedHow, Wall)>,
    key: FileKey,
}

impl Past {
    /// Nothing of it is left to do.
    pub fn is_over(&self) -> bool {
        match self.disposal {
            Disposal::Keep => self.concluded.is_some(),
            _ => self.disposed.is_some(),
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

    fn watch(&self, dir: u32) -> String {
        let watch = self
            .dirs
            .get(&dir)
            .and_then(|(id, ..)| self.watches.get(id));
        watch.cloned().unwrap_or_default()
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

fn joined(dir: &[u8], rel: &[u8]) -> Vec<u8> {
    let dir = dir.strip_suffix(b"/").unwrap_or(dir);
    [dir, b"/", rel].concat()
}

/// Everything about `path`. `is`: whether the path below the root of a watch is the one that is asked about.
///
/// # Errors
/// The journal cannot be read.
pub fn of_path(
    state: &Path,
    path: &[u8],
    is: &dyn Fn(&str, &[u8]) -> bool,
) -> Result<OfPath, JournalError> {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
    let hash = name_hash(name);
    let mut found = OfPath::default();
    let mut names = Names::default();
    let mut at: BTreeMap<FileKey, u64> = BTreeMap::new();
    let mut moves: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let (mut wanted, mut brought) = (BTreeSet::new(), BTreeSet::new());
    let hits = |names: &Names, dir: u32| is(&names.watch(dir), &names.rel(dir, name));
    let (id, damage) = inspect::each(state, &mut |wall, record| {
        names.note(record);
        match record {
            Record::Settled {
                job, dir, name: n, ..
            } if dir.0 != 0 => {
                at.insert(FileKey::new(*dir, n), job.0);
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
                    at.insert(FileKey::new(*to_dir, to_name), job);
                    if to_name == name && hits(&names, to_dir.0) {
                        wanted.insert(job);
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
            ..Jobs::default()
        };
        let mut done = Vec::new();
        inspect::each(state, &mut |wall, record| {
            jobs.note(wall, record, &mut |past| done.push(past));
        })?;
        done.extend(std::mem::take(&mut jobs.open).into_values());
        done.sort_by_key(|past| past.job);
        for past in done {
            if brought.contains(&past.job) {
                found.brought.push(past.clone());
            }
            if wanted.contains(&past.job) {
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
    std::mem::take(&mut jobs.open).into_values().for_each(each);
    Ok(read)
}

/// Jobs that are not over at some record.
#[derive(Default)]
struct Jobs {
    names: Names,
    open: BTreeMap<u64, Past>,
    keys: BTreeMap<FileKey, u64>,
    /// These alone.
    only: Option<BTreeSet<u64>>,
}

impl Jobs {
    fn note(&mut self, wall: Wall, record: &Record, over: &mut dyn FnMut(Past)) {
        self.names.note(record);
        let mut ended = None;
        match record {
            Record::Settled {
                job,
                dir,
                name,
                version,
                ..
            } if dir.0 != 0 && self.only.as_ref().is_none_or(|only| only.contains(&job.0)) => {
                let key = FileKey::new(*dir, name);
                self.keys.insert(key, job.0);
                self.open.insert(
                    job.0,
                    Past {
                        job: job.0,
                        watch: self.names.watch(dir.0),
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
                    },
                );
            }
            Record::Renamed {
                dir,
                name_hash,
                to_dir,
                to_name,
            } => {
                if let Some(job) = self.keys.remove(&FileKey::from_hash(*dir, *name_hash)) {
                    let now = self.names.rel(to_dir.0, to_name);
                    let key = FileKey::new(*to_dir, to_name);
                    self.keys.insert(key, job);
                    if let Some(past) = self.open.get_mut(&job) {
                        past.key = key;
                        let old = std::mem::replace(&mut past.rel, now);
                        past.before.push((old, wall));
                    }
                }
            }
            Record::Started { job, attempt, .. } => {
                if let Some(past) = self.open.get_mut(&job.0) {
                    past.attempts.push(Attempt {
                        number: *attempt,
                        started: wall,
                        end: None,
                        not_before: Wall(0),
                        output: Vec::new(),
                    });
                }
            }
            Record::Ended {
                job,
                attempt,
                end,
                not_before,
                output,
                ..
            } => {
                let past = self.open.get_mut(&job.0);
                let mut attempts = past.into_iter().flat_map(|past| &mut past.attempts);
                if let Some(made) = attempts.find(|made| made.number == *attempt) {
                    made.end = Some((*end, wall));
                    made.not_before = *not_before;
                    made.output.clone_from(output);
                }
            }
            Record::Concluded {
                job,
                outcome,
                end,
                disposal,
                output,
                ..
            } => {
                if let Some(past) = self.open.get_mut(&job.0) {
                    past.concluded = Some((*outcome, wall));
                    past.disposal = disposal.clone();
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
        if let Some(past) = ended.and_then(|job| self.open.remove(&job)) {
            if self.keys.get(&past.key) == Some(&past.job) {
                self.keys.remove(&past.key);
            }
            over(past);
        }
    }
}
