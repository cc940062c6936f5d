//! A queue in which watches take turns: what one has much of does not hold up the others.

use std::collections::{BTreeMap, VecDeque};

/// What waits, for each watch in order of coming.
#[derive(Debug)]
pub(super) struct Turns<T> {
    /// By index of the watch; none is empty.
    queues: BTreeMap<u32, VecDeque<T>>,
    /// Whose turn was last.
    last: u32,
}

impl<T> Default for Turns<T> {
    fn default() -> Turns<T> {
        Turns {
            queues: BTreeMap::new(),
            last: 0,
        }
    }
}

impl<T> Turns<T> {
    pub(super) fn push_back(&mut self, watch: u32, one: T) {
        self.queues.entry(watch).or_default().push_back(one);
    }

    /// The next of the watch whose turn it is among those that `may`.
    pub(super) fn pop_front_of(&mut self, may: impl Fn(u32) -> bool) -> Option<T> {
        self.pop_from(may).map(|(_, one)| one)
    }

    /// The same, and which watch's it is.
    pub(super) fn pop_from(&mut self, may: impl Fn(u32) -> bool) -> Option<(u32, T)> {
        let after = self.last.checked_add(1);
        let later = after
            .into_iter()
            .flat_map(|after| self.queues.range(after..));
        let all = later.chain(self.queues.range(..=self.last));
        let watch = all.map(|(watch, _)| *watch).find(|watch| may(*watch))?;
        self.last = watch;
        let queue = self.queues.get_mut(&watch)?;
        let one = queue.pop_front();
        if queue.is_empty() {
            self.queues.remove(&watch);
        }
        Some((watch, one?))
    }

    /// Whether one of the watches for which something waits `may`.
    pub(super) fn any(&self, may: impl Fn(u32) -> bool) -> bool {
        self.queues.keys().any(|watch| may(*watch))
    }

    pub(super) fn len(&self) -> usize {
        self.queues.values().map(VecDeque::len).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watches_take_turns() {
        let mut turns = Turns::default();
        for n in 0..4 {
            turns.push_back(7, n);
        }
        turns.push_back(2, 10);
        turns.push_back(9, 20);
        turns.push_back(9, 21);
        let all: Vec<i32> = std::iter::from_fn(|| turns.pop_front_of(|_| true)).collect();
        assert_eq!(all, [10, 0, 20, 1, 21, 2, 3]);
        assert!(turns.is_empty());
    }

    #[test]
    fn who_may_not_is_passed_over() {
        let mut turns = Turns::default();
        for watch in [2, 7, 9] {
            turns.push_back(watch, watch);
        }
        assert_eq!(turns.pop_front_of(|watch| watch != 2), Some(7));
        assert_eq!(turns.pop_front_of(|watch| watch < 7), Some(2));
        assert_eq!(turns.pop_front_of(|watch| watch < 7), None);
        assert_eq!(turns.pop_front_of(|_| true), Some(9));
    }

    #[test]
    fn the_last_index_has_a_turn() {
        let mut turns = Turns::default();
        turns.push_back(u32::MAX, 1);
        turns.push_back(u32::MAX, 2);
        turns.push_back(0, 3);
        assert_eq!(turns.pop_front_of(|_| true), Some(1));
        assert_eq!(turns.pop_front_of(|_| true), Some(3));
        assert_eq!(turns.pop_front_of(|_| true), Some(2));
        assert_eq!(turns.pop_front_of(|_| true), None);
    }
}
