//! Events that come faster than a turn for each is worth: while they do, the loop is not woken by them. They are read
//! every millisecond, and whenever anything else wakes it.

use crate::core::time::Mono;
use std::time::Duration;

/// Wakes that are closer together belong to one burst; while one lasts, its events are read as often as that.
const APART: Duration = Duration::from_millis(1);
/// So many wakes make a burst. A file that comes alone has two or three.
const WAKES: u32 = 8;

/// Whether there is a burst.
#[derive(Debug, Default)]
pub(super) struct Burst {
    /// The last wake, and how many came close together up to it.
    last: Mono,
    wakes: u32,
    /// When events are read next; `None` while they wake the loop.
    next: Option<Mono>,
}

impl Burst {
    /// Events have woken the loop. `true`: they are not to do so from now on.
    pub(super) fn woken(&mut self, now: Mono) -> bool {
        let close = now.since(self.last) < APART;
        self.wakes = if close { self.wakes + 1 } else { 1 };
        self.last = now;
        let begins = self.next.is_none() && self.wakes >= WAKES;
        if begins {
            self.next = Some(now.after(APART));
        }
        begins
    }

    /// When events are to be read though they wake nobody.
    pub(super) fn deadline(&self) -> Option<Mono> {
        self.next
    }

    /// Whether that is now.
    pub(super) fn is_due(&self, now: Mono) -> bool {
        self.next.is_some_and(|next| next <= now)
    }

    /// That has been done. `any`: there were some. `true`: the burst is over, and they are to wake the loop again.
    pub(super) fn read(&mut self, now: Mono, any: bool) -> bool {
        if self.next.is_none() || !any && !self.is_due(now) {
            return false;
        }
        self.next = any.then(|| now.after(APART));
        if !any {
            self.wakes = 0;
        }
        !any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(us: u64) -> Mono {
        Mono(1_000_000_000 + us * 1000)
    }

    #[test]
    fn a_burst_is_many_wakes_close_together() {
        let mut burst = Burst::default();
        let apart = (0..100).any(|n| burst.woken(at(n * 1000)));
        assert!(!apart && burst.deadline().is_none());
        let from = 200_000;
        let begins = (0..100).position(|n| burst.woken(at(from + n * 999)));
        assert_eq!(begins, Some(WAKES as usize - 1));
    }

    #[test]
    fn a_burst_is_over_when_a_millisecond_brought_nothing() {
        let mut burst = Burst::default();
        assert!(!burst.read(at(0), true) && !burst.read(at(0), false));
        assert!((0..WAKES).any(|n| burst.woken(at(n.into()))));
        let begun = burst.deadline();
        assert!(!burst.is_due(at(500)));
        // Something else woke the loop, and there was nothing: it is too early to tell.
        assert!(!burst.read(at(500), false));
        assert_eq!(burst.deadline(), begun);
        assert!(!burst.read(at(900), true));
        assert!(!burst.is_due(at(1800)) && burst.is_due(at(1900)));
        assert!(burst.read(at(1900), false));
        assert_eq!(burst.deadline(), None);
        assert!(!burst.woken(at(1950)));
    }
}
