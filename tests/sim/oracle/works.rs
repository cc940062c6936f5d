//! Batches, workers, keys, rates, halts and orphans: what dispatch promises.

use super::*;
use crate::children::Child;
use crate::workers::Told;
use settled::core::{ChildEnd, NotStarted, StartStep};
use settled::plan::{Action, Delivery, OnDead, Orphans};
use std::time::Duration;

const SECOND: u64 = 1_000_000_000;
/// A bound in starts is made up for within so long, as `dispatch` documents it.
const RATE_SLACK: u64 = 10_000_000;

/// What was true of a file when somebody looked at it.
#[derive(Clone, Debug)]
pub struct Truth {
    pub uid: Uid,
    pub content: u64,
    pub version: Version,
    pub at: u64,
    pub writers: u32,
    pub changed: u64,
    pub placed: u64,
    pub unheard: bool,
    pub disguised: bool,
}

impl Truth {
    pub fn of(disk: &Disk, uid: Uid) -> Truth {
        let inode = &disk.inodes[uid];
        Truth {
            uid,
            content: inode.content,
            version: disk.version(uid),
            at: disk.mono,
            writers: inode.writers,
            changed: inode.changed,
            placed: inode.placed,
            unheard: inode.unheard,
            disguised: inode.disguised,
        }
    }
}

/// A worker as the core knows it.
#[derive(Debug, Default)]
pub struct WorkerSeen {
    pub spawned: u64,
    /// It has said that it is ready.
    pub ready: bool,
    /// It has said that, or answered.
    pub proved: bool,
    /// It has said what it must not.
    pub nonsense: bool,
    /// Fed, and not answered as far as was told.
    pub held: Vec<JobId>,
    /// When it was last given something after nothing, or answered.
    pub since: u64,
    /// Its input was closed.
    pub closed: Option<u64>,
    /// It was sent the first signal.
    pub killed: Option<u64>,
}

/// What an end means for its job (settled.toml(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    Done,
    Dead,
    /// Counted, and tried again while attempts are left.
    Failed,
    /// Not counted.
    Free,
    Held,
}

pub fn meaning(plan: &WatchPlan, end: AttemptEnd) -> Meaning {
    let once = plan.delivery == Delivery::AtMostOnce;
    match end {
        AttemptEnd::Exit(0) | AttemptEnd::SaidDone | AttemptEnd::Elsewhere => Meaning::Done,
        AttemptEnd::Exit(n) if plan.temporary.contains(&n) => Meaning::Failed,
        AttemptEnd::Exit(n) if plan.permanent.contains(&n) || n == 65 => Meaning::Dead,
        AttemptEnd::Exit(n) if once && n != 75 => Meaning::Dead,
        AttemptEnd::Exit(_) | AttemptEnd::AskedRetry => Meaning::Failed,
        AttemptEnd::AskedDead => Meaning::Dead,
        AttemptEnd::NotTheFile | AttemptEnd::StillWritten => Meaning::Free,
        AttemptEnd::NotStarted { step: 1 | 2, .. } => Meaning::Free,
        AttemptEnd::NotStarted { .. } => Meaning::Failed,
        _ if once => Meaning::Held,
        AttemptEnd::CutShort | AttemptEnd::Together => Meaning::Free,
        AttemptEnd::Signal(_) | AttemptEnd::TimedOut | AttemptEnd::WorkerLost => Meaning::Failed,
    }
}

fn asks_again(plan: &WatchPlan, status: i32) -> bool {
    plan.temporary.contains(&status) || status == 75 && !plan.permanent.contains(&status)
}

impl Oracle {
    /// How an attempt may have ended, as far as the core can know by now.
    pub fn ends(&mut self, job: JobId, ends: Vec<AttemptEnd>, after: Option<Duration>) {
        if let Some(ledger) = self.jobs.get_mut(&job) {
            ledger.ends = ends;
            ledger.after = after;
        }
    }

    /// The end of a child with one job or several is about to be told.
    pub fn told_end(&mut self, child: &Child, end: ChildEnd) {
        let plan = self.watches[child.watch].plan.clone();
        let many = child.order.jobs.len() > 1;
        let split = many && plan.batch.is_some_and(|batch| batch.split);
        let mut killed = Vec::new();
        if child.killed {
            killed.extend(plan.timeout.map(|_| AttemptEnd::TimedOut));
            killed.extend(self.moment.stopping.then_some(AttemptEnd::CutShort));
        }
        // Nobody knows because of which: none is counted. Who asks to be tried again is, as it was.
        let each = |end: AttemptEnd| match end {
            AttemptEnd::Exit(status) if asks_again(&plan, status) => end,
            AttemptEnd::CutShort => end,
            _ if split => AttemptEnd::Together,
            _ => end,
        };
        for (number, job) in child.order.jobs.iter().enumerate() {
            let of = |file: u32, end: AttemptEnd| {
                if file as usize == number {
                    end
                } else {
                    AttemptEnd::NotStarted { step: 2, errno: 0 }
                }
            };
            let mut ends = match end {
                ChildEnd::Exit(0) => vec![AttemptEnd::Exit(0)],
                ChildEnd::Exit(_) | ChildEnd::Signal(_) if child.killed => {
                    killed.iter().map(|end| each(*end)).collect()
                }
                ChildEnd::Exit(status) => vec![each(AttemptEnd::Exit(status))],
                ChildEnd::Signal(signal) => vec![each(AttemptEnd::Signal(signal))],
                // Others of the batch may be other files, too: each is looked at.
                ChildEnd::NotStarted(NotStarted::NotTheFile, _) => vec![AttemptEnd::NotTheFile],
                ChildEnd::NotStarted(NotStarted::StillWritten, file) => {
                    vec![of(file, AttemptEnd::StillWritten)]
                }
                ChildEnd::NotStarted(NotStarted::Failed(step, errno), file) => {
                    let end = AttemptEnd::NotStarted {
                        step: step as u8,
                        errno,
                    };
                    vec![if step == StartStep::OpenFile {
                        of(file, end)
                    } else {
                        end
                    }]
                }
            };
            if matches!(end, ChildEnd::NotStarted(..)) && killed.contains(&AttemptEnd::CutShort) {
                ends.push(AttemptEnd::CutShort);
            }
            self.ends(*job, ends, None);
        }
    }

    /// A worker's end is about to be told.
    pub fn worker_ended(&mut self, watch: usize, seen: &WorkerSeen, end: ChildEnd) {
        let plan = self.watches[watch].plan.clone();
        let killed = seen.killed.is_some();
        let stopping = self.moment.stopping;
        let mut ends = Vec::new();
        if matches!(end, ChildEnd::NotStarted(..)) {
            ends.push(AttemptEnd::NotStarted { step: 2, errno: 0 });
        } else {
            let cut = killed && stopping;
            ends.extend(cut.then_some(AttemptEnd::CutShort));
            let late = killed && plan.timeout.is_some();
            if seen.held.len() > 1 {
                ends.extend((!cut || late || seen.nonsense).then_some(AttemptEnd::Together));
            } else {
                ends.extend(late.then_some(AttemptEnd::TimedOut));
                ends.extend((!killed || seen.nonsense).then_some(AttemptEnd::WorkerLost));
            }
        }
        for job in &seen.held {
            self.ends(*job, ends.clone(), None);
        }
        if seen.proved {
            self.restarts.remove(&(self.moment.life, watch));
        }
        let lone = matches!(&plan.action, Action::Worker(worker) if worker.workers == 1);
        if lone && seen.closed.is_none() && !killed && !stopping {
            let state = self.restarts.entry((self.moment.life, watch)).or_default();
            state.0 += 1;
            let wait = ((SECOND / 2) << (state.0 - 1).min(20)).min(60 * SECOND);
            state.1 = self.moment.now + wait;
        }
    }

    /// A worker's process is ordered, beside so many.
    pub fn worker_spawned(&mut self, watch: usize, others: usize, workers: u32) {
        if others >= workers as usize {
            self.broken(Rule::Worker, format!("{others} others of its watch run"));
        }
        if self.moment.closed {
            self.broken(Rule::Pause, "nothing new is to be started");
        }
        let until = self
            .restarts
            .get(&(self.moment.life, watch))
            .map_or(0, |state| state.1);
        if self.moment.now < until {
            self.broken(Rule::Worker, "it is started again too soon");
        }
    }

    /// A worker is sent a signal.
    pub fn worker_killed(&mut self, watch: usize, seen: &WorkerSeen, signal: i32) {
        let plan = &self.watches[watch].plan;
        let now = self.moment.now;
        let over = |since: u64, time: Option<Duration>| {
            time.is_some_and(|time| now >= since + time.as_nanos() as u64)
        };
        let ready = match &plan.action {
            Action::Worker(worker) => worker.ready,
            _ => None,
        };
        let grace = Some(plan.kill_after);
        let right = self.moment.stopping
            || match seen.killed {
                Some(at) => signal == 9 && over(at, grace),
                None => {
                    signal == 15
                        && (seen.nonsense
                            || !seen.ready && over(seen.spawned, ready)
                            || !seen.held.is_empty() && over(seen.since, plan.timeout)
                            || seen.closed.is_some_and(|at| over(at, grace)))
                }
            };
        if !right {
            let text = format!("signal {signal} without need: {seen:?}");
            self.broken(Rule::Worker, text);
        }
    }

    /// A worker is given a job. What was true of its file when it was looked at for that.
    pub fn fed(
        &mut self,
        watch: usize,
        told: &Told,
        mates: &[JobId],
        running: &BTreeSet<JobId>,
        seen: &WorkerSeen,
        disk: &Disk,
    ) -> Option<Truth> {
        let plan = self.watches[watch].plan.clone();
        let Action::Worker(worker) = &plan.action else {
            return None;
        };
        self.begun(told.job, Some(told.attempt), &told.watch, mates, running);
        let moment = self.moment;
        let ledger = self.jobs.get(&told.job)?;
        let alone = |job: &JobId| self.jobs.get(job).is_some_and(|ledger| ledger.alone);
        let mut wrong = None;
        let others = seen.held.iter().filter(|held| **held != told.job);
        let others: Vec<JobId> = others.copied().collect();
        if others.len() >= worker.window as usize {
            wrong = Some(format!("{} others are in its window", others.len()));
        }
        if !others.is_empty() && (ledger.alone || others.iter().any(alone)) {
            wrong = Some("it is to be alone, or the others".to_owned());
        }
        if worker.ready.is_some() && !seen.ready {
            wrong = Some("it is not ready".to_owned());
        }
        if seen.closed.is_some() || seen.killed.is_some() || seen.nonsense {
            wrong = Some("it was told to end".to_owned());
        }
        let version = ledger.settled;
        if (told.size, told.mtime_ns) != (version.size, version.mtime_ns) {
            wrong = Some(format!("told of another version: {told:?}"));
        }
        if plan.per_key().is_some() && ledger.key.as_ref() != Some(&told.key) {
            wrong = Some(format!("told of another key than recorded: {told:?}"));
        }
        let recovered = ledger.cut;
        if let Some(wrong) = wrong {
            self.broken(Rule::Worker, format!("{:?}: {wrong}", told.job));
        }
        if recovered != told.recovered {
            let text = format!("{:?}: recovered is not {recovered}", told.job);
            self.broken(Rule::Repeated, text);
        }
        self.spend(watch, 1, worker.window as u64 * u64::from(worker.workers));
        // Looked at in this very turn, by somebody who asked for what can be asked.
        let mut found = None;
        let mut why = "nobody has looked at it for that".to_owned();
        for (path, facts, truth) in self.seen.clone() {
            if path != told.path || truth.version != version {
                continue;
            }
            let fs = &disk.fss[disk.inodes[truth.uid].fs];
            if facts.lease == Held::NotAsked && !fs.remote {
                why = "the lease was not asked".to_owned();
            } else if let Some((rule, text)) = self.evident(watch, &truth, disk) {
                why = format!("{rule}: {text}");
            } else {
                found = Some(truth);
            }
        }
        if found.is_none() {
            let text = format!("{:?} is handed over at {}: {why}", told.job, moment.now);
            self.broken(Rule::Evidence, text);
        }
        found
    }

    /// So many jobs are started. `late` of them may have been held up by a look since they were let go.
    pub fn spend(&mut self, watch: usize, jobs: u64, late: u64) {
        let Some(rate) = self.watches[watch].plan.rate else {
            return;
        };
        let moment = self.moment;
        let each = rate.per.as_nanos() as u64 / u64::from(rate.count);
        let state = self.rates.entry(watch).or_default();
        if state.0 != moment.life {
            *state = (moment.life, 0);
        }
        let next = state.1;
        state.1 = next.max(moment.now) + jobs * each;
        if moment.now + RATE_SLACK + late * each < next {
            let text = format!("{} ns too soon for {rate:?}", next - moment.now);
            self.broken(Rule::Rate, text);
        }
    }

    /// The holders of a slot of an earlier life are sent a signal: "the job waits for it or kills it (`orphans`)", so that
    /// each job whose attempt may still be made there has to want it.
    pub fn orphan_signalled(&mut self, slot: u32, signal: i32, _taken: bool) {
        let moment = self.moment;
        let there = |ledger: &&Ledger| {
            ledger.open && ledger.slot == slot && ledger.begun_life < moment.life
        };
        let plans: Vec<&WatchPlan> = self
            .jobs
            .values()
            .filter(there)
            .map(|ledger| &self.watches[ledger.watch].plan)
            .collect();
        let kills = !plans.is_empty() && plans.iter().all(|plan| plan.orphans == Orphans::Kill);
        let grace = plans.iter().map(|plan| plan.kill_after.as_nanos() as u64);
        let grace = grace.max().unwrap_or_default();
        let first = *self
            .orphan_terms
            .entry((moment.life, slot))
            .or_insert(moment.now);
        let right = kills && (signal == 15 || signal == 9 && moment.now >= first + grace);
        if !right {
            let text = format!("what holds slot {slot} is sent {signal}");
            self.broken(Rule::Worker, text);
        }
    }

    /// Versions of the files of jobs that are dead and hold others up.
    pub fn halted(&self) -> Vec<Version> {
        let halted = |ledger: &&Ledger| ledger.halted && ledger.concluded.is_none();
        let all = self.jobs.values().filter(halted);
        all.map(|ledger| ledger.settled).collect()
    }

    pub fn halts_and_held(&self) -> (u64, u64) {
        let halts = self.jobs.values().filter(|ledger| ledger.halted).count();
        let held = |ledger: &&Ledger| ledger.concluded == Some(Outcome::Held);
        let held = self.jobs.values().filter(held).count();
        (halts as u64, held as u64)
    }

    /// A dead job of the same key, or of the same watch where it has no serial key, holds this one up.
    pub(super) fn halted_by(&self, job: JobId) -> Option<JobId> {
        let ledger = self.jobs.get(&job)?;
        let plan = &self.watches[ledger.watch].plan;
        if plan.on_dead != OnDead::Halt {
            return None;
        }
        let by = |(id, other): &(&JobId, &Ledger)| {
            **id != job
                && other.watch == ledger.watch
                && other.halted
                && other.concluded.is_none()
                && (!plan.serial || other.key == ledger.key)
        };
        self.jobs.iter().find(by).map(|(id, _)| *id)
    }
}
