//! Answers of scouts and ends of children wait until the core has been told every event that was queued before they were
//! read: whatever happened to a file before a scout looked at it, or before its job ended, is known before that is. Not
//! until the queue is empty, which it may never be while somebody writes as fast as the daemon reads.

use crate::watch::Drained;
use std::io;

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

    /// Events were read while so many waited; `queued` says how many bytes are still there. How many of those that wait
    /// may go.
    ///
    /// # Errors
    /// Those of `queued`, which is asked only where there is something to wait for.
    pub(super) fn read(
        &mut self,
        waiting: usize,
        drained: Drained,
        queued: impl FnOnce() -> io::Result<usize>,
    ) -> io::Result<usize> {
        if drained.empty {
            *self = Late::default();
            return Ok(waiting);
        }
        self.bytes = self.bytes.saturating_sub(drained.bytes);
        if self.first > 0 && self.bytes > 0 {
            return Ok(0);
        }
        let go = std::mem::take(&mut self.first);
        if waiting > go {
            self.first = waiting - go;
            self.bytes = queued()?;
        }
        Ok(go)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn some(bytes: usize) -> Drained {
        Drained {
            empty: false,
            bytes,
        }
    }

    #[test]
    fn what_waits_goes_when_the_events_before_it_are_read() {
        let mut late = Late::default();
        assert_eq!(late.read(3, some(500), || Ok(1000)).unwrap(), 0);
        assert!(late.is_behind());
        // More has come of both; the first three do not wait for that, and are not asked about again.
        let not_now = || unreachable!("it is known");
        assert_eq!(late.read(3, some(600), not_now).unwrap(), 0);
        assert_eq!(late.read(5, some(400), || Ok(9000)).unwrap(), 3);
        assert!(late.is_behind());
        assert_eq!(late.read(2, some(8999), not_now).unwrap(), 0);
        assert_eq!(late.read(2, some(1), not_now).unwrap(), 2);
        assert!(!late.is_behind());
    }

    #[test]
    fn everything_goes_when_the_queue_is_empty() {
        let empty = Drained {
            empty: true,
            bytes: 0,
        };
        let not_now = || unreachable!("it is empty");
        let mut late = Late::default();
        assert_eq!(late.read(3, some(10), || Ok(1000)).unwrap(), 0);
        assert_eq!(late.read(4, empty, not_now).unwrap(), 4);
        assert!(!late.is_behind());
        assert_eq!(late.read(0, some(10), not_now).unwrap(), 0);
        assert!(!late.is_behind());
    }
}
