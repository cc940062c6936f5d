//! What the daemon does in numbers, as text for those who collect them: settled-metrics(7).
//!
//! The core counts what it decides ([`crate::core::counts`]), [`EdgeCounts`] what it costs; [`metrics_text`] puts both
//! together. [`families`] is the table of all metrics.

pub mod families;
pub mod file;
mod text;

pub use text::Dialect;

use crate::core::Core;
use crate::core::counts::{BOUNDS, Census, Histogram, JOB_STATES};
use crate::core::time::Wall;
use crate::journal::segment::Disk;
use crate::journal::{Flushed, Journal};
use families::names;
use std::cell::Cell;
use std::time::Duration;
use text::{Text, seconds};

const US: u64 = 1000;
const MS: u64 = 1000 * US;

/// The bounds of flushes, in nanoseconds: from memory that pretends to be a disk to one that is in trouble.
const OF_FLUSHES: [u64; BOUNDS] = [
    100 * US,
    250 * US,
    500 * US,
    MS,
    2 * MS + 500 * US,
    5 * MS,
    10 * MS,
    25 * MS,
    50 * MS,
    100 * MS,
    250 * MS,
    500 * MS,
    1000 * MS,
    2500 * MS,
    5000 * MS,
    10_000 * MS,
];

/// Who is given the numbers: each has a longest stall of its own since it was given them last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// The file of `metrics_textfile`.
    Textfile,
    /// The control socket.
    Socket,
}

/// What the loop and its flushes take.
#[derive(Clone, Debug)]
pub struct EdgeCounts {
    started: Wall,
    turns: u64,
    longest: Duration,
    /// For each [`Reader`].
    recent: [Cell<Duration>; 2],
    flushes: Histogram,
    bytes: u64,
    records: u64,
}

impl EdgeCounts {
    /// Nothing has happened yet.
    pub fn new(started: Wall) -> EdgeCounts {
        EdgeCounts {
            started,
            turns: 0,
            longest: Duration::ZERO,
            recent: [const { Cell::new(Duration::ZERO) }; 2],
            flushes: Histogram::new(&OF_FLUSHES),
            bytes: 0,
            records: 0,
        }
    }

    /// A turn of the loop took so long, without its flush and without its sleep.
    pub fn turned(&mut self, took: Duration) {
        self.turns += 1;
        self.longest = self.longest.max(took);
        for recent in &self.recent {
            recent.set(took.max(recent.get()));
        }
    }

    /// Records were made durable.
    pub fn flushed(&mut self, took: Duration, flushed: &Flushed) {
        self.flushes.observe(took);
        self.bytes += flushed.bytes;
        self.records += flushed.records;
    }

    fn take_recent(&self, reader: Reader) -> Duration {
        let recent = self.recent.get(reader as usize);
        recent.map(Cell::take).unwrap_or_default()
    }
}

/// What is read elsewhere when the text is made. What cannot be had is left out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Readings {
    /// [`crate::journal::Journal::total_bytes`].
    pub journal_bytes: u64,
    /// [`crate::journal::Journal::live_bytes`].
    pub journal_live_bytes: u64,
    /// [`inotify_limit`].
    pub inotify_limit: Option<u64>,
    /// [`crate::log::Log::dropped`].
    pub dropped_lines: u64,
    /// [`crate::memory::resident_kib`].
    pub resident_kib: Option<u64>,
}

impl Readings {
    /// As of now. `dropped_lines`: by the log.
    pub fn take(journal: &Journal<Disk>, dropped_lines: u64) -> Readings {
        Readings {
            journal_bytes: journal.total_bytes(),
            journal_live_bytes: journal.live_bytes(),
            inotify_limit: inotify_limit(),
            dropped_lines,
            resident_kib: crate::memory::resident_kib().ok(),
        }
    }
}

/// How many inotify watches a user may have (inotify(7)), if `/proc` says so.
pub fn inotify_limit() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/sys/fs/inotify/max_user_watches").ok()?;
    text.trim().parse().ok()
}

/// All metrics. `census` is to be whole: what it has not counted is not told.
pub fn metrics_text(
    core: &Core,
    census: &Census,
    edge: &EdgeCounts,
    readings: &Readings,
    dialect: Dialect,
    reader: Reader,
) -> String {
    let mut text = Text::new(dialect);
    text.family(names::build, |all| {
        all.add(&[env!("CARGO_PKG_VERSION")], 1);
    });
    let started = u64::try_from(edge.started.0).unwrap_or(0);
    one(&mut text, names::start_time_seconds, seconds(started));
    of_watches(&mut text, core, census);
    let figures = core.figures();
    one(&mut text, names::directories, figures.directories);
    one(&mut text, names::files_remembered, figures.remembered);
    text.family(names::journal_flush_seconds, |all| {
        all.histogram(&[], &edge.flushes);
    });
    one(&mut text, names::journal_flushed_bytes, edge.bytes);
    one(&mut text, names::journal_records, edge.records);
    one(&mut text, names::journal_size_bytes, readings.journal_bytes);
    one(
        &mut text,
        names::journal_live_bytes,
        readings.journal_live_bytes,
    );
    one(&mut text, names::journal_has_room, u8::from(figures.room));
    one(&mut text, names::loop_turns, edge.turns);
    let whole = |time: Duration| seconds(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    one(
        &mut text,
        names::loop_longest_stall_seconds,
        whole(edge.longest),
    );
    let recent = edge.take_recent(reader);
    one(&mut text, names::loop_recent_stall_seconds, whole(recent));
    of_mounts(&mut text, core);
    one(&mut text, names::inotify_watches, figures.inotify_watches);
    text.family(names::inotify_watches_limit, |all| {
        if let Some(limit) = readings.inotify_limit {
            all.add(&[], limit);
        }
    });
    one(&mut text, names::inotify_overflows, figures.overflows);
    one(&mut text, names::log_lines_dropped, readings.dropped_lines);
    let (told, failed) = core.alert_figures();
    text.family(names::alerts, |all| {
        for (alert, count) in told {
            all.add(&[alert], count);
        }
    });
    one(&mut text, names::alert_failures, failed);
    text.family(names::memory_bytes, |all| {
        if let Some(kib) = readings.resident_kib {
            all.add(&[], kib.saturating_mul(1024));
        }
    });
    text.finish()
}

fn one(text: &mut Text, name: &str, number: impl std::fmt::Display) {
    text.family(name, |all| all.add(&[], number));
}

fn of_watches(text: &mut Text, core: &Core, census: &Census) {
    let watches = core.watch_figures(census);
    let now = core.figures().now;
    text.family(names::arrivals, |all| {
        for watch in &watches {
            all.add(&[watch.name], watch.counts.arrivals);
        }
    });
    text.family(names::outcomes, |all| {
        for watch in &watches {
            for (outcome, count) in watch.counts.outcomes() {
                all.add(&[watch.name, outcome], count);
            }
        }
    });
    text.family(names::attempts_started, |all| {
        for watch in &watches {
            all.add(&[watch.name], watch.counts.started);
        }
    });
    text.family(names::attempts, |all| {
        for watch in &watches {
            for (result, count) in watch.counts.results() {
                all.add(&[watch.name, result], count);
            }
        }
    });
    text.family(names::retries, |all| {
        for watch in &watches {
            all.add(&[watch.name], watch.counts.retries);
        }
    });
    text.family(names::jobs, |all| {
        for watch in &watches {
            for (state, count) in JOB_STATES.iter().zip(watch.depth.jobs) {
                all.add(&[watch.name, state], count);
            }
        }
    });
    text.family(names::candidates, |all| {
        for watch in &watches {
            all.add(&[watch.name], watch.depth.candidates);
        }
    });
    text.family(names::candidate_oldest_seconds, |all| {
        for watch in &watches {
            let age = watch.depth.oldest.map(|since| now.since(since));
            let ns = u64::try_from(age.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX);
            all.add(&[watch.name], seconds(ns));
        }
    });
    text.family(names::settle_seconds, |all| {
        for watch in &watches {
            all.histogram(&[watch.name], &watch.counts.settle);
        }
    });
    text.family(names::queue_wait_seconds, |all| {
        for watch in &watches {
            all.histogram(&[watch.name], &watch.counts.queued);
        }
    });
    text.family(names::run_seconds, |all| {
        for watch in &watches {
            all.histogram(&[watch.name], &watch.counts.run);
        }
    });
    text.family(names::watch_root_present, |all| {
        for watch in &watches {
            all.add(&[watch.name], u8::from(watch.present));
        }
    });
    text.family(names::expected_missed, |all| {
        for watch in &watches {
            all.add(&[watch.name], watch.counts.missed);
        }
    });
}

fn of_mounts(text: &mut Text, core: &Core) {
    let mounts: Vec<_> = core
        .mount_figures()
        .into_iter()
        .map(|mount| (String::from_utf8_lossy(&mount.point).into_owned(), mount))
        .collect();
    text.family(names::mount_answers, |all| {
        for (point, mount) in &mounts {
            all.add(&[point], mount.answers);
        }
    });
    text.family(names::mount_slow, |all| {
        for (point, mount) in &mounts {
            all.add(&[point], u8::from(mount.slow));
        }
    });
    text.family(names::mount_silent, |all| {
        for (point, mount) in &mounts {
            all.add(&[point], u8::from(mount.silent));
        }
    });
    text.family(names::mount_questions, |all| {
        for (point, mount) in &mounts {
            all.add(&[point, "asked"], mount.asked);
            all.add(&[point, "waiting"], mount.waiting);
        }
    });
}
