//! The state in words: the same in the log, in status, in list and in explain.

use super::Core;
use super::claims::Claim;
use super::ids::JobId;
use super::job::{Job, Phase};
use super::operate::Mode;
use super::queue::Rank;
use super::record::{AttemptEnd, Disposal, Outcome};
use super::settle::{Candidate, Signal, Waits};
use super::time::{Mono, Wall};
use super::timers::Timer;
use super::view::Fact;
use super::watch::{Root, Watch};
use crate::plan::Action;

/// What a file's state is called where one word has to do: a candidate is `waiting`, the others are jobs'.
pub const STATES: [(&str, &str); 8] = [
    (
        "waiting",
        "a candidate: evidence is missing that it has settled",
    ),
    ("ready", "it has settled and waits for its turn"),
    ("backoff", "an attempt failed, and the next is not due yet"),
    ("halted", "it is dead, and holds up those behind it"),
    (
        "orphaned",
        "a process of an earlier life of the daemon may still be at it",
    ),
    ("looking", "its file is looked at once more"),
    ("running", "an attempt is being made"),
    (
        "disposing",
        "its attempts are over, and its file is deleted or moved",
    ),
];

/// So many that are before a job are counted.
pub(super) const BEFORE_MAX: usize = 1000;

impl Core {
    /// A point of the daemon's clock as wall time.
    pub(super) fn wall_of(&self, at: Mono) -> i64 {
        let now = self.now.mono;
        match at >= now {
            true => self.now.wall.after(at.since(now)).0,
            false => self.now.wall.before(now.since(at)).0,
        }
    }

    pub(super) fn fact(&self, at: Mono, text: impl Into<String>) -> Fact {
        Fact {
            text: text.into(),
            at_ns: self.wall_of(at),
        }
    }

    /// What the daemon is about.
    pub(super) fn mode_word(&self) -> &'static str {
        match self.mode {
            Mode::Running => "running",
            Mode::Draining => "draining",
            Mode::Terminating => "terminating",
            Mode::Killing => "killing",
            Mode::Leaving => "leaving",
            Mode::Stopped => "stopped",
        }
    }

    /// How a watch stands.
    pub(super) fn watch_words(&self, watch: &Watch) -> &'static str {
        match (watch.active, watch.state) {
            (false, _) => "not configured",
            (_, Root::Bound) => "watching",
            (_, Root::Missing) => "waiting for its directory",
            _ if watch.root_silent => "looking for its directory, which does not answer",
            (_, Root::Unknown | Root::Resolving) => "looking for its directory",
        }
    }

    /// What was heard and seen of a candidate, in the order of its times.
    pub(super) fn evidence(&self, candidate: &Candidate) -> Vec<Fact> {
        let mut facts = Vec::new();
        let mut add = |at: Mono, text: String| facts.push(self.fact(at, text));
        let heard_at = self.heard_at(candidate);
        if candidate.since != heard_at {
            add(candidate.since, "first heard of".into());
        }
        add(
            heard_at,
            match candidate.signal {
                _ if heard_at != candidate.hinted => "events were lost, perhaps of this file",
                Signal::Scan => "found by a listing",
                Signal::Link => "linked into place, or being written",
                Signal::Moved => "renamed into place",
                Signal::Close => "closed by a process that had it open for writing",
            }
            .into(),
        );
        if let Some((version, _)) = candidate.seen() {
            add(
                candidate.seen_at,
                format!("seen with {} bytes, and not changed since", version.size),
            );
        }
        if let Some(at) = candidate.granted {
            add(
                at,
                "the lease was granted: no process has it open for writing".into(),
            );
        }
        if candidate.refusals > 0 {
            add(
                candidate.asked_at,
                format!(
                    "looked at, and found held, {} times in a row",
                    candidate.refusals
                ),
            );
        } else if candidate.asked.is_some() {
            add(
                candidate.asked_at,
                "being looked at: its scout has not answered".into(),
            );
        }
        facts.sort_by_key(|fact| fact.at_ns);
        facts
    }

    /// What a candidate waits for, and when it is looked at next.
    pub(super) fn candidate_waits(&self, candidate: &Candidate) -> Vec<Fact> {
        let key = super::files::FileKey::new(candidate.dir, &candidate.name);
        let mut waits = vec![self.fact(candidate.since, candidate.waits.to_string())];
        if let Some(mount) = self.tree.mount(candidate.dir) {
            if self.does_not_answer(mount) {
                waits.push(self.fact(self.now.mono, "its mount does not answer"));
            }
        } else {
            waits.push(self.fact(self.now.mono, "its watch waits for its directory"));
        }
        if let Some(at) = self.timers.at(Timer::Candidate(key)) {
            let what = match candidate.waits {
                Waits::Quiet => "its quiet time is over, if nothing is heard of it",
                _ => "it is looked at again, or at its next event",
            };
            waits.push(self.fact(at, what));
        }
        waits
    }

    /// One word for a job's state.
    pub(super) fn job_word(job: &Job) -> &'static str {
        match &job.phase {
            Phase::Ready => "ready",
            Phase::Backoff => "backoff",
            Phase::Halted => "halted",
            Phase::Orphaned { .. } => "orphaned",
            Phase::Handing { .. } | Phase::Looking | Phase::PostLook { .. } => "looking",
            Phase::Running { .. } => "running",
            Phase::Disposing { .. } => "disposing",
        }
    }

    /// A job's state as a sentence, without its reasons, and since when.
    pub(super) fn job_words(&self, job: &Job) -> (String, Wall) {
        let text = match &job.phase {
            Phase::Ready if job.begun > 0 => "ready for its next attempt".into(),
            Phase::Ready => "ready".into(),
            Phase::Backoff => format!("waits for attempt {}", job.begun + 1),
            Phase::Halted => "dead, and holds up those behind it".into(),
            Phase::Orphaned { slot } => {
                format!(
                    "a process of attempt {} is still there (slot {slot})",
                    job.begun
                )
            }
            Phase::Handing { .. } => "looked at before it is handed to a worker".into(),
            Phase::Running { .. } => format!("attempt {} is running", job.begun),
            Phase::Looking => "looked at: its attempt found another version, or none".into(),
            Phase::PostLook { .. } => "looked at after its attempt".into(),
            Phase::Disposing {
                disposal, failures, ..
            } => {
                let outcome = job.outcome.map_or("concluded", outcome_word);
                let doing = match **disposal {
                    Disposal::Keep | Disposal::Mark => "being marked",
                    Disposal::Delete => "being deleted",
                    Disposal::Move { .. } => "being moved",
                };
                match failures {
                    0 => format!("{outcome}; {doing}"),
                    n => format!("{outcome}; {doing}, which has failed {n} times"),
                }
            }
        };
        let since = match &job.phase {
            Phase::Running { run } => self.runs.get(run).map(|run| match run.jobs.is_empty() {
                true => self.wall_of(job.handed),
                false => self.wall_of(run.since),
            }),
            _ => None,
        };
        (text, since.map_or(job.settled, Wall))
    }

    /// Why a job is not being worked on now: what comes before it.
    pub(super) fn job_waits(&self, id: JobId, job: &Job) -> Vec<Fact> {
        let Some(watch) = self.watches.get(job.watch as usize) else {
            return Vec::new();
        };
        let mut waits = Vec::new();
        let mut add = |at: Mono, text: String| waits.push(self.fact(at, text));
        let now = self.now.mono;
        match &job.phase {
            Phase::Backoff => {
                if let Some(at) = self.timers.at(Timer::Retry(id)) {
                    add(at, "its next attempt is due".into());
                }
            }
            Phase::Disposing { .. } | Phase::Looking | Phase::PostLook { .. } => {
                if let Some(at) = self.timers.at(Timer::Dispose(id)) {
                    add(at, "it is tried again".into());
                }
                if self.is_stuck(job.dir) {
                    add(now, "its mount does not answer".into());
                }
            }
            Phase::Ready => self.ready_waits(id, job, watch, &mut add),
            _ => {}
        }
        waits
    }

    /// In the order in which dispatch asks.
    fn ready_waits(&self, id: JobId, job: &Job, watch: &Watch, add: &mut dyn FnMut(Mono, String)) {
        let now = self.now.mono;
        if self.mode != Mode::Running {
            add(now, "the daemon is stopping: nothing new is started".into());
        }
        if !self.room {
            add(now, "waits for room in the journal".into());
        }
        if job.replayed {
            let text = "waits for the first listing, which tells where its file is now";
            add(now, text.into());
        }
        if !watch.active {
            add(now, "its watch is not configured".into());
        } else if watch.state != Root::Bound {
            add(now, format!("its watch is {}", self.watch_words(watch)));
        }
        if watch.paused {
            add(now, "its watch is paused".into());
        }
        if watch.is_halted()
            && let Some(dead) = watch.halted.first()
        {
            let text = format!("the dead job {} holds it up", self.job_name(*dead));
            add(now, text);
        }
        match job.standings.claim {
            Claim::Asked(..) => add(now, "its claim was asked for".into()),
            Claim::Waits => {
                let at = self.timers.at(Timer::Claim(id)).unwrap_or(now);
                add(
                    at,
                    "another machine has its claim; it is asked again".into(),
                );
            }
            Claim::None | Claim::Had(..) => {}
        }
        if self
            .tree
            .mount(watch.root)
            .is_some_and(|mount| self.does_not_answer(mount))
        {
            add(now, "its mount does not answer".into());
        }
        let rank = Rank::new(job.fresh, job.by.clone(), id);
        let queue = watch.startable();
        if let Some(holder) = queue.holder(&job.key).filter(|holder| *holder != id) {
            let text = format!(
                "job {} has the key \"{}\" and is before it",
                self.job_name(holder),
                job.key.escape_ascii()
            );
            add(now, text);
        }
        match queue.before(&rank, &job.key, BEFORE_MAX) {
            0 => {}
            BEFORE_MAX.. => add(now, format!("more than {BEFORE_MAX} jobs are before it")),
            1 => add(now, "one job is before it".into()),
            n => add(now, format!("{n} jobs are before it")),
        }
        match &watch.plan.action {
            Action::Worker(plan) => {
                let window = plan.workers as usize * plan.window as usize;
                if self.worker_load(job.watch) >= window {
                    let text = format!("its workers have {window} jobs, as many as they take");
                    add(now, text);
                }
            }
            Action::Run(_) | Action::Deliver(_) => {
                if watch.running >= watch.plan.concurrency {
                    let text = format!(
                        "its watch runs {} at once, as many as concurrency lets it",
                        watch.running
                    );
                    add(now, text);
                } else if self.children_running() >= self.daemon.concurrency as usize {
                    let text = format!(
                        "the daemon runs {} at once, as many as [daemon] concurrency lets it",
                        self.children_running()
                    );
                    add(now, text);
                }
            }
        }
        if watch.plan.rate.is_some() && watch.next_start > now {
            add(watch.next_start, "rate lets the next job start".into());
        }
        if let (Some(batch), Some(since)) = (watch.plan.batch, watch.batch_since) {
            add(
                since.after(batch.wait),
                "its batch does not wait longer for others".into(),
            );
        }
    }
}

/// The end of an attempt in words.
pub fn attempt_words(end: AttemptEnd) -> String {
    super::ends::describe(end)
}

/// An outcome in one word.
pub fn outcome_word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Done => "done",
        Outcome::Dead => "dead",
        Outcome::Superseded => "superseded",
        Outcome::Gone => "gone",
        Outcome::Held => "held",
    }
}
