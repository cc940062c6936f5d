//! What an attempt's end means: success, another attempt, a dead job or a held one.

use super::Core;
use super::StartStep;
use super::counts::AttemptResult;
use super::files::FileKey;
use super::ids::JobId;
use super::job::Phase;
use super::record::{AttemptEnd, Outcome, Record};
use super::timers::Timer;
use crate::core::observe::errno_text;
use crate::plan::{Delivery, Level, OnChange, OnDead};
use std::time::Duration;

/// sysexits(3): bad data, for good.
const EX_DATAERR: i32 = 65;
/// sysexits(3): try again.
const EX_TEMPFAIL: i32 = 75;
/// Wait before an attempt that could not begin through no fault of the job is tried again.
const NOT_COUNTED_WAIT: Duration = Duration::from_millis(500);
/// The longest such wait, where the reason is the machine or the configuration, which are as they are for a while.
const NOT_STARTED_WAIT: Duration = Duration::from_secs(60);
/// flock(2): the slot that was to be taken is held by what an earlier attempt left behind; the next one may be free.
const EWOULDBLOCK: i32 = 11;

/// What an attempt's end means for its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It succeeded.
    Done,
    /// It failed for good.
    Dead,
    /// It failed and counts; it may be tried again.
    Failed,
    /// It did not take place, or not to its end, through no fault of the job.
    NotCounted,
    /// The file is another one, or none.
    Look,
    /// Nobody knows how far it came, and it is promised to be made once at most.
    Hold,
}

impl Core {
    /// What an attempt's end means in this watch.
    pub(super) fn verdict(&self, watch: u32, end: AttemptEnd) -> Verdict {
        let Some(plan) = self.watches.get(watch as usize).map(|state| &state.plan) else {
            return Verdict::NotCounted;
        };
        let once = plan.delivery == Delivery::AtMostOnce;
        match end {
            AttemptEnd::Exit(0) | AttemptEnd::SaidDone | AttemptEnd::Elsewhere => Verdict::Done,
            AttemptEnd::Exit(status) if plan.temporary.contains(&status) => Verdict::Failed,
            AttemptEnd::Exit(status) if plan.permanent.contains(&status) => Verdict::Dead,
            AttemptEnd::Exit(EX_DATAERR) | AttemptEnd::AskedDead => Verdict::Dead,
            AttemptEnd::Exit(EX_TEMPFAIL) | AttemptEnd::AskedRetry => Verdict::Failed,
            AttemptEnd::Exit(_) if once => Verdict::Dead,
            AttemptEnd::Exit(_) => Verdict::Failed,
            AttemptEnd::NotTheFile => Verdict::Look,
            AttemptEnd::StillWritten => Verdict::NotCounted,
            AttemptEnd::NotStarted { step, .. }
                if step == StartStep::Fork as u8 || step == StartStep::Setup as u8 =>
            {
                Verdict::NotCounted
            }
            // It never ran: to try again is to run it once.
            AttemptEnd::NotStarted { .. } => Verdict::Failed,
            AttemptEnd::Signal(_)
            | AttemptEnd::TimedOut
            | AttemptEnd::WorkerLost
            | AttemptEnd::CutShort
            | AttemptEnd::Together
                if once =>
            {
                Verdict::Hold
            }
            AttemptEnd::CutShort | AttemptEnd::Together => Verdict::NotCounted,
            AttemptEnd::Signal(_) | AttemptEnd::TimedOut | AttemptEnd::WorkerLost => {
                Verdict::Failed
            }
        }
    }

    /// Whether the command itself asked to be tried again.
    pub(super) fn is_temporary(&self, watch: u32, end: AttemptEnd) -> bool {
        let plan = self.watches.get(watch as usize).map(|state| &state.plan);
        let AttemptEnd::Exit(status) = end else {
            return false;
        };
        plan.is_some_and(|plan| {
            plan.temporary.contains(&status)
                || (status == EX_TEMPFAIL && !plan.permanent.contains(&status))
        })
    }

    /// An attempt ended. `after`: the worker asked for this wait.
    pub(super) fn attempt_over(
        &mut self,
        id: JobId,
        end: AttemptEnd,
        output: Vec<u8>,
        after: Option<Duration>,
    ) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        if let Some(claims) = self
            .watches
            .get_mut(job.watch as usize)
            .and_then(|watch| watch.claims.as_mut())
        {
            claims.ran = Some(job.ran);
        }
        let (watch, ran, displaced) = (job.watch, job.ran, job.displaced);
        self.count_end(watch, end, ran);
        if displaced {
            self.count(watch, |counts| counts.attempt(AttemptResult::Changed));
            self.log_job(Level::Info, id, || {
                "superseded: another file was renamed over it while its job ran".into()
            });
            self.conclude(id, Outcome::Superseded, Some(end), output);
            return;
        }
        let verdict = self.verdict(watch, end);
        match verdict {
            Verdict::Done => self.succeeded(id, end),
            Verdict::Dead => self.dead(id, end, output),
            Verdict::Look => self.look(id),
            Verdict::NotCounted => self.again(id, end, output, false, None),
            Verdict::Failed => self.again(id, end, output, true, after),
            Verdict::Hold => self.keep_for_operator(id, end, output),
        }
        let phase = self.jobs.get(&id).map(|job| &job.phase);
        let result = match verdict {
            Verdict::Done => AttemptResult::Done,
            Verdict::Failed if matches!(phase, Some(Phase::Backoff)) => AttemptResult::Retry,
            Verdict::Failed | Verdict::Dead => AttemptResult::Dead,
            Verdict::NotCounted => AttemptResult::Again,
            Verdict::Look => AttemptResult::Changed,
            Verdict::Hold => AttemptResult::Held,
        };
        self.count(watch, |counts| counts.attempt(result));
    }

    /// The attempt failed in a way that may pass.
    pub(super) fn again(
        &mut self,
        id: JobId,
        end: AttemptEnd,
        output: Vec<u8>,
        counts: bool,
        after: Option<Duration>,
    ) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let Some(watch) = self.watches.get(job.watch as usize) else {
            return;
        };
        if counts {
            job.counted += 1;
            let age = self.now.wall.since(job.settled);
            let too_old = watch.plan.max_age.is_some_and(|max_age| age >= max_age);
            if job.counted >= watch.plan.attempts || too_old {
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
        let slot_held = AttemptEnd::NotStarted {
            step: StartStep::Setup as u8,
            errno: EWOULDBLOCK,
        };
        let could_not_start =
            !counts && end != slot_held && matches!(end, AttemptEnd::NotStarted { errno: 1.., .. });
        job.cut_short = matches!(end, AttemptEnd::CutShort | AttemptEnd::Together)
            || never_ran(end) && job.repeats;
        job.alone |= end == AttemptEnd::Together;
        let wait = match end {
            _ if counts => {
                let backoff = watch.plan.backoff;
                let doubled = backoff
                    .first
                    .saturating_mul(1 << (job.counted - 1).min(30))
                    .min(backoff.max);
                // What a worker asks for it knows better.
                after.unwrap_or_else(|| jittered(doubled, id, job.counted))
            }
            // Because of another one, which will not be there.
            AttemptEnd::Together | AttemptEnd::NotStarted { errno: 0, .. } => Duration::ZERO,
            _ if could_not_start => {
                let before = job.begun.saturating_sub(job.counted + 1);
                NOT_COUNTED_WAIT
                    .saturating_mul(1 << before.min(20))
                    .min(NOT_STARTED_WAIT)
            }
            _ => NOT_COUNTED_WAIT,
        };
        job.not_before = self.now.wall.after(wait);
        job.asked = after.unwrap_or_default();
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
        let level = match counts || could_not_start {
            true => Level::Warning,
            false => Level::Info,
        };
        self.log_job(level, id, || {
            format!(
                "attempt {attempt}: {}; again in {:.1} s",
                describe(end),
                wait.as_secs_f64()
            )
        });
    }

    /// Somebody writes the file again: nothing was begun, and is tried again in a moment.
    pub(super) fn rest(&mut self, id: JobId) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.phase = Phase::Backoff;
            self.timers
                .set(Timer::Retry(id), self.now.mono.after(NOT_COUNTED_WAIT));
        }
    }

    fn dead(&mut self, id: JobId, end: AttemptEnd, output: Vec<u8>) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let attempt = job.begun;
        let halts = self
            .watches
            .get(job.watch as usize)
            .is_some_and(|state| state.plan.on_dead == OnDead::Halt);
        if halts {
            self.halt(id, end, output);
            return;
        }
        self.log_job(Level::Error, id, || {
            format!("attempt {attempt}: {}; dead", describe(end))
        });
        self.conclude(id, Outcome::Dead, Some(end), output);
    }

    /// Whether what an attempt did is known to nobody, and must not be done twice.
    fn keep_for_operator(&mut self, id: JobId, end: AttemptEnd, output: Vec<u8>) {
        let attempt = self.jobs.get(&id).map_or(0, |job| job.begun);
        self.log_job(Level::Error, id, || {
            format!(
                "held: attempt {attempt}: {}, and nobody knows how far it came; it is not repeated, because \
                 delivery = \"at-most-once\"",
                describe(end)
            )
        });
        self.conclude(id, Outcome::Held, Some(end), output);
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

    pub(super) fn done(&mut self, id: JobId, end: AttemptEnd) {
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
}

/// Whether the attempt was not made at all: what it was to repeat is still to be repeated.
pub(super) fn never_ran(end: AttemptEnd) -> bool {
    matches!(
        end,
        AttemptEnd::NotStarted { .. } | AttemptEnd::NotTheFile | AttemptEnd::StillWritten
    )
}

/// Up to a quarter longer, so that what failed together does not come back together; the same for
/// the same job and attempt.
fn jittered(wait: Duration, id: JobId, counted: u32) -> Duration {
    let seed = (id.0 ^ (u64::from(counted) << 48)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    let extra = u128::from(seed) * (wait.as_nanos() / 4) / (1 << 24);
    wait + Duration::from_nanos(u64::try_from(extra).unwrap_or(0))
}

/// An attempt's end in words.
pub(super) fn describe(end: AttemptEnd) -> String {
    match end {
        AttemptEnd::Exit(status) => format!("exit status {status}"),
        AttemptEnd::Signal(signal) => format!("ended by signal {signal}"),
        AttemptEnd::TimedOut => "timed out".into(),
        // Its worker could not be made, or its batch not be started because of another file.
        AttemptEnd::NotStarted { errno: 0, .. } => "not begun, for no reason of its own".into(),
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
        AttemptEnd::Elsewhere => "made elsewhere".into(),
    }
}
