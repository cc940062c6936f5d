//! Quiet time: how long nothing may have changed, from when on, and when a candidate is asked about next.

use super::Core;
use super::ask::Held;
use super::exported::QUIET_EXPORTED;
use super::files::FileKey;
use super::settle::{Candidate, Signal, Waits};
use super::time::Mono;
use super::timers::Timer;
use std::time::Duration;

/// Quiet time after a close, or for a file that a scan found, where a free lease confirms it.
pub const QUIET_WITH_LEASE: Duration = Duration::from_secs(1);
/// Quiet time where no lease can be asked; a mount's attribute cache time if that is longer.
pub const QUIET_WITHOUT_LEASE: Duration = Duration::from_secs(5);
/// IN_CREATE is mostly the beginning of a write, whose close follows in a moment and says more: asking at
/// once would ask twice.
const CREATE_PATIENCE: Duration = Duration::from_millis(3);

/// What quiet time a candidate needs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Patience {
    /// How long.
    pub quiet: Duration,
    /// Only what follows a granted lease counts.
    after_grant: bool,
}

impl Core {
    /// Quiet time for a candidate if the lease says `lease` (`NotAsked`: as is to be expected there).
    pub(super) fn patience(&self, key: FileKey, lease: Held) -> Patience {
        let Some(candidate) = self.candidates.get(&key) else {
            return Patience::default();
        };
        let Some(node) = self.tree.get(candidate.dir) else {
            return Patience::default();
        };
        let Some(watch) = self.watches.get(node.watch as usize) else {
            return Patience::default();
        };
        let mount = self.tree.mount(candidate.dir).unwrap_or_default();
        let exported = self.is_exported(candidate.dir);
        let confirmed = match lease {
            Held::Free => true,
            Held::NotAsked => self.lease_can_be_trusted(mount),
            Held::By(_) | Held::CannotAsk(_) => false,
        };
        let quiet = match (watch.plan.settle, confirmed, candidate.signal) {
            (Some(settle), ..) => settle,
            (None, ..) if exported => QUIET_EXPORTED,
            (None, true, Signal::Moved | Signal::Link) => Duration::ZERO,
            (None, true, Signal::Close | Signal::Scan) => QUIET_WITH_LEASE,
            (None, false, _) => QUIET_WITHOUT_LEASE,
        };
        // What a mount shows may be as old as this: unchanged for less is not unchanged.
        let cache = self
            .mounts
            .get(&mount)
            .map_or(0, |mount| mount.attribute_cache_s);
        Patience {
            quiet: quiet.max(Duration::from_secs(cache.into())),
            after_grant: exported && confirmed,
        }
    }

    /// Whether the next probe asks locks and lease too: only when nothing cheaper is missing.
    pub(super) fn wants_all(&self, key: FileKey) -> bool {
        let patience = self.patience(key, Held::NotAsked);
        self.candidates.get(&key).is_some_and(|candidate| {
            patience.quiet.is_zero() || patience.asks_at(candidate) <= self.now.mono
        })
    }

    pub(super) fn flock_wanted(&self, key: FileKey) -> bool {
        self.tree
            .get(key.dir())
            .and_then(|node| self.watches.get(node.watch as usize))
            .is_some_and(|watch| watch.plan.flock)
    }

    /// Asks now or arms the timer for when asking makes sense.
    pub(super) fn ask_when_due(&mut self, key: FileKey) {
        self.catch_up(key);
        let patience = self.patience(key, Held::NotAsked);
        let now = self.now.mono;
        let Some(candidate) = self.candidates.get_mut(&key) else {
            return;
        };
        if candidate.asked.is_some() || candidate.queued {
            return;
        }
        if patience.quiet.is_zero() || candidate.seen.is_none() {
            candidate.waits = Waits::Probe;
            if candidate.signal == Signal::Link && candidate.hinted == now {
                self.links.push(key);
            } else {
                self.queue_probe(key);
            }
            return;
        }
        candidate.waits = Waits::Quiet;
        let at = patience.asks_at(candidate);
        if at <= now {
            self.queue_probe(key);
        } else {
            self.timers.set(Timer::Candidate(key), at);
        }
    }

    /// Arms the timers of what was created, unless more was heard of it in the same turn, as is usual in a burst.
    pub(super) fn await_closes(&mut self) {
        for key in std::mem::take(&mut self.links) {
            self.catch_up(key);
            if let Some(candidate) = self.candidates.get(&key)
                && candidate.signal == Signal::Link
                && candidate.asked.is_none()
                && !candidate.queued
            {
                let at = candidate.hinted.after(CREATE_PATIENCE);
                self.timers.set(Timer::Candidate(key), at);
            }
        }
    }
}

impl Patience {
    /// When everything about a candidate is to be asked next.
    fn asks_at(self, candidate: &Candidate) -> Mono {
        let first = self.after_grant && candidate.granted.is_none();
        let Patience { quiet, .. } = self;
        let wait = if first {
            quiet.min(QUIET_WITH_LEASE)
        } else {
            quiet
        };
        self.since(candidate)
            .map_or(Mono(u64::MAX), |since| since.after(wait))
    }

    /// When its quiet time is over.
    pub(super) fn over_at(self, candidate: &Candidate) -> Mono {
        self.since(candidate)
            .map_or(Mono(u64::MAX), |since| since.after(self.quiet))
    }

    /// Since when nothing has changed; never, if nothing was seen of it.
    fn since(self, candidate: &Candidate) -> Option<Mono> {
        candidate.seen.as_ref()?;
        let quiet = candidate.seen_at.max(candidate.hinted);
        let granted = candidate.granted.filter(|_| self.after_grant);
        Some(granted.map_or(quiet, |granted| quiet.max(granted)))
    }
}
