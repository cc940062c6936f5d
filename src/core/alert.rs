//! `[alert]`: a command that is told what a person should know. One at a time, and not too often: what comes meanwhile is
//! added up. What it says was decided and logged elsewhere; nothing waits for it.

use super::ends::describe;
use super::files::FileKey;
use super::ids::{JobId, MountId, RunId};
use super::job::Phase;
use super::operate::Mode;
use super::record::Outcome;
use super::runs::{Kind, Run, attempt_end};
use super::settle::Waits;
use super::time::Mono;
use super::timers::Timer;
use super::{ChildEnd, Core, Effect, Program, SpawnOrder, Stdin};
use crate::plan::{AlertPlan, Level};
use serde::Serialize;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

const SIGKILL: i32 = 9;

/// What there is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alarm {
    /// Jobs are dead.
    Dead,
    /// Jobs are held for the operator.
    Held,
    /// A file waits to settle.
    Waiting,
    /// A mount does not answer.
    MountSilent,
    /// What looks for a watch's root does not.
    RootSilent,
    /// What was expected has not come.
    Expected,
    /// A flush of the journal took long.
    SlowFlush,
    /// The journal has no room.
    NoRoom,
}

impl Alarm {
    /// All, with the words that `SETTLED_ALERT` has for them.
    pub const ALL: [(Alarm, &'static str); 8] = [
        (Alarm::Dead, "dead"),
        (Alarm::Held, "held"),
        (Alarm::Waiting, "waiting"),
        (Alarm::MountSilent, "mount-silent"),
        (Alarm::RootSilent, "root-silent"),
        (Alarm::Expected, "expected"),
        (Alarm::SlowFlush, "slow-flush"),
        (Alarm::NoRoom, "no-room"),
    ];

    fn index(self) -> usize {
        self as usize
    }

    /// See [`Alarm::ALL`].
    pub fn word(self) -> &'static str {
        Alarm::ALL.get(self.index()).map_or("", |(_, word)| word)
    }
}

/// The variables that the command gets besides the daemon's own.
pub const ALERT_VARIABLES: [&str; 6] = [
    "SETTLED_ALERT",
    "SETTLED_WATCH",
    "SETTLED_PATH",
    "SETTLED_JOB",
    "SETTLED_COUNT",
    "SETTLED_TEXT",
];

/// What is known of it. Empty where it has none.
#[derive(Clone, Debug, Default)]
pub(super) struct Raised {
    pub(super) watch: String,
    pub(super) path: Vec<u8>,
    pub(super) job: String,
    pub(super) text: String,
}

/// What waits to be told: the first of its kind, and how many there are.
#[derive(Clone, Debug)]
struct Pending {
    first: Raised,
    count: u64,
    since_ns: i64,
}

/// What an alert is about: the index of a watch, the number of a mount, or 0.
type Key = (Alarm, u64);

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Alerts {
    pub(super) plan: Option<AlertPlan>,
    pending: BTreeMap<Key, Pending>,
    running: Option<(RunId, Key)>,
    /// When each was told last, as far as that matters.
    last: BTreeMap<Key, Mono>,
    told: [u64; Alarm::ALL.len()],
    failed: u64,
}

impl Alerts {
    pub(super) fn new(plan: Option<AlertPlan>) -> Alerts {
        Alerts {
            plan,
            ..Alerts::default()
        }
    }

    /// Commands that were started, by what they told.
    pub(super) fn told(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let words = Alarm::ALL.iter().map(|(_, word)| *word);
        words.zip(self.told)
    }

    /// Those that failed.
    pub(super) fn failed(&self) -> u64 {
        self.failed
    }

    /// A command is running.
    pub(super) fn running(&self) -> usize {
        usize::from(self.running.is_some())
    }
}

/// What the command reads.
#[derive(Serialize)]
struct Said<'a> {
    alert: &'a str,
    watch: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "String::is_empty")]
    path_hex: String,
    job: &'a str,
    count: u64,
    since_ns: i64,
    at_ns: i64,
    text: &'a str,
}

impl Core {
    /// Something is to be told. `false` if nobody wants to know.
    pub(super) fn raise(&mut self, alarm: Alarm, of: u64, raised: Raised) -> bool {
        if self.alerts.plan.is_none() {
            return false;
        }
        let since_ns = self.now.wall.0;
        let pending = self.alerts.pending.entry((alarm, of));
        let pending = pending.or_insert_with(|| Pending {
            first: raised,
            count: 0,
            since_ns,
        });
        pending.count += 1;
        true
    }

    /// Whether it is about to be told, or being told.
    pub(super) fn is_alerting(&self, alarm: Alarm, of: u64) -> bool {
        let key = (alarm, of);
        let running = self.alerts.running.map(|(_, key)| key);
        self.alerts.pending.contains_key(&key) || running == Some(key)
    }

    /// It is not so any more, and was not told yet.
    pub(super) fn forget_alerts(&mut self, alarm: Alarm, of: u64) {
        self.alerts.pending.remove(&(alarm, of));
    }

    /// The plan is another one, or the same.
    pub(super) fn replan_alerts(&mut self, plan: Option<AlertPlan>) {
        if plan.is_none() {
            let pending = std::mem::take(&mut self.alerts.pending);
            self.alerts.plan = None;
            for (alarm, of) in pending.into_keys() {
                self.alert_over((alarm, of));
            }
        }
        self.alerts.plan = plan;
    }

    /// Starts the command for what may be told now.
    pub(super) fn start_alerts(&mut self) {
        let alerts = &self.alerts;
        if alerts.pending.is_empty() || alerts.running.is_some() || self.mode != Mode::Running {
            return;
        }
        let Some(plan) = &alerts.plan else {
            return;
        };
        let mut next: Option<(Mono, Key)> = None;
        for (key, pending) in &alerts.pending {
            if key.0 == Alarm::Dead && pending.count < u64::from(plan.dead) {
                continue;
            }
            let told = alerts.last.get(key);
            let at = told.map_or(Mono(0), |told| told.after(plan.every));
            if next.is_none_or(|(first, _)| at < first) {
                next = Some((at, *key));
            }
        }
        match next {
            Some((at, key)) if at <= self.now.mono => self.start_alert(key),
            Some((at, _)) => self.timers.set(Timer::Alert, at),
            None => {}
        }
    }

    fn start_alert(&mut self, key: Key) {
        let Some(plan) = self.alerts.plan.clone() else {
            return;
        };
        let Some(pending) = self.alerts.pending.remove(&key) else {
            return;
        };
        let run = self.add_run_without_slot(Kind::Alert, u32::MAX);
        self.alerts.running = Some((run, key));
        let now = self.now.mono;
        self.alerts
            .last
            .retain(|_, told| told.after(plan.every) > now);
        self.alerts.last.insert(key, now);
        if let Some(told) = self.alerts.told.get_mut(key.0.index()) {
            *told += 1;
        }
        self.timers
            .set(Timer::Kill(run), self.now.mono.after(plan.timeout));
        let order = order(run, &plan, key.0, &pending, self.now.wall.0);
        self.out.push(Effect::Spawn(Box::new(order)));
    }

    /// The daemon goes, and a command that has not ended by now with it.
    pub(super) fn end_alert(&mut self) {
        if let Some((run, _)) = self.alerts.running {
            if let Some(run) = self.runs.get_mut(&run) {
                run.sent = SIGKILL;
            }
            self.out.push(Effect::Kill(run, SIGKILL));
        }
    }

    /// The command has ended.
    pub(super) fn alert_ended(&mut self, run: &Run, end: ChildEnd) {
        let Some((_, key)) = self.alerts.running.take() else {
            return;
        };
        let (end, _) = attempt_end(run, end);
        if end != super::record::AttemptEnd::Exit(0) {
            self.alerts.failed += 1;
            self.log(Level::Error, |line| {
                line.text = format!(
                    "the alert command ({}): {}; it is not repeated",
                    key.0.word(),
                    describe(end)
                );
            });
        }
        // One that was cut short because the daemon stops is made again at its next start.
        if run.sent == 0 || run.timed_out {
            self.alert_over(key);
        }
    }

    fn alert_over(&mut self, (alarm, of): Key) {
        if alarm == Alarm::Expected
            && let Ok(watch) = u32::try_from(of)
        {
            self.missing_told(watch);
        }
    }

    // ---- what is told ----

    /// A job was concluded, or is dead and stays.
    pub(super) fn alert_job(&mut self, id: JobId, outcome: Outcome) {
        let Some(plan) = &self.alerts.plan else {
            return;
        };
        let (alarm, what) = match outcome {
            Outcome::Dead if plan.dead > 0 => (Alarm::Dead, "dead"),
            Outcome::Held => (Alarm::Held, "held for the operator"),
            _ => return,
        };
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let raised = Raised {
            watch: self.watch_name(job.watch),
            path: self.path_of(job.watch, job.dir, &job.name),
            job: self.job_name(id),
            text: format!("its job is {what}, after {} attempts", job.begun),
        };
        let watch = u64::from(job.watch);
        self.raise(alarm, watch, raised);
    }

    /// Whether a candidate has waited for so long that a person is to know; told once for each.
    pub(super) fn alert_waiting(&mut self, key: FileKey) {
        let Some(limit) = self.alerts.plan.as_ref().map(|plan| plan.waiting) else {
            return;
        };
        let now = self.now.mono;
        let Some(candidate) = self.candidates.get_mut(&key) else {
            return;
        };
        let waited = now.since(candidate.since);
        // These wait as they are meant to.
        let meant = matches!(candidate.waits, Waits::Age | Waits::Job);
        if limit.is_zero() || waited < limit || meant || candidate.alerted {
            return;
        }
        candidate.alerted = true;
        let text = format!(
            "has not settled for {} s: {}",
            waited.as_secs(),
            candidate.waits
        );
        let (dir, name) = (candidate.dir, candidate.name.clone());
        let Some(watch) = self.tree.get(dir).map(|node| node.watch) else {
            return;
        };
        self.log_path(Level::Warning, watch, dir, &name, text.clone());
        let raised = Raised {
            watch: self.watch_name(watch),
            path: self.path_of(watch, dir, &name),
            text,
            ..Raised::default()
        };
        self.raise(Alarm::Waiting, u64::from(watch), raised);
    }

    /// A mount was said not to answer, or answers.
    pub(super) fn alert_mount(&mut self, mount: MountId, silent: bool) {
        let timer = Timer::AlertMount(mount);
        self.timers.clear(timer);
        if !silent {
            self.forget_alerts(Alarm::MountSilent, mount.0);
            return;
        }
        let limit = self.alerts.plan.as_ref().map(|plan| plan.mount_silent);
        if let Some(limit) = limit.filter(|limit| !limit.is_zero()) {
            // So long it has been silent already.
            let left = limit.saturating_sub(self.daemon.mount_silent);
            self.timers.set(timer, self.now.mono.after(left));
        }
    }

    pub(super) fn alert_mount_due(&mut self, mount: MountId) {
        let silent = |lane: &super::lane::Lane| lane.silent.is_some();
        if !self.lanes.get(&mount).is_some_and(silent) {
            return;
        }
        let path = self.mounts.get(&mount).map(|mount| mount.point.clone());
        let raised = Raised {
            path: path.unwrap_or_default(),
            text: "the mount does not answer; work on it is held".into(),
            ..Raised::default()
        };
        self.raise(Alarm::MountSilent, mount.0, raised);
    }

    /// The same of what looks for a watch's root.
    pub(super) fn alert_root(&mut self, watch: u32, silent: bool) {
        if !silent {
            self.forget_alerts(Alarm::RootSilent, u64::from(watch));
            return;
        }
        let wanted = |plan: &AlertPlan| !plan.mount_silent.is_zero();
        let Some(state) = self.watches.get(watch as usize) else {
            return;
        };
        if !self.alerts.plan.as_ref().is_some_and(wanted) {
            return;
        }
        let raised = Raised {
            watch: state.plan.name.clone(),
            path: state.plan.path.clone(),
            text: "the directory does not answer; its watch waits".into(),
            ..Raised::default()
        };
        self.raise(Alarm::RootSilent, u64::from(watch), raised);
    }

    /// A flush took so long.
    pub(super) fn flush_was_slow(&mut self, took: Duration) {
        let limit = self.alerts.plan.as_ref().map(|plan| plan.slow_flush);
        if took < limit.unwrap_or(SLOW_FLUSH) || limit.is_some_and(|limit| limit.is_zero()) {
            return;
        }
        let text = format!(
            "a flush of the journal took {:.1} s, and everything waited for it",
            took.as_secs_f64()
        );
        self.log(Level::Warning, |line| line.text.clone_from(&text));
        let raised = Raised {
            text,
            ..Raised::default()
        };
        self.raise(Alarm::SlowFlush, 0, raised);
    }

    /// There is no room for the journal, or there is again.
    pub(super) fn alert_room(&mut self, room: bool) {
        if room {
            self.forget_alerts(Alarm::NoRoom, 0);
            return;
        }
        let raised = Raised {
            text: "no room for the journal: nothing new is started until there is".into(),
            ..Raised::default()
        };
        self.raise(Alarm::NoRoom, 0, raised);
    }

    /// A job that is dead and holds up others was told of when it died.
    pub(super) fn was_halted(&self, id: JobId) -> bool {
        let job = self.jobs.get(&id);
        job.is_some_and(|job| matches!(job.phase, Phase::Halted))
    }
}

/// A flush that takes longer is worth a line without any configuration.
const SLOW_FLUSH: Duration = Duration::from_secs(1);

fn order(run: RunId, plan: &AlertPlan, alarm: Alarm, pending: &Pending, at_ns: i64) -> SpawnOrder {
    let Raised {
        watch,
        path,
        job,
        text,
    } = &pending.first;
    let shown = String::from_utf8_lossy(path);
    let path_hex = match std::str::from_utf8(path) {
        Ok(_) => String::new(),
        Err(_) => path.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    let said = Said {
        alert: alarm.word(),
        watch,
        path: &shown,
        path_hex,
        job,
        count: pending.count,
        since_ns: pending.since_ns,
        at_ns,
        text,
    };
    // There is nothing in it that could not be written as JSON.
    let mut line = serde_json::to_vec(&said).unwrap_or_default();
    line.push(b'\n');
    let count = pending.count.to_string();
    let values: [&[u8]; ALERT_VARIABLES.len()] = [
        alarm.word().as_bytes(),
        watch.as_bytes(),
        path,
        job.as_bytes(),
        count.as_bytes(),
        text.as_bytes(),
    ];
    let env = ALERT_VARIABLES.iter().zip(values);
    SpawnOrder {
        run,
        jobs: Vec::new(),
        program: Program::Command,
        argv: plan.run.clone(),
        env: env
            .map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec()))
            .collect(),
        cwd: b"/".to_vec(),
        files: Vec::new(),
        stdin: Stdin::Bytes(line),
        process: Rc::default(),
        slot: 0,
        output: None,
        watch: watch.clone(),
        job_name: String::new(),
        attempt: 0,
    }
}
