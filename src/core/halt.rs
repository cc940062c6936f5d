//! `on_dead = "halt"`: a dead job stays, and holds up those behind it, until its file is taken away or replaced, or the
//! plan lets it be tried again or concluded.

use super::Core;
use super::ends::{describe, never_ran};
use super::files::FileKey;
use super::ids::JobId;
use super::job::Phase;
use super::record::{AttemptEnd, Outcome, Record};
use super::time::Wall;
use crate::plan::{Level, OnDead};

/// Not to be tried again by itself: in the record of its last attempt's end this tells a dead job that is held up.
const NEVER: Wall = Wall(i64::MAX);

impl Core {
    /// The job is dead, and holds up its key, or its watch.
    pub(super) fn halt(&mut self, id: JobId, end: AttemptEnd, output: Vec<u8>) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        // Raised later, `attempts` lets it be tried again.
        let attempts = self
            .watches
            .get(job.watch as usize)
            .map_or(0, |watch| watch.plan.attempts);
        job.counted = job.counted.max(attempts);
        job.not_before = NEVER;
        job.cut_short = never_ran(end) && job.repeats;
        let (attempt, counted) = (job.begun, job.counted);
        self.append(Record::Ended {
            job: id,
            attempt,
            end,
            counted,
            not_before: NEVER,
            output,
        });
        self.alert_job(id, Outcome::Dead);
        self.set_halted(id);
        // Its file may have gone while the attempt ran: nothing more would be heard of that.
        self.ask_look(id);
        self.log_job(Level::Error, id, || {
            format!(
                "attempt {attempt}: {}; dead, and everything behind it waits (on_dead = \"halt\") until its file is \
                 taken away or replaced, or the configuration raises `attempts` or says \"continue\"",
                describe(end)
            )
        });
    }

    /// Something took the file's name away; where a job is held up, nobody else would look.
    pub(super) fn look_if_halted(&mut self, key: FileKey) {
        if let Some((id, Phase::Halted)) = self.live_phase(key) {
            self.ask_look(id);
        }
    }

    /// A scan has ended. What is away with its directory is forgotten by no listing, but nothing waits for its return.
    pub(super) fn look_at_halted(&mut self, watch: u32) {
        let halted = self.watches.get(watch as usize).map(|state| &state.halted);
        for id in halted.cloned().unwrap_or_default() {
            self.ask_look(id);
        }
    }

    fn set_halted(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        job.phase = Phase::Halted;
        let key = job.key.clone();
        if let Some(watch) = self.watches.get_mut(job.watch as usize) {
            watch.halted.insert(id);
            watch.queue.hold(id, &key);
            if let Some(claims) = &mut watch.claims {
                claims.ready.hold(id, &key);
            }
        }
        self.keep_claim_of_halted(id);
    }

    /// After a start, and after a reload: jobs of `watch` that were held up stay so, or not, as the plan says now.
    pub(super) fn judge_halted(&mut self, watch: u32) {
        let of_watch = self.jobs.iter().filter(|(_, job)| job.watch == watch);
        let ids: Vec<JobId> = of_watch.map(|(id, _)| *id).collect();
        self.judge_halted_of(watch, &ids);
    }

    /// The same, where it is known which jobs the watch has.
    pub(super) fn judge_halted_of(&mut self, watch: u32, ids: &[JobId]) {
        let halted = |id: &&JobId| {
            self.jobs.get(id).is_some_and(|job| {
                job.not_before == NEVER && matches!(job.phase, Phase::Backoff | Phase::Halted)
            })
        };
        let ids: Vec<JobId> = ids.iter().filter(halted).copied().collect();
        let Some(state) = self.watches.get_mut(watch as usize) else {
            return;
        };
        let (attempts, on_dead) = (state.plan.attempts, state.plan.on_dead);
        for id in ids {
            let Some(job) = self.jobs.get_mut(&id) else {
                continue;
            };
            if job.counted < attempts {
                job.not_before = Wall(0);
                job.phase = Phase::Backoff;
                if let Some(state) = self.watches.get_mut(watch as usize) {
                    state.halted.remove(&id);
                }
                self.retry_due(id);
            } else if on_dead == OnDead::Continue {
                self.log_job(Level::Error, id, || "dead".into());
                self.conclude(id, Outcome::Dead, None, Vec::new());
            } else {
                self.set_halted(id);
            }
        }
    }
}
