//! Runs: the processes that carry out attempts, from order to end. A run has one job, or a batch of them; a worker has
//! those in its window.

use super::ends::Verdict;
use super::ids::{JobId, MountId, RunId};
use super::job::Phase;
use super::operate::Mode;
use super::record::AttemptEnd;
use super::time::Mono;
use super::timers::Timer;
use super::workers::Worker;
use super::{ChildEnd, Core, Effect, NotStarted, StartStep};
use crate::plan::Level;
use std::collections::BTreeSet;
use std::time::Duration;

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;
/// Between the two for what belongs to no watch.
const KILL_AFTER: Duration = Duration::from_secs(5);

/// What a process is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `run` or `deliver`: it ends with its attempt.
    Child,
    /// `worker`: see `workers`.
    Worker,
    /// Takes away what deliveries of an earlier life left in their target.
    Sweep,
    /// Keeps the claims of its watch: see `claims`.
    Keeper,
    /// The command of `[alert]`.
    Alert,
}

/// A process.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) kind: Kind,
    /// Index of the watch.
    pub(super) watch: u32,
    /// Whose attempts it makes, in order. Empty for a worker.
    pub(super) jobs: Vec<JobId>,
    pub(super) since: Mono,
    /// What was sent to its group: 0, SIGTERM or SIGKILL.
    pub(super) sent: i32,
    /// `timeout` was what ended it.
    pub(super) timed_out: bool,
    /// The slot whose lock it holds.
    pub(super) slot: u32,
    /// Where its first job's file was when it was ordered.
    pub(super) mount: Option<MountId>,
}

/// Numbers of slots, each with one process at a time.
#[derive(Debug, Default)]
pub(super) struct Slots {
    used: BTreeSet<u32>,
    last: u32,
}

/// There are as many slots as this, or twice as many as are in use: what lingers in one does not come up again at once.
const SLOTS_MIN: u32 = 1024;

impl Slots {
    /// One that nobody has.
    pub(super) fn take(&mut self) -> u32 {
        let in_use = u32::try_from(self.used.len()).unwrap_or(u32::MAX / 4);
        let all = SLOTS_MIN.max(in_use.saturating_mul(2));
        loop {
            self.last = self.last % all + 1;
            if self.used.insert(self.last) {
                return self.last;
            }
        }
    }

    /// This one is somebody's.
    pub(super) fn keep(&mut self, slot: u32) {
        self.used.insert(slot);
    }

    pub(super) fn free(&mut self, slot: u32) {
        self.used.remove(&slot);
    }
}

impl Core {
    /// A new process, which is about to be ordered.
    pub(super) fn add_run(&mut self, kind: Kind, watch: u32, jobs: Vec<JobId>) -> (RunId, u32) {
        self.last_run += 1;
        let run = RunId(self.last_run);
        let slot = self.slots.take();
        let mount = (jobs.first())
            .and_then(|id| self.jobs.get(id))
            .and_then(|job| self.tree.mount(job.dir));
        self.runs.insert(
            run,
            Run {
                kind,
                watch,
                jobs,
                since: self.now.mono,
                sent: 0,
                timed_out: false,
                slot,
                mount,
            },
        );
        (run, slot)
    }

    /// One that holds no slot.
    pub(super) fn add_run_without_slot(&mut self, kind: Kind, watch: u32) -> RunId {
        let (run, slot) = self.add_run(kind, watch, Vec::new());
        self.slots.free(slot);
        if let Some(run) = self.runs.get_mut(&run) {
            run.slot = 0;
        }
        run
    }

    /// Children that end with their attempts. What takes leftovers away from a target that hangs takes no attempt's place,
    /// and neither do those whose files are on a mount that does not answer: they may not end before it does.
    pub(super) fn children_running(&self) -> usize {
        let children = self.runs.len() - self.workers.len() - self.sweeps - self.keepers.len();
        children - self.alerts.running() - self.children_stuck()
    }

    /// Jobs whose attempts are being made.
    pub(super) fn jobs_running(&self) -> usize {
        let children: usize = self.runs.values().map(|run| run.jobs.len()).sum();
        let with_workers: usize = self.workers.values().map(Worker::handed).sum();
        children + with_workers
    }

    /// Those of one watch.
    pub(super) fn jobs_running_in(&self, watch: u32) -> usize {
        self.runs
            .iter()
            .filter(|(_, run)| run.watch == watch)
            .map(|(id, run)| run.jobs.len() + self.workers.get(id).map_or(0, Worker::handed))
            .sum()
    }

    /// A process's time is up, or the next step of its kill ladder is due.
    pub(super) fn kill_due(&mut self, id: RunId) {
        if self.runs.get(&id).is_some_and(|run| run.sent == 0) {
            let deaf = self.is_deaf(id);
            if let Some(run) = self.runs.get_mut(&id) {
                run.timed_out = self.mode <= Mode::Draining && !deaf;
            }
            self.end_run(id);
        } else if let Some(run) = self.runs.get_mut(&id) {
            run.sent = SIGKILL;
            self.out.push(Effect::Kill(id, SIGKILL));
        }
    }

    /// The first step of a process's kill ladder.
    pub(super) fn end_run(&mut self, id: RunId) {
        let Some(run) = self.runs.get_mut(&id).filter(|run| run.sent == 0) else {
            return;
        };
        run.sent = SIGTERM;
        let kill_after = self
            .watches
            .get(run.watch as usize)
            .map_or(KILL_AFTER, |watch| watch.plan.kill_after);
        self.out.push(Effect::Kill(id, SIGTERM));
        self.timers
            .set(Timer::Kill(id), self.now.mono.after(kill_after));
    }

    /// A process ended.
    pub(super) fn ended(&mut self, id: RunId, end: ChildEnd, output: Vec<u8>) {
        let Some(run) = self.runs.remove(&id) else {
            return;
        };
        self.timers.clear(Timer::Kill(id));
        self.slots.free(run.slot);
        match run.kind {
            Kind::Child => self.child_ended(run, end, output),
            Kind::Worker => self.worker_ended(id, &run, end, output),
            Kind::Keeper => self.keeper_ended(id, &run, end, &output),
            Kind::Alert => self.alert_ended(&run, end),
            Kind::Sweep => {
                self.sweeps -= 1;
                self.sweep_ended(&run, end, &output);
            }
        }
    }

    fn child_ended(&mut self, run: Run, end: ChildEnd, output: Vec<u8>) {
        if let Some(state) = self.watches.get_mut(run.watch as usize) {
            state.running -= 1;
        }
        let ran = self.now.mono.since(run.since);
        for id in &run.jobs {
            if let Some(job) = self.jobs.get_mut(id) {
                job.ran = ran;
            }
        }
        let (end, of) = attempt_end(&run, end);
        let split = self
            .watches
            .get(run.watch as usize)
            .and_then(|state| state.plan.batch)
            .is_some_and(|batch| batch.split);
        let many = run.jobs.len() > 1;
        // What asks to be tried again is, as it was.
        // What never ran has failed with none of them.
        let blurred = many
            && split
            && !matches!(end, AttemptEnd::NotStarted { .. })
            && of.is_none()
            && self.verdict(run.watch, end) != Verdict::Done
            && !self.is_temporary(run.watch, end);
        let mut output = Some(output);
        for (number, id) in run.jobs.iter().enumerate() {
            let end = match of {
                // Where one is another file by now, others may be, too: all are looked at, so that it does not take a start
                // for each to find out.
                Some(_) if many && end == AttemptEnd::NotTheFile => end,
                // It was because of another one: this one did nothing wrong, and nothing was run.
                Some(file) if many && file as usize != number => AttemptEnd::NotStarted {
                    step: StartStep::Setup as u8,
                    errno: 0,
                },
                _ if blurred && end != AttemptEnd::CutShort => AttemptEnd::Together,
                _ => end,
            };
            // A batch has one output: it is kept with the first.
            self.attempt_over(*id, end, output.take().unwrap_or_default(), None);
        }
    }

    /// The daemon stops: what looks for leftovers does so at the next start.
    pub(super) fn end_sweeps(&mut self) {
        let sweeps: Vec<RunId> = self
            .runs
            .iter()
            .filter(|(_, run)| run.kind == Kind::Sweep)
            .map(|(id, _)| *id)
            .collect();
        for id in sweeps {
            self.end_run(id);
        }
    }

    fn sweep_ended(&mut self, run: &Run, end: ChildEnd, output: &[u8]) {
        if end == ChildEnd::Exit(0) || run.sent != 0 {
            return;
        }
        let said = String::from_utf8_lossy(output).trim_end().to_owned();
        let name = self.watch_name(run.watch);
        self.log(Level::Warning, |line| {
            line.text = format!(
                "what an earlier life may have left in the delivery's target could not be looked for: {said}"
            );
            line.watch = name;
        });
    }

    /// Sends a signal to every process that works on files. Those that keep claims do so until all others have ended.
    pub(super) fn signal_all(&mut self, signal: i32) {
        for (id, run) in &mut self.runs {
            if run.kind == Kind::Keeper {
                continue;
            }
            run.sent = signal;
            self.out.push(Effect::Kill(*id, signal));
        }
    }

    /// The slot of a job whose process runs, or may still run.
    pub(super) fn slot_of(&self, phase: &Phase) -> u32 {
        match phase {
            Phase::Running { run } => self.runs.get(run).map_or(0, |run| run.slot),
            Phase::Orphaned { slot } => *slot,
            _ => 0,
        }
    }
}

/// How an attempt of the run's jobs ended, and because of which of its files.
pub(super) fn attempt_end(run: &Run, end: ChildEnd) -> (AttemptEnd, Option<u32>) {
    let stopped = run.sent != 0 && !run.timed_out;
    let end = match end {
        ChildEnd::Exit(0) => AttemptEnd::Exit(0),
        // What never ran did not run for too long.
        _ if run.timed_out && !matches!(end, ChildEnd::NotStarted(..)) => AttemptEnd::TimedOut,
        _ if stopped => AttemptEnd::CutShort,
        ChildEnd::Exit(status) => AttemptEnd::Exit(status),
        ChildEnd::Signal(signal) => AttemptEnd::Signal(signal),
        ChildEnd::NotStarted(NotStarted::NotTheFile, of) => {
            return (AttemptEnd::NotTheFile, Some(of));
        }
        ChildEnd::NotStarted(NotStarted::StillWritten, of) => {
            return (AttemptEnd::StillWritten, Some(of));
        }
        ChildEnd::NotStarted(NotStarted::Failed(step, errno), of) => {
            let end = AttemptEnd::NotStarted {
                step: step as u8,
                errno,
            };
            return (end, (step == StartStep::OpenFile).then_some(of));
        }
    };
    (end, None)
}
