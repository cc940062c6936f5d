//! Workers: long-lived processes that are fed jobs over their standard input and answer line by line
//! (settled-worker(7)).
//!
//! A job goes through: taken out of the queue for a worker → looked at once more → handed over, its `started` record before
//! its line → answered. A worker that ends with one job unanswered has failed with that; with several, nobody knows because
//! of which: they are handed out again each alone.

use super::files::FileKey;
use super::ids::{JobId, RunId};
use super::job::Phase;
use super::operate::Mode;
use super::protocol::{self, Answer, Answers, JobLine, Named, Said};
use super::record::{AttemptEnd, Outcome};
use super::runs::{Kind, Run, attempt_end};
use super::template::Values;
use super::time::{Mono, Wall};
use super::timers::Timer;
use super::watch::Watch;
use super::{ChildEnd, Core, Effect, Program, SpawnOrder, Stdin};
use crate::plan::{Action, Level, WorkerPlan};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

/// Wait before a worker that ended is started again; doubles while no answer comes in between.
const RESTART_FIRST: Duration = Duration::from_millis(500);
const RESTART_LAST: Duration = Duration::from_secs(60);
/// Longest message of a worker that is kept in the journal.
const MESSAGE_MAX: usize = 4096;

/// A process that is fed.
#[derive(Debug, Default)]
pub(super) struct Worker {
    /// Which of its watch's workers it is.
    pub(super) place: usize,
    /// Nothing is handed to it before it has said that it is ready.
    starting: bool,
    /// Nothing more is handed to it.
    ending: bool,
    /// It has closed its standard input or output: what it does not answer soon it will not answer.
    deaf: bool,
    /// It has answered, or said that it is ready.
    pub(super) proved: bool,
    /// It has a job that is to be alone with it.
    alone: bool,
    /// Being looked at for it.
    looking: BTreeSet<JobId>,
    /// Looked at, and handed over at the end of the turn.
    pending: Vec<JobId>,
    /// Handed over and not answered, in that order.
    jobs: Vec<JobId>,
}

impl Worker {
    /// Jobs that were handed over and not answered.
    pub(super) fn handed(&self) -> usize {
        self.jobs.len()
    }

    fn load(&self) -> usize {
        self.looking.len() + self.pending.len() + self.jobs.len()
    }
}

/// One of the workers that a watch is to have.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Post {
    pub(super) run: Option<RunId>,
    /// Ends in a row without an answer in between.
    failures: u32,
    not_before: Mono,
}

impl Core {
    // ---- dispatch ----

    /// Takes a job out of the queue for the worker that has least to do.
    pub(super) fn dispatch_to_worker(&mut self, index: usize) -> bool {
        let Action::Worker(plan) = &self.watches[index].plan.action else {
            return false;
        };
        let window = plan.window as usize;
        let posts = &self.watches[index].posts;
        if posts.len() < plan.workers as usize || posts.iter().any(|post| post.run.is_none()) {
            let plan = plan.clone();
            self.start_workers(index, &plan);
        }
        let Some(first) = self.watches[index].startable().first() else {
            return false;
        };
        let alone = self.jobs.get(&first).is_some_and(|job| job.alone);
        let free = self.watches[index]
            .posts
            .iter()
            .filter_map(|post| Some((post.run?, self.workers.get(&post.run?)?)))
            .filter(|(run, worker)| self.takes(*run) && !worker.alone)
            .filter(|(_, worker)| match alone {
                true => worker.load() == 0,
                false => worker.load() < window,
            })
            .min_by_key(|(_, worker)| worker.load());
        let Some((run, _)) = free else {
            return false;
        };
        let Some(id) = self.pop_one(index) else {
            return false;
        };
        if self.watches[index].startable().is_empty() {
            self.watches[index].batch_since = None;
        }
        self.spend_rate(index, 1);
        let Some(job) = self.jobs.get_mut(&id) else {
            return false;
        };
        if self.tree.mount(job.dir).is_none() {
            self.conclude(id, Outcome::Gone, None, Vec::new());
            return true;
        }
        job.phase = Phase::Handing { run };
        let heard = FileKey::new(job.dir, &job.name);
        // Another look would tell nothing new, unless something was heard since.
        let seen = self.just_seen.remove(&id) && !self.candidates.contains_key(&heard);
        if let Some(worker) = self.workers.get_mut(&run) {
            worker.alone = alone;
            worker.looking.insert(id);
        }
        if seen {
            self.hand_over(id, run);
        } else {
            self.ask_look(id);
        }
        true
    }

    /// How many jobs its workers would take now, and how many if they had none.
    pub(super) fn room_at_workers(&self, state: &Watch) -> (usize, usize) {
        let Action::Worker(plan) = &state.plan.action else {
            return (0, 0);
        };
        let window = plan.window as usize;
        let runs = state.posts.iter().filter_map(|post| post.run);
        runs.filter(|run| self.takes(*run))
            .filter_map(|run| self.workers.get(&run))
            .fold((0, 0), |(room, all), worker| {
                (room + window.saturating_sub(worker.load()), all + window)
            })
    }

    /// Jobs that the workers of a watch have, or are about to get.
    pub(super) fn worker_load(&self, watch: u32) -> usize {
        let posts = self.watches.get(watch as usize).map(|watch| &watch.posts);
        let runs = posts.into_iter().flatten().filter_map(|post| post.run);
        runs.filter_map(|run| self.workers.get(&run))
            .map(Worker::load)
            .sum()
    }

    /// Makes the workers that the watch is to have and that may be made now.
    fn start_workers(&mut self, index: usize, plan: &WorkerPlan) {
        let posts = &mut self.watches[index].posts;
        if posts.len() < plan.workers as usize {
            posts.resize(plan.workers as usize, Post::default());
        }
        let mut next: Option<Mono> = None;
        for place in 0..plan.workers as usize {
            let post = self.watches[index].posts[place];
            if post.run.is_some() {
                continue;
            }
            if post.not_before > self.now.mono {
                next = Some(next.map_or(post.not_before, |next| next.min(post.not_before)));
                continue;
            }
            let (run, slot) = self.add_run(Kind::Worker, index as u32, Vec::new());
            self.watches[index].posts[place].run = Some(run);
            let worker = Worker {
                place,
                starting: plan.ready.is_some(),
                ..Worker::default()
            };
            self.workers.insert(run, worker);
            if let Some(ready) = plan.ready {
                self.timers
                    .set(Timer::Kill(run), self.now.mono.after(ready));
            }
            let order = self.worker_order(index, run, slot, plan);
            self.out.push(Effect::Spawn(Box::new(order)));
        }
        if let Some(next) = next {
            self.timers.set(Timer::Dispatch(index as u32), next);
        }
    }

    fn worker_order(&self, index: usize, run: RunId, slot: u32, plan: &WorkerPlan) -> SpawnOrder {
        let watch = &self.watches[index].plan;
        let values = Values {
            path: b"",
            rel: b"",
            watch: &watch.name,
            key: b"",
            size: 0,
            mtime: Wall(0),
            date: "",
            job: "",
            attempt: 0,
        };
        let mut env = vec![(b"SETTLED_WATCH".to_vec(), watch.name.clone().into_bytes())];
        for (name, value) in &watch.env {
            env.push((name.clone().into_bytes(), value.expand(&values)));
        }
        SpawnOrder {
            run,
            jobs: Vec::new(),
            program: Program::Command,
            argv: plan.argv.iter().map(|arg| arg.expand(&values)).collect(),
            env,
            cwd: watch.cwd.clone().unwrap_or_else(|| b"/".to_vec()),
            files: Vec::new(),
            stdin: Stdin::Worker,
            process: Rc::clone(&watch.process),
            slot,
            output: watch.output.clone(),
            watch: watch.name.clone(),
            job_name: String::new(),
            attempt: 0,
        }
    }

    /// Whether a worker may be given more.
    fn takes(&self, run: RunId) -> bool {
        let worker = self.workers.get(&run);
        worker.is_some_and(|worker| !worker.starting && !worker.ending)
            && self.runs.get(&run).is_some_and(|run| run.sent == 0)
    }

    /// A scout has looked at a job's file, and it is the one. `false`: its worker is no more, or takes nothing more.
    pub(super) fn hand_over(&mut self, id: JobId, run: RunId) {
        match self.workers.get_mut(&run) {
            // Whether it may still be given anything is seen at the end of the turn.
            Some(worker) => {
                // Two looks may be under way: one of them counts.
                if worker.looking.remove(&id) {
                    worker.pending.push(id);
                    self.to_feed.insert(run);
                }
            }
            None => self.enqueue(id),
        }
    }

    /// A job that was to be handed to a worker is not.
    pub(super) fn not_handed(&mut self, id: JobId, run: RunId) {
        if let Some(worker) = self.workers.get_mut(&run) {
            worker.looking.remove(&id);
            worker.pending.retain(|pending| *pending != id);
            if worker.load() == 0 {
                worker.alone = false;
            }
        }
    }

    /// It waits for a worker again, where its key belongs.
    pub(super) fn take_back(&mut self, id: JobId, run: RunId) {
        self.not_handed(id, run);
        self.enqueue(id);
    }

    /// Hands over what has been looked at: a line for each job, or for each batch. Says whether anything was not, so that
    /// it, or what waits for its place, may be for another worker.
    pub(super) fn feed_workers(&mut self) -> bool {
        let mut left = false;
        for run in std::mem::take(&mut self.to_feed) {
            let takes = self.takes(run);
            let Some(worker) = self.workers.get_mut(&run) else {
                continue;
            };
            let ids = std::mem::take(&mut worker.pending);
            // A job may have died since these were let go.
            let halted = self
                .runs
                .get(&run)
                .and_then(|run| self.watches.get(run.watch as usize))
                .is_some_and(|watch| watch.is_halted());
            if halted || !takes || !self.room || self.mode != Mode::Running {
                left |= !ids.is_empty();
                for id in ids {
                    self.take_back(id, run);
                }
                continue;
            }
            if self.renamed == Some(self.now.mono) {
                worker.looking.extend(&ids);
                for id in ids {
                    self.ask_look(id);
                }
                continue;
            }
            left |= self.feed(run, ids);
        }
        left
    }

    fn feed(&mut self, run: RunId, ids: Vec<JobId>) -> bool {
        let Some((watch, slot)) = self.runs.get(&run).map(|run| (run.watch, run.slot)) else {
            return false;
        };
        let Some(plan) = self.watches.get(watch as usize).map(|w| &w.plan) else {
            return false;
        };
        let (batch, timeout) = (plan.batch, plan.timeout);
        let mut lines = Vec::new();
        let mut handed = Vec::with_capacity(ids.len());
        for group in ids.chunks(batch.map_or(1, |batch| batch.max.max(1) as usize)) {
            let mut members = Vec::with_capacity(group.len());
            for id in group {
                let placed = self
                    .jobs
                    .get(id)
                    .is_some_and(|job| self.tree.mount(job.dir).is_some());
                if !placed {
                    self.conclude(*id, Outcome::Gone, None, Vec::new());
                    continue;
                }
                let recovered = self.begin_attempt(*id, run, slot);
                if let Some(job) = self.jobs.get_mut(id) {
                    job.handed = self.now.mono;
                }
                members.push((*id, recovered));
            }
            self.push_lines(&mut lines, &members, batch.is_some());
            handed.extend(members.into_iter().map(|(id, _)| id));
        }
        self.say_slot(slot, &handed);
        let Some(worker) = self.workers.get_mut(&run) else {
            return false;
        };
        let idle = worker.jobs.is_empty();
        let left = handed.len() < ids.len();
        worker.jobs.extend(handed);
        if worker.load() == 0 {
            worker.alone = false;
        }
        if idle
            && !worker.jobs.is_empty()
            && let Some(timeout) = timeout
        {
            self.timers
                .set(Timer::Kill(run), self.now.mono.after(timeout));
        }
        if !lines.is_empty() {
            self.out.push(Effect::Feed(run, lines));
        }
        left
    }

    fn push_lines(&self, lines: &mut Vec<u8>, members: &[(JobId, bool)], batch: bool) {
        let mut owned = Vec::with_capacity(members.len());
        for (id, recovered) in members {
            let Some(job) = self.jobs.get(id) else {
                continue;
            };
            let path = self.path_of(job.watch, job.dir, &job.name);
            let rel = self.tree.rel(job.dir, &job.name);
            owned.push((job, *recovered, self.job_name(*id), path, rel));
        }
        let name_of = |job: &super::job::Job| self.watches.get(job.watch as usize);
        let lined = owned
            .iter()
            .map(|(job, recovered, name, path, rel)| JobLine {
                job: name,
                attempt: job.begun,
                recovered: *recovered,
                watch: name_of(job).map_or("", |watch| &watch.plan.name),
                path,
                rel,
                name: &job.name,
                dir: path
                    .get(..path.len().saturating_sub(job.name.len() + 1))
                    .filter(|dir| !dir.is_empty())
                    .unwrap_or(b"/"),
                key: &job.key,
                size: job.version.size,
                mtime_ns: job.version.mtime_ns,
            });
        if batch {
            if !owned.is_empty() {
                protocol::push_batch(lines, lined);
            }
        } else {
            for line in lined {
                protocol::push_job(lines, &line);
            }
        }
    }

    // ---- answers ----

    /// A worker said a line.
    pub(super) fn worker_said(&mut self, run: RunId, line: Option<Vec<u8>>) {
        if self.is_keeper(run) {
            self.keeper_said(run, line);
            return;
        }
        if !self.workers.contains_key(&run) {
            return;
        }
        let said = match &line {
            Some(line) => protocol::read_line(line).map_err(|why| why.to_string()),
            None => Err("the line is too long".to_owned()),
        };
        match said {
            Ok(Said::Ready) => self.worker_ready(run),
            Ok(Said::Answers(answers)) => self.worker_answered(run, answers),
            Err(why) => {
                self.log_worker(Level::Error, run, || {
                    format!(
                        "the worker says what settled-worker(7) does not know ({why}); it is ended"
                    )
                });
                if let Some(worker) = self.workers.get_mut(&run) {
                    worker.ending = true;
                }
                self.end_run(run);
            }
        }
    }

    fn worker_ready(&mut self, run: RunId) {
        let Some(worker) = self.workers.get_mut(&run) else {
            return;
        };
        let was = std::mem::replace(&mut worker.starting, false);
        worker.proved = true;
        // One that was told to end has another time for that.
        let counts = was && !worker.ending;
        if counts && self.runs.get(&run).is_some_and(|run| run.sent == 0) {
            self.timers.clear(Timer::Kill(run));
        }
    }

    fn worker_answered(&mut self, run: RunId, answers: Answers) {
        let Answers {
            jobs,
            answer,
            mut message,
        } = answers;
        message.truncate(MESSAGE_MAX);
        let mut any = false;
        for named in jobs {
            let id = match &named {
                Named::Job { journal, job } if *journal == self.journal => Some(*job),
                _ => None,
            };
            let position = id.and_then(|id| {
                let worker = self.workers.get(&run)?;
                worker.jobs.iter().position(|job| *job == id)
            });
            let (Some(id), Some(position)) = (id, position) else {
                self.log_worker(Level::Warning, run, || {
                    format!("the worker answers for {named}, which it does not have; ignored")
                });
                continue;
            };
            if let Some(worker) = self.workers.get_mut(&run) {
                worker.jobs.remove(position);
                worker.proved = true;
            }
            any = true;
            if let Some(job) = self.jobs.get_mut(&id) {
                job.ran = self.now.mono.since(job.handed);
            }
            let (end, after) = match answer {
                Answer::Done => (AttemptEnd::SaidDone, None),
                Answer::Retry(after) => (AttemptEnd::AskedRetry, after),
                Answer::Dead => (AttemptEnd::AskedDead, None),
            };
            self.attempt_over(id, end, message.clone(), after);
        }
        // What answers none of its jobs gives it no more time, for those or for being ready.
        if any {
            self.after_answer(run);
        }
    }

    /// A worker can be told nothing more, or can say nothing more. It may be about to end.
    pub(super) fn worker_deaf(&mut self, run: RunId) {
        let Some(worker) = self.workers.get_mut(&run) else {
            return;
        };
        worker.ending = true;
        if std::mem::replace(&mut worker.deaf, true) {
            return;
        }
        let kill_after = self.kill_after(run);
        if self.runs.get(&run).is_some_and(|run| run.sent == 0) {
            self.timers
                .set(Timer::Kill(run), self.now.mono.after(kill_after));
        }
    }

    /// Whether a worker is ended because it is deaf or mute; says so.
    pub(super) fn is_deaf(&mut self, run: RunId) -> bool {
        let deaf = self.workers.get(&run).is_some_and(|worker| worker.deaf);
        if deaf {
            self.log_worker(Level::Warning, run, || {
                "a worker has closed its standard input or output, and goes on; it is ended".into()
            });
        }
        deaf
    }

    /// The worker's time begins anew; one that is to end, and has nothing left, is told so.
    fn after_answer(&mut self, run: RunId) {
        let Some(worker) = self.workers.get_mut(&run) else {
            return;
        };
        let idle = worker.jobs.is_empty();
        if worker.load() == 0 {
            worker.alone = false;
        }
        let ending = worker.ending || self.mode != Mode::Running;
        let deaf = worker.deaf;
        let Some(state) = self.runs.get(&run).filter(|run| run.sent == 0) else {
            return;
        };
        let timeout = match deaf {
            true => Some(self.kill_after(run)),
            false => self
                .watches
                .get(state.watch as usize)
                .and_then(|watch| watch.plan.timeout),
        };
        match timeout {
            Some(timeout) if !idle => self
                .timers
                .set(Timer::Kill(run), self.now.mono.after(timeout)),
            _ => self.timers.clear(Timer::Kill(run)),
        }
        if idle && ending {
            self.close_input(run);
        }
    }

    // ---- ends ----

    /// A worker ended, asked to or not.
    pub(super) fn worker_ended(&mut self, id: RunId, run: &Run, end: ChildEnd, output: Vec<u8>) {
        let Some(worker) = self.workers.remove(&id) else {
            return;
        };
        self.to_feed.remove(&id);
        let wanted = (worker.ending && !worker.deaf) || self.mode != Mode::Running;
        let failed = !worker.proved || !worker.jobs.is_empty() || end != ChildEnd::Exit(0);
        let mut wait = Duration::ZERO;
        if let Some(post) = self
            .watches
            .get_mut(run.watch as usize)
            .and_then(|watch| watch.posts.get_mut(worker.place))
            .filter(|post| post.run == Some(id))
        {
            post.run = None;
            if worker.proved {
                post.failures = 0;
            }
            post.failures = post.failures.saturating_add(1);
            wait = RESTART_FIRST
                .saturating_mul(1 << (post.failures - 1).min(20))
                .min(RESTART_LAST);
            post.not_before = self.now.mono.after(wait);
        }
        let (how, _) = attempt_end(run, end);
        let unanswered = worker.jobs.len();
        if failed && !wanted || unanswered > 0 {
            let watch = self.watch_name(run.watch);
            let said = super::ends::describe(how);
            self.log(Level::Warning, |line| {
                line.text = format!(
                    "a worker ended ({said}) with {unanswered} jobs unanswered; the next is started in {:.1} s at the \
                     earliest",
                    wait.as_secs_f64()
                );
                line.watch = watch;
            });
        }
        let each = match how {
            // Asked to end, it may have said that all is well.
            _ if run.sent != 0 && !run.timed_out && self.mode != Mode::Running => {
                AttemptEnd::CutShort
            }
            // It never ran: none of what was handed to it was seen by anybody.
            AttemptEnd::NotStarted { .. } => AttemptEnd::NotStarted {
                step: super::StartStep::Setup as u8,
                errno: 0,
            },
            _ if unanswered > 1 => AttemptEnd::Together,
            _ if run.timed_out => AttemptEnd::TimedOut,
            _ => AttemptEnd::WorkerLost,
        };
        let mut output = Some(output);
        for job in worker.jobs {
            if let Some(job) = self.jobs.get_mut(&job) {
                job.ran = self.now.mono.since(job.handed);
            }
            self.attempt_over(job, each, output.take().unwrap_or_default(), None);
        }
        for job in worker.pending {
            self.enqueue(job);
        }
        // What is being looked at is put back by the answer.
    }

    /// Workers of a watch are to end: its plan has changed, or it is gone. What they have they answer first.
    pub(super) fn dismiss_workers(&mut self, watch: u32) {
        let Some(state) = self.watches.get_mut(watch as usize) else {
            return;
        };
        for post in std::mem::take(&mut state.posts) {
            if let Some(run) = post.run {
                self.dismiss(run);
            }
        }
    }

    /// The daemon stops: workers that have nothing to do end.
    pub(super) fn dismiss_all_workers(&mut self) {
        let all: Vec<RunId> = self.workers.keys().copied().collect();
        for run in all {
            self.dismiss(run);
        }
    }

    fn dismiss(&mut self, run: RunId) {
        let Some(worker) = self.workers.get_mut(&run) else {
            return;
        };
        worker.ending = true;
        if worker.jobs.is_empty() {
            self.close_input(run);
        }
    }

    /// Tells a worker to end; one that does not is ended.
    fn close_input(&mut self, run: RunId) {
        let kill_after = self.kill_after(run);
        self.out.push(Effect::CloseInput(run));
        self.timers
            .set(Timer::Kill(run), self.now.mono.after(kill_after));
    }

    fn kill_after(&self, run: RunId) -> Duration {
        self.runs
            .get(&run)
            .and_then(|run| self.watches.get(run.watch as usize))
            .map_or(Duration::ZERO, |watch| watch.plan.kill_after)
    }

    pub(super) fn log_worker(&mut self, level: Level, run: RunId, text: impl FnOnce() -> String) {
        let watch = self.runs.get(&run).map_or(u32::MAX, |run| run.watch);
        let name = self.watch_name(watch);
        self.log(level, |line| {
            line.text = text();
            line.watch = name;
        });
    }
}
