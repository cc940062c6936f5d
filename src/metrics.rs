//! What the daemon does in numbers, as text for those who collect them: settled-metrics(7).
//!
//! The core counts what it decides ([`crate::core::counts`]), [`EdgeCounts`] what it costs; a [`Page`] puts both
//! together. [`families`] is the table of all metrics.

pub mod families;
pub mod file;
mod text;

pub use text::Dialect;

use crate::core::Core;
use crate::core::counts::{BOUNDS, Census, Histogram, JOB_STATES, MountFigures, WatchFigures};
use crate::core::ids::MountId;
use crate::core::time::{Mono, Wall};
use crate::journal::segment::Disk;
use crate::journal::{Flushed, Journal};
use families::{FAMILIES, Family, names};
use std::cell::Cell;
use std::time::Duration;
use text::{Samples, Text, seconds};

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

/// The text of all metrics, made a part at a time: of a thousand watches it is megabytes. A family stays together; its
/// samples may be of different moments, as the text's families are.
#[derive(Debug)]
pub struct Page {
    census: Census,
    readings: Readings,
    dialect: Dialect,
    reader: Reader,
    /// The next family, and whether its head is written.
    family: usize,
    begun: bool,
    /// Where its samples go on.
    watch: usize,
    mount: Option<MountId>,
    over: bool,
}

/// How far a family is, and what that took.
struct Step {
    over: bool,
    visits: usize,
}

impl Page {
    /// `census` is to be whole: what it has not counted is not told.
    pub fn new(census: Census, readings: Readings, dialect: Dialect, reader: Reader) -> Page {
        Page {
            census,
            readings,
            dialect,
            reader,
            family: 0,
            begun: false,
            watch: 0,
            mount: None,
            over: false,
        }
    }

    /// Whether all was told.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// The next part: whole lines, of up to `most` watches, mounts or other numbers.
    pub fn go_on(&mut self, core: &Core, edge: &EdgeCounts, most: usize) -> String {
        let mut text = Text::new(self.dialect);
        let mut left = most;
        while left > 0 && !self.over {
            let Some(family) = FAMILIES.get(self.family) else {
                self.over = true;
                text.end();
                break;
            };
            if !std::mem::replace(&mut self.begun, true) {
                text.head(family);
            }
            let step = self.samples(core, edge, family, &mut text.samples(family), left);
            left = left.saturating_sub(step.visits.max(1));
            if step.over {
                self.family += 1;
                self.begun = false;
                self.watch = 0;
                self.mount = None;
            }
        }
        text.finish()
    }

    fn samples(
        &mut self,
        core: &Core,
        edge: &EdgeCounts,
        family: &Family,
        all: &mut Samples<'_>,
        most: usize,
    ) -> Step {
        match family.labels.first() {
            Some(&"watch") => {
                let now = core.figures().now;
                let (watches, more) = core.watch_figures(&self.census, self.watch, most);
                self.watch += most;
                for watch in &watches {
                    of_watch(family.name, watch, now, all);
                }
                Step {
                    over: !more,
                    visits: most.min(watches.len()),
                }
            }
            Some(&"mount") => {
                let (mounts, last) = core.mount_figures(self.mount, most);
                for mount in &mounts {
                    of_mount(family.name, mount, all);
                }
                self.mount = last;
                Step {
                    over: last.is_none(),
                    visits: most.min(mounts.len()),
                }
            }
            _ => {
                self.of_whole(core, edge, family.name, all);
                Step {
                    over: true,
                    visits: 1,
                }
            }
        }
    }

    /// A family without watches and mounts.
    fn of_whole(&self, core: &Core, edge: &EdgeCounts, name: &str, all: &mut Samples<'_>) {
        let readings = &self.readings;
        let figures = core.figures();
        let whole = |time: Duration| seconds(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        let (told, failed) = core.alert_figures();
        match name {
            names::build => all.add(&[env!("CARGO_PKG_VERSION")], 1),
            names::start_time_seconds => {
                all.add(&[], seconds(u64::try_from(edge.started.0).unwrap_or(0)));
            }
            names::directories => all.add(&[], figures.directories),
            names::files_remembered => all.add(&[], figures.remembered),
            names::journal_flush_seconds => all.histogram(&[], &edge.flushes),
            names::journal_flushed_bytes => all.add(&[], edge.bytes),
            names::journal_records => all.add(&[], edge.records),
            names::journal_size_bytes => all.add(&[], readings.journal_bytes),
            names::journal_live_bytes => all.add(&[], readings.journal_live_bytes),
            names::journal_has_room => all.add(&[], u8::from(figures.room)),
            names::loop_turns => all.add(&[], edge.turns),
            names::loop_longest_stall_seconds => all.add(&[], whole(edge.longest)),
            names::loop_recent_stall_seconds => {
                all.add(&[], whole(edge.take_recent(self.reader)));
            }
            names::inotify_watches => all.add(&[], figures.inotify_watches),
            names::inotify_watches_limit => {
                if let Some(limit) = readings.inotify_limit {
                    all.add(&[], limit);
                }
            }
            names::inotify_overflows => all.add(&[], figures.overflows),
            names::log_lines_dropped => all.add(&[], readings.dropped_lines),
            names::alerts => {
                for (alert, count) in told {
                    all.add(&[alert], count);
                }
            }
            names::alert_failures => all.add(&[], failed),
            names::memory_bytes => {
                if let Some(kib) = readings.resident_kib {
                    all.add(&[], kib.saturating_mul(1024));
                }
            }
            _ => {}
        }
    }
}

fn of_watch(name: &str, watch: &WatchFigures<'_>, now: Mono, all: &mut Samples<'_>) {
    let counts = watch.counts;
    match name {
        names::arrivals => all.add(&[watch.name], counts.arrivals),
        names::outcomes => {
            for (outcome, count) in counts.outcomes() {
                all.add(&[watch.name, outcome], count);
            }
        }
        names::attempts_started => all.add(&[watch.name], counts.started),
        names::attempts => {
            for (result, count) in counts.results() {
                all.add(&[watch.name, result], count);
            }
        }
        names::retries => all.add(&[watch.name], counts.retries),
        names::jobs => {
            for (state, count) in JOB_STATES.iter().zip(watch.depth.jobs) {
                all.add(&[watch.name, state], count);
            }
        }
        names::candidates => all.add(&[watch.name], watch.depth.candidates),
        names::candidate_oldest_seconds => {
            let age = watch.depth.oldest.map(|since| now.since(since));
            let ns = u64::try_from(age.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX);
            all.add(&[watch.name], seconds(ns));
        }
        names::settle_seconds => all.histogram(&[watch.name], &counts.settle),
        names::queue_wait_seconds => all.histogram(&[watch.name], &counts.queued),
        names::run_seconds => all.histogram(&[watch.name], &counts.run),
        names::watch_root_present => all.add(&[watch.name], u8::from(watch.present)),
        names::expected_missed => all.add(&[watch.name], counts.missed),
        _ => {}
    }
}

fn of_mount(name: &str, mount: &MountFigures, all: &mut Samples<'_>) {
    let point = String::from_utf8_lossy(&mount.point);
    match name {
        names::mount_answers => all.add(&[&point], mount.answers),
        names::mount_slow => all.add(&[&point], u8::from(mount.slow)),
        names::mount_silent => all.add(&[&point], u8::from(mount.silent)),
        names::mount_questions => {
            all.add(&[&point, "asked"], mount.asked);
            all.add(&[&point, "waiting"], mount.waiting);
        }
        _ => {}
    }
}
