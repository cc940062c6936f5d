//! Answers of scouts and ends of children wait until the core has been told every event that was queued before they were
//! read: whatever happened to a file before a scout looked at it, or before its job ended, is known before that is. Not
//! until the queue is empty, which it may never be while somebody writes as fast as the daemon reads.

/// How far what waits may go.
#[derive(Debug, Default)]
pub(super) struct Late {
    /// So many of those that wait were there when it was seen how much is to be read before them.
    first: usize,
    /// So many bytes of events are.
    bytes: usize,
}

impl Late {
    /// Something that waits has not been told yet since an earlier turn: there is no use in adding to it.
    pub(super) fn is_behind(&self) -> bool {
        self.first > 0
    }

    /// Events will be read: `waiting` wait for what is `queued` now, but for those that wait already.
    pub(super) fn before(&mut self, waiting: usize, queued: usize) {
        if self.first == 0 {
            self.first = waiting;
            self.bytes = queued;
        }
    }

    /// At least so many bytes of events were read, or all of them. How many of those that wait may go.
    pub(super) fn after(&mut self, waiting: usize, bytes: usize, empty: bool) -> usize {
        self.bytes = self.bytes.saturating_sub(bytes);
        if empty {
            self.first = 0;
            return waiting;
        }
        if self.bytes > 0 {
            return 0;
        }
        std::mem::take(&mut self.first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_goes_when_the_events_before_it_are_read() {
        let mut late = Late::default();
        late.before(3, 1000);
        assert_eq!(late.after(3, 600, false), 0);
        assert!(late.is_behind());
        // More has come of both; the first three do not wait for that.
        late.before(5, 9000);
        assert_eq!(late.after(5, 600, false), 3);
        assert!(!late.is_behind());
        late.before(2, 9000);
        assert_eq!(late.after(2, 8999, false), 0);
        assert_eq!(late.after(2, 1, false), 2);
    }

    #[test]
    fn everything_goes_when_the_queue_is_empty() {
        let mut late = Late::default();
        late.before(3, 1000);
        assert_eq!(late.after(4, 0, true), 4);
        assert!(!late.is_behind());
        late.before(1, 0);
        assert_eq!(late.after(1, 0, false), 1);
    }
}
