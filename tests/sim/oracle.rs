//! What was promised (DESIGN, "Promises"), checked against what happened. It knows the disk and what the
//! daemon made durable and did, and nothing of how the core decides.

mod acts;
mod change;
mod end;
mod records;
mod works;

pub use works::{Truth, WorkerSeen};

use crate::disk::*;
use crate::scouts::Step;
use settled::core::ask::{Act, Facts, Held, Version};
use settled::core::files::name_hash;
use settled::core::ids::{DirId, JobId, MountId, WatchId};
use settled::core::record::*;
use settled::core::select::Verdict;
use settled::plan::{Disposition, Existing, Observe, OnChange, OnCtime, WatchPlan};
use std::collections::{BTreeMap, BTreeSet};

/// A promise, in a few words: what a violation is a violation of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    NoWriter,
    Quiet,
    Evidence,
    NothingLost,
    ConcludedOnce,
    Repeated,
    Serial,
    Worker,
    Rate,
    Halt,
    Ends,
    Limits,
    Content,
    Disposition,
    RecordFirst,
    Replay,
    Explained,
    Journal,
    Bounded,
    Pause,
    Rest,
    Watched,
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Rule::NoWriter => "no writer",
            Rule::Quiet => "quiet time",
            Rule::Evidence => "evidence first",
            Rule::NothingLost => "nothing lost",
            Rule::ConcludedOnce => "concluded once",
            Rule::Repeated => "repeated only when cut short, and marked",
            Rule::Serial => "one at a time for a key",
            Rule::Worker => "workers as documented",
            Rule::Rate => "no more than the rate",
            Rule::Halt => "nothing behind a dead one",
            Rule::Ends => "ended as it did",
            Rule::Limits => "attempts within limits",
            Rule::Content => "content is kept",
            Rule::Disposition => "disposed of as planned",
            Rule::RecordFirst => "record before act",
            Rule::Replay => "replay is the state",
            Rule::Explained => "explained after a compaction",
            Rule::Journal => "what was flushed is there",
            Rule::Bounded => "bounded work",
            Rule::Pause => "no room, nothing new",
            Rule::Rest => "everything ends",
            Rule::Watched => "watched is what is to be",
        })
    }
}

/// What a watch covers, by real path.
#[derive(Clone, Debug)]
pub struct Covers {
    pub root: Vec<u8>,
    pub plan: WatchPlan,
}

impl Covers {
    /// Whether the file `name` in the directory at `dir` is this watch's.
    pub fn file(&self, dir: &[u8], name: &[u8]) -> bool {
        let Some(rel) = self.rel_dir(dir) else {
            return false;
        };
        if name.starts_with(b".settled-") {
            return false;
        }
        let mut rel = rel;
        if !rel.is_empty() {
            rel.push(b'/');
        }
        rel.extend_from_slice(name);
        !self.own(&rel) && self.plan.select.file(&rel) == Verdict::Yes
    }

    fn own(&self, rel: &[u8]) -> bool {
        self.plan.excluded.iter().any(|path| below(rel, path))
    }

    /// Path below the root of a directory that this watch enters.
    pub fn rel_dir(&self, dir: &[u8]) -> Option<Vec<u8>> {
        if !below(dir, &self.root) {
            return None;
        }
        let rel = dir[self.root.len()..].strip_prefix(b"/").unwrap_or(b"");
        if rel.is_empty() {
            return Some(Vec::new());
        }
        if !self.plan.recursive {
            return None;
        }
        let mut end = 0;
        while end < rel.len() {
            end += rel[end..]
                .iter()
                .position(|&b| b == b'/')
                .unwrap_or(rel.len() - end);
            if self.own(&rel[..end]) || self.plan.select.enter(&rel[..end]) != Verdict::Yes {
                return None;
            }
            end += 1;
        }
        Some(rel.to_vec())
    }
}

/// One job as the journal and the world saw it.
#[derive(Debug, Default)]
pub struct Ledger {
    pub watch: usize,
    pub started: u32,
    /// The last of its records is `Started`, or an end that was cut short.
    pub open: bool,
    /// The life of the daemon in which its last attempt was recorded.
    pub begun_life: u32,
    pub cut: bool,
    /// The end that was recorded last says that it was cut short.
    pub cut_told: bool,
    /// An attempt that was cut short is still to be repeated: the one after it did not begin.
    pub cut_before: bool,
    pub failed_known: u32,
    /// Version and content of each run that succeeded.
    pub succeeded: Vec<(Version, u64)>,
    pub concluded: Option<Outcome>,
    pub version: Option<Version>,
    pub disposal: Option<Disposal>,
    pub disposed: bool,
    /// Another directory has taken the place of its file's, before it was disposed of.
    pub replaced: bool,
    /// The mover has done what was asked.
    pub moved: bool,
    /// As recorded before the first attempt, where keys are bounded.
    pub key: Option<Vec<u8>>,
    /// What settled.
    pub settled: Version,
    /// And when, by the wall's clock and by the other.
    pub settled_at: i64,
    pub settled_mono: u64,
    /// It failed together with others, and is to be run alone.
    pub alone: bool,
    /// Dead, and holds others up.
    pub halted: bool,
    /// With whom it was in its last batch.
    pub mates: Vec<JobId>,
    /// How its attempt may have ended; none while nothing was told.
    pub ends: Vec<AttemptEnd>,
    /// The wait that its worker asked for.
    pub after: Option<std::time::Duration>,
    pub slot: u32,
    /// Where it settled; nothing once something of its path was renamed.
    pub place: Option<(DirId, [u8; 12])>,
    /// Where the journal has it: directory and name.
    pub lies: Option<(DirId, [u8; 12])>,
    /// Path below the root, as it settled.
    pub rel: Vec<u8>,
    /// Not to be tried again before, in that life.
    pub wait: Option<(u32, u64)>,
    /// What its last child that succeeded had, and when it ended.
    pub ran: Option<Ran>,
}

/// A child that succeeded.
#[derive(Clone, Debug)]
pub struct Ran {
    pub uid: Uid,
    pub path: Vec<u8>,
    /// Its end was told.
    pub at: u64,
    /// It had changed while the child ran, and an event had said so.
    pub heard: bool,
    /// What it was at the end.
    pub version: Version,
}

#[derive(Clone, Debug, Default)]
pub struct Count {
    pub done: u64,
    /// Below the root, as they settled: the names under which it was concluded.
    pub names: BTreeSet<Vec<u8>>,
    /// Of those, with the file left where it is.
    pub left: u64,
    pub baseline: u64,
}

/// What the loop is about, as the world knows it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moment {
    pub now: u64,
    pub life: u32,
    /// It was told to drain or stop in this life.
    pub stopping: bool,
    /// It was told so when this turn began, or that the journal has no room.
    pub paused: bool,
    /// Nothing may be started in this turn.
    pub closed: bool,
    /// Its configuration was read again in this life.
    pub reloaded: bool,
}

#[derive(Debug, Default)]
pub struct Oracle {
    pub watches: Vec<Covers>,
    pub jobs: BTreeMap<JobId, Ledger>,
    pub allowed: BTreeMap<(usize, Version), u64>,
    pub counts: BTreeMap<(usize, Version), Count>,
    /// Jobs whose directory went while their file had its private name.
    left_private: BTreeSet<u64>,
    pub violation: Option<String>,
    pub moment: Moment,
    /// Mounts of which it was told in this life that they do not answer.
    pub silent: BTreeSet<MountId>,
    watch_ids: BTreeMap<WatchId, usize>,
    scanned: Vec<WatchId>,
    dirs: BTreeMap<DirId, WatchId>,
    names: BTreeMap<DirId, (DirId, Vec<u8>)>,
    /// Inode number and birth time of each, as last recorded.
    idents: BTreeMap<DirId, (u64, i64)>,
    /// Versions that a full probe has found free of writers and locks, as far as it could ask.
    free: BTreeSet<Version>,
    /// Those that nobody had a flock on either.
    free_of_flock: BTreeSet<Version>,
    last_job: u64,
    /// Whether a file that is away for half a minute is certain to be missed.
    pub misses: bool,
    /// Whether every event is heard: else a file may be looked for where its directory was a moment ago.
    pub hears: bool,
    /// Looks whose answers were told in this turn.
    pub seen: Vec<(Vec<u8>, Facts, Truth)>,
    /// Of a watch's only worker: ends in a row without an answer, and when it may be started again.
    restarts: BTreeMap<(u32, usize), (u32, u64)>,
    /// When `rate` lets the next job of a watch start, in which life.
    rates: BTreeMap<usize, (u32, u64)>,
    orphan_terms: BTreeMap<(u32, u32), u64>,
    /// Concluded files that were taken away: when, and how often they had been concluded.
    left: BTreeMap<(usize, Version), (u64, u32, u64)>,
    /// Files of which a disposition has said that they are other versions now, and where each lies.
    changed: BTreeMap<(usize, Version), Vec<u8>>,
    /// How often those that came back have to be concluded in the end.
    back: BTreeMap<(usize, Version), u64>,
    /// When a version got its last name, where listings tell.
    moved_at: BTreeMap<(usize, Version), u64>,
}

impl Oracle {
    pub fn new(watches: Vec<Covers>) -> Oracle {
        Oracle {
            watches,
            ..Oracle::default()
        }
    }

    pub fn broken(&mut self, rule: Rule, text: impl std::fmt::Display) {
        if self.violation.is_none() {
            self.violation = Some(format!("{rule}: {text}"));
        }
    }

    // ---- what the daemon was told ----

    pub fn told(&mut self, facts: &Facts) {
        let held = |held: Held| matches!(held, Held::By(_));
        if facts.lock != Held::NotAsked && !held(facts.lock) && !held(facts.lease) {
            self.free.insert(facts.stat.version);
            if facts.flock == Held::Free {
                self.free_of_flock.insert(facts.stat.version);
            }
        }
    }

    /// The mover has unlinked a file for good.
    pub fn unlinked(&mut self, uid: Uid, act: &Act, disk: &Disk) {
        if *act != Act::Delete && disk.blind(uid) {
            // Written to while it was copied: nobody could be asked.
            return;
        }
        let version = &disk.version(uid);
        let concluded = |(_, count): (&(usize, Version), &Count)| count.done > 0;
        let mut of_it = self.counts.iter().filter(|((_, v), _)| v == version);
        if !of_it.any(concluded) {
            self.broken(
                Rule::Content,
                format!("{version:?} is unlinked and was never concluded"),
            );
        }
    }

    /// Whether a job is concluded, and its file is nowhere where its watch looks.
    pub fn waits_for_return(&self, record: &Record, disk: &Disk) -> bool {
        let Record::Settled { job, version, .. } = record else {
            return false;
        };
        let Some(ledger) = self.jobs.get(job) else {
            return false;
        };
        let watch = &self.watches[ledger.watch];
        let there = (0..disk.inodes.len())
            .filter(|uid| disk.version(*uid) == *version)
            .flat_map(|uid| disk.paths_of(uid))
            .filter_map(|(parent, _)| disk.path_of_dir(parent))
            .any(|dir| watch.rel_dir(&dir).is_some());
        ledger.concluded.is_some() && !ledger.disposed && !there
    }
}
