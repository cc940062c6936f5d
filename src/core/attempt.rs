//! Attempts: which job starts now, what its child is told, what its end means, and the looks at the file
//! that some ends call for.

use super::ask::{Facts, Fault, Kind, Question, Stat};
use super::files::FileKey;
use super::ids::{JobId, RunId};
use super::job::Phase;
use super::operate::Mode;
use super::record::{AttemptEnd, Outcome, Record};
use super::settle::Signal;
use super::template::Values;
use super::time::Mono;
use super::timers::Timer;
use super::watch::Root;
use super::{
    Asked, ChildEnd, Core, Effect, NotStarted, Program, ScoutId, SpawnFile, SpawnOrder, StartStep,
    Stdin,
};
use crate::core::observe::errno_text;
use crate::plan::{Level, OnChange};
use std::rc::Rc;
use std::time::Duration;

const ENOENT: i32 = 2;
const ENOTDIR: i32 = 20;
const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;
/// sysexits(3): bad data, for good.
const EX_DATAERR: i32 = 65;
/// Wait before an attempt that could not begin through no fault of the job is tried again.
const NOT_COUNTED_WAIT: Duration = Duration::from_millis(500);

impl Core {
    // ---- dispatch ----

    /// Starts what may be started: watches in turn, one job each.
    pub(super) fn dispatch(&mut self) {
        if !self.room || self.mode != Mode::Running || self.watches.is_empty() {
            return;
        }
        let mut idle = 0;
        while idle < self.watches.len() && self.runs.len() < self.daemon.concurrency as usize {
            let index = self.turn % self.watches.len();
            self.turn = (index + 1) % self.watches.len();
            if self.dispatch_one(index) {
                idle = 0;
            } else {
                idle += 1;
            }
        }
    }

    fn dispatch_one(&mut self, index: usize) -> bool {
        let watch = &self.watches[index];
        if !watch.active
            || watch.queue.is_empty()
            || watch.running >= watch.plan.concurrency
            || watch.state != Root::Bound
        {
            return false;
        }
        let silent = self
            .tree
            .place(watch.root, b"")
            .is_none_or(|place| self.lanes.get(&place.mount).is_some_and(|lane| lane.silent));
        if silent {
            return false;
        }
        let jobs = &self.jobs;
        let key_of = |id| {
            jobs.get(&id)
                .map_or_else(Box::default, |job| job.key.clone())
        };
        let Some(id) = self.watches[index].queue.pop(key_of) else {
            return false;
        };
        self.begin(id);
        true
    }

    fn begin(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let Some(place) = self.tree.place(job.dir, &job.name) else {
            // Its directory is gone; where it went was looked for by the scan.
            self.conclude(id, Outcome::Gone, None, Vec::new());
            return;
        };
        job.begun += 1;
        let recovered = std::mem::take(&mut job.cut_short);
        self.last_run += 1;
        let run = RunId(self.last_run);
        job.phase = Phase::Running {
            run,
            since: self.now.mono,
            sent: 0,
            timed_out: false,
        };
        let (attempt, watch, expect) = (job.begun, job.watch, job.version);
        let key = job.key.to_vec();
        let serial = self
            .watches
            .get(watch as usize)
            .is_some_and(|state| state.plan.serial);
        if serial && !std::mem::replace(&mut job.pinned, true) {
            let key = key.clone();
            self.append(Record::Key { job: id, key });
        }
        let lease = self.lease_can_be_trusted(place.mount);
        self.append(Record::Started {
            job: id,
            attempt,
            slot: 0,
        });
        self.runs.insert(run, id);
        let Some(state) = self.watches.get_mut(watch as usize) else {
            return;
        };
        state.running += 1;
        if let Some(timeout) = state.plan.timeout {
            self.timers
                .set(Timer::Kill(id), self.now.mono.after(timeout));
        }
        let order = self.with_values(id, &key, |values, plan| SpawnOrder {
            run,
            jobs: vec![id],
            program: Program::Command,
            argv: plan.argv().iter().map(|arg| arg.expand(values)).collect(),
            env: environment(values, &plan.env, recovered),
            cwd: plan.cwd.clone().unwrap_or_else(|| b"/".to_vec()),
            files: vec![SpawnFile {
                place,
                expect,
                lease,
            }],
            stdin: Stdin::Nothing,
            process: Rc::clone(&plan.process),
            slot: 0,
            output: plan.output.clone(),
            watch: plan.name.clone(),
            job_name: values.job.to_owned(),
            attempt,
        });
        if let Some(order) = order {
            self.out.push(Effect::Spawn(Box::new(order)));
        }
    }

    /// A child's time is up, or the next step of its kill ladder is due.
    pub(super) fn kill_due(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let kill_after = self
            .watches
            .get(job.watch as usize)
            .map_or(Duration::ZERO, |watch| watch.plan.kill_after);
        let Phase::Running {
            run,
            sent,
            timed_out,
            ..
        } = &mut job.phase
        else {
            return;
        };
        let run = *run;
        if *sent == 0 {
            *sent = SIGTERM;
            *timed_out = self.mode == Mode::Running || self.mode == Mode::Draining;
            self.out.push(Effect::Kill(run, SIGTERM));
            self.timers
                .set(Timer::Kill(id), self.now.mono.after(kill_after));
        } else {
            *sent = SIGKILL;
            self.out.push(Effect::Kill(run, SIGKILL));
        }
    }

    /// A child ended.
    pub(super) fn ended(&mut self, run: RunId, end: ChildEnd, output: Vec<u8>) {
        let Some(id) = self.runs.remove(&run) else {
            return;
        };
        self.timers.clear(Timer::Kill(id));
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let watch = job.watch;
        if let Some(state) = self.watches.get_mut(watch as usize) {
            state.running -= 1;
        }
        let (sent, timed_out) = match job.phase {
            Phase::Running {
                since,
                sent,
                timed_out,
                ..
            } => {
                job.ran = self.now.mono.since(since);
                (sent, timed_out)
            }
            _ => (0, false),
        };
        let stopped = sent != 0 && !timed_out;
        let end = match end {
            ChildEnd::Exit(0) => AttemptEnd::Exit(0),
            _ if timed_out => AttemptEnd::TimedOut,
            _ if stopped => AttemptEnd::CutShort,
            ChildEnd::Exit(status) => AttemptEnd::Exit(status),
            ChildEnd::Signal(signal) => AttemptEnd::Signal(signal),
            ChildEnd::NotStarted(NotStarted::NotTheFile, _) => AttemptEnd::NotTheFile,
            ChildEnd::NotStarted(NotStarted::StillWritten, _) => AttemptEnd::StillWritten,
            ChildEnd::NotStarted(NotStarted::Failed(step, errno), _) => AttemptEnd::NotStarted {
                step: step as u8,
                errno,
            },
        };
        if job.displaced {
            self.log_job(Level::Info, id, || {
                "superseded: another file was renamed over it while its job ran".into()
            });
            self.conclude(id, Outcome::Superseded, Some(end), output);
            return;
        }
        match end {
            AttemptEnd::Exit(0) => self.succeeded(id, end),
            AttemptEnd::Exit(EX_DATAERR) => self.dead(id, end, output),
            AttemptEnd::NotTheFile => self.look(id),
            AttemptEnd::StillWritten | AttemptEnd::CutShort => self.again(id, end, output, false),
            AttemptEnd::NotStarted { step, .. }
                if step == StartStep::Fork as u8 || step == StartStep::Setup as u8 =>
            {
                self.again(id, end, output, false);
            }
            AttemptEnd::Exit(_)
            | AttemptEnd::Signal(_)
            | AttemptEnd::TimedOut
            | AttemptEnd::NotStarted { .. }
            | AttemptEnd::Together
            | AttemptEnd::AskedRetry
            | AttemptEnd::AskedDead
            | AttemptEnd::SaidDone
            | AttemptEnd::WorkerLost => self.again(id, end, output, true),
        }
    }

    /// The attempt failed in a way that may pass.
    fn again(&mut self, id: JobId, end: AttemptEnd, output: Vec<u8>, counts: bool) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let Some(watch) = self.watches.get(job.watch as usize) else {
            return;
        };
        if counts {
            job.counted += 1;
            if job.counted >= watch.plan.attempts {
                self.dead(id, end, output);
                return;
            }
        }
        if self.tree.get(job.dir).is_none() {
            self.log_job(Level::Info, id, || {
                format!("{}; its directory is gone: not tried again", describe(end))
            });
            self.conclude(id, Outcome::Gone, Some(end), output);
            return;
        }
        job.cut_short = end == AttemptEnd::CutShort;
        let wait = if counts {
            let backoff = watch.plan.backoff;
            jittered(
                backoff
                    .first
                    .saturating_mul(1 << (job.counted - 1).min(30))
                    .min(backoff.max),
                id,
                job.counted,
            )
        } else {
            NOT_COUNTED_WAIT
        };
        job.not_before = self.now.wall.after(wait);
        job.phase = Phase::Backoff;
        let (attempt, counted, not_before) = (job.begun, job.counted, job.not_before);
        self.append(Record::Ended {
            job: id,
            attempt,
            end,
            counted,
            not_before,
            output,
        });
        self.timers.set(Timer::Retry(id), self.now.mono.after(wait));
        let level = if counts { Level::Warning } else { Level::Info };
        self.log_job(level, id, || {
            format!(
                "attempt {attempt}: {}; again in {:.1} s",
                describe(end),
                wait.as_secs_f64()
            )
        });
    }

    fn dead(&mut self, id: JobId, end: AttemptEnd, output: Vec<u8>) {
        let attempt = self.jobs.get(&id).map_or(0, |job| job.begun);
        self.log_job(Level::Error, id, || {
            format!("attempt {attempt}: {}; dead", describe(end))
        });
        self.conclude(id, Outcome::Dead, Some(end), output);
    }

    /// The command succeeded. If anything was heard of the file meanwhile, a scout looks first.
    fn succeeded(&mut self, id: JobId, end: AttemptEnd) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let accept = self
            .watches
            .get(job.watch as usize)
            .is_some_and(|watch| watch.plan.on_change == OnChange::Accept);
        let heard = self
            .candidates
            .contains_key(&FileKey::new(job.dir, &job.name));
        if accept || heard {
            if let Some(job) = self.jobs.get_mut(&id) {
                job.phase = Phase::PostLook { end };
            }
            self.ask_look(id);
        } else {
            self.done(id, end);
        }
    }

    fn done(&mut self, id: JobId, end: AttemptEnd) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let (attempt, ran) = (job.begun, job.ran.as_secs_f64());
        let since = self.now.wall.since(job.settled).as_secs_f64();
        self.log_job(Level::Info, id, || {
            format!("done: attempt {attempt}, ran {ran:.3} s, {since:.3} s after it settled")
        });
        self.conclude(id, Outcome::Done, Some(end), Vec::new());
    }

    // ---- looks ----

    fn look(&mut self, id: JobId) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.phase = Phase::Looking;
        }
        self.ask_look(id);
    }

    pub(super) fn ask_look(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        match self.tree.place(job.dir, &job.name) {
            Some(place) => {
                let lane = place.mount;
                if !self.may_look(lane, id) {
                    return;
                }
                let path = place.path();
                self.ask(
                    ScoutId::Mount(lane),
                    Question::Probe {
                        place,
                        lock: false,
                        flock: false,
                        lease: false,
                    },
                    Asked::Look {
                        job: id,
                        lane,
                        path,
                        at: self.now.mono,
                    },
                );
            }
            None if self.tree.get(job.dir).is_none() => {
                self.looked(id, Vec::new(), self.now.mono, Err(Fault::Here(ENOENT)));
            }
            None => self.look_later(id),
        }
    }

    /// The root is missing: asked again when it may be back.
    fn look_later(&mut self, id: JobId) {
        self.timers.set(
            Timer::Dispose(id),
            self.now.mono.after(Duration::from_secs(1)),
        );
    }

    /// [`Timer::Dispose`] of a job that is not disposed of yet.
    pub(super) fn look_again(&mut self, id: JobId) {
        self.ask_look(id);
    }

    pub(super) fn looked(
        &mut self,
        id: JobId,
        path: Vec<u8>,
        at: Mono,
        result: Result<Facts, Fault>,
    ) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let (dir, name, watch, version) = (job.dir, job.name.clone(), job.watch, job.version);
        let key = FileKey::new(dir, &name);
        if self
            .candidates
            .get(&key)
            .is_some_and(|candidate| candidate.hinted > at)
        {
            // Something happened to it after the question: the answer is about what was before.
            self.ask_look(id);
            return;
        }
        let moved = self
            .tree
            .place(dir, &name)
            .is_some_and(|place| place.path() != path);
        let found = match result {
            // Its directory is gone: what lies under that path now is another file.
            _ if self.tree.get(dir).is_none() => None,
            Ok(facts) if facts.stat.kind == Kind::File => Some(facts.stat),
            Ok(_) => None,
            Err(Fault::Here(ENOENT | ENOTDIR) | Fault::Crossed(_)) if moved => {
                self.ask_look(id);
                return;
            }
            Err(Fault::Here(ENOENT | ENOTDIR) | Fault::Crossed(_)) if !self.is_bound(watch) => {
                self.look_later(id);
                return;
            }
            Err(Fault::Here(ENOENT | ENOTDIR) | Fault::Crossed(_)) => None,
            Err(Fault::Base(_)) => {
                self.resolve_root(watch);
                self.look_later(id);
                return;
            }
            Err(Fault::Here(_)) => {
                self.look_later(id);
                return;
            }
        };
        let same = found.is_some_and(|stat| stat.version == version);
        match (self.jobs.get(&id).map(|job| job.phase.clone()), found) {
            (Some(Phase::Looking), Some(_)) if same => {
                // It is the file after all: renamed away and back, or touched twice.
                self.again(id, AttemptEnd::NotTheFile, Vec::new(), false);
            }
            (Some(Phase::Looking), Some(stat)) => {
                self.supersede(id);
                self.hint(watch, dir, &name, Signal::Scan, Some(stat));
            }
            (Some(Phase::Looking), None) => {
                self.log_job(Level::Info, id, || "gone before its attempt".into());
                self.conclude(id, Outcome::Gone, None, Vec::new());
            }
            (Some(Phase::PostLook { end }), Some(stat)) => self.found_after(id, end, stat),
            (Some(Phase::PostLook { end }), None) => self.done(id, end),
            _ => {}
        }
    }

    /// The command succeeded and the file is there: the version it succeeded on, or another.
    fn found_after(&mut self, id: JobId, end: AttemptEnd, stat: Stat) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let accept = self
            .watches
            .get(job.watch as usize)
            .is_some_and(|watch| watch.plan.on_change == OnChange::Accept);
        if accept {
            job.version = stat.version;
            job.ctime_ns = stat.ctime_ns;
        }
        let (dir, name, watch) = (job.dir, job.name.clone(), job.watch);
        if job.version == stat.version {
            if accept {
                self.half_learns(FileKey::new(dir, &name));
            }
            self.done(id, end);
            return;
        }
        self.log_job(Level::Info, id, || {
            "superseded: the file changed while its job ran".into()
        });
        // The newer version is a candidate already, or becomes one, while this job still counts as running.
        self.hint(watch, dir, &name, Signal::Scan, Some(stat));
        self.conclude(id, Outcome::Superseded, Some(end), Vec::new());
    }
}

/// Up to a quarter longer, so that what failed together does not come back together; the same for
/// the same job and attempt.
fn jittered(wait: Duration, id: JobId, counted: u32) -> Duration {
    let seed = (id.0 ^ (u64::from(counted) << 48)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    let extra = u128::from(seed) * (wait.as_nanos() / 4) / (1 << 24);
    wait + Duration::from_nanos(u64::try_from(extra).unwrap_or(0))
}

/// `SETTLED_*`, and the watch's own.
fn environment(
    values: &Values,
    own: &[(String, super::template::Template)],
    recovered: bool,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let slash = values.path.iter().rposition(|&b| b == b'/').unwrap_or(0);
    let name = values.path.get(slash + 1..).unwrap_or_default();
    let dot = name.iter().rposition(|&b| b == b'.').filter(|&at| at > 0);
    let (stem, ext) = match dot {
        Some(at) => (&name[..at], &name[at + 1..]),
        None => (name, &b""[..]),
    };
    let mut env: Vec<(Vec<u8>, Vec<u8>)> = Vec::with_capacity(14 + own.len());
    let mut put = |key: &str, value: &[u8]| env.push((key.as_bytes().to_vec(), value.to_vec()));
    put("SETTLED_PATH", values.path);
    put("SETTLED_NAME", name);
    put("SETTLED_STEM", stem);
    put("SETTLED_EXT", ext);
    put(
        "SETTLED_DIR",
        if slash == 0 {
            b"/"
        } else {
            &values.path[..slash]
        },
    );
    put("SETTLED_REL", values.rel);
    put("SETTLED_KEY", values.key);
    put("SETTLED_WATCH", values.watch.as_bytes());
    put("SETTLED_JOB", values.job.as_bytes());
    put("SETTLED_DATE", values.date.as_bytes());
    put("SETTLED_SIZE", values.size.to_string().as_bytes());
    put(
        "SETTLED_MTIME",
        values
            .mtime
            .0
            .div_euclid(1_000_000_000)
            .to_string()
            .as_bytes(),
    );
    put("SETTLED_ATTEMPT", values.attempt.to_string().as_bytes());
    if recovered {
        put("SETTLED_RECOVERED", b"1");
    }
    for (key, template) in own {
        env.push((key.clone().into_bytes(), template.expand(values)));
    }
    env
}

/// An attempt's end in words.
fn describe(end: AttemptEnd) -> String {
    match end {
        AttemptEnd::Exit(status) => format!("exit status {status}"),
        AttemptEnd::Signal(signal) => format!("ended by signal {signal}"),
        AttemptEnd::TimedOut => "timed out".into(),
        AttemptEnd::NotStarted { step, errno } => {
            let what = match step {
                1 => "no process could be made",
                2 => "the process could not be set up",
                3 => "its working directory cannot be entered",
                4 => "the file cannot be opened",
                _ => "the program cannot be executed",
            };
            format!("{what}: {}", errno_text(errno))
        }
        AttemptEnd::NotTheFile => "the file was another version for a moment".into(),
        AttemptEnd::StillWritten => "somebody has the file open for writing again".into(),
        AttemptEnd::CutShort => "cut short".into(),
        AttemptEnd::Together => "failed together with others".into(),
        AttemptEnd::AskedRetry => "its worker asked for a retry".into(),
        AttemptEnd::AskedDead => "its worker gave it up".into(),
        AttemptEnd::SaidDone => "done".into(),
        AttemptEnd::WorkerLost => "its worker ended without having answered".into(),
    }
}
