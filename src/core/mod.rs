//! The core decides. It owns no descriptor, reads no clock and makes no system call: facts and the time
//! come in as [`Input`] and [`Now`], wishes go out as [`Effect`]. This file is the routes, not the rules:
//!
//! * `observe` events and listings to hints; roots, mounts, scans, `spare`d listings   (`tree` is its structure)
//! * `settle`  hints to arrivals: the ladder of evidence; `quiet` for how long, `exported` where NFS clients write
//! * `queue`   which job next
//! * `job`     from arrival to conclusion
//! * `attempt` what starts now; `runs`, `workers` the processes; `orphans` those of an earlier life
//! * `ends`    what the end of an attempt means; `looks`, `halt`
//! * `dispose` what happens to the file afterwards
//! * `claims` which of several machines works on a file; `claim` the lines of the process that finds out
//! * `delivery` the arguments of a delivery, written and read
//! * `replay`  the journal's records back to state, and state to records
//! * `orders`  retry, forget, pause, rescan; `wanted` what is to be run again
//! * `operate` reload, drain, the state in words; `hung` what does not answer
//! * `query`  what is asked about the state, in the rows of `view` and in the words of `words`
//! * `alert`  what a person is told; `expect` what should have arrived
//! * `counts`  what has happened, in numbers
//! * `protocol` the lines of workers, encoded and decoded
#![forbid(unsafe_code)]

pub mod alert;
pub mod ask;
pub mod claim;
pub mod counts;
pub mod delivery;
pub mod files;
pub mod ids;
pub mod orders;
pub mod protocol;
pub mod query;
pub mod record;
pub mod select;
pub mod template;
pub mod time;
pub mod view;
mod vocabulary;
pub mod words;

mod attempt;
mod awaits;
mod changes;
mod claims;
mod compare;
mod deliver;
mod dispose;
mod doubts;
mod ends;
mod expect;
mod exported;
mod halt;
mod hung;
mod job;
mod lane;
mod looks;
mod moves;
mod observe;
mod operate;
mod orphans;
mod queue;
mod quiet;
mod renames;
mod replay;
mod roots;
mod runs;
mod scan;
mod seen;
mod settle;
mod sieve;
mod spare;
mod timers;
mod tree;
mod turns;
mod wanted;
mod watch;
mod workers;

pub use expect::expect_words;
pub use exported::QUIET_EXPORTED;
pub use vocabulary::*;

use crate::plan::{DaemonPlan, Level, Plan};
use alert::Alerts;
use ask::{Answer, Question};
use claims::Keeper;
use exported::Exported;
use files::{FileKey, Files};
use ids::{AskId, DirId, JobId, MountId, RunId, WatchId};
use job::{Job, Phase};
use lane::Lane;
use observe::Stashed;
use operate::Mode;
use orphans::Orphan;
use record::Record;
use renames::HalfRename;
use runs::{Run, Slots};
use seen::Seen;
use settle::Candidate;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use time::{Mono, Now};
use timers::{Timer, Timers};
use tree::Tree;
use wanted::Wanted;
use watch::Watch;
use workers::Worker;

/// What an outstanding question was about.
#[derive(Clone, Debug)]
enum Asked {
    Resolve {
        watch: u32,
        dir: DirId,
    },
    Bind {
        dir: DirId,
        lane: MountId,
        watch: u32,
    },
    Moved {
        dir: DirId,
        lane: MountId,
        watch: u32,
    },
    Probe {
        key: FileKey,
        lane: MountId,
        path: Vec<u8>,
    },
    Exports,
    Look {
        job: JobId,
        lane: MountId,
        path: Vec<u8>,
        when: looks::When,
    },
    Dispose {
        job: JobId,
        path: Vec<u8>,
    },
}

/// The state machine. One input at a time with [`Core::step`]; then [`Core::due`]; then
/// [`Core::effects`] takes what is wished. [`Core::deadline`] says until when nothing will be.
#[derive(Debug)]
pub struct Core {
    journal: u32,
    daemon: DaemonPlan,
    watches: Vec<Watch>,
    tree: Tree,
    files: Files,
    candidates: BTreeMap<FileKey, Box<Candidate>>,
    seen: Seen,
    wanted: Wanted,
    jobs: BTreeMap<JobId, Box<Job>>,
    job_of: BTreeMap<FileKey, JobId>,
    runs: BTreeMap<RunId, Run>,
    workers: BTreeMap<RunId, Worker>,
    keepers: BTreeMap<RunId, Keeper>,
    last_claim: u64,
    /// When something was renamed last: what was looked at in the same turn may have been looked at elsewhere.
    renamed: Option<Mono>,
    /// What was created in this turn.
    links: Vec<FileKey>,
    /// Jobs whose files were looked at just now, with all that a look before a hand-over asks; until the end of the turn.
    just_seen: BTreeSet<JobId>,
    /// Workers that have something to be handed over at the end of the turn.
    to_feed: BTreeSet<RunId>,
    /// Those of `runs` that look for what deliveries left.
    sweeps: usize,
    slots: Slots,
    orphans: BTreeMap<u32, Orphan>,
    asks: BTreeMap<AskId, Asked>,
    lanes: BTreeMap<MountId, Lane>,
    mounts: BTreeMap<MountId, Mount>,
    exported: Exported,
    alerts: Alerts,
    /// When this life of the daemon began.
    started: Mono,
    timers: Timers,
    renames: BTreeMap<(u32, u32), HalfRename>,
    half_at: BTreeMap<FileKey, (u32, u32)>,
    half_of: BTreeMap<(u32, u64), (u32, u32)>,
    /// Names that came or went by events while their directory was being listed: of those the listing may tell
    /// what was before.
    told: BTreeSet<FileKey>,
    /// Cookie of the last private name that was renamed.
    from_private: Option<u32>,
    stash: VecDeque<Stashed>,
    stash_lost: bool,
    /// Watch descriptors that ended while answers that may name them were on their way.
    dead_wds: BTreeSet<i32>,
    binds_asked: usize,
    last_job: u64,
    last_run: u64,
    last_ask: u64,
    last_event: u64,
    last_watch: u32,
    turn: usize,
    /// How often the kernel's queue of events overflowed.
    overflows: u64,
    mode: Mode,
    room: bool,
    ready: bool,
    now: Now,
    out: Vec<Effect>,
}

impl Core {
    /// A core with a plan and no memory. `journal` is the journal's id: the first half of every job's name.
    pub fn new(plan: Plan, journal: u32) -> Core {
        let watches = plan.watches.into_iter().map(Watch::new).collect();
        Core {
            journal,
            daemon: plan.daemon,
            watches,
            tree: Tree::default(),
            files: Files::default(),
            candidates: BTreeMap::new(),
            seen: Seen::default(),
            wanted: Wanted::default(),
            jobs: BTreeMap::new(),
            job_of: BTreeMap::new(),
            runs: BTreeMap::new(),
            workers: BTreeMap::new(),
            keepers: BTreeMap::new(),
            last_claim: 0,
            renamed: None,
            links: Vec::new(),
            just_seen: BTreeSet::new(),
            to_feed: BTreeSet::new(),
            sweeps: 0,
            slots: Slots::default(),
            orphans: BTreeMap::new(),
            asks: BTreeMap::new(),
            lanes: BTreeMap::new(),
            mounts: BTreeMap::new(),
            exported: Exported::default(),
            alerts: Alerts::new(plan.alert),
            started: Mono::default(),
            timers: Timers::default(),
            renames: BTreeMap::new(),
            half_at: BTreeMap::new(),
            half_of: BTreeMap::new(),
            told: BTreeSet::new(),
            from_private: None,
            stash: VecDeque::new(),
            stash_lost: false,
            dead_wds: BTreeSet::new(),
            binds_asked: 0,
            last_job: 0,
            last_run: 0,
            last_ask: 0,
            last_event: 0,
            last_watch: 0,
            turn: 0,
            overflows: 0,
            mode: Mode::Running,
            room: true,
            ready: false,
            now: Now::default(),
            out: Vec::new(),
        }
    }

    /// Called once, after [`Core::replay`] of every record: begins to observe.
    pub fn start(&mut self, now: Now, mounts: Vec<Mount>) {
        self.now = now;
        self.started = now.mono;
        self.set_mounts(mounts);
        self.after_replay();
        self.await_exports();
        for watch in 0..self.watches.len() as u32 {
            self.begin_watch(watch);
            self.expect_due(watch);
        }
        self.sweep_targets();
        self.timers
            .set(Timer::Ready, now.mono.after(Duration::from_secs(3)));
        self.set_expiry();
    }

    /// One fact.
    pub fn step(&mut self, now: Now, input: Input) {
        self.now = now;
        match input {
            Input::Event {
                wd,
                mask,
                cookie,
                name,
            } => self.event(wd, mask, cookie, name),
            Input::Overflow => self.overflow(),
            Input::Answer(ask, answer) => self.answer(ask, answer),
            Input::Ended { run, end, output } => self.ended(run, end, output),
            Input::WorkerLine { run, line } => self.worker_said(run, line),
            Input::WorkerDeaf { run } => self.worker_deaf(run),
            Input::Slot { slot, taken } => self.slot_answered(slot, taken),
            Input::Mounts(mounts) => self.mounts_changed(mounts),
            Input::MountSlow(mount, slow) => self.mount_slow(mount, slow),
            Input::MountSilent(mount, silent) => self.mount_silent(mount, silent),
            Input::RootSilent(watch, silent) => self.root_silent(watch, silent),
            Input::JournalRoom(room) => self.journal_room(room),
            Input::SlowFlush(took) => self.flush_was_slow(took),
            Input::Command(command) => self.command(command),
        }
    }

    /// Everything that is due now, and whatever the inputs since the last call made possible.
    pub fn due(&mut self, now: Now) {
        self.now = now;
        self.await_closes();
        while let Some(timer) = self.timers.pop(now.mono) {
            match timer {
                Timer::Candidate(key) => self.candidate_due(key),
                Timer::Retry(job) => self.retry_due(job),
                Timer::Kill(run) => self.kill_due(run),
                Timer::Slot(slot) => self.slot_due(slot),
                // What is due is looked for after all timers.
                Timer::Dispatch(_) => {}
                Timer::Dispose(job) => self.ask_dispose(job),
                Timer::Rename { cookie, watch } => self.rename_due(cookie, watch),
                Timer::Left(dir) => self.left_due(dir),
                Timer::Bind(dir) => self.queue_bind(dir),
                Timer::Root(watch) => self.resolve_root(watch),
                Timer::Exports => self.exports_due(),
                Timer::Poll(watch) => self.poll_due(watch),
                Timer::Expire => self.expire(),
                Timer::Ready => self.say_ready(),
                Timer::Drain => self.drain_due(),
                Timer::Sieve(watch) => self.sieve_due(watch),
                // Ends of scans are looked for after all timers.
                Timer::Awaits(_) => {}
                Timer::Claim(job) => self.claim_due(job),
                Timer::Keeper(watch) => self.keeper_due(watch),
                Timer::Unanswered(run) => self.keeper_is_silent(run),
                Timer::Expect(watch) => self.expect_due(watch),
                Timer::AlertMount(mount) => self.alert_mount_due(mount),
                // What is due is looked for after all timers.
                Timer::Alert => {}
            }
        }
        self.end_scans();
        self.pump();
        self.dispatch();
        self.start_alerts();
        self.check_ready();
        self.check_drained();
    }

    /// Takes the wishes, in order, in exchange for a list that is empty: the next ones need not make room again.
    pub fn swap_effects(&mut self, effects: &mut Vec<Effect>) {
        std::mem::swap(&mut self.out, effects);
        effects.retain(|effect| !self.keeps_watch(effect));
    }

    /// Takes the wishes, in order.
    pub fn effects(&mut self) -> Vec<Effect> {
        let mut out = std::mem::take(&mut self.out);
        out.retain(|effect| !self.keeps_watch(effect));
        out
    }

    /// When [`Core::due`] wants to be called next; `None`: only after an input.
    pub fn deadline(&self) -> Option<Mono> {
        self.timers.next()
    }

    fn answer(&mut self, ask: AskId, answer: Answer) {
        let last = answer.is_last();
        let asked = if last {
            self.asks.remove(&ask)
        } else {
            self.asks.get(&ask).cloned()
        };
        let Some(asked) = asked else { return };
        let now = self.now;
        match (asked, answer) {
            (Asked::Resolve { watch, dir }, Answer::Resolved(result)) => {
                self.resolved(watch, dir, result);
            }
            (Asked::Bind { dir, lane, watch }, answer)
                if self.tree.get(dir).is_none_or(|node| node.asked != ask) =>
            {
                if let Answer::Bound(Ok(bound)) = answer {
                    self.bound_for_nobody(bound);
                }
                if last {
                    self.bind_answered(lane, watch);
                } else {
                    self.lane(lane).says(now.mono);
                }
            }
            (Asked::Bind { dir, lane, watch }, Answer::Bound(Err(fault))) => {
                self.bind_answered(lane, watch);
                self.bind_failed(dir, fault);
            }
            (Asked::Bind { dir, .. }, Answer::Bound(Ok(bound))) => self.bound(dir, bound),
            (Asked::Bind { dir, lane, .. }, Answer::Entries(entries)) => {
                let asked = self.tree.get(dir).map(|node| node.bound_at);
                self.bind_took(lane, dir, asked);
                self.entries(dir, entries);
            }
            (Asked::Bind { dir, lane, watch }, Answer::Listed(result)) => {
                let asked = self.tree.get(dir).map(|node| node.bound_at);
                self.bind_took(lane, dir, asked);
                self.bind_answered(lane, watch);
                match result {
                    Ok(()) => self.listed(dir),
                    Err(fault) => self.bind_failed(dir, fault),
                }
            }
            (Asked::Moved { dir, lane, watch }, Answer::Moved(result)) => {
                self.bind_took(lane, dir, None);
                self.bind_answered(lane, watch);
                self.names_moved(ask, lane, dir, result);
            }
            (Asked::Probe { key, lane, path }, Answer::Probed(result)) => {
                self.probe_answered(lane);
                self.probed(ask, key, path, result);
            }
            (
                Asked::Look {
                    job,
                    lane,
                    path,
                    when,
                },
                Answer::Probed(result),
            ) => {
                self.look_answered(lane);
                self.looked(job, path, when, result);
            }
            (Asked::Exports, Answer::Exports(exports)) => self.exports_answered(exports),
            (Asked::Dispose { job, path }, Answer::Disposed(result)) => {
                self.disposed(job, path, result);
            }
            // An answer of another kind than its question is a scout's defect; the edge has
            // decoded it, so say it and go on: the question counts as not answered.
            (asked, answer) => {
                self.log(Level::Error, |line| {
                    line.text = format!("a scout answered {asked:?} with {answer:?}");
                });
            }
        }
    }

    fn append(&mut self, record: Record) {
        self.out.push(Effect::Append(record));
    }

    fn ask(&mut self, scout: ScoutId, question: Question, asked: Asked) -> AskId {
        self.last_ask += 1;
        let ask = AskId(self.last_ask);
        self.asks.insert(ask, asked);
        self.out.push(Effect::Ask(ask, scout, question));
        ask
    }

    fn log(&mut self, level: Level, fill: impl FnOnce(&mut LogLine)) {
        if level <= self.daemon.log_level {
            let mut line = LogLine::default();
            fill(&mut line);
            self.out.push(Effect::Log(level, line));
        }
    }

    /// A line about one path of one watch.
    fn log_path(&mut self, level: Level, watch: u32, dir: DirId, name: &[u8], text: String) {
        if level <= self.daemon.log_level {
            let line = LogLine {
                text,
                watch: self.watch_name(watch),
                path: self.path_of(watch, dir, name),
                job: String::new(),
            };
            self.out.push(Effect::Log(level, line));
        }
    }

    /// The absolute path, as far as it is known.
    fn path_of(&self, watch: u32, dir: DirId, name: &[u8]) -> Vec<u8> {
        if let Some(path) = self.tree.path(dir, name) {
            return path;
        }
        let mut path = match self.watches.get(watch as usize) {
            Some(watch) => watch.plan.path.clone(),
            None => Vec::new(),
        };
        path.push(b'/');
        path.extend(self.tree.rel(dir, name));
        path
    }

    fn watch_name(&self, watch: u32) -> String {
        self.watches
            .get(watch as usize)
            .map(|watch| watch.plan.name.clone())
            .unwrap_or_default()
    }

    /// A job as users see it.
    fn job_name(&self, job: JobId) -> String {
        format!("{:08x}-{}", self.journal, job.0)
    }

    fn seconds(&self) -> u32 {
        u32::try_from(self.now.wall.0 / 1_000_000_000).unwrap_or(0)
    }

    fn watch_id(&self, watch: u32) -> WatchId {
        self.watches
            .get(watch as usize)
            .map(|watch| watch.id)
            .unwrap_or_default()
    }

    fn live_phase(&self, key: FileKey) -> Option<(JobId, &Phase)> {
        let id = *self.job_of.get(&key)?;
        Some((id, &self.jobs.get(&id)?.phase))
    }
}
