//! Named timers, each with a reason; the loop sleeps until the first.

use super::files::FileKey;
use super::ids::{DirId, JobId, MountId, RunId};
use super::time::Mono;
use std::collections::{BTreeMap, BTreeSet};

/// Why the core wants to be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// A candidate's quiet time is over, or it is to be asked again.
    Candidate(FileKey),
    /// A job's back-off is over.
    Retry(JobId),
    /// A process's `timeout`, or the next step of its kill ladder.
    Kill(RunId),
    /// A slot of an earlier life is to be asked about again.
    Slot(u32),
    /// A watch may start what it could not before: a batch that waited, `rate`, a worker's restart.
    Dispatch(u32),
    /// A disposition is to be tried again.
    Dispose(JobId),
    /// The second half of a rename has not come.
    Rename {
        /// inotify's cookie.
        cookie: u32,
        /// Index of the watch.
        watch: u32,
    },
    /// A directory is gone, and what went from it by renames may be found.
    Left(DirId),
    /// A directory could not be read: try again.
    Bind(DirId),
    /// A missing root is to be looked for.
    Root(u32),
    /// The export tables have not been read yet, or are to be read again.
    Exports,
    /// A listing is due.
    Poll(u32),
    /// Remembered files may have become old.
    Expire,
    /// Readiness does not wait longer.
    Ready,
    /// `drain` is over, or the next step after it.
    Drain,
    /// More of what is remembered is to be added to a watch's sieve.
    Sieve(u32),
    /// More candidates are to be gone over for the end of a watch's scan.
    Awaits(u32),
    /// A job's claim is to be asked for again.
    Claim(JobId),
    /// A process that keeps claims has not answered for a while.
    Unanswered(RunId),
    /// A watch's claims may be asked for again, or their keeper be started again.
    Keeper(u32),
    /// What a watch expects is to be looked at.
    Expect(u32),
    /// A mount has been silent for long enough for a person to know.
    AlertMount(MountId),
    /// Something may be told that was told a while ago.
    Alert,
}

/// All armed timers; each has one deadline.
#[derive(Debug, Default)]
pub struct Timers {
    by_time: BTreeSet<(Mono, Timer)>,
    by_name: BTreeMap<Timer, Mono>,
}

impl Timers {
    /// Arms `timer` for `at`; an earlier arming of it is forgotten.
    pub fn set(&mut self, timer: Timer, at: Mono) {
        self.clear(timer);
        self.by_time.insert((at, timer));
        self.by_name.insert(timer, at);
    }

    /// Disarms `timer`.
    pub fn clear(&mut self, timer: Timer) {
        if let Some(at) = self.by_name.remove(&timer) {
            self.by_time.remove(&(at, timer));
        }
    }

    /// Whether `timer` is armed.
    pub fn is_set(&self, timer: Timer) -> bool {
        self.by_name.contains_key(&timer)
    }

    /// When `timer` is due, if it is armed.
    pub fn at(&self, timer: Timer) -> Option<Mono> {
        self.by_name.get(&timer).copied()
    }

    /// The first deadline.
    pub fn next(&self) -> Option<Mono> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes one timer that is due.
    pub fn pop(&mut self, now: Mono) -> Option<Timer> {
        let &(at, timer) = self.by_time.first()?;
        if at > now {
            return None;
        }
        self.clear(timer);
        Some(timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_has_one_deadline() {
        let mut timers = Timers::default();
        timers.set(Timer::Ready, Mono(5));
        timers.set(Timer::Ready, Mono(9));
        timers.set(Timer::Drain, Mono(7));
        assert_eq!(timers.next(), Some(Mono(7)));
        assert_eq!(timers.pop(Mono(6)), None);
        assert_eq!(timers.pop(Mono(9)), Some(Timer::Drain));
        assert_eq!(timers.pop(Mono(9)), Some(Timer::Ready));
        assert_eq!(timers.pop(Mono(9)), None);
        assert_eq!(timers.next(), None);
    }
}
