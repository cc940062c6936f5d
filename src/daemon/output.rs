//! What the loop does for children beside starting them: who writes their output to files, and who of an earlier life is
//! still there.

use super::{Daemon, Fatal};
use crate::core::Input;
use crate::plan::Level;
use crate::service::Signal;
use crate::sys::clock;
use std::io;
use std::time::Duration;

/// How long the daemon, when it ends, waits for those who write output to files.
const LAST_WORDS: Duration = Duration::from_secs(5);

impl Daemon {
    /// Starts what is due to be started, and asks what was asked.
    pub(super) fn tend_children(&mut self) -> Result<(), Fatal> {
        self.children
            .tick(self.now.mono)
            .map_err(|error| Fatal::new(70, format!("the spawner: {error}")))?;
        for asked in self.children.asked() {
            let slot = asked.slot;
            if let Err(errno) = asked.taken {
                let error = io::Error::from_raw_os_error(errno);
                let text = format!("slot {slot}: it cannot be asked whether it is held: {error}");
                self.say(Level::Warning, text);
            }
            if asked.in_vain {
                let text = format!(
                    "slot {slot} is held, but by no process that can be found and signalled"
                );
                self.say(Level::Warning, text);
            }
            let taken = asked.taken.unwrap_or(true);
            self.late.push(Input::Slot { slot, taken });
        }
        Ok(())
    }

    /// At the end: gives the output that is still here to those who write it, and waits a little for them. They
    /// themselves go on until they have written all that they were given.
    pub(super) fn end_outputs(&mut self) {
        self.children.close_outputs();
        let until = clock::boottime().after(LAST_WORDS);
        loop {
            self.now.mono = clock::boottime();
            let tended = self.children.tick(self.now.mono);
            self.drain_children();
            self.feed_watchdog();
            let (processes, bytes) = self.children.open_outputs();
            if processes == 0 && bytes == 0 {
                return;
            }
            let impatient = self.hold_signals().is_err()
                || (self.held.iter()).any(|signal| matches!(signal, Signal::Term | Signal::Int));
            if tended.is_err() || impatient || self.now.mono >= until {
                if bytes > 0 {
                    let text = format!("{bytes} bytes of output were not written to their files");
                    self.say(Level::Warning, text);
                    self.log.flush(self.now.mono);
                }
                return;
            }
            let wait = (self.children.deadline().into_iter().chain([until]).min())
                .map(|at| at.since(self.now.mono));
            let polled = self.poll.poll(&mut self.events, wait);
            let interrupted = |error: &io::Error| error.kind() == io::ErrorKind::Interrupted;
            if polled.is_err_and(|error| !interrupted(&error)) || self.note_ready().is_err() {
                return;
            }
        }
    }
}
