//! Which job next: ready jobs of one watch in order, one at a time for each key where asked.

use super::ids::JobId;
use std::collections::{BTreeMap, BTreeSet};

/// A job's rank: what `order` says, then the order of settling.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// Path for `name`, big-endian time for `mtime`, empty for `arrival`.
    pub by: Box<[u8]>,
    /// The job.
    pub job: JobId,
}

#[derive(Debug, Default)]
struct Line {
    waiting: BTreeSet<Rank>,
    /// Running, or waiting for its retry: it keeps the key.
    holder: Option<JobId>,
}

/// The ready jobs of one watch. With keys, only the first job of each free key is offered.
#[derive(Debug)]
pub struct Queue {
    serial: bool,
    offered: BTreeSet<Rank>,
    lines: BTreeMap<Box<[u8]>, Line>,
    behind: usize,
}

impl Queue {
    /// An empty queue.
    pub fn new(serial: bool) -> Queue {
        Queue {
            serial,
            offered: BTreeSet::new(),
            lines: BTreeMap::new(),
            behind: 0,
        }
    }

    /// A job that may run.
    pub fn push(&mut self, rank: Rank, key: &[u8]) {
        if !self.serial {
            self.offered.insert(rank);
            return;
        }
        let line = self.lines.entry(key.into()).or_default();
        if line.holder == Some(rank.job) {
            self.offered.insert(rank);
            return;
        }
        if line.holder.is_none() {
            // A late lower rank goes before what is offered but not started.
            if let Some(first) = line.waiting.first() {
                self.offered.remove(first);
            }
        }
        if line.waiting.insert(rank) {
            self.behind += 1;
        }
        if line.holder.is_none()
            && let Some(first) = line.waiting.first()
        {
            self.offered.insert(first.clone());
        }
    }

    /// The next job to start. With keys it holds its key from now on.
    pub fn pop(&mut self, key_of: impl Fn(JobId) -> Box<[u8]>) -> Option<JobId> {
        let rank = self.offered.pop_first()?;
        if self.serial {
            let line = self.lines.entry(key_of(rank.job)).or_default();
            if line.waiting.remove(&rank) {
                self.behind -= 1;
            }
            line.holder = Some(rank.job);
        }
        Some(rank.job)
    }

    /// A job takes its key without being offered: it runs, or waits for its retry. A key that another holds
    /// stays with that: files may have been renamed so that the keys of two begun jobs have become one.
    pub fn hold(&mut self, job: JobId, key: &[u8]) {
        if self.serial {
            let line = self.lines.entry(key.into()).or_default();
            if line.holder.is_some() {
                return;
            }
            if let Some(first) = line.waiting.first() {
                self.offered.remove(first);
            }
            line.holder = Some(job);
        }
    }

    /// A job is over, or not ready any more: out of the queue, its key free for the next.
    pub fn remove(&mut self, rank: &Rank, key: &[u8]) {
        self.offered.remove(rank);
        if !self.serial {
            return;
        }
        let Some(line) = self.lines.get_mut(key) else {
            return;
        };
        if line.waiting.remove(rank) {
            self.behind -= 1;
        }
        if line.holder == Some(rank.job) {
            line.holder = None;
        }
        if line.holder.is_none() {
            match line.waiting.first() {
                Some(first) => {
                    self.offered.insert(first.clone());
                }
                None => {
                    self.lines.remove(key);
                }
            }
        }
    }

    /// Nothing to start.
    pub fn is_empty(&self) -> bool {
        self.offered.is_empty()
    }

    /// Jobs that are ready, those behind a key included.
    pub fn len(&self) -> usize {
        if self.serial {
            self.behind
        } else {
            self.offered.len()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rank(by: &str, job: u64) -> Rank {
        Rank {
            by: by.as_bytes().into(),
            job: JobId(job),
        }
    }

    #[test]
    fn one_at_a_time_for_each_key() {
        let mut queue = Queue::new(true);
        let key = |job: JobId| -> Box<[u8]> {
            if job.0 < 10 {
                b"a"[..].into()
            } else {
                b"b"[..].into()
            }
        };
        queue.push(rank("2", 1), b"a");
        queue.push(rank("1", 2), b"a");
        queue.push(rank("9", 10), b"b");
        assert_eq!(queue.len(), 3);
        assert_eq!(queue.pop(key), Some(JobId(2)));
        assert_eq!(queue.pop(key), Some(JobId(10)));
        assert_eq!(queue.pop(key), None);
        queue.push(rank("0", 3), b"a");
        assert_eq!(
            queue.pop(key),
            None,
            "a late lower name never overtakes a started one"
        );
        // Its retry keeps the key.
        queue.push(rank("1", 2), b"a");
        assert_eq!(queue.pop(key), Some(JobId(2)));
        queue.remove(&rank("1", 2), b"a");
        assert_eq!(queue.pop(key), Some(JobId(3)));
        queue.remove(&rank("0", 3), b"a");
        assert_eq!(queue.pop(key), Some(JobId(1)));
    }

    #[test]
    fn without_keys_it_is_a_sorted_list() {
        let mut queue = Queue::new(false);
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
