//! Which job next: ready jobs of one watch in order, and so many at a time for each key where that is bounded.

use super::ids::JobId;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// A job's rank: those that were begun before first, then what `order` says, then the order of settling.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rank {
    /// Path for `name`, big-endian time for `mtime`, empty for `arrival`.
    pub by: Box<[u8]>,
    /// The job's number, and above it whether no attempt was begun: half a million may lie in a queue.
    number: u64,
}

/// No attempt was begun: a late lower name never overtakes a started one. No job's number comes near it.
const FRESH: u64 = 1 << 63;

impl Rank {
    /// `fresh`: no attempt was begun.
    pub fn new(fresh: bool, by: Box<[u8]>, job: JobId) -> Rank {
        Rank {
            by,
            number: job.0 | if fresh { FRESH } else { 0 },
        }
    }

    /// No attempt was begun.
    pub fn is_fresh(&self) -> bool {
        self.number >= FRESH
    }

    /// The job.
    pub fn job(&self) -> JobId {
        JobId(self.number & !FRESH)
    }
}

impl Ord for Rank {
    fn cmp(&self, other: &Rank) -> Ordering {
        let by = || match (&*self.by, &*other.by) {
            // By far the most there are; comparing nothing with nothing is a call each time.
            ([], []) => Ordering::Equal,
            (one, another) => one.cmp(another),
        };
        (self.is_fresh().cmp(&other.is_fresh()))
            .then_with(by)
            .then_with(|| self.number.cmp(&other.number))
    }
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Rank) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[derive(Debug, Default)]
struct Line {
    waiting: BTreeSet<Rank>,
    /// The first of `waiting`, as many as there are places; they are in `Queue::offered`, too.
    offered: Vec<Rank>,
    /// Running, or waiting for their retry: each keeps its place.
    holders: BTreeSet<JobId>,
}

/// The ready jobs of one watch. Where keys are bounded, only the first jobs of each key are offered.
#[derive(Debug)]
pub struct Queue {
    /// Places of each key, if keys are bounded.
    places: Option<usize>,
    offered: BTreeSet<Rank>,
    lines: BTreeMap<Box<[u8]>, Line>,
    behind: usize,
}

impl Queue {
    /// An empty queue. `per_key`: how many jobs of a key may be under way.
    pub fn new(per_key: Option<u32>) -> Queue {
        Queue {
            places: per_key.map(|places| places.max(1) as usize),
            offered: BTreeSet::new(),
            lines: BTreeMap::new(),
            behind: 0,
        }
    }

    /// Keys matter.
    pub fn is_keyed(&self) -> bool {
        self.places.is_some()
    }

    /// A job that may run. If it held a place it waits for one now, before all that have not been begun.
    pub fn push(&mut self, rank: Rank, key: &[u8]) {
        let Some(places) = self.places else {
            self.offered.insert(rank);
            return;
        };
        let line = self.lines.entry(key.into()).or_default();
        line.holders.remove(&rank.job());
        if line.waiting.insert(rank) {
            self.behind += 1;
        }
        line.offer(places, &mut self.offered);
    }

    /// The job that would be popped.
    pub fn first(&self) -> Option<JobId> {
        self.offered.first().map(|rank| rank.job())
    }

    /// The next job to start. Where keys are bounded it holds a place of its key from now on.
    pub fn pop(&mut self, key_of: impl Fn(JobId) -> Box<[u8]>) -> Option<JobId> {
        let rank = self.offered.pop_first()?;
        let job = rank.job();
        if let Some(places) = self.places {
            let key = key_of(job);
            self.take(&rank, &key, places);
        }
        Some(job)
    }

    /// The next job for the same child as `before`, which was just popped, if `fits` says so: the next of the same key where
    /// there is one place for each, else simply the next.
    pub fn pop_after(
        &mut self,
        before: JobId,
        key_of: impl Fn(JobId) -> Box<[u8]>,
        fits: impl FnOnce(JobId) -> bool,
    ) -> Option<JobId> {
        if self.places != Some(1) {
            let job = self.first().filter(|job| fits(*job))?;
            return self.pop(key_of).filter(|popped| *popped == job);
        }
        let key = key_of(before);
        let line = self.lines.get_mut(&key)?;
        let rank = line.waiting.first().cloned()?;
        if !fits(rank.job()) {
            return None;
        }
        self.take(&rank, &key, 1);
        Some(rank.job())
    }

    fn take(&mut self, rank: &Rank, key: &[u8], places: usize) {
        self.offered.remove(rank);
        let line = self.lines.entry(key.into()).or_default();
        if line.waiting.remove(rank) {
            self.behind -= 1;
        }
        line.offered.retain(|offered| offered != rank);
        line.holders.insert(rank.job());
        line.offer(places, &mut self.offered);
    }

    /// A job takes a place of its key without being offered: it runs, or waits for its retry.
    pub fn hold(&mut self, job: JobId, key: &[u8]) {
        let Some(places) = self.places else {
            return;
        };
        let line = self.lines.entry(key.into()).or_default();
        line.holders.insert(job);
        line.offer(places, &mut self.offered);
    }

    /// A job is over, or not ready any more: out of the queue, its place free for the next.
    pub fn remove(&mut self, rank: &Rank, key: &[u8]) {
        self.offered.remove(rank);
        let Some(places) = self.places else {
            return;
        };
        let Some(line) = self.lines.get_mut(key) else {
            return;
        };
        if line.waiting.remove(rank) {
            self.behind -= 1;
        }
        line.holders.remove(&rank.job());
        line.offer(places, &mut self.offered);
        if line.holders.is_empty() && line.waiting.is_empty() {
            self.lines.remove(key);
        }
    }

    /// A job that has a place of this key, and so keeps another from it: only where all places are taken.
    pub fn holder(&self, key: &[u8]) -> Option<JobId> {
        let line = self.lines.get(key)?;
        (line.holders.len() >= self.places?)
            .then(|| line.holders.first().copied())
            .flatten()
    }

    /// How many come before a job: of its key where keys are bounded, else of all. At most `most` are counted.
    pub fn before(&self, rank: &Rank, key: &[u8], most: usize) -> usize {
        let waiting = match self.places {
            Some(_) => self.lines.get(key).map(|line| &line.waiting),
            None => Some(&self.offered),
        };
        waiting.map_or(0, |waiting| waiting.range(..rank).take(most).count())
    }

    /// Nothing to start.
    pub fn is_empty(&self) -> bool {
        self.offered.is_empty()
    }

    /// Jobs that are ready, those behind a key included.
    pub fn len(&self) -> usize {
        if self.is_keyed() {
            self.behind
        } else {
            self.offered.len()
        }
    }
}

impl Line {
    /// Offers as many as there are places, and no others.
    fn offer(&mut self, places: usize, all: &mut BTreeSet<Rank>) {
        let free = places.saturating_sub(self.holders.len());
        let same = self.offered.len() == free.min(self.waiting.len())
            && self.offered.iter().eq(self.waiting.iter().take(free));
        if same {
            return;
        }
        for rank in self.offered.drain(..) {
            all.remove(&rank);
        }
        for rank in self.waiting.iter().take(free) {
            all.insert(rank.clone());
            self.offered.push(rank.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rank(by: &str, job: u64) -> Rank {
        Rank::new(true, by.as_bytes().into(), JobId(job))
    }

    fn begun(by: &str, job: u64) -> Rank {
        Rank::new(false, by.as_bytes().into(), JobId(job))
    }

    fn key(job: JobId) -> Box<[u8]> {
        if job.0 < 10 {
            b"a"[..].into()
        } else {
            b"b"[..].into()
        }
    }

    #[test]
    fn one_at_a_time_for_each_key() {
        let mut queue = Queue::new(Some(1));
        queue.push(rank("2", 1), b"a");
        queue.push(rank("1", 2), b"a");
        queue.push(rank("9", 10), b"b");
        assert_eq!(queue.len(), 3);
        assert_eq!(queue.pop(key), Some(JobId(2)));
        assert_eq!(queue.pop(key), Some(JobId(10)));
        assert_eq!(queue.pop(key), None);
        queue.push(rank("0", 3), b"a");
        assert_eq!(queue.pop(key), None, "the key is held");
        // Its retry goes first.
        queue.push(begun("1", 2), b"a");
        assert_eq!(
            queue.pop(key),
            Some(JobId(2)),
            "a late lower name never overtakes a started one"
        );
        queue.remove(&begun("1", 2), b"a");
        assert_eq!(queue.pop(key), Some(JobId(3)));
        queue.remove(&rank("0", 3), b"a");
        assert_eq!(queue.pop(key), Some(JobId(1)));
        queue.remove(&rank("2", 1), b"a");
        queue.remove(&rank("9", 10), b"b");
        assert!(queue.lines.is_empty());
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn so_many_at_a_time_for_each_key() {
        let mut queue = Queue::new(Some(2));
        for job in [1, 2, 3, 10] {
            queue.push(rank("", job), key(JobId(job)).as_ref());
        }
        let popped: Vec<_> = std::iter::from_fn(|| queue.pop(key)).collect();
        assert_eq!(popped, [JobId(1), JobId(2), JobId(10)]);
        queue.remove(&rank("", 2), b"a");
        assert_eq!(queue.pop(key), Some(JobId(3)));
    }

    #[test]
    fn a_batch_is_of_one_key() {
        let mut queue = Queue::new(Some(1));
        for job in [1, 10, 2, 3] {
            queue.push(rank("", job), key(JobId(job)).as_ref());
        }
        assert_eq!(queue.pop(key), Some(JobId(1)));
        assert_eq!(queue.pop_after(JobId(1), key, |_| true), Some(JobId(2)));
        assert_eq!(queue.pop_after(JobId(2), key, |_| false), None);
        assert_eq!(queue.first(), Some(JobId(10)));
        // All that were together wait for their retries: the first to come back waits for the others.
        queue.push(begun("", 2), b"a");
        assert_eq!(queue.first(), Some(JobId(10)));
        queue.push(begun("", 1), b"a");
        assert_eq!(queue.first(), Some(JobId(1)));
        assert_eq!(queue.pop(key), Some(JobId(1)));
        assert_eq!(queue.pop(key), Some(JobId(10)));
        assert_eq!(queue.pop(key), None);
    }

    #[test]
    fn without_keys_it_is_a_sorted_list() {
        let mut queue = Queue::new(None);
        for job in [3, 1, 2] {
            queue.push(rank("", job), b"");
        }
        queue.remove(&rank("", 1), b"");
        let none = |_| Box::from(&b""[..]);
        assert_eq!(queue.pop(none), Some(JobId(2)));
        assert_eq!(queue.pop(none), Some(JobId(3)));
        assert!(queue.is_empty());
    }
}
