//! Watches the journal's room, so that the core pauses before a record has none.

use crate::core::Input;
use crate::core::time::Mono;
use crate::journal::Journal;
use crate::journal::segment::Disk;
use std::time::Duration;

/// How often room is looked for when there is none.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Whether there was room when last looked.
#[derive(Debug, Default)]
pub(super) struct Room {
    full: bool,
    again: Option<Mono>,
}

impl Room {
    /// When to look again; only while there is no room.
    pub(super) fn deadline(&self) -> Option<Mono> {
        self.again
    }

    /// Tells the core when there is no room any more, or again.
    pub(super) fn check(
        &mut self,
        journal: &mut Journal<Disk>,
        now: Mono,
        inputs: &mut Vec<Input>,
    ) {
        if self.full {
            if self.again.is_none_or(|at| at <= now) {
                if journal.try_make_room() {
                    self.full = false;
                    self.again = None;
                    inputs.push(Input::JournalRoom(true));
                } else {
                    self.again = Some(now.after(LOOK_AGAIN));
                }
            }
        } else if !journal.has_room() && !journal.try_make_room() {
            self.full = true;
            self.again = Some(now.after(LOOK_AGAIN));
            // First of all inputs: nothing of this turn is to count on room.
            inputs.insert(0, Input::JournalRoom(false));
        }
    }
}
