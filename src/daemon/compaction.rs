//! Compaction in a forked copy of the daemon: it sees the state of one moment and may take its time to
//! write it down, while the loop goes on. The loop only begins it, and makes it count when it is whole.

use crate::core::Core;
use crate::core::time::{Mono, Now};
use crate::journal::segment::Disk;
use crate::journal::{Journal, JournalError, Options};
use crate::sys::process::{self, Exit, Fork};
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{getpid, getppid};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

/// The copy's pidfd.
pub(super) const COMPACTION: Token = Token(5);

/// Replay may read this much beyond what is live before compaction is worth its while...
const SLACK_BYTES: u64 = 16 << 20;
/// ... and as much again as is live, this many times.
const SLACK_TIMES: u64 = 2;
/// Wait after one that failed.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Exit status of a copy that has written everything but what could not be read of what is over; no errno.
const DAMAGE_MET: i32 = 254;
const DAMAGE_TEXT: &str = "journal: damage was found while it was compacted; no work is lost, but what explain and list tell of \
    some files may be. Each damaged file is kept in the state directory, with .damaged behind its name";

/// How often the state directory is looked for while records are written to it.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Bytes of a segment where compaction is to happen often, for tests; the smallest.
const TEST_SEGMENT_BYTES: u32 = 64 * 1024;

/// How much more than the live state may be on the disk, and what else is chosen about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slack {
    bytes: u64,
    times: u64,
    /// How often the state directory is looked for.
    pub(super) look: Duration,
}

impl Slack {
    /// # For tests
    /// With `SETTLED_TEST_COMPACT_BYTES=N` in the environment compaction begins at N bytes beyond what is live,
    /// however much that is, segments have 64 KiB, and the state directory is looked for after every flush.
    ///
    /// # Errors
    /// InvalidInput: the variable has no number.
    pub(super) fn from_env() -> io::Result<(Slack, Options)> {
        let usual = Slack {
            bytes: SLACK_BYTES,
            times: SLACK_TIMES,
            look: LOOK_EVERY,
        };
        let Some(text) = std::env::var_os("SETTLED_TEST_COMPACT_BYTES") else {
            return Ok((usual, Options::default()));
        };
        let bytes = text.to_str().and_then(|text| text.parse().ok());
        let bytes = bytes.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                "SETTLED_TEST_COMPACT_BYTES is for tests and must be a number",
            )
        })?;
        let options = Options {
            segment_bytes: TEST_SEGMENT_BYTES,
            reserve_bytes: TEST_SEGMENT_BYTES / 4,
            ..Options::default()
        };
        let slack = Slack {
            bytes,
            times: 0,
            look: Duration::ZERO,
        };
        Ok((slack, options))
    }
}

/// Whether a copy is at work.
#[derive(Debug)]
pub(super) struct Compaction {
    slack: Slack,
    copy: Option<OwnedFd>,
    not_before: Mono,
    at_once: bool,
}

impl Compaction {
    /// None is under way. `at_once`: the journal has damage in it that the next start need not meet again.
    pub(super) fn new(slack: Slack, at_once: bool) -> Compaction {
        Compaction {
            slack,
            copy: None,
            not_before: Mono(0),
            at_once,
        }
    }

    /// Begins one if it is worth while. `Some`: what went wrong, for the log; the journal goes on as it is.
    pub(super) fn begin_if_due(
        &mut self,
        journal: &mut Journal<Disk>,
        core: &Core,
        now: Now,
        registry: &Registry,
    ) -> Option<String> {
        let live = journal.live_bytes();
        if self.copy.is_some()
            || now.mono < self.not_before
            || (!self.at_once
                && !journal.compaction_may_make_room()
                && journal.total_bytes() < live + self.slack.bytes + self.slack.times * live)
        {
            return None;
        }
        match self.begin(journal, core, now, registry) {
            Ok(()) => None,
            Err(text) => Some(self.failed(now.mono, journal, &text)),
        }
    }

    fn begin(
        &mut self,
        journal: &mut Journal<Disk>,
        core: &Core,
        now: Now,
        registry: &Registry,
    ) -> Result<(), String> {
        journal
            .compact_begin(now.wall)
            .map_err(|error| error.to_string())?;
        // The copy has the daemon's signal handlers, and shares the sockets they write to.
        process::block_signals();
        let daemon = getpid();
        let forked = process::fork();
        if let Ok(Fork::Child) = forked {
            process::set_name(c"settled-compact");
            // What it writes is of use to this daemon only.
            if set_pdeathsig(Signal::SIGKILL).is_err() || getppid() != daemon {
                process::exit_now(1);
            }
            journal.leave_lock();
            // Above all the sockets, at whose end scouts and the spawner know that the daemon is gone.
            process::close_others(3, &journal.copy_descriptors());
            let status = match write_down(journal, core) {
                Ok(false) => 0,
                Ok(true) => DAMAGE_MET,
                // The errno is all that fits; those of Linux are below 134.
                Err(JournalError::NoRoom(fault) | JournalError::Storage(fault)) => fault.errno,
                Err(_) => 255,
            };
            process::exit_now(status);
        }
        process::unblock_signals();
        let pid = match forked {
            Ok(Fork::Parent(pid)) => pid,
            Ok(Fork::Child) => 0,
            Err(error) => return Err(format!("fork: {error}")),
        };
        let copy = process::pidfd_open(pid).map_err(|error| format!("pidfd_open: {error}"))?;
        registry
            .register(
                &mut SourceFd(&copy.as_raw_fd()),
                COMPACTION,
                Interest::READABLE,
            )
            .map_err(|error| format!("epoll: {error}"))?;
        self.copy = Some(copy);
        Ok(())
    }

    /// The copy has ended. `Ok(Some)`: something for the log.
    ///
    /// # Errors
    /// The journal can no longer be relied on.
    pub(super) fn ended(
        &mut self,
        journal: &mut Journal<Disk>,
        now: Mono,
    ) -> Result<Option<String>, JournalError> {
        let Some(copy) = &self.copy else {
            return Ok(None);
        };
        let exit = match process::ended(copy.as_fd(), true) {
            Ok(None) => return Ok(None),
            Ok(Some(exit)) => Ok(exit),
            Err(error) => Err(error),
        };
        // Closed: epoll forgets it.
        self.copy = None;
        match exit {
            Ok(Exit::Status(status @ (0 | DAMAGE_MET))) => match journal.compact_switch() {
                Ok(done) => {
                    // At the start it was told where.
                    let news = status == DAMAGE_MET && !self.at_once;
                    self.at_once = false;
                    let trouble = done.trouble.map(|fault| format!("journal: {fault}"));
                    Ok(trouble.or_else(|| news.then(|| DAMAGE_TEXT.to_owned())))
                }
                Err(error @ JournalError::Final(_)) => Err(error),
                Err(error) => Ok(Some(self.failed(now, journal, &error.to_string()))),
            },
            other => {
                let text = describe(&other);
                Ok(Some(self.failed(now, journal, &text)))
            }
        }
    }

    fn failed(&mut self, now: Mono, journal: &mut Journal<Disk>, text: &str) -> String {
        self.not_before = now.after(AGAIN_AFTER);
        match journal.compact_abort() {
            Ok(()) => format!("journal: compaction failed ({text}); it is tried again later"),
            Err(error) => format!("journal: compaction failed ({text}; {error})"),
        }
    }
}

/// What the copy is there for. `true`: not all that was over could be read.
fn write_down(journal: &mut Journal<Disk>, core: &Core) -> Result<bool, JournalError> {
    let mut old = journal.reader()?;
    let mut keep = |_, summary: &mut _| core.carries(summary);
    let damage = journal.compact_copy_at(core.snapshot_with_times(), &mut old, &mut keep)?;
    journal.keep_damaged(&damage)?;
    Ok(!damage.is_empty())
}

fn describe(exit: &io::Result<Exit>) -> String {
    match exit {
        Ok(Exit::Status(errno @ 1..=254)) => format!(
            "its file could not be written: {}",
            io::Error::from_raw_os_error(*errno)
        ),
        Ok(Exit::Status(_)) => "the state could not be written down".into(),
        Ok(Exit::Signal(signal)) => format!("its process was ended by signal {signal}"),
        Err(error) => format!("waitid: {error}"),
    }
}
