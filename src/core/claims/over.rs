//! The end of a claim: what others are told of a conclusion, and what is given back.

use super::Claim;
use crate::core::claim::{Ask, How, Seen};
use crate::core::files::FileKey;
use crate::core::ids::{JobId, RunId};
use crate::core::job::Phase;
use crate::core::record::{Disposal, DisposedHow, Outcome, Record};
use crate::core::timers::Timer;
use crate::core::{Core, Effect};
use crate::plan::Level;
use std::time::Duration;

impl Core {
    // ---- conclusions ----

    /// What is to happen to the file of a job that ends so, with the others in mind.
    pub(in crate::core) fn disposal_with_mark(
        &self,
        id: JobId,
        outcome: Outcome,
        disposal: Disposal,
    ) -> Disposal {
        let Some(job) = self.jobs.get(&id) else {
            return disposal;
        };
        let marks = self
            .claims_of(job.watch)
            .and_then(|_| self.watches.get(job.watch as usize)?.plan.claim.as_ref())
            .map(|plan| plan.marks);
        match (marks, outcome) {
            _ if disposal != Disposal::Keep || job.standings.marked => disposal,
            (Some(true), Outcome::Done | Outcome::Dead) | (Some(_), Outcome::Held) => {
                Disposal::Mark
            }
            _ => disposal,
        }
    }

    /// Whether a concluded job's file may be disposed of: the claim is had, and the others know of the conclusion where they
    /// are to. If not, that is seen to, and it is asked again.
    pub(in crate::core) fn may_dispose(&mut self, id: JobId) -> bool {
        let Some(job) = self.jobs.get(&id) else {
            return false;
        };
        let Some(marks) = self
            .claims_of(job.watch)
            .and_then(|_| self.watches.get(job.watch as usize)?.plan.claim.as_ref())
            .map(|plan| plan.marks)
        else {
            return true;
        };
        let current = self.claims_of(job.watch).and_then(|claims| claims.keeper);
        let (run, claim) = match job.standings.claim {
            Claim::Had(run, claim) if current == Some(run) => (run, claim),
            // Claims are made elsewhere by now: there the others look.
            Claim::Had(..) => {
                self.release_claim(id, false);
                self.want_claim(id);
                return false;
            }
            Claim::None => {
                self.want_claim(id);
                return false;
            }
            Claim::Asked(..) | Claim::Waits => return false,
        };
        let how = match job.outcome {
            Some(Outcome::Done) if marks => How::Done,
            Some(Outcome::Dead) if marks => How::Dead,
            Some(Outcome::Held) => How::Held,
            _ => return true,
        };
        if job.standings.marked {
            return true;
        }
        if !job.standings.marking {
            let seen = Seen::from(&job.version);
            if let Some(job) = self.jobs.get_mut(&id) {
                job.standings.marking = true;
            }
            self.tell_keeper(run, &Ask::Conclude { claim, how, seen });
        }
        false
    }

    /// A conclusion is written down for the others, or not.
    pub(super) fn marked(&mut self, run: RunId, claim: u64, why: String) {
        let found = self
            .keepers
            .get(&run)
            .and_then(|keeper| keeper.claims.get(&claim).copied());
        let Some(job) = found.and_then(|id| self.jobs.get_mut(&id)) else {
            return;
        };
        let Some(id) = found else { return };
        job.standings.marking = false;
        if why.is_empty() {
            job.standings.marked = true;
            self.ask_dispose(id);
            return;
        }
        let Phase::Disposing { failures, .. } = &mut job.phase else {
            return;
        };
        let first = *failures == 0;
        *failures = failures.saturating_add(1);
        let wait = Duration::from_secs(1 << (*failures).min(5));
        self.timers
            .set(Timer::Dispose(id), self.now.mono.after(wait));
        if first {
            self.log_job(Level::Error, id, || {
                format!("the mark of its conclusion cannot be written: {why}; tried again, and its claim is kept")
            });
        }
    }

    /// The file stays, and the others know.
    pub(in crate::core) fn mark_ends(&mut self, id: JobId) {
        let how = DisposedHow::Done;
        self.append(Record::Disposed { job: id, how });
        if let Some(job) = self.jobs.get(&id) {
            let key = FileKey::new(job.dir, &job.name);
            let (version, ctime_ns, mark) = (job.version, job.ctime_ns, job.mark);
            // What is away is remembered as that.
            let away = self.files.get(key).is_some_and(|known| known.away);
            if !job.displaced && !away {
                self.remember(key, &version, ctime_ns, mark);
            }
        }
        self.forget_job(id);
    }

    /// Whether the daemon's stop waits for a conclusion to be known to the others.
    pub(in crate::core) fn is_marking(&self) -> bool {
        let silent = |run: &RunId| self.keepers.get(run).is_some_and(|keeper| keeper.silent);
        if self.keepers.keys().all(silent) {
            return false;
        }
        self.jobs.values().any(|job| {
            matches!(job.phase, Phase::Disposing { .. })
                && (job.standings.marking || matches!(job.standings.claim, Claim::Asked(..)))
        })
    }

    // ---- letting go ----

    /// A job is history, or is not to be begun here for now.
    pub(in crate::core) fn release_claim(&mut self, id: JobId, left: bool) {
        self.timers.clear(Timer::Claim(id));
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        if job.standings.claim == Claim::None {
            return;
        }
        let watch = job.watch;
        let was = std::mem::replace(&mut job.standings.claim, Claim::None);
        job.standings.marking = false;
        if let Some(claims) = self.claims_mut(watch) {
            claims.asked.remove(&id);
        }
        if let Claim::Asked(run, claim) | Claim::Had(run, claim) = was
            && let Some(keeper) = self.keepers.get_mut(&run)
        {
            keeper.claims.remove(&claim);
            self.tell_keeper(run, &Ask::Drop { claim, left });
            self.dismiss_if_idle(run);
        }
    }

    /// The job waits in the queue again, and others may have it.
    pub(super) fn give_claim_back(&mut self, id: JobId) {
        let left = self.jobs.get(&id).is_some_and(|job| job.cut_short);
        self.release_claim(id, left);
        if self
            .jobs
            .get(&id)
            .is_some_and(|job| matches!(job.phase, Phase::Ready) && !job.replayed)
        {
            self.enqueue(id);
        }
    }

    /// The daemon stops: others may have what is not at work here.
    pub(in crate::core) fn give_claims_back(&mut self) {
        let ids: Vec<JobId> = self
            .jobs
            .iter()
            .filter(|(_, job)| {
                !matches!(job.standings.claim, Claim::None)
                    && matches!(job.phase, Phase::Ready | Phase::Backoff | Phase::Halted)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.give_claim_back(id);
        }
    }

    /// The last thing before the end: what has outlived it keeps its claims by the slots of its attempts.
    pub(in crate::core) fn end_claims(&mut self) {
        self.give_claims_back();
        let ids: Vec<JobId> = self
            .jobs
            .iter()
            .filter(|(_, job)| matches!(job.phase, Phase::Disposing { .. }))
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            // Whether its file was taken away nobody knows.
            self.release_claim(id, true);
        }
        let keepers: Vec<RunId> = self.keepers.keys().copied().collect();
        for run in keepers {
            if let Some(keeper) = self.keepers.get_mut(&run)
                && !std::mem::replace(&mut keeper.leaving, true)
            {
                self.out.push(Effect::CloseInput(run));
            }
        }
    }
}
