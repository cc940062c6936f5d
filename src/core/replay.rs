//! The journal's records back to state, and state to records. Replay is the recovery: no record
//! may be refused, none may be needed that compaction does not write.

use super::Core;
use super::ends::never_ran;
use super::expect::{Window, window_record};
use super::files::{CTIME_UNKNOWN, FileKey, Known, ctime_digest, name_hash, version_digest};
use super::ids::{DirId, JobId, WatchId};
use super::job::{Job, Phase};
use super::observe::PRIVATE_PREFIX;
use super::record::{AttemptEnd, Disposal, DisposedHow, Outcome, Record, Summary};
use super::time::{Mono, Wall};
use super::timers::Timer;
use super::tree::Tree;
use super::wanted::forgotten;
use super::watch::Watch;
use crate::plan::WatchPlan;
use std::collections::BTreeMap;
use std::time::Duration;

/// The parent of a directory that is gone: none has this number.
const NOWHERE: DirId = DirId(u32::MAX);

const STATE_GONE: u8 = 1;
const STATE_AWAY: u8 = 2;

impl Core {
    /// Takes one record back, in the journal's order. `at` is the time in its header.
    pub fn replay(&mut self, at: Wall, record: Record) {
        let at_s = u32::try_from(at.0 / 1_000_000_000).unwrap_or(0);
        match record {
            Record::Watch { watch, name } => self.replay_watch(watch, &name),
            Record::Scanned { watch } => {
                if let Some(index) = self.index_of(watch) {
                    self.watches[index as usize].scanned_ever = true;
                }
            }
            Record::Paused { watch, paused } => {
                if let Some(index) = self.index_of(watch) {
                    self.watches[index as usize].paused = paused;
                }
            }
            Record::Retried { job } => {
                if let Some(job) = self.jobs.get_mut(&job) {
                    job.counted = 0;
                    job.not_before = Wall(0);
                    job.asked = Duration::ZERO;
                }
            }
            Record::Forgotten { dir, name_hash } => {
                let key = FileKey::from_hash(dir, name_hash);
                let known = self.files.take(key);
                self.wanted.insert(key, known);
            }
            Record::Dir {
                dir,
                watch,
                parent,
                name,
                ino,
                btime_ns,
            } => {
                let Some(index) = self.index_of(watch) else {
                    return;
                };
                // Only where records in between were lost to damage: a directory below itself has no path.
                if self.tree.is_below(parent, dir) {
                    return;
                }
                self.tree.restore(dir, index, parent, &name);
                self.tree.set_ident(
                    dir,
                    &super::ask::Version {
                        ino,
                        btime_ns,
                        ..Default::default()
                    },
                );
                if parent == DirId(0) {
                    self.watches[index as usize].root = dir;
                }
            }
            Record::DirGone { dir } => {
                for key in self.files.of_dir(dir) {
                    self.files.take(key);
                }
                self.wanted.take_dir(dir);
                self.tree.remove(dir, false);
            }
            Record::Settled {
                job,
                dir,
                name,
                version,
                ctime_ns,
                reruns,
            } => self.replay_settled(at, job, dir, name, version, ctime_ns, reruns),
            Record::Baseline {
                dir,
                name,
                version,
                ctime_ns,
            } => {
                let known = Known {
                    version: version_digest(&version),
                    ctime: ctime_digest(ctime_ns),
                    at_s,
                    gone: false,
                    away: false,
                    mark: 0,
                };
                self.files.put(FileKey::new(dir, &name), known);
            }
            Record::Expected {
                watch,
                opens,
                day,
                count,
                told,
            } => {
                if let Some(index) = self.index_of(watch) {
                    self.watches[index as usize].window = (opens != Wall(0)).then_some(Window {
                        opens,
                        day,
                        count,
                        told,
                    });
                }
            }
            Record::Key { job, key } => {
                if let Some(job) = self.jobs.get_mut(&job) {
                    job.key = key.into();
                    job.pinned = true;
                }
            }
            Record::Started { job, attempt, slot } => {
                if let Some(job) = self.jobs.get_mut(&job) {
                    job.begun = attempt;
                    job.slot = slot;
                    job.phase = Phase::Ready;
                    job.repeats = job.cut_short;
                    // Unless its end follows.
                    job.cut_short = true;
                }
            }
            Record::Ended {
                job,
                end,
                counted,
                not_before,
                ..
            } => {
                if let Some(job) = self.jobs.get_mut(&job) {
                    job.cut_short = matches!(end, AttemptEnd::CutShort | AttemptEnd::Together)
                        || never_ran(end) && job.repeats;
                    job.alone |= end == AttemptEnd::Together;
                    job.slot = 0;
                    job.counted = counted;
                    job.not_before = not_before;
                    job.asked = match end {
                        AttemptEnd::AskedRetry => not_before.since(at),
                        _ => Duration::ZERO,
                    };
                    job.phase = Phase::Backoff;
                }
            }
            Record::Concluded {
                job,
                outcome,
                disposal,
                version,
                ctime_ns,
                ..
            } => self.replay_concluded(at_s, job, outcome, disposal, version, ctime_ns),
            Record::Retarget { job, rel } => {
                if let Some(job) = self.jobs.get_mut(&job)
                    && let Phase::Disposing { disposal, .. } = &mut job.phase
                    && let Disposal::Move { rel: target, .. } = &mut **disposal
                {
                    *target = rel;
                }
            }
            Record::Disposed { job, how } => {
                let Some(state) = self.jobs.remove(&job) else {
                    return;
                };
                let key = FileKey::new(state.dir, &state.name);
                if self.job_of.get(&key) == Some(&job) {
                    self.job_of.remove(&key);
                }
                let stays = matches!(
                    &state.phase,
                    Phase::Disposing { disposal, .. } if **disposal == Disposal::Mark
                );
                if state.outcome != Some(Outcome::Superseded)
                    && !state.displaced
                    && how != DisposedHow::Changed
                    && self.tree.get(state.dir).is_some()
                    && !(stays && self.files.get(key).is_some_and(|known| known.away))
                {
                    let known = Known {
                        version: version_digest(&state.version),
                        ctime: ctime_digest(state.ctime_ns),
                        at_s,
                        gone: !stays,
                        away: false,
                        mark: 0,
                    };
                    self.files.put(key, known);
                }
            }
            Record::Renamed {
                dir,
                name_hash,
                to_dir,
                to_name,
            } => {
                let from = FileKey::from_hash(dir, name_hash);
                let to = FileKey::new(to_dir, &to_name);
                // Whatever had the new name has lost it; written with the same name by a snapshot.
                if let Some(job) = self
                    .job_of
                    .remove(&to)
                    .and_then(|id| self.jobs.get_mut(&id))
                {
                    job.displaced = true;
                }
                if from == to {
                    return;
                }
                // What was gone under the old name before stays there.
                if let Some(known) = self.files.get(from).copied().filter(|known| !known.gone) {
                    self.files.take(from);
                    self.files.put(
                        to,
                        Known {
                            away: false,
                            ctime: CTIME_UNKNOWN,
                            ..known
                        },
                    );
                }
                if let Some(id) = self.job_of.remove(&from) {
                    self.job_of.insert(to, id);
                    if let Some(job) = self.jobs.get_mut(&id) {
                        job.dir = to_dir;
                        job.name = to_name.into();
                        job.ctime_ns = 0;
                    }
                }
            }
            Record::Gone { dir, name_hash } => {
                let key = FileKey::from_hash(dir, name_hash);
                self.wanted.take(key);
                self.files.set_gone(key, at_s);
            }
            Record::Remembered {
                dir,
                name_hash,
                version,
                ctime,
                state,
                at,
            } => {
                let known = Known {
                    version,
                    ctime,
                    at_s: u32::try_from(at.0 / 1_000_000_000).unwrap_or(0),
                    gone: state & STATE_GONE != 0,
                    away: state & STATE_AWAY != 0,
                    mark: 0,
                };
                let key = FileKey::from_hash(dir, name_hash);
                self.wanted.take(key);
                self.files.put(key, known);
            }
            // For those who ask; what is to be done about it is in records of its own.
            Record::Summary(summary) => self.last_job = self.last_job.max(summary.job.0),
        }
    }

    fn replay_watch(&mut self, id: WatchId, name: &str) {
        self.last_watch = self.last_watch.max(id.0);
        if self.index_of(id).is_some() {
            return;
        }
        let by_name = self
            .watches
            .iter()
            .position(|watch| watch.id == WatchId(0) && watch.plan.name == name);
        let found = by_name.or_else(|| {
            self.watches.iter().position(|watch| {
                watch.id == WatchId(0) && watch.plan.formerly.as_deref() == Some(name)
            })
        });
        match found {
            Some(index) => self.watches[index].id = id,
            None => {
                // Not in the configuration any more: its history is kept.
                let mut watch = Watch::new(WatchPlan::placeholder(name));
                watch.id = id;
                watch.active = false;
                self.watches.push(watch);
            }
        }
    }

    fn index_of(&self, id: WatchId) -> Option<u32> {
        self.watches
            .iter()
            .position(|watch| watch.id == id && id != WatchId(0))
            .map(|index| index as u32)
    }

    #[allow(clippy::too_many_arguments)]
    fn replay_settled(
        &mut self,
        at: Wall,
        id: JobId,
        dir: DirId,
        name: Vec<u8>,
        version: super::ask::Version,
        ctime_ns: i64,
        reruns: u8,
    ) {
        self.last_job = self.last_job.max(id.0);
        if dir == DirId(0) {
            return;
        }
        // In a directory that is gone a job ran when the state was written, by a program that told no more of it: it is
        // concluded at start. No other directory is to be taken for its.
        self.tree.reserve(dir);
        let watch = self.tree.get(dir).map_or(u32::MAX, |node| node.watch);
        let wanted = self.wanted.take(FileKey::new(dir, &name));
        if let Some(state) = self.watches.get_mut(watch as usize)
            && !wanted
        {
            // What there is to be said about it is said at the start.
            let _late = state.arrived(at);
        }
        // One that is disposed of while its directory is away lets others come under its name.
        let old = self.job_of.insert(FileKey::new(dir, &name), id);
        if let Some(job) = old.and_then(|old| self.jobs.get_mut(&old)) {
            job.displaced = true;
        }
        let job = Job {
            ctime_ns,
            reruns,
            wanted,
            replayed: true,
            ..Job::new(watch, dir, name.into(), version, at)
        };
        self.jobs.insert(id, Box::new(job));
    }

    fn replay_concluded(
        &mut self,
        at_s: u32,
        id: JobId,
        outcome: Outcome,
        disposal: Disposal,
        version: super::ask::Version,
        ctime_ns: i64,
    ) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        job.outcome = Some(outcome);
        job.version = version;
        job.ctime_ns = ctime_ns;
        if disposal != Disposal::Keep {
            job.phase = Phase::Disposing {
                disposal: Box::new(disposal),
                asked: false,
                failures: 0,
            };
            return;
        }
        let key = FileKey::new(job.dir, &job.name);
        if matches!(outcome, Outcome::Done | Outcome::Dead | Outcome::Held)
            && self.tree.get(key.dir()).is_some()
        {
            let known = Known {
                version: version_digest(&version),
                ctime: ctime_digest(ctime_ns),
                at_s,
                gone: false,
                away: false,
                mark: 0,
            };
            self.files.put(key, known);
        }
        self.jobs.remove(&id);
        if self.job_of.get(&key) == Some(&id) {
            self.job_of.remove(&key);
        }
    }

    /// After the last record: watches without a number get one, waits are armed.
    pub(super) fn after_replay(&mut self) {
        for index in 0..self.watches.len() {
            if self.watches[index].id == WatchId(0) {
                self.number_watch(index);
            }
        }
        self.await_orphans();
        let orphaned = |job: &Job| matches!(job.phase, Phase::Orphaned { .. });
        let nowhere: Vec<JobId> = self
            .jobs
            .iter()
            .filter(|(_, job)| self.tree.get(job.dir).is_none() && !orphaned(job))
            .map(|(id, _)| *id)
            .collect();
        let displaced: Vec<JobId> = self
            .jobs
            .iter()
            .filter(|(_, job)| {
                job.displaced && !orphaned(job) && !matches!(job.phase, Phase::Disposing { .. })
            })
            .map(|(id, _)| *id)
            .collect();
        for id in displaced {
            self.conclude(id, Outcome::Superseded, None, Vec::new());
        }
        for id in nowhere {
            match self.jobs.get(&id).map(|job| &job.phase) {
                Some(Phase::Disposing { .. }) => self.dispose_ends(id, DisposedHow::Gone),
                _ => self.conclude(id, Outcome::Gone, None, Vec::new()),
            }
        }
        let mut with_history: Vec<u32> = self.jobs.values().map(|job| job.watch).collect();
        for (key, _) in self.files.iter() {
            if let Some(node) = self.tree.get(key.dir())
                && with_history.last() != Some(&node.watch)
            {
                with_history.push(node.watch);
            }
        }
        for index in with_history {
            if let Some(watch) = self.watches.get_mut(index as usize) {
                watch.history = true;
            }
        }
        for watch in 0..self.watches.len() as u32 {
            self.judge_halted(watch);
        }
        let waits: Vec<(JobId, Duration)> = self
            .jobs
            .iter()
            .filter(|(_, job)| matches!(job.phase, Phase::Backoff))
            .map(|(id, job)| (*id, self.left_of(job)))
            .collect();
        for (id, wait) in waits {
            self.timers.set(Timer::Retry(id), self.now.mono.after(wait));
        }
        let ids: Vec<JobId> = self.jobs.keys().copied().collect();
        for id in ids {
            // All are marked as replayed: they keep their keys, none is offered yet.
            self.requeue_job(id);
        }
    }

    /// What is left of a job's wait, and never more than the longest that the plan allows, or than its worker asked for.
    fn left_of(&self, job: &Job) -> Duration {
        let longest = self
            .watches
            .get(job.watch as usize)
            .map_or(Duration::ZERO, |watch| watch.plan.backoff.max);
        job.not_before
            .since(self.now.wall)
            .min((longest + longest / 4).max(job.asked))
    }

    /// Gives a watch its number in the journal.
    pub(super) fn number_watch(&mut self, index: usize) {
        self.last_watch += 1;
        let id = WatchId(self.last_watch);
        self.watches[index].id = id;
        let name = self.watches[index].plan.name.clone();
        self.append(Record::Watch { watch: id, name });
    }

    /// Makes sure that the journal knows a directory, its parents first.
    pub(super) fn record_dir(&mut self, dir: DirId) {
        let mut line = Vec::new();
        let mut at = dir;
        while let Some(node) = self.tree.get(at) {
            if node.recorded {
                break;
            }
            line.push(at);
            at = node.parent;
        }
        for id in line.into_iter().rev() {
            if let Some(node) = self.tree.get_mut(id) {
                node.recorded = true;
            }
            self.record_dir_again(id);
        }
    }

    /// Appends a directory's record as it is now.
    pub(super) fn record_dir_again(&mut self, dir: DirId) {
        if let Some(node) = self.tree.get(dir)
            && node.parent != DirId(0)
        {
            self.record_dir(node.parent);
        }
        let Some(node) = self.tree.get(dir) else {
            return;
        };
        let (ino, btime_ns) = Tree::recorded_ident(node);
        let record = Record::Dir {
            dir,
            watch: self.watch_id(node.watch),
            parent: node.parent,
            name: node.name.to_vec(),
            ino,
            btime_ns,
        };
        self.append(record);
    }

    // ---- remembering for a while ----

    /// The directory that held these files is not the one that lies there now: they were not seen gone.
    pub(super) fn files_away(&mut self, keys: impl IntoIterator<Item = FileKey>) {
        let now = self.seconds();
        for key in keys {
            if let Some(known) = self.files.set_away(key, now) {
                self.append(remembered(key, &known));
            }
        }
        self.set_expiry();
    }

    /// A listing saw the name; see [`super::files::Files::mark`].
    pub(super) fn file_seen(
        &mut self,
        key: FileKey,
        mark: u8,
        version: Option<&super::ask::Version>,
    ) {
        if let Some(known) = self.files.mark(key, mark, version) {
            self.append(remembered(key, &known));
            if let Some(version) = version {
                self.disposal_is_back(key, version);
            }
        }
    }

    /// Whether anything below `dir` is away, and so may come back with it.
    pub(super) fn any_away(&self, dir: DirId) -> bool {
        self.tree
            .subtree(dir)
            .into_iter()
            .any(|id| self.files.any_away(id) || self.any_job_away(id))
    }

    /// Whether a directory, or one above it, is not there and kept because it may come back.
    pub(super) fn is_away(&self, dir: DirId) -> bool {
        let mut at = dir;
        while let Some(node) = self.tree.get(at) {
            if !node.bound && self.any_away(at) {
                return true;
            }
            at = node.parent;
        }
        false
    }

    /// Once an hour, as long as anything gone or away is remembered.
    pub(super) fn set_expiry(&mut self) {
        let (_, gone) = self.files.count();
        if gone > 0 && !self.timers.is_set(Timer::Expire) {
            self.timers.set(
                Timer::Expire,
                Mono(self.now.mono.0).after(Duration::from_secs(3600)),
            );
        }
    }

    pub(super) fn expire(&mut self) {
        let keep = u32::try_from(self.daemon.remember.as_secs()).unwrap_or(u32::MAX);
        self.files.expire(self.seconds().saturating_sub(keep));
        self.set_expiry();
    }

    // ---- state to records ----

    /// The live state as records: replayed in this order into an empty core they give this state
    /// again. What compaction writes.
    pub fn snapshot(&self) -> impl Iterator<Item = Record> + '_ {
        let watches = self.watches.iter().flat_map(|watch| {
            let named = Record::Watch {
                watch: watch.id,
                name: watch.plan.name.clone(),
            };
            let scanned = watch
                .scanned_ever
                .then_some(Record::Scanned { watch: watch.id });
            let paused = watch.paused.then_some(Record::Paused {
                watch: watch.id,
                paused: true,
            });
            std::iter::once(named).chain(scanned).chain(paused)
        });
        let dirs = self.recorded_dirs().into_iter().filter_map(|dir| {
            let node = self.tree.get(dir)?;
            let (ino, btime_ns) = Tree::recorded_ident(node);
            Some(Record::Dir {
                dir,
                watch: self.watch_id(node.watch),
                parent: node.parent,
                name: node.name.to_vec(),
                ino,
                btime_ns,
            })
        });
        // A job may run whose directory is gone. Which watch has its key, and that the directory's number is not another's,
        // is known as long as there is the job: the directory comes before it, and goes after it.
        let lost = self.lost_dirs();
        let coming: Vec<Record> = lost.values().cloned().collect();
        let going = lost.into_keys().map(|dir| Record::DirGone { dir });
        // Said before what is remembered: that of the same names is of later.
        let asked_for = self.jobs.values().filter(|job| job.wanted);
        let asked_for = asked_for.map(|job| forgotten(FileKey::new(job.dir, &job.name)));
        let files = self.files.iter().map(|(key, known)| remembered(key, known));
        // The highest number given: a job in no directory, of which replay keeps the number only.
        let number = Record::Settled {
            job: JobId(self.last_job),
            dir: DirId(0),
            name: Vec::new(),
            version: super::ask::Version::default(),
            ctime_ns: 0,
            reruns: 0,
        };
        let number =
            (self.last_job > 0 && !self.jobs.contains_key(&JobId(self.last_job))).then_some(number);
        // Those that lost their names first: whoever comes later has the name.
        let (displaced, others): (Vec<_>, Vec<_>) =
            self.jobs.iter().partition(|(_, job)| job.displaced);
        let jobs = displaced
            .into_iter()
            .chain(others)
            .flat_map(|(id, job)| job_records(*id, job, self.slot_of(&job.phase)));
        let jobs = jobs.chain(number);
        // Behind the jobs, which are counted already.
        let with_window = self.watches.iter().filter(|watch| watch.window.is_some());
        let windows = with_window.filter_map(window_record);
        watches
            .chain(dirs)
            .chain(coming)
            .chain(asked_for)
            .chain(files)
            .chain(jobs)
            .chain(self.wanted.records())
            .chain(going)
            .chain(windows)
    }

    /// The same, with the times that have to be in the records' headers: a job is as old as its file has been settled,
    /// and a wait that was asked for is as long as it was when it began, wherever the clock was set meanwhile.
    pub fn snapshot_with_times(&self) -> impl Iterator<Item = (Option<Wall>, Record)> + '_ {
        self.snapshot().map(|record| {
            let at = match &record {
                Record::Settled { job, .. } => self.jobs.get(job).map(|job| job.settled),
                Record::Ended {
                    job,
                    end: AttemptEnd::AskedRetry,
                    not_before,
                    ..
                } => self.jobs.get(job).map(|job| not_before.before(job.asked)),
                _ => None,
            };
            (at, record)
        })
    }

    /// Whether compaction carries `summary` over: as long as the job is owed, the file remembered in that version, or
    /// its end not longer ago than `remember`. Where it is not remembered its directory's number says nothing, and goes.
    pub fn carries(&self, summary: &mut Summary) -> bool {
        let Some(over) = summary.over() else {
            return self.jobs.contains_key(&summary.job);
        };
        let since = self.now.wall.before(self.daemon.remember);
        let since_s = u32::try_from(since.0 / 1_000_000_000).unwrap_or(0);
        let name = summary.rel.rsplit(|byte| *byte == b'/').next();
        let key = FileKey::new(summary.dir, name.unwrap_or_default());
        let remembered = self.files.get(key).is_some_and(|known| {
            known.version == summary.version
                && (!(known.gone || known.away) || known.at_s >= since_s)
        });
        if !remembered {
            summary.dir = DirId(0);
        }
        remembered || over >= since
    }

    /// Directories that are gone and have jobs, each with a record of it under a name that no directory has.
    fn lost_dirs(&self) -> BTreeMap<DirId, Record> {
        self.jobs
            .values()
            .filter(|job| job.dir != DirId(0) && self.tree.get(job.dir).is_none())
            .filter_map(|job| {
                let watch = self.watches.get(job.watch as usize)?;
                let name = [PRIVATE_PREFIX, b"gone-", job.dir.0.to_string().as_bytes()].concat();
                let comes = Record::Dir {
                    dir: job.dir,
                    watch: watch.id,
                    parent: NOWHERE,
                    name,
                    ino: 0,
                    btime_ns: 0,
                };
                Some((job.dir, comes))
            })
            .collect()
    }

    /// Directories that the journal knows, parents before children.
    fn recorded_dirs(&self) -> Vec<DirId> {
        let mut all = Vec::new();
        for watch in &self.watches {
            if self.tree.get(watch.root).is_some() {
                all.extend(
                    self.tree
                        .subtree(watch.root)
                        .into_iter()
                        .filter(|id| self.tree.get(*id).is_some_and(|node| node.recorded)),
                );
            }
        }
        all
    }
}

/// What is remembered of a file as a record.
pub(super) fn remembered(key: FileKey, known: &Known) -> Record {
    let gone = if known.gone { STATE_GONE } else { 0 };
    let away = if known.away { STATE_AWAY } else { 0 };
    Record::Remembered {
        dir: key.dir(),
        name_hash: key.hash(),
        version: known.version,
        ctime: known.ctime,
        state: gone | away,
        at: Wall(i64::from(known.at_s) * 1_000_000_000),
    }
}

/// A live job as records.
fn job_records(id: JobId, job: &Job, slot: u32) -> Vec<Record> {
    let mut records = vec![Record::Settled {
        job: id,
        dir: job.dir,
        name: job.name.to_vec(),
        version: job.version,
        ctime_ns: job.ctime_ns,
        reruns: job.reruns,
    }];
    if job.pinned {
        records.push(Record::Key {
            job: id,
            key: job.key.to_vec(),
        });
    }
    let running = matches!(
        job.phase,
        Phase::Running { .. } | Phase::Orphaned { .. } | Phase::Looking | Phase::PostLook { .. }
    );
    let ended = if running {
        job.begun.saturating_sub(1)
    } else {
        job.begun
    };
    if ended > 0 {
        records.push(Record::Started {
            job: id,
            attempt: ended,
            slot: 0,
        });
        // The first says that it is run alone, the last what was the last.
        let together = job.alone.then_some(AttemptEnd::Together);
        let cut_short = if running { job.repeats } else { job.cut_short };
        let last = match (cut_short, job.alone) {
            (true, true) => None,
            (true, false) => Some(AttemptEnd::CutShort),
            (false, _) if !job.asked.is_zero() => Some(AttemptEnd::AskedRetry),
            (false, _) => Some(AttemptEnd::NotTheFile),
        };
        records.extend(together.into_iter().chain(last).map(|end| Record::Ended {
            job: id,
            attempt: ended,
            end,
            counted: job.counted,
            not_before: job.not_before,
            output: Vec::new(),
        }));
    }
    if running {
        records.push(Record::Started {
            job: id,
            attempt: job.begun,
            slot,
        });
    }
    if let (Phase::Disposing { disposal, .. }, Some(outcome)) = (&job.phase, job.outcome) {
        records.push(Record::Concluded {
            job: id,
            outcome,
            end: None,
            disposal: (**disposal).clone(),
            version: job.version,
            ctime_ns: job.ctime_ns,
            output: Vec::new(),
        });
    }
    if job.displaced {
        records.push(lost_name(job));
    }
    records
}

/// Another file has come under a job's name.
pub(super) fn lost_name(job: &Job) -> Record {
    Record::Renamed {
        dir: job.dir,
        name_hash: name_hash(&job.name),
        to_dir: job.dir,
        to_name: job.name.to_vec(),
    }
}
