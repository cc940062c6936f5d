//! Processes of an earlier life of the daemon: an attempt that was cut short is not repeated beside one that still makes
//! it. Each holds the lock of a slot, which its job's last `started` record names.

use super::ends::Verdict;
use super::ids::JobId;
use super::job::Phase;
use super::record::{AttemptEnd, Outcome, Record};
use super::time::Mono;
use super::timers::Timer;
use super::{Core, Effect};
use crate::plan::{Level, Orphans};
use std::time::Duration;

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;
/// How often a slot is asked about, at first and at last.
const ASK_FIRST: Duration = Duration::from_millis(250);
const ASK_LAST: Duration = Duration::from_secs(10);

/// A slot whose process may still be there.
#[derive(Debug)]
pub(super) struct Orphan {
    jobs: Vec<JobId>,
    wait: Duration,
    /// Since when it is known to be there.
    seen: Option<Mono>,
    /// When it is to be sent SIGKILL, once it was sent SIGTERM.
    kill_at: Option<Mono>,
}

impl Core {
    /// After replay: jobs whose attempts were cut short wait until their slots are free.
    pub(super) fn await_orphans(&mut self) {
        let cut: Vec<(JobId, u32)> = self
            .jobs
            .iter()
            .filter(|(_, job)| job.cut_short && job.slot != 0 && matches!(job.phase, Phase::Ready))
            .map(|(id, job)| (*id, job.slot))
            .collect();
        for (id, slot) in cut {
            if let Some(job) = self.jobs.get_mut(&id) {
                job.phase = Phase::Orphaned { slot };
            }
            self.slots.keep(slot);
            self.orphans
                .entry(slot)
                .or_insert(Orphan {
                    jobs: Vec::new(),
                    wait: ASK_FIRST,
                    seen: None,
                    kill_at: None,
                })
                .jobs
                .push(id);
        }
        for slot in self.orphans.keys() {
            self.out.push(Effect::AskSlot(*slot, None));
        }
        let known: Vec<JobId> = self
            .jobs
            .iter()
            .filter(|(_, job)| job.cut_short && matches!(job.phase, Phase::Ready))
            .map(|(id, _)| *id)
            .collect();
        for id in known {
            self.cut_short(id);
        }
    }

    /// Nothing makes the attempt any more that was cut short.
    fn cut_short(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        if !matches!(job.phase, Phase::Orphaned { .. } | Phase::Ready) {
            return;
        }
        job.phase = Phase::Ready;
        let slot = std::mem::take(&mut job.slot);
        let (watch, displaced, replayed) = (job.watch, job.displaced, job.replayed);
        // The next life must not take it for this job's: another's process may have the slot then.
        let over = Record::Ended {
            job: id,
            attempt: job.begun,
            end: AttemptEnd::CutShort,
            counted: job.counted,
            not_before: job.not_before,
            output: Vec::new(),
        };
        if self.tree.get(job.dir).is_none() {
            self.conclude(id, Outcome::Gone, None, Vec::new());
        } else if displaced || self.verdict(watch, AttemptEnd::CutShort) == Verdict::Hold {
            self.attempt_over(id, AttemptEnd::CutShort, Vec::new(), None);
        } else {
            if slot != 0 {
                self.append(over);
            }
            if !replayed {
                self.enqueue(id);
            }
        }
    }

    pub(super) fn slot_due(&mut self, slot: u32) {
        let Some(orphan) = self.orphans.get_mut(&slot) else {
            return;
        };
        let plan = orphan
            .jobs
            .iter()
            .find_map(|id| self.watches.get(self.jobs.get(id)?.watch as usize))
            .map(|watch| (watch.plan.orphans, watch.plan.kill_after));
        let signal = match (plan, orphan.seen) {
            (Some((Orphans::Kill, kill_after)), Some(_)) => {
                let now = self.now.mono;
                match orphan.kill_at {
                    Some(at) if at <= now => {
                        // It will not take long.
                        orphan.wait = ASK_FIRST;
                        Some(SIGKILL)
                    }
                    at => {
                        orphan.kill_at = Some(at.unwrap_or(now.after(kill_after)));
                        Some(SIGTERM)
                    }
                }
            }
            _ => None,
        };
        self.out.push(Effect::AskSlot(slot, signal));
    }

    /// What became of a process of an earlier life.
    pub(super) fn slot_answered(&mut self, slot: u32, taken: bool) {
        let Some(orphan) = self.orphans.get_mut(&slot) else {
            return;
        };
        if taken {
            let first = orphan.seen.is_none();
            orphan.seen.get_or_insert(self.now.mono);
            // At first without delay: it may have to be ended.
            let wait = if first { Duration::ZERO } else { orphan.wait };
            let now = self.now.mono;
            let kill_at = orphan.kill_at.filter(|at| *at > now);
            let at = now.after(wait);
            self.timers
                .set(Timer::Slot(slot), kill_at.map_or(at, |kill| kill.min(at)));
            orphan.wait = (orphan.wait * 2).min(ASK_LAST);
            if first {
                for id in orphan.jobs.clone() {
                    self.log_job(Level::Warning, id, || {
                        "a process of its last attempt has outlived the daemon; it is not repeated beside that"
                            .into()
                    });
                }
            }
            return;
        }
        let jobs = std::mem::take(&mut orphan.jobs);
        self.orphans.remove(&slot);
        self.timers.clear(Timer::Slot(slot));
        self.slots.free(slot);
        for id in jobs {
            self.cut_short(id);
        }
    }
}
