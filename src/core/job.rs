//! Jobs: from arrival over attempts to conclusion.

use super::ask::{Stat, Version};
use super::claims::Standings;
use super::files::{FileKey, version_digest};
use super::ids::{DirId, JobId, RunId};
use super::moves::is_spare;
use super::queue::Rank;
use super::record::{AttemptEnd, Disposal, Outcome, Record};
use super::settle::{Candidate, RERUNS_MAX};
use super::template::Values;
use super::time::{Mono, Wall, civil_date};
use super::timers::Timer;
use super::{Core, Effect};
use crate::plan::{Disposition, Level, Order, WatchPlan};
use std::ops::{Deref, DerefMut};
use std::time::Duration;

/// A file that settled in this turn by a look that was asked for no longer ago than this is handed to a worker without
/// another look: no look is younger, when its answer has come, than the way of an answer is long.
const JUST_NOW: Duration = Duration::from_millis(100);

/// Where a job stands.
#[derive(Clone, Debug)]
pub enum Phase {
    /// In the queue.
    Ready,
    /// Waits for its next attempt.
    Backoff,
    /// Dead, and holds up those behind it.
    Halted,
    /// A process of an earlier life of the daemon may still make its last attempt.
    Orphaned {
        /// The slot whose lock that one holds.
        slot: u32,
    },
    /// A scout looks once more before the job is handed to a worker.
    Handing {
        /// Which.
        run: RunId,
    },
    /// A child, or a worker, is at it.
    Running {
        /// Which.
        run: RunId,
    },
    /// The child found another version or none: a scout looks which.
    Looking,
    /// The command succeeded; a scout looks whether the file is still the one it ran on.
    PostLook {
        /// How the attempt ended.
        end: AttemptEnd,
    },
    /// Concluded; the file is being disposed of.
    Disposing {
        /// What is to happen.
        disposal: Box<Disposal>,
        /// A scout is at it.
        asked: bool,
        /// Failed tries.
        failures: u8,
    },
}

/// What there is to be known of a job once an attempt of it was begun.
#[derive(Clone, Debug)]
pub struct Begun {
    /// When a worker was given it.
    pub handed: Mono,
    /// How long the last attempt took.
    pub ran: Duration,
    /// The slot of the attempt that was cut short; 0 is none.
    pub slot: u32,
    /// Not before (durable).
    pub not_before: Wall,
    /// How long a wait its worker asked for.
    pub asked: Duration,
    /// The last attempt was cut short by a crash or stop.
    pub cut_short: bool,
    /// The attempt that was begun last repeats one that was cut short.
    pub repeats: bool,
    /// It failed together with others, and is run alone from now on.
    pub alone: bool,
    /// An attempt was begun with its key: that stays.
    pub pinned: bool,
    /// Where it was before a rename that came while its file had its private name, or had not: it is looked for
    /// there, too.
    pub was: Option<(DirId, Box<[u8]>)>,
    /// Its file has its private name, as an event told: what has its own name is not its file.
    pub hidden: bool,
    /// Where it stands with other machines.
    pub(super) standings: Standings,
}

/// Of a job that was not begun.
static NOTHING: Begun = Begun {
    handed: Mono(0),
    ran: Duration::ZERO,
    slot: 0,
    not_before: Wall(0),
    asked: Duration::ZERO,
    cut_short: false,
    repeats: false,
    alone: false,
    pinned: false,
    was: None,
    hidden: false,
    standings: Standings::NONE,
};

/// A job. Half a million may be owed, of which few were begun: what those have besides is apart, and a job's own fields
/// to those who read them.
#[derive(Debug)]
pub struct Job {
    /// The file's directory.
    pub dir: DirId,
    /// The file's name.
    pub name: Box<[u8]>,
    /// Index of the watch.
    pub watch: u32,
    /// What settled.
    pub version: Version,
    /// Its ctime.
    pub ctime_ns: i64,
    /// When.
    pub settled: Wall,
    /// Jobs in a row before this one that changed their own file.
    pub reruns: u8,
    /// A person asked for it: its file had been concluded before.
    pub wanted: bool,
    /// Attempts begun.
    pub begun: u32,
    /// Attempts that count.
    pub counted: u32,
    /// See [`Phase`].
    pub phase: Phase,
    /// How it was concluded, once it is.
    pub outcome: Option<Outcome>,
    /// From the journal, and the first scan is not over.
    pub replayed: bool,
    /// Another job's file has been renamed over its own while it ran.
    pub displaced: bool,
    /// Another directory lies where its file's own was, by an unmount or otherwise: its file is where that is.
    pub away: bool,
    /// Mark of the last listing that saw its file.
    pub mark: u8,
    /// Its serial key.
    pub key: Box<[u8]>,
    /// What it was put in the queue by: its directory may be renamed while it waits there.
    pub by: Box<[u8]>,
    /// The same: nothing was begun for it then.
    pub fresh: bool,
    /// See [`Begun`].
    pub(super) more: Option<Box<Begun>>,
}

impl Deref for Job {
    type Target = Begun;

    fn deref(&self) -> &Begun {
        self.more.as_deref().unwrap_or(&NOTHING)
    }
}

impl DerefMut for Job {
    fn deref_mut(&mut self) -> &mut Begun {
        self.more.get_or_insert_with(|| Box::new(NOTHING.clone()))
    }
}

impl Job {
    /// One that has just settled.
    pub(super) fn new(
        watch: u32,
        dir: DirId,
        name: Box<[u8]>,
        version: Version,
        settled: Wall,
    ) -> Job {
        Job {
            dir,
            name,
            watch,
            version,
            ctime_ns: 0,
            settled,
            reruns: 0,
            wanted: false,
            begun: 0,
            counted: 0,
            phase: Phase::Ready,
            outcome: None,
            replayed: false,
            displaced: false,
            away: false,
            mark: 0,
            key: Box::default(),
            by: Box::default(),
            fresh: true,
            more: None,
        }
    }
}

impl Core {
    // ---- arrival ----

    /// A version settled: a job is owed.
    pub(super) fn arrive(&mut self, watch: u32, key: FileKey, candidate: Candidate, stat: Stat) {
        self.record_dir(candidate.dir);
        self.last_job += 1;
        let id = JobId(self.last_job);
        self.append(Record::Settled {
            job: id,
            dir: candidate.dir,
            name: candidate.name.to_vec(),
            version: stat.version,
            ctime_ns: stat.ctime_ns,
            reruns: candidate.reruns,
        });
        let mark = self.tree.get(candidate.dir).map_or(0, |node| node.mark);
        if self.now.mono.since(candidate.asked_at) <= JUST_NOW {
            self.just_seen.insert(id);
        }
        let waited = self.now.mono.since(candidate.since);
        self.count(watch, |counts| {
            counts.arrivals += 1;
            counts.settle.observe(waited);
        });
        let wanted = self.wanted.take(key);
        if !wanted {
            self.expect_arrival(watch);
        }
        let (dir, reruns) = (candidate.dir, candidate.reruns);
        let job = Job {
            ctime_ns: stat.ctime_ns,
            reruns,
            wanted,
            mark,
            ..Job::new(watch, dir, candidate.name, stat.version, self.now.wall)
        };
        self.is_known_now(watch, version_digest(&stat.version));
        self.jobs.insert(id, Box::new(job));
        self.job_of.insert(key, id);
        self.set_key(id);
        self.log_job(Level::Debug, id, || "settled".into());
        if candidate.reruns >= RERUNS_MAX {
            self.log_job(Level::Error, id, || {
                format!(
                    "held: its own job changed it {RERUNS_MAX} times in a row; if the command edits its \
                     file, say on_change = \"accept\""
                )
            });
            self.conclude(id, Outcome::Held, None, Vec::new());
            return;
        }
        self.enqueue(id);
    }

    /// Expands `key` once: it must not change over the job's life.
    pub(super) fn set_key(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id).filter(|job| !job.pinned) else {
            return;
        };
        let Some(template) = self
            .watches
            .get(job.watch as usize)
            .and_then(|watch| watch.plan.key.clone())
        else {
            return;
        };
        let key = self.with_values(id, b"", |values, _| template.expand(values));
        if let (Some(key), Some(job)) = (key, self.jobs.get_mut(&id)) {
            job.key = key.into();
        }
    }

    /// Calls `f` with what templates of this job stand for.
    pub(super) fn with_values<T>(
        &self,
        id: JobId,
        key: &[u8],
        f: impl FnOnce(&Values, &WatchPlan) -> T,
    ) -> Option<T> {
        let job = self.jobs.get(&id)?;
        let watch = self.watches.get(job.watch as usize)?;
        let path = self.path_of(job.watch, job.dir, &job.name);
        let rel = self.tree.rel(job.dir, &job.name);
        let name = self.job_name(id);
        let date = civil_date(self.now.wall, self.now.utc_offset_s);
        let values = Values {
            path: &path,
            rel: &rel,
            watch: &watch.plan.name,
            key,
            size: job.version.size,
            mtime: Wall(job.version.mtime_ns),
            date: &date,
            job: &name,
            attempt: job.begun,
        };
        Some(f(&values, &watch.plan))
    }

    /// The same, with the job's own key.
    pub(super) fn of_job<T>(
        &self,
        id: JobId,
        f: impl FnOnce(&Values, &WatchPlan) -> T,
    ) -> Option<T> {
        let key = self.jobs.get(&id)?.key.clone();
        self.with_values(id, &key, f)
    }

    fn rank(&self, id: JobId) -> Rank {
        let by = match self.jobs.get(&id).and_then(|job| {
            let watch = self.watches.get(job.watch as usize)?;
            Some((job, watch.plan.order))
        }) {
            Some((job, Order::Name)) => self.tree.rel(job.dir, &job.name).into(),
            // Flipping the sign bit makes byte order the order of signed numbers.
            Some((job, Order::Mtime)) => {
                Box::from(((job.version.mtime_ns as u64) ^ (1 << 63)).to_be_bytes())
            }
            Some((_, Order::Arrival)) | None => Box::default(),
        };
        let fresh = self.jobs.get(&id).is_some_and(|job| job.begun == 0);
        Rank::new(fresh, by, id)
    }

    pub(super) fn enqueue(&mut self, id: JobId) {
        let rank = self.rank(id);
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        job.by = rank.by.clone();
        job.fresh = rank.is_fresh();
        job.phase = Phase::Ready;
        let (key, watch) = (job.key.clone(), job.watch);
        if self.enqueue_claimed(id, &rank, &key) {
            return;
        }
        if let Some(watch) = self.watches.get_mut(watch as usize) {
            watch.queue.push(rank, &key);
        }
    }

    /// Out of the queue; its key is free.
    pub(super) fn dequeue(&mut self, id: JobId) {
        self.timers.clear(Timer::Retry(id));
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let rank = Rank::new(job.fresh, job.by.clone(), id);
        let key = job.key.clone();
        if let Some(watch) = self.watches.get_mut(job.watch as usize) {
            watch.halted.remove(&id);
            watch.queue.remove(&rank, &key);
            if let Some(claims) = &mut watch.claims {
                claims.ready.remove(&rank, &key);
            }
        }
    }

    /// Puts a job where it belongs in a queue that was made anew.
    pub(super) fn requeue_job(&mut self, id: JobId) {
        self.set_key(id);
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        match job.phase {
            Phase::Ready if !job.replayed => self.enqueue(id),
            // Its key may be another one now, and somebody's.
            Phase::Handing { run } => self.take_back(id, run),
            Phase::Disposing { .. } => {}
            // Begun, and not over: it keeps its key. So does one that only waits for the first scan: what that finds
            // comes behind it.
            Phase::Ready
            | Phase::Backoff
            | Phase::Halted
            | Phase::Orphaned { .. }
            | Phase::Running { .. }
            | Phase::Looking
            | Phase::PostLook { .. } => {
                let key = job.key.clone();
                if let Some(watch) = self.watches.get_mut(job.watch as usize) {
                    watch.queue.hold(id, &key);
                    if let Some(claims) = &mut watch.claims {
                        claims.ready.hold(id, &key);
                    }
                }
            }
        }
    }

    /// Replayed jobs wait for the first scan, which tells where their files are now.
    pub(super) fn release_jobs(&mut self, watch: u32) {
        let ids: Vec<JobId> = self
            .jobs
            .iter()
            .filter(|(_, job)| job.replayed && job.watch == watch)
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            if let Some(job) = self.jobs.get_mut(&id) {
                job.replayed = false;
                if matches!(job.phase, Phase::Ready) {
                    self.enqueue(id);
                }
            }
        }
    }

    pub(super) fn retry_due(&mut self, id: JobId) {
        if self
            .jobs
            .get(&id)
            .is_some_and(|job| matches!(job.phase, Phase::Backoff))
        {
            if self.jobs.get(&id).is_some_and(|job| job.replayed) {
                if let Some(job) = self.jobs.get_mut(&id) {
                    job.phase = Phase::Ready;
                }
                return;
            }
            self.enqueue(id);
        }
    }

    // ---- conclusions ----

    /// A newer version settled before this job's attempt.
    pub(super) fn supersede(&mut self, id: JobId) {
        self.log_job(Level::Info, id, || {
            "superseded: the file is another version now".into()
        });
        self.conclude(id, Outcome::Superseded, None, Vec::new());
    }

    /// The file is gone under its name. Only what waits is over; what runs ends by itself.
    pub(super) fn job_gone(&mut self, key: FileKey) {
        let Some((id, phase)) = self.live_phase(key) else {
            return;
        };
        if matches!(phase, Phase::Ready | Phase::Backoff | Phase::Halted) {
            self.log_job(Level::Info, id, || "gone before its attempt".into());
            self.conclude(id, Outcome::Gone, None, Vec::new());
        }
    }

    /// Nothing is run for this job again.
    pub(super) fn conclude(
        &mut self,
        id: JobId,
        outcome: Outcome,
        end: Option<AttemptEnd>,
        output: Vec<u8>,
    ) {
        if !self.was_halted(id) {
            self.alert_job(id, outcome);
        }
        self.conclude_untold(id, outcome, end, output);
    }

    /// The same, where whoever would be told is who wants it so.
    pub(super) fn conclude_untold(
        &mut self,
        id: JobId,
        outcome: Outcome,
        end: Option<AttemptEnd>,
        output: Vec<u8>,
    ) {
        self.dequeue(id);
        let disposal = self.disposal(id, outcome);
        let disposal = self.disposal_with_mark(id, outcome, disposal);
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        job.outcome = Some(outcome);
        let watch = job.watch;
        let (version, ctime_ns, mark) = (job.version, job.ctime_ns, job.mark);
        let (key, away) = (FileKey::new(job.dir, &job.name), job.away);
        self.count(watch, |counts| counts.outcome(outcome));
        if matches!(outcome, Outcome::Done | Outcome::Dead | Outcome::Held) {
            // Recorded before that which takes its place.
            self.replaced_by(key, version_digest(&version));
        }
        self.append(Record::Concluded {
            job: id,
            outcome,
            end,
            disposal: disposal.clone(),
            version,
            ctime_ns,
            output,
        });
        match disposal {
            Disposal::Keep => {
                if matches!(outcome, Outcome::Done | Outcome::Dead | Outcome::Held) {
                    // A listing under way that did not show the file is to notice.
                    self.remember(key, &version, ctime_ns, mark);
                    if away {
                        self.files_away([key]);
                    }
                }
                self.forget_job(id);
            }
            disposal => {
                if away {
                    // It is disposed of when it is back.
                    self.remember(key, &version, ctime_ns, mark);
                    self.files_away([key]);
                }
                if let Some(job) = self.jobs.get_mut(&id) {
                    job.phase = Phase::Disposing {
                        disposal: Box::new(disposal),
                        asked: false,
                        failures: 0,
                    };
                }
                self.ask_dispose(id);
            }
        }
    }

    /// What the plan says happens to the file, with the target fixed.
    fn disposal(&self, id: JobId, outcome: Outcome) -> Disposal {
        let Some(job) = self.jobs.get(&id) else {
            return Disposal::Keep;
        };
        let Some(watch) = self.watches.get(job.watch as usize) else {
            return Disposal::Keep;
        };
        let disposition = match outcome {
            Outcome::Done => &watch.plan.done,
            Outcome::Dead => &watch.plan.dead,
            Outcome::Superseded | Outcome::Gone | Outcome::Held => &Disposition::Keep,
        };
        match disposition {
            Disposition::Keep => Disposal::Keep,
            Disposition::Delete => Disposal::Delete,
            Disposition::Move { to, flatten } => {
                let dir = self
                    .of_job(id, |values, _| to.expand_dir(values))
                    .unwrap_or_default();
                let rel = if *flatten {
                    job.name.to_vec()
                } else {
                    self.tree.rel(job.dir, &job.name)
                };
                Disposal::Move { dir, rel }
            }
        }
    }

    /// The job is history.
    pub(super) fn forget_job(&mut self, id: JobId) {
        self.timers.clear(Timer::Retry(id));
        self.timers.clear(Timer::Dispose(id));
        self.release_claim(id, false);
        let Some(job) = self.jobs.remove(&id) else {
            return;
        };
        let key = FileKey::new(job.dir, &job.name);
        if self.job_of.get(&key) == Some(&id) {
            self.job_of.remove(&key);
        }
        self.release_key(key);
    }

    // ---- names ----

    pub(super) fn rename_job(
        &mut self,
        id: JobId,
        from: FileKey,
        to: FileKey,
        dir: DirId,
        name: &[u8],
        mark: u8,
    ) {
        let waiting = self
            .jobs
            .get(&id)
            .is_some_and(|job| matches!(job.phase, Phase::Ready) && !job.replayed)
            && !self.is_being_claimed(id);
        if waiting {
            self.dequeue(id);
        }
        self.renamed = Some(self.now.mono);
        self.job_of.remove(&from);
        self.job_of.insert(to, id);
        if let Some(job) = self.jobs.get_mut(&id) {
            if matches!(job.phase, Phase::Disposing { .. }) && !is_spare(&job.name) {
                job.was = Some((job.dir, job.name.clone()));
            }
            job.dir = dir;
            job.name = name.into();
            job.mark = mark;
            job.away = false;
            job.ctime_ns = 0;
        }
        if waiting {
            self.enqueue(id);
        }
        self.log_job(Level::Info, id, || "renamed; its job goes along".into());
        let waits = self.jobs.get(&id).is_some_and(|job| {
            matches!(job.phase, Phase::Disposing { asked: false, .. }) && !is_spare(&job.name)
        });
        if waits && !self.timers.is_set(Timer::Dispose(id)) {
            // It has waited for its directory, which is not its directory any more.
            self.ask_dispose(id);
        }
    }

    /// The file of a job that is begun was replaced by another job's: it ends superseded.
    pub(super) fn lose_file(&mut self, key: FileKey) {
        let Some((id, phase)) = self.live_phase(key).map(|(id, phase)| (id, phase.clone())) else {
            return;
        };
        match phase {
            Phase::Running { .. } | Phase::Orphaned { .. } | Phase::Disposing { .. } => {
                if let Some(job) = self.jobs.get_mut(&id) {
                    job.displaced = true;
                }
                self.job_of.remove(&key);
                self.asks_nameless(id);
            }
            Phase::PostLook { end } => {
                self.conclude(id, Outcome::Superseded, Some(end), Vec::new());
            }
            Phase::Handing { run } => {
                self.not_handed(id, run);
                self.supersede(id);
            }
            Phase::Ready | Phase::Backoff | Phase::Halted | Phase::Looking => self.supersede(id),
        }
    }

    pub(super) fn mark_job(&mut self, key: FileKey, mark: u8) {
        if let Some(id) = self.job_of.get(&key)
            && let Some(job) = self.jobs.get_mut(id)
        {
            job.mark = mark;
            job.away = false;
        }
    }

    /// The files of these jobs were not in the directory that lies where their own was. Those that run end all the
    /// same, and are remembered then.
    pub(super) fn jobs_away(&mut self, keys: impl IntoIterator<Item = FileKey>) {
        for key in keys {
            if let Some(id) = self.job_of.get(&key)
                && let Some(job) = self.jobs.get_mut(id)
            {
                job.away |= matches!(
                    job.phase,
                    Phase::Running { .. } | Phase::Orphaned { .. } | Phase::PostLook { .. }
                );
            }
        }
    }

    /// Whether such a job is not yet over in `dir`.
    pub(super) fn any_job_away(&self, dir: DirId) -> bool {
        let mut jobs = self.job_of.range(FileKey::range(dir));
        jobs.any(|(_, id)| self.jobs.get(id).is_some_and(|job| job.away))
    }

    /// Jobs of `dir` whose files the listing with `mark` did not show. What runs is among them: its file may
    /// have been renamed, and must not be taken for another one under its new name.
    pub(super) fn unmarked_jobs(&self, dir: DirId, mark: u8) -> Vec<(FileKey, u64)> {
        self.job_of
            .range(FileKey::range(dir))
            .filter_map(|(key, id)| {
                let job = self.jobs.get(id)?;
                (job.mark != mark).then(|| (*key, version_digest(&job.version)))
            })
            .collect()
    }

    pub(super) fn log_job(&mut self, level: Level, id: JobId, text: impl FnOnce() -> String) {
        if level > self.daemon.log_level {
            return;
        }
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let line = super::LogLine {
            text: text(),
            watch: self.watch_name(job.watch),
            path: self.path_of(job.watch, job.dir, &job.name),
            job: self.job_name(id),
        };
        self.out.push(Effect::Log(level, line));
    }
}
