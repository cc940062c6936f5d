//! What a sieve may have said yes to wrongly: it is compared with everything that is remembered and owed, in slices.
//!
//! A file that comes to a watch that is polled waits for the next poll's end if it may be one that was renamed unheard.
//! A stranger that the sieve takes for a member must not: the next poll may be an hour away.

use super::Core;
use super::files::{FileKey, version_digest};
use super::ids::JobId;
use super::settle::Waits;
use super::sieve::{FILES_MAX, JOBS_MAX, PAUSE};
use super::timers::Timer;
use std::collections::BTreeSet;

/// Versions that are in doubt at once, at most. More wait for the end of the scan.
const DOUBTS_MAX: usize = 10_000;

/// The versions, by digest.
#[derive(Debug, Default)]
pub struct Doubts {
    /// In doubt, and compared with what comes from where the pass is.
    asked: BTreeSet<u64>,
    /// In doubt, for the next pass.
    next: BTreeSet<u64>,
    /// Neither remembered nor owed.
    strangers: BTreeSet<u64>,
    /// Where the pass is.
    files: Option<FileKey>,
    jobs: Option<JobId>,
}

impl Doubts {
    /// A version is remembered or owed from now on.
    pub fn is_known(&mut self, version: u64) {
        self.asked.remove(&version);
        self.next.remove(&version);
        self.strangers.remove(&version);
    }

    /// Whether it is certain that it is neither remembered nor owed.
    pub fn is_stranger(&self, version: u64) -> bool {
        self.strangers.contains(&version)
    }

    /// Puts it in doubt. `true` if a pass is to begin.
    pub fn ask(&mut self, version: u64) -> bool {
        if self.asked.contains(&version) || self.asked.len() + self.next.len() >= DOUBTS_MAX {
            return false;
        }
        self.next.insert(version);
        self.asked.is_empty()
    }

    /// The same doubts, none of them resolved.
    pub fn again(mut self) -> Doubts {
        self.next.append(&mut self.asked);
        Doubts {
            next: self.next,
            ..Doubts::default()
        }
    }

    fn begin(&mut self) {
        if self.asked.is_empty() && !self.next.is_empty() {
            self.asked = std::mem::take(&mut self.next);
            self.files = Some(FileKey::FIRST);
            self.jobs = Some(JobId(0));
        }
    }

    fn is_over(&self) -> bool {
        self.asked.is_empty() || self.files.is_none() && self.jobs.is_none()
    }
}

impl Core {
    /// A slice of a pass. At its end whoever turned out to be a stranger is judged again.
    pub(super) fn resolve_doubts(&mut self, watch: u32) {
        let Some(mut doubts) = self
            .watches
            .get_mut(watch as usize)
            .and_then(|state| state.sieve.as_mut())
            .map(|sieve| std::mem::take(&mut sieve.doubts))
        else {
            return;
        };
        doubts.begin();
        if let Some(first) = doubts.files.take() {
            for (n, (key, known)) in self.files.iter_from(first).enumerate() {
                if n == FILES_MAX {
                    doubts.files = Some(key);
                    break;
                }
                if !known.gone
                    && doubts.asked.contains(&known.version)
                    && self.is_in(watch, key.dir())
                {
                    doubts.asked.remove(&known.version);
                }
            }
        }
        if let Some(first) = doubts.jobs.take() {
            let mut hashed = 0;
            for (n, (id, job)) in self.jobs.range(first..).enumerate() {
                if n == FILES_MAX || hashed == JOBS_MAX {
                    doubts.jobs = Some(*id);
                    break;
                }
                if job.watch == watch {
                    hashed += 1;
                    doubts.asked.remove(&version_digest(&job.version));
                }
            }
        }
        let over = doubts.is_over();
        let found = match over {
            true => std::mem::take(&mut doubts.asked),
            false => BTreeSet::new(),
        };
        doubts.strangers.extend(&found);
        if !over || !doubts.next.is_empty() {
            self.timers
                .set(Timer::Sieve(watch), self.now.mono.after(PAUSE));
        }
        if let Some(sieve) = self
            .watches
            .get_mut(watch as usize)
            .and_then(|state| state.sieve.as_mut())
        {
            sieve.doubts = doubts;
        }
        if found.is_empty() {
            return;
        }
        let held = self.held(watch, Waits::ScanEnd);
        let strangers: Vec<FileKey> = held
            .filter(|(_, candidate)| {
                let seen = candidate.seen.as_deref();
                seen.is_some_and(|(version, _)| found.contains(&version_digest(version)))
            })
            .map(|(key, _)| key)
            .collect();
        for key in strangers {
            self.queue_probe(key);
        }
    }
}
