//! What a person asks of the daemon: reload, re-list, tell the state, drain, stop.

use super::files::FileKey;
use super::ids::{DirId, JobId};
use super::job::Phase;
use super::settle::Waits;
use super::time::Mono;
use super::timers::Timer;
use super::tree::Bind;
use super::watch::{Root, Watch};
use super::{Command, Core, Effect, changes};
use crate::core::queue::Queue;
use crate::plan::{Action, Level, Plan, WatchPlan};
use std::collections::BTreeMap;
use std::time::Duration;

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;
/// Between SIGTERM and SIGKILL, and between SIGKILL and leaving, when the drain time is over.
const LAST_WAIT: Duration = Duration::from_secs(5);
/// How long those who keep claims may take to let go of them: a service manager may kill them with the daemon's end.
const LEAVE_WAIT: Duration = Duration::from_secs(1);
/// Candidates, and jobs, named when the state is logged.
const LOGGED_MAX: usize = 20;
/// So many jobs are gone through for those.
const LOOKED_AT_MAX: usize = 10_000;

/// What the daemon is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// Everything.
    Running,
    /// Nothing new; what runs may end.
    Draining,
    /// What runs was asked to end.
    Terminating,
    /// What runs was killed.
    Killing,
    /// No job runs; those who keep claims are letting go of them, and an alert's command may end.
    Leaving,
    /// [`Effect::Stop`] is out.
    Stopped,
}

/// What there is of a watch when it gets a new plan.
#[derive(Debug, Default)]
struct Owned {
    candidates: Vec<FileKey>,
    jobs: Vec<JobId>,
}

impl Core {
    pub(super) fn command(&mut self, command: Command) {
        match command {
            Command::Reload(plan) => {
                self.reload(*plan);
            }
            Command::Asked(client, order) => self.order_of(client, order),
            Command::Rescan => {
                // A link on the way to a root may lead elsewhere by now: no event tells.
                for watch in 0..self.watches.len() as u32 {
                    self.resolve_root(watch);
                }
                self.rescan_all("asked to list");
            }
            Command::LogState => self.log_state(),
            Command::Drain => self.drain(),
            Command::StopNow => self.stop_now(),
        }
    }

    // ---- stopping ----

    fn drain(&mut self) {
        if self.mode != Mode::Running {
            return;
        }
        self.mode = Mode::Draining;
        let running = self.jobs_running();
        self.log(Level::Info, |line| {
            line.text = format!("stopping: {running} running, nothing new is started");
        });
        self.dismiss_all_workers();
        self.end_sweeps();
        self.end_stuck();
        self.give_claims_back();
        self.timers
            .set(Timer::Drain, self.now.mono.after(self.daemon.drain));
    }

    fn stop_now(&mut self) {
        if self.mode == Mode::Leaving {
            self.stop();
        }
        if self.mode >= Mode::Killing {
            return;
        }
        self.mode = Mode::Killing;
        self.signal_all(SIGKILL);
        self.timers
            .set(Timer::Drain, self.now.mono.after(LAST_WAIT));
    }

    /// The longest that a stop takes once it was asked for: the drain, and the waits after it.
    pub fn stop_takes(&self) -> Duration {
        self.daemon.drain + 2 * LAST_WAIT + LEAVE_WAIT
    }

    pub(super) fn drain_due(&mut self) {
        match self.mode {
            Mode::Running | Mode::Stopped => return,
            Mode::Draining => {
                self.mode = Mode::Terminating;
                let running = self.jobs_running();
                if running > 0 {
                    self.log(Level::Warning, |line| {
                        line.text = format!("drain is over: {running} running are cut short");
                    });
                }
                self.signal_all(SIGTERM);
            }
            Mode::Terminating => {
                self.mode = Mode::Killing;
                self.signal_all(SIGKILL);
            }
            // What SIGKILL does not end waits in the kernel; its record says that it was begun.
            Mode::Killing => {
                self.leave();
                return;
            }
            Mode::Leaving => {
                self.stop();
                return;
            }
        }
        self.timers
            .set(Timer::Drain, self.now.mono.after(LAST_WAIT));
    }

    pub(super) fn check_drained(&mut self) {
        // What looks for leftovers may hang where it looks: nothing is lost with it.
        let others = self.sweeps + self.keepers.len() + self.alerts.running();
        let busy = self.runs.len() > others;
        if matches!(self.mode, Mode::Running | Mode::Stopped) || busy {
            return;
        }
        if self.mode == Mode::Leaving {
            if self.has_left() {
                self.stop();
            }
            return;
        }
        let disposing = self.mode <= Mode::Draining
            && self.jobs.values().any(|job| {
                matches!(
                    job.phase,
                    Phase::Disposing { asked: true, .. } | Phase::PostLook { .. }
                ) && !self.is_stuck(job.dir)
            });
        let disposing = disposing || (self.mode <= Mode::Draining && self.is_marking());
        if !disposing {
            self.leave();
        }
    }

    /// Nothing is left to be done but to let go of claims, and to let a person be told who is being told.
    fn leave(&mut self) {
        self.end_claims();
        if self.has_left() {
            self.stop();
            return;
        }
        // What was sent a signal has had its time.
        let wait = match self.alerts.running() > 0 && self.mode == Mode::Draining {
            true => LAST_WAIT,
            false => LEAVE_WAIT,
        };
        self.mode = Mode::Leaving;
        self.timers.set(Timer::Drain, self.now.mono.after(wait));
    }

    fn has_left(&self) -> bool {
        self.keepers.is_empty() && self.alerts.running() == 0
    }

    fn stop(&mut self) {
        self.mode = Mode::Stopped;
        self.end_alert();
        self.timers.clear(Timer::Drain);
        self.log(Level::Info, |line| line.text = "stopped".into());
        self.out.push(Effect::Stop(0));
    }

    // ---- readiness, room ----

    pub(super) fn check_ready(&mut self) {
        if !self.ready
            && self
                .watches
                .iter()
                .all(|watch| !watch.active || watch.scanned || watch.state == Root::Missing)
        {
            self.say_ready();
        }
    }

    pub(super) fn say_ready(&mut self) {
        if std::mem::replace(&mut self.ready, true) {
            return;
        }
        self.timers.clear(Timer::Ready);
        let (dirs, _) = self.tree.count();
        let (known, _) = self.files.count();
        let (watches, jobs) = (
            self.watches.iter().filter(|watch| watch.active).count(),
            self.jobs.len(),
        );
        self.log(Level::Info, |line| {
            line.text = format!(
                "ready: {watches} watches, {dirs} directories, {known} files remembered, {jobs} jobs owed"
            );
        });
        self.out.push(Effect::Ready);
    }

    pub(super) fn journal_room(&mut self, room: bool) {
        if self.room == room {
            return;
        }
        self.room = room;
        self.alert_room(room);
        self.log(if room { Level::Info } else { Level::Error }, |line| {
            line.text = if room {
                "the journal has room again: going on".into()
            } else {
                "no room for the journal: nothing new is started until there is; make room on the \
                 state directory's filesystem"
                    .into()
            };
        });
        if room {
            for watch in 0..self.watches.len() as u32 {
                self.release(watch, Waits::Room);
            }
        }
    }

    // ---- reload ----

    /// Takes a plan. What changed, a sentence for each watch.
    pub(super) fn reload(&mut self, mut plan: Plan) -> Vec<String> {
        let mut said = Vec::new();
        let mut say = |watch: &str, text: String| said.push((watch.to_owned(), text));
        let keys = changes::of_daemon(&self.daemon, &plan.daemon);
        if !keys.is_empty() {
            say("", format!("reload: [daemon] {} changed", keys.join(", ")));
        }
        let late: Vec<&str> = keys
            .iter()
            .copied()
            .filter(|key| changes::AT_START.contains(key))
            .collect();
        if !late.is_empty() {
            let text = format!(
                "reload: [daemon] {} takes a restart: until then it is as before",
                late.join(", ")
            );
            say("", text);
        }
        self.keep_state(&mut plan);
        self.daemon = plan.daemon;
        if let Some(text) = changes::of_alert(self.alerts.plan.as_ref(), plan.alert.as_ref()) {
            say("", format!("reload: {text}"));
        }
        self.replan_alerts(plan.alert);
        let mut new = plan.watches;
        let mut owned = None;
        for index in 0..self.watches.len() {
            let name = self.watches[index].plan.name.clone();
            let at = new.iter().position(|plan| plan.name == name).or_else(|| {
                new.iter()
                    .position(|plan| plan.formerly.as_deref() == Some(name.as_str()))
            });
            match at {
                Some(at) => {
                    let plan = new.remove(at);
                    let old = &self.watches[index];
                    let keys = changes::of_watch(&old.plan, &plan);
                    if old.active && keys.is_empty() {
                        self.watches[index].plan = plan;
                        self.start_scan(index as u32);
                        continue;
                    }
                    if !old.active {
                        say(&plan.name, "reload: the watch is back".into());
                    } else if !keys.is_empty() {
                        say(&plan.name, format!("reload: {} changed", keys.join(", ")));
                    }
                    let owned = owned.get_or_insert_with(|| self.owned_by_watch());
                    let of_watch = owned.remove(&(index as u32)).unwrap_or_default();
                    self.replan(index as u32, plan, &of_watch);
                }
                None if self.watches[index].active => {
                    let running = self.watches[index].running;
                    let text = format!("reload: the watch is gone; {running} running jobs end");
                    say(&name, text);
                    self.retire(index as u32);
                }
                None => {}
            }
        }
        for plan in new {
            let name = plan.name.clone();
            self.watches.push(Watch::new(plan));
            let index = self.watches.len() - 1;
            self.number_watch(index);
            say(&name, "reload: a new watch".into());
            self.begin_watch(index as u32);
        }
        for watch in 0..self.watches.len() as u32 {
            self.expect_due(watch);
        }
        self.ask_exports();
        if said.is_empty() {
            said.push((String::new(), "reload: nothing has changed".into()));
        }
        let mut told = Vec::new();
        for (watch, text) in said {
            let text_of = text.trim_start_matches("reload: ");
            told.push(match watch.is_empty() {
                true => text_of.to_owned(),
                false => format!("watch {watch}: {text_of}"),
            });
            self.log(Level::Info, |line| {
                line.text = text;
                line.watch = watch;
            });
        }
        self.log(Level::Info, |line| line.text = "reloaded".into());
        told
    }

    /// The state directory stays the one that was opened, whatever the new plan says: that is what is told of it, and where
    /// the slots are.
    fn keep_state(&self, plan: &mut Plan) {
        if plan.daemon.state == self.daemon.state {
            return;
        }
        plan.daemon.state.clone_from(&self.daemon.state);
        let slots = plan.daemon.state.join("slots");
        let slots = slots.into_os_string().into_encoded_bytes();
        for claim in plan.watches.iter_mut().filter_map(|w| w.claim.as_mut()) {
            claim.slots.clone_from(&slots);
        }
    }

    /// The candidates and the jobs of each watch: there may be half a million, and many watches that have changed.
    fn owned_by_watch(&self) -> BTreeMap<u32, Owned> {
        let mut owned: BTreeMap<u32, Owned> = BTreeMap::new();
        for (key, candidate) in &self.candidates {
            if let Some(node) = self.tree.get(candidate.dir) {
                owned.entry(node.watch).or_default().candidates.push(*key);
            }
        }
        for (id, job) in &self.jobs {
            owned.entry(job.watch).or_default().jobs.push(*id);
        }
        owned
    }

    /// A watch has a new plan, or is back.
    fn replan(&mut self, watch: u32, plan: WatchPlan, owned: &Owned) {
        let Some(state) = self.watches.get_mut(watch as usize) else {
            return;
        };
        let exported = state.plan.exported != plan.exported;
        let elsewhere = state.plan.path != plan.path || !state.active;
        let otherwise =
            state.plan.recursive != plan.recursive || state.plan.observe != plan.observe;
        let renamed = state.plan.name != plan.name;
        state.queue = Queue::new(plan.per_key());
        if state.plan.rate != plan.rate {
            // What the old one made wait need not wait for the new one.
            state.next_start = Mono::default();
        }
        let workers = is_same_worker(&state.plan, &plan);
        let claims = is_same_claim(&state.plan, &plan) && state.active;
        state.plan = plan;
        state.active = true;
        let (id, name) = (state.id, state.plan.name.clone());
        self.replan_claims(watch, claims);
        if renamed {
            self.append(super::record::Record::Watch {
                watch: id,
                name: name.clone(),
            });
        }
        if elsewhere {
            self.unbind(watch);
            self.begin_watch(watch);
        } else {
            if otherwise {
                self.unwatch_all(watch);
            }
            // What is selected may have changed.
            self.start_scan(watch);
        }
        for key in &owned.candidates {
            let left_out = self.candidates.get(key).is_some_and(|candidate| {
                self.tree.get(candidate.dir).is_some()
                    && !self.selects(watch, candidate.dir, &candidate.name)
            });
            if left_out {
                self.drop_candidate(*key);
            }
        }
        if exported {
            self.judge_quiet_again();
            self.say_exported(watch);
        }
        if !workers {
            self.dismiss_workers(watch);
        }
        for id in &owned.jobs {
            self.requeue_job(*id);
        }
        self.judge_halted_of(watch, &owned.jobs);
    }

    /// A watch is not in the configuration any more: its running jobs end, its history is kept.
    fn retire(&mut self, watch: u32) {
        self.unbind(watch);
        let Some(state) = self.watches.get_mut(watch as usize) else {
            return;
        };
        state.active = false;
        state.queue = Queue::new(state.plan.per_key());
        self.replan_claims(watch, false);
        let keys: Vec<FileKey> = self
            .candidates
            .iter()
            .filter(|(_, candidate)| {
                self.tree
                    .get(candidate.dir)
                    .is_some_and(|node| node.watch == watch)
            })
            .map(|(key, _)| *key)
            .collect();
        for key in keys {
            self.drop_candidate(key);
        }
        self.dismiss_workers(watch);
    }

    fn unwatch_all(&mut self, watch: u32) {
        for dir in self.tree.of_watch(watch) {
            self.unwatch(dir);
        }
    }

    /// Stops observing a watch; what is remembered stays.
    fn unbind(&mut self, watch: u32) {
        self.unwatch_all(watch);
        for dir in self.tree.of_watch(watch) {
            self.left_scan(dir);
            self.timers.clear(Timer::Bind(dir));
            if let Some(node) = self.tree.get_mut(dir) {
                if node.bind == Bind::Queued {
                    node.bind = Bind::Idle;
                }
                node.bound = false;
            }
            self.tree.set_unwatched(dir, false);
        }
        let Some(state) = self.watches.get_mut(watch as usize) else {
            return;
        };
        state.scan = None;
        state.scan_again = false;
        state.state = Root::Unknown;
        state.said_missing = false;
        let root = state.root;
        // Running jobs keep their paths: only a root that moves elsewhere loses its base, when it is resolved.
        if root == DirId(0) {
            return;
        }
        self.timers.clear(Timer::Root(watch));
        self.timers.clear(Timer::Poll(watch));
    }

    // ---- the state in words ----

    fn log_state(&mut self) {
        let (dirs, wds) = self.tree.count();
        let (known, gone) = self.files.count();
        let text = format!(
            "state: {} running, {} jobs owed, {} candidates, {dirs} directories, {wds} inotify watches, \
             {known} files remembered ({gone} of them gone), {} questions outstanding",
            self.jobs_running(),
            self.jobs.len(),
            self.candidates.len(),
            self.asks.len(),
        );
        self.log(Level::Info, |line| line.text = text);
        for index in 0..self.watches.len() {
            let watch = &self.watches[index];
            let root = watch.root;
            let text = format!(
                "state: {}, {} running, {} ready{}, {}",
                match watch.paused {
                    true => format!("{}, paused", self.watch_words(watch)),
                    false => self.watch_words(watch).to_owned(),
                },
                self.jobs_running_in(index as u32),
                self.ready_in(index),
                if watch.scan.is_some() {
                    ", listing"
                } else {
                    ""
                },
                self.observed_text(index as u32),
            );
            let text = match self.count_claims(index as u32) {
                Some((had, elsewhere)) => {
                    format!("{text}, {had} claimed here, {elsewhere} claimed elsewhere")
                }
                None => text,
            };
            let name = watch.plan.name.clone();
            self.log(Level::Info, |line| {
                line.text = text;
                line.watch = name;
            });
            if let Some(text) = self.exported_text(index as u32) {
                self.log_path(
                    Level::Info,
                    index as u32,
                    root,
                    b"",
                    format!("state: {text}"),
                );
            }
        }
        self.log_mounts();
        let waiting: Vec<(u32, DirId, Box<[u8]>, String)> = self
            .candidates
            .values()
            .filter_map(|candidate| {
                let watch = self.tree.get(candidate.dir)?.watch;
                Some((
                    watch,
                    candidate.dir,
                    candidate.name.clone(),
                    format!(
                        "state: {}, for {:.1} s",
                        candidate.waits,
                        self.now.mono.since(candidate.since).as_secs_f64()
                    ),
                ))
            })
            .take(LOGGED_MAX)
            .collect();
        for (watch, dir, name, text) in waiting {
            self.log_path(Level::Info, watch, dir, &name, text);
        }
        self.log_jobs();
    }

    /// What happens to jobs that are not simply ready.
    fn log_jobs(&mut self) {
        // Half a million may be ready behind those that were begun.
        let jobs = self.jobs.iter().take(LOOKED_AT_MAX);
        let under_way = jobs.filter(|(_, job)| !matches!(job.phase, Phase::Ready));
        let lines: Vec<(JobId, String)> = under_way
            .take(LOGGED_MAX)
            .map(|(id, job)| {
                let (text, since) = self.job_words(job);
                let s = self.now.wall.since(since).as_secs_f64();
                (*id, format!("state: {text}, for {s:.1} s"))
            })
            .collect();
        for (id, text) in lines {
            self.log_job(Level::Info, id, || text);
        }
    }
}

/// Whether the process that keeps the claims of the old plan does so for the new one, too.
fn is_same_claim(old: &WatchPlan, new: &WatchPlan) -> bool {
    (&old.claim, &old.name, &old.path, &old.process.identity)
        == (&new.claim, &new.name, &new.path, &new.process.identity)
}

/// Whether workers of the old plan are workers of the new one, too.
fn is_same_worker(old: &WatchPlan, new: &WatchPlan) -> bool {
    let texts = |plan: &WatchPlan| -> Vec<String> {
        let env = plan
            .env
            .iter()
            .map(|(name, value)| format!("{name}={}", value.text()));
        plan.argv()
            .iter()
            .map(|arg| arg.text().to_owned())
            .chain(env)
            .collect()
    };
    match (&old.action, &new.action) {
        (Action::Worker(was), Action::Worker(is)) => {
            was.workers == is.workers
                && texts(old) == texts(new)
                && (&old.cwd, &old.process, &old.output) == (&new.cwd, &new.process, &new.output)
        }
        (_, Action::Worker(_)) | (Action::Worker(_), _) => false,
        _ => true,
    }
}
