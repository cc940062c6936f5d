//! Watches the journal's room, so that the core pauses before a record has none; and stands still where one turn has
//! decided more than there is room for.

use super::{Daemon, Fatal};
use crate::core::Input;
use crate::core::record::Record;
use crate::core::time::Mono;
use crate::journal::segment::Disk;
use crate::journal::storage::Fault;
use crate::journal::{Journal, JournalError};
use crate::plan::Level;
use crate::service::Signal;
use crate::sys::clock;
use std::io;
use std::time::Duration;

/// How often room is looked for when there is none.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Whether there was room when last looked.
#[derive(Debug)]
pub(super) struct Room {
    full: bool,
    again: Option<Mono>,
    /// When the place itself is looked at next.
    look: Mono,
    every: Duration,
    /// What was told of files that cannot be removed: each is tried again with every flush.
    told: Vec<Fault>,
}

impl Room {
    /// There is room. `every`: how often the place is looked at while records are written.
    pub(super) fn new(every: Duration) -> Room {
        Room {
            full: false,
            again: None,
            look: Mono(0),
            every,
            told: Vec::new(),
        }
    }

    /// Something failed beside a flush. `Some`, for the log, if that was not told before.
    pub(super) fn trouble(&mut self, fault: Fault) -> Option<String> {
        if self.told.contains(&fault) {
            return None;
        }
        let text = format!("journal: {fault}; it is tried again");
        self.told.push(fault);
        Some(text)
    }

    /// Now and then, after a flush: whether it went to where the next start will read.
    ///
    /// # Errors
    /// The directory or the segment was taken away.
    pub(super) fn look(&mut self, journal: &Journal<Disk>, now: Mono) -> Result<(), JournalError> {
        if now < self.look {
            return Ok(());
        }
        self.look = now.after(self.every);
        journal.still_there()
    }

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

impl Daemon {
    /// Appends one of a turn's records. Where there is no room for it the loop stands still until there is: nothing
    /// of the turn may be done before all of it is durable, and the core has decided it already.
    pub(super) fn append(&mut self, record: &Record) -> Result<(), Fatal> {
        let mut said = false;
        loop {
            match self.journal.append(self.now.wall, record) {
                Ok(()) if said => {
                    self.say(Level::Info, "the journal has room again: going on".into());
                    self.tell(|manager| manager.status("running"));
                    return Ok(());
                }
                Ok(()) => return Ok(()),
                Err(error @ JournalError::NoRoom(_)) => {
                    if !said {
                        self.say(
                            Level::Error,
                            format!("no room for the journal: everything waits; {error}"),
                        );
                        self.tell(|manager| manager.status("no room for the journal"));
                        said = true;
                    }
                    self.stand_still()?;
                }
                Err(error) => return Err(Fatal::new(74, error.to_string())),
            }
        }
    }

    /// Waits a moment, taking note of what comes meanwhile, and answers a wish to stop.
    fn stand_still(&mut self) -> Result<(), Fatal> {
        self.now.mono = clock::boottime();
        let until = self.now.mono.after(LOOK_AGAIN);
        while self.now.mono < until {
            self.log.flush(self.now.mono);
            self.feed_watchdog();
            match self
                .poll
                .poll(&mut self.events, Some(until.since(self.now.mono)))
            {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    return Err(Fatal::new(70, format!("epoll_wait: {error}")));
                }
                _ => {}
            }
            self.now.mono = clock::boottime();
            self.note_ready()?;
            // One that was begun before this turn: its end may make the room.
            self.compaction_ended()?;
            self.hold_signals()?;
            if self
                .held
                .iter()
                .any(|signal| matches!(signal, Signal::Term | Signal::Int))
            {
                // As after a crash: what is not durable was not done, and is found again.
                let text = "told to stop while there is no room for the journal; what was decided last and not \
                            written down is decided again at the next start";
                return Err(Fatal::new(73, text.into()));
            }
        }
        Ok(())
    }
}
