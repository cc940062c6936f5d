//! Ready jobs with claims and without.

use super::Claim;
use crate::core::Core;
use crate::core::ids::JobId;
use crate::core::queue::Rank;

impl Core {
    /// Puts a ready job of a watch with claims where it belongs. `false`: the watch has none.
    pub(in crate::core) fn enqueue_claimed(&mut self, id: JobId, rank: &Rank, key: &[u8]) -> bool {
        let Some(job) = self.jobs.get(&id) else {
            return true;
        };
        let claim = job.standings.claim;
        let Some(watch) = self.watches.get_mut(job.watch as usize) else {
            return true;
        };
        let Some(claims) = &mut watch.claims else {
            return false;
        };
        match claim {
            Claim::Had(..) => {
                watch.queue.hold(id, key);
                claims.ready.push(rank.clone(), key);
            }
            // The answer, or the timer, tells where.
            Claim::Asked(..) | Claim::Waits => watch.queue.hold(id, key),
            Claim::None => {
                claims.ready.remove(rank, key);
                watch.queue.push(rank.clone(), key);
            }
        }
        true
    }

    /// Whether a ready job is in no queue, because its claim is on its way.
    pub(in crate::core) fn is_being_claimed(&self, id: JobId) -> bool {
        self.jobs
            .get(&id)
            .is_some_and(|job| matches!(job.standings.claim, Claim::Asked(..) | Claim::Waits))
    }

    /// Whether a job whose file was not there had no claim to look at it with: no attempt was begun.
    pub(in crate::core) fn was_only_asked_for(&self, id: JobId) -> bool {
        self.jobs.get(&id).is_some_and(|job| {
            job.standings.claim == Claim::None && self.claims_of(job.watch).is_some()
        })
    }

    /// Jobs of a watch that are ready, claimed or not.
    pub(in crate::core) fn ready_in(&self, index: usize) -> usize {
        let Some(watch) = self.watches.get(index) else {
            return 0;
        };
        let claimed = watch
            .claims
            .as_ref()
            .map_or(0, |claims| claims.ready.len() + claims.asked.len());
        watch.queue.len() + claimed
    }

    /// How many claims a watch has, and how many jobs wait because others have theirs.
    pub(in crate::core) fn count_claims(&self, watch: u32) -> Option<(usize, usize)> {
        self.claims_of(watch)?;
        let of = |want: fn(&Claim) -> bool| {
            let mine = self.jobs.values().filter(|job| job.watch == watch);
            mine.filter(|job| want(&job.standings.claim)).count()
        };
        Some((
            of(|claim| matches!(claim, Claim::Had(..))),
            of(|claim| matches!(claim, Claim::Waits)),
        ))
    }
}
