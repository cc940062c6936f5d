//! Claims: which of several machines with the same watch works on a file (settled.toml(5), `claim`).
//!
//! A ready job is taken out of its watch's queue and asked for; once its claim is had it is in a second queue, from which
//! attempts are made as ever. A claim is kept until its job is history: over retries, over its conclusion, until the file
//! is disposed of. The locks are a process's, the keeper's; when that ends they are nobody's, and whatever is not over is
//! asked for again by the next.
//!
//! Nothing is run, and no file disposed of, without the claim.

mod keepers;
mod over;
mod queues;

use super::claim::{self, Ask, Said, Seen, Standing, Take};
use super::ids::{JobId, RunId};
use super::job::Phase;
use super::operate::Mode;
use super::queue::Queue;
use super::record::{AttemptEnd, Outcome};
use super::time::Mono;
use super::timers::Timer;
use super::watch::Root;
use super::{Core, Effect};
use crate::plan::{Action, Delivery, Level, Rate};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Wait before a claim that somebody else has is asked for again; doubles with each time.
const BUSY_FIRST: Duration = Duration::from_secs(1);
const BUSY_LAST: Duration = Duration::from_secs(30);
/// For so long whoever left something half done may take it back: the next keeper of a daemon that goes on.
const LEFT_WAIT: Duration = Duration::from_secs(3);
/// Wait before anything is asked for again when claims cannot be had at all.
const FAILED_FIRST: Duration = Duration::from_secs(1);
const FAILED_LAST: Duration = Duration::from_secs(30);
/// Jobs that take no longer than this are claimed before there is a place for them.
const SHORT: Duration = Duration::from_secs(1);
/// So many at most.
const AHEAD_MAX: usize = 1024;

/// Where a job stands with the other machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// Not asked for.
    None,
    /// Asked for.
    Asked(RunId, u64),
    /// To be asked for again when its timer is due.
    Waits,
    /// Had.
    Had(RunId, u64),
}

/// A job's claim and what goes with it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standings {
    pub(super) claim: Claim,
    /// How often somebody else had it.
    refused: u8,
    /// What an attempt elsewhere left is taken over next time.
    over: bool,
    /// Its conclusion is being written down for the others.
    marking: bool,
    /// It is.
    marked: bool,
}

impl Standings {
    /// Of a job that was not asked for.
    pub(super) const NONE: Standings = Standings {
        claim: Claim::None,
        refused: 0,
        over: false,
        marking: false,
        marked: false,
    };
}

/// The process that keeps the claims of one watch.
#[derive(Debug)]
pub(super) struct Keeper {
    watch: u32,
    /// Asked for, or had.
    claims: BTreeMap<u64, JobId>,
    /// It gets no new ones, and ends with the last.
    leaving: bool,
    proved: bool,
    /// Questions that it has not answered.
    unanswered: usize,
    /// For so long that it was said.
    silent: bool,
}

/// The claims of one watch.
#[derive(Debug)]
pub(super) struct Claims {
    keeper: Option<RunId>,
    /// Ends of keepers in a row without an answer in between.
    failures: u32,
    not_before: Mono,
    /// Jobs whose claims are had, and that may start.
    pub(super) ready: Queue,
    /// Jobs on their way there.
    asked: BTreeSet<JobId>,
    /// Claims cannot be had at all: since when the wait is what, until when, and whether it was said.
    failed: Option<(Duration, Mono)>,
    /// How long the last attempt took.
    pub(super) ran: Option<Duration>,
}

impl Claims {
    pub(super) fn new(per_key: Option<u32>) -> Claims {
        Claims {
            keeper: None,
            failures: 0,
            not_before: Mono::default(),
            ready: Queue::new(per_key),
            asked: BTreeSet::new(),
            failed: None,
            ran: None,
        }
    }
}

impl Core {
    // ---- asking ----

    fn claims_of(&self, watch: u32) -> Option<&Claims> {
        self.watches.get(watch as usize)?.claims.as_ref()
    }

    fn claims_mut(&mut self, watch: u32) -> Option<&mut Claims> {
        self.watches.get_mut(watch as usize)?.claims.as_mut()
    }

    /// Asks for as many jobs as may start soon.
    pub(super) fn ask_for_claims(&mut self) {
        if !self.room || self.mode != Mode::Running {
            return;
        }
        for index in 0..self.watches.len() {
            if self.watches[index].claims.is_some() {
                self.ask_for_claims_of(index);
            }
        }
    }

    fn ask_for_claims_of(&mut self, index: usize) {
        let watch = &self.watches[index];
        if watch.queue.is_empty()
            || !watch.active
            || watch.paused
            || watch.state != Root::Bound
            || watch.is_halted()
        {
            return;
        }
        if let Some(until) = self.no_claims_before(index) {
            if !self.timers.is_set(Timer::Keeper(index as u32)) {
                self.timers.set(Timer::Keeper(index as u32), until);
            }
            return;
        }
        let mut room = self.room_for_claims(index);
        if room == 0 {
            return;
        }
        let Some(keeper) = self.keeper_of(index) else {
            return;
        };
        while room > 0 {
            let jobs = &self.jobs;
            let key_of = |id: JobId| {
                jobs.get(&id)
                    .map_or_else(Box::default, |job| job.key.clone())
            };
            let Some(id) = self.watches[index].queue.pop(key_of) else {
                break;
            };
            self.ask_claim(id, keeper);
            room -= 1;
        }
    }

    /// When it is to be tried again, where claims could not be had at all.
    fn no_claims_before(&self, index: usize) -> Option<Mono> {
        let failed = self.watches[index].claims.as_ref().and_then(|c| c.failed);
        let (_, until) = failed?;
        (until > self.now.mono).then_some(until)
    }

    /// How many more may be asked for: those that there are places for; and where attempts are short as many again, so that
    /// none waits for its claim. What one machine has, no other works on.
    fn room_for_claims(&self, index: usize) -> usize {
        let watch = &self.watches[index];
        let Some(claims) = &watch.claims else {
            return 0;
        };
        let per = watch.plan.batch.map_or(1, |batch| batch.max as usize);
        let (places, taken) = match &watch.plan.action {
            Action::Worker(plan) => (
                plan.workers as usize * plan.window as usize,
                self.worker_load(index as u32),
            ),
            Action::Run(_) | Action::Deliver(_) => (
                watch.plan.concurrency.min(self.daemon.concurrency) as usize * per,
                watch.running as usize * per,
            ),
        };
        // What is claimed when its machine goes away is held for the operator, begun or not.
        let once = watch.plan.delivery == Delivery::AtMostOnce;
        let mut ahead = match claims.ran {
            Some(ran) if ran <= SHORT && !once => places,
            _ => places.saturating_sub(taken),
        };
        if let Some(Rate { count, per: each }) = watch.plan.rate {
            let a_second = u64::from(count) / each.as_secs().max(1);
            ahead = ahead.min(usize::try_from(a_second).unwrap_or(usize::MAX).max(per));
        }
        let have = claims.ready.len() + claims.asked.len();
        ahead.min(AHEAD_MAX).saturating_sub(have)
    }

    /// Asks for a job's claim.
    fn ask_claim(&mut self, id: JobId, run: RunId) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let ready = matches!(job.phase, Phase::Ready);
        if ready && self.tree.place(job.dir, &job.name).is_none() {
            // As where an attempt would begin: where it went was looked for by the scan.
            self.conclude(id, Outcome::Gone, None, Vec::new());
            return;
        }
        let serial = self
            .watches
            .get(job.watch as usize)
            .is_some_and(|watch| watch.plan.serial);
        self.last_claim += 1;
        let claim = self.last_claim;
        let take = Take {
            claim,
            job: self.job_name(id),
            path: self.tree.rel(job.dir, &job.name),
            seen: Seen::from(&job.version),
            key: serial.then(|| job.key.to_vec()),
            look: ready,
            // What runs, or has run, is this machine's.
            over: job.standings.over || !ready,
            again: ready && job.wanted,
        };
        let watch = job.watch;
        if let Some(keeper) = self.keepers.get_mut(&run) {
            keeper.claims.insert(claim, id);
        }
        if let Some(job) = self.jobs.get_mut(&id) {
            job.standings.claim = Claim::Asked(run, claim);
        }
        if ready && let Some(claims) = self.claims_mut(watch) {
            claims.asked.insert(id);
        }
        self.tell_keeper(run, &Ask::Take(take));
    }

    /// The same for a job that does not wait in the queue, if there is a keeper.
    fn want_claim(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        if job.standings.claim == Claim::None
            && let Some(keeper) = self.keeper_of(job.watch as usize)
            // A new one has just asked for all of them.
            && self.jobs.get(&id).is_some_and(|job| job.standings.claim == Claim::None)
        {
            self.ask_claim(id, keeper);
        }
    }

    /// A job that holds up those behind it does so on all machines, if its key does.
    pub(super) fn keep_claim_of_halted(&mut self, id: JobId) {
        let claimed = self
            .jobs
            .get(&id)
            .is_some_and(|job| self.claims_of(job.watch).is_some());
        if claimed {
            self.want_claim(id);
        }
    }

    /// Tells, before any of them is begun, which slot's lock shows that these jobs are at work.
    pub(super) fn say_slot(&mut self, slot: u32, ids: &[JobId]) {
        let mut of: BTreeMap<RunId, Vec<u64>> = BTreeMap::new();
        for id in ids {
            if let Some(job) = self.jobs.get(id)
                && let Claim::Had(run, claim) = job.standings.claim
            {
                of.entry(run).or_default().push(claim);
            }
        }
        for (run, of) in of {
            let line = claim::line(&Ask::Slot { slot, of });
            self.out.push(Effect::FeedFirst(run, line));
        }
    }

    // ---- answers ----

    pub(super) fn is_keeper(&self, run: RunId) -> bool {
        self.keepers.contains_key(&run)
    }

    /// A keeper said a line.
    pub(super) fn keeper_said(&mut self, run: RunId, line: Option<Vec<u8>>) {
        let said = match &line {
            Some(line) => claim::read::<Said>(line),
            None => Err("the line is too long".to_owned()),
        };
        self.keeper_answered(run);
        match said {
            Ok(Said::Took { claim, is, by }) => self.took(run, claim, is, by),
            Ok(Said::Concluded { claim, why }) => self.marked(run, claim, why),
            Err(why) => {
                self.log_worker(Level::Error, run, || {
                    format!("the process that keeps the claims says what nobody knows ({why}); it is ended")
                });
                self.end_run(run);
            }
        }
    }

    fn took(&mut self, run: RunId, claim: u64, is: Standing, by: String) {
        let Some(keeper) = self.keepers.get_mut(&run) else {
            return;
        };
        keeper.proved = true;
        let watch = keeper.watch;
        // Given back meanwhile, if it is not there.
        let Some(id) = keeper.claims.get(&claim).copied() else {
            return;
        };
        if !is.is_had() {
            keeper.claims.remove(&claim);
        }
        let had = is.is_had();
        if let Some(claims) = self.claims_mut(watch) {
            claims.asked.remove(&id);
            claims.failures = 0;
            if had && claims.failed.take().is_some() {
                self.log_worker(Level::Info, run, || "claims can be made again".into());
            }
        }
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        job.standings.claim = match had {
            true => Claim::Had(run, claim),
            false => Claim::None,
        };
        let ready = matches!(job.phase, Phase::Ready);
        match is {
            Standing::Busy => self.claim_is_busy(id),
            Standing::Left => {
                self.log_job(Level::Info, id, || {
                    format!("an attempt of {by} was cut short; it is taken over unless that one comes back")
                });
                if let Some(job) = self.jobs.get_mut(&id) {
                    job.standings.over = true;
                }
                self.claim_again_in(id, LEFT_WAIT);
            }
            Standing::Gone => self.look(id),
            Standing::Failed => self.claims_failed(run, watch, id, &by),
            Standing::Had => self.claim_is_had(id),
            Standing::CutShort if ready => self.take_over(id, &by),
            // What it is about is this machine's own.
            Standing::CutShort => self.claim_is_had(id),
            Standing::Done => self.is_concluded_elsewhere(id, Outcome::Done, &by),
            Standing::Dead => self.is_concluded_elsewhere(id, Outcome::Dead, &by),
            Standing::Held => self.is_concluded_elsewhere(id, Outcome::Held, &by),
        }
    }

    fn claim_is_busy(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let refused = job.standings.refused;
        job.standings.refused = refused.saturating_add(1);
        job.standings.over = false;
        let at_work = at_work(&job.phase);
        let wait = BUSY_FIRST
            .saturating_mul(1 << u32::from(refused.min(10)))
            .min(BUSY_LAST);
        // So that two that ask for the same do not do so at the same moments.
        let part = u32::try_from(id.0.wrapping_mul(0x9E37_79B9) & 0xff).unwrap_or(0);
        let wait = wait + wait / 4 * part / 256;
        // At the first time it may be one who asks whether it was left, and leaves it.
        if at_work && refused == 1 {
            self.log_job(Level::Error, id, || {
                "its claim was lost with the process that kept it, and another machine has it now: both may be at work"
                    .into()
            });
        } else {
            self.log_job(Level::Debug, id, || {
                format!(
                    "waits: another machine has claimed it; asked again in {:.1} s",
                    wait.as_secs_f64()
                )
            });
        }
        self.claim_again_in(id, wait);
    }

    fn claim_again_in(&mut self, id: JobId, wait: Duration) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.standings.claim = Claim::Waits;
            self.timers.set(Timer::Claim(id), self.now.mono.after(wait));
        }
    }

    /// A job's claim may be asked for again.
    pub(super) fn claim_due(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        if job.standings.claim != Claim::Waits {
            return;
        }
        job.standings.claim = Claim::None;
        match &job.phase {
            Phase::Ready if job.replayed => {}
            Phase::Ready => self.enqueue(id),
            Phase::Disposing { .. } => self.ask_dispose(id),
            phase if at_work(phase) || matches!(phase, Phase::Halted) => self.want_claim(id),
            _ => {}
        }
    }

    fn claims_failed(&mut self, run: RunId, watch: u32, id: JobId, why: &str) {
        let now = self.now.mono;
        if let Some(claims) = self.claims_mut(watch) {
            let first = claims.failed.is_none();
            let (wait, until) = match claims.failed {
                // Many fail together.
                Some((wait, until)) if until > now => (wait, until),
                Some((wait, _)) => {
                    let wait = (wait * 2).min(FAILED_LAST);
                    (wait, now.after(wait))
                }
                None => (FAILED_FIRST, now.after(FAILED_FIRST)),
            };
            claims.failed = Some((wait, until));
            self.timers.set(Timer::Keeper(watch), until);
            if first {
                let why = why.to_owned();
                self.log_worker(Level::Error, run, || {
                    format!(
                        "no claim can be made: {why}; nothing of this watch is run until one can"
                    )
                });
            }
        }
        match self.jobs.get(&id).map(|job| &job.phase) {
            Some(Phase::Ready) => self.enqueue(id),
            _ => self.claim_again_in(id, FAILED_FIRST),
        }
    }

    fn claim_is_had(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        job.standings.refused = 0;
        match job.phase {
            Phase::Ready if self.mode != Mode::Running => self.give_claim_back(id),
            Phase::Ready => {
                self.enqueue(id);
                self.ask_for_the_next_of_its_key(id);
            }
            Phase::Disposing { .. } => self.ask_dispose(id),
            _ => {}
        }
    }

    /// Where a key's jobs are run together, one after another is claimed: none overtakes one that was refused.
    fn ask_for_the_next_of_its_key(&mut self, id: JobId) {
        let Some((index, Claim::Had(keeper, _))) = self
            .jobs
            .get(&id)
            .map(|job| (job.watch as usize, job.standings.claim))
        else {
            return;
        };
        let watch = &self.watches[index];
        if !watch.plan.serial
            || watch.plan.batch.is_none()
            || watch.state != Root::Bound
            || self.mode != Mode::Running
            || self.room_for_claims(index) == 0
        {
            return;
        }
        let jobs = &self.jobs;
        let key_of = |id: JobId| {
            jobs.get(&id)
                .map_or_else(Box::default, |job| job.key.clone())
        };
        if let Some(next) = self.watches[index].queue.pop_after(id, key_of, |_| true) {
            self.ask_claim(next, keeper);
        }
    }

    /// Another machine's attempt was cut short.
    fn take_over(&mut self, id: JobId, by: &str) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        job.cut_short = true;
        let once = self
            .watches
            .get(job.watch as usize)
            .is_some_and(|watch| watch.plan.delivery == Delivery::AtMostOnce);
        if once {
            self.log_job(Level::Error, id, || {
                format!(
                    "held: an attempt of {by} was cut short, and nobody knows how far it came; it is not repeated, \
                     because delivery = \"at-most-once\""
                )
            });
            self.conclude(id, Outcome::Held, Some(AttemptEnd::CutShort), Vec::new());
            return;
        }
        self.log_job(Level::Warning, id, || {
            format!("an attempt of {by} was cut short; it is repeated here")
        });
        self.claim_is_had(id);
    }

    /// The claim is had, and the others know how the job ended.
    fn is_concluded_elsewhere(&mut self, id: JobId, outcome: Outcome, by: &str) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        job.standings.marked = true;
        let word = match outcome {
            Outcome::Dead => "dead",
            Outcome::Held => "held",
            _ => "done",
        };
        match &job.phase {
            Phase::Ready | Phase::Halted | Phase::Backoff => {
                self.log_job(Level::Info, id, || format!("{word} elsewhere, by {by}"));
                self.conclude(id, outcome, Some(AttemptEnd::Elsewhere), Vec::new());
            }
            Phase::Disposing { .. } => self.ask_dispose(id),
            _ => {
                self.log_job(Level::Error, id, || {
                    format!("{word} elsewhere, by {by}, while it was at work here: its claim had been lost")
                });
            }
        }
    }
}

/// A process of this machine may have the file.
fn at_work(phase: &Phase) -> bool {
    matches!(
        phase,
        Phase::Running { .. } | Phase::PostLook { .. } | Phase::Looking
    )
}
