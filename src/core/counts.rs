//! What has happened so far, in numbers: plain integers that only grow, for each watch. What is there now is not kept
//! but counted when somebody asks, a bounded part at a time ([`Census`]).

use super::Core;
use super::files::FileKey;
use super::ids::{JobId, MountId};
use super::job::Phase;
use super::record::{AttemptEnd, Outcome};
use super::time::{Mono, Wall};
use super::watch::Root;
use std::ops::Bound::{Excluded, Unbounded};
use std::time::Duration;

/// How many bounds a histogram has; what is above the last is counted, too.
pub const BOUNDS: usize = 16;

const MS: u64 = 1_000_000;
const S: u64 = 1000 * MS;

/// The bounds of what happens to files, in nanoseconds: from a file that settled at once to one that waited for a day.
pub const OF_FILES: [u64; BOUNDS] = [
    MS,
    5 * MS,
    10 * MS,
    50 * MS,
    100 * MS,
    500 * MS,
    S,
    2 * S,
    5 * S,
    10 * S,
    30 * S,
    60 * S,
    300 * S,
    1800 * S,
    7200 * S,
    86_400 * S,
];

/// How often something took how long.
#[derive(Clone, Debug)]
pub struct Histogram {
    bounds: &'static [u64; BOUNDS],
    /// How many were within each bound and above the one before; at the end those above the last.
    counts: [u64; BOUNDS + 1],
    sum_ns: u64,
}

impl Histogram {
    /// Nothing was seen yet. `bounds` are nanoseconds, rising.
    pub const fn new(bounds: &'static [u64; BOUNDS]) -> Histogram {
        Histogram {
            bounds,
            counts: [0; BOUNDS + 1],
            sum_ns: 0,
        }
    }

    /// Once more.
    pub fn observe(&mut self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let at = self.bounds.partition_point(|bound| *bound < ns);
        if let Some(count) = self.counts.get_mut(at) {
            *count += 1;
        }
        self.sum_ns = self.sum_ns.saturating_add(ns);
    }

    /// Each bound in nanoseconds, and how many were within it.
    pub fn within(&self) -> impl Iterator<Item = (u64, u64)> {
        let mut sum = 0;
        self.bounds.iter().zip(&self.counts).map(move |(le, n)| {
            sum += n;
            (*le, sum)
        })
    }

    /// How many in all.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How long in all, in nanoseconds.
    pub fn sum_ns(&self) -> u64 {
        self.sum_ns
    }
}

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptResult {
    /// It succeeded.
    Done,
    /// It failed, and is tried again.
    Retry,
    /// It failed, and is not tried again.
    Dead,
    /// It did not take place, or not to its end, through no fault of its job: it is made again.
    Again,
    /// The file was another version, or gone.
    Changed,
    /// It was cut short, and is promised to be made once at most.
    Held,
}

impl AttemptResult {
    /// All, with their words.
    pub const ALL: [(AttemptResult, &'static str); 6] = [
        (AttemptResult::Done, "done"),
        (AttemptResult::Retry, "retry"),
        (AttemptResult::Dead, "dead"),
        (AttemptResult::Again, "again"),
        (AttemptResult::Changed, "changed"),
        (AttemptResult::Held, "held"),
    ];
}

/// All outcomes, with their words.
pub const OUTCOMES: [(Outcome, &str); 5] = [
    (Outcome::Done, "done"),
    (Outcome::Dead, "dead"),
    (Outcome::Superseded, "superseded"),
    (Outcome::Gone, "gone"),
    (Outcome::Held, "held"),
];

/// What a watch has done since the daemon was started.
#[derive(Clone, Debug)]
pub struct WatchCounts {
    /// Versions of files that settled.
    pub arrivals: u64,
    /// Attempts begun.
    pub started: u64,
    /// Those of them that were not the first of their job.
    pub retries: u64,
    /// Times that what was expected had not come.
    pub missed: u64,
    /// From the first hint of a file until it settled.
    pub settle: Histogram,
    /// From there until its first attempt began.
    pub queued: Histogram,
    /// How long attempts took.
    pub run: Histogram,
    results: [u64; AttemptResult::ALL.len()],
    outcomes: [u64; OUTCOMES.len()],
}

impl Default for WatchCounts {
    fn default() -> WatchCounts {
        WatchCounts {
            arrivals: 0,
            started: 0,
            retries: 0,
            missed: 0,
            settle: Histogram::new(&OF_FILES),
            queued: Histogram::new(&OF_FILES),
            run: Histogram::new(&OF_FILES),
            results: [0; AttemptResult::ALL.len()],
            outcomes: [0; OUTCOMES.len()],
        }
    }
}

impl WatchCounts {
    /// Attempts by result.
    pub fn results(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let words = AttemptResult::ALL.iter().map(|(_, word)| *word);
        words.zip(self.results.iter().copied())
    }

    /// Jobs by outcome.
    pub fn outcomes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let words = OUTCOMES.iter().map(|(_, word)| *word);
        words.zip(self.outcomes.iter().copied())
    }

    pub(super) fn attempt(&mut self, result: AttemptResult) {
        let all = AttemptResult::ALL
            .iter()
            .position(|(one, _)| *one == result);
        if let Some(count) = all.and_then(|at| self.results.get_mut(at)) {
            *count += 1;
        }
    }

    pub(super) fn outcome(&mut self, outcome: Outcome) {
        let all = OUTCOMES.iter().position(|(one, _)| *one == outcome);
        if let Some(count) = all.and_then(|at| self.outcomes.get_mut(at)) {
            *count += 1;
        }
    }
}

/// Where jobs stand, in words.
pub const JOB_STATES: [&str; 7] = [
    "ready",
    "backoff",
    "halted",
    "orphaned",
    "looking",
    "running",
    "disposing",
];

fn state_of(phase: &Phase) -> usize {
    match phase {
        Phase::Ready => 0,
        Phase::Backoff => 1,
        Phase::Halted => 2,
        Phase::Orphaned { .. } => 3,
        Phase::Handing { .. } | Phase::Looking | Phase::PostLook { .. } => 4,
        Phase::Running { .. } => 5,
        Phase::Disposing { .. } => 6,
    }
}

/// What is there of a watch now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Candidates.
    pub candidates: u64,
    /// When the first hint of the oldest of them came.
    pub oldest: Option<Mono>,
    /// Jobs in each of [`JOB_STATES`].
    pub jobs: [u64; JOB_STATES.len()],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Candidates(Option<FileKey>),
    Jobs(JobId),
    End,
}

/// A count of what is there, which may take several turns: there may be a million of each. What comes or goes meanwhile
/// is counted or not.
#[derive(Clone, Debug)]
pub struct Census {
    at: At,
    depths: Vec<Depth>,
}

impl Default for Census {
    fn default() -> Census {
        Census {
            at: At::Candidates(None),
            depths: Vec::new(),
        }
    }
}

impl Census {
    /// Whether all was counted.
    pub fn is_whole(&self) -> bool {
        self.at == At::End
    }

    fn depth(&mut self, watch: u32) -> &mut Depth {
        let at = watch as usize;
        if self.depths.len() <= at {
            self.depths.resize(at + 1, Depth::default());
        }
        &mut self.depths[at]
    }
}

/// A watch as it is told of in numbers.
#[derive(Debug)]
pub struct WatchFigures<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its root is there.
    pub present: bool,
    /// What it has done.
    pub counts: &'a WatchCounts,
    /// What is there.
    pub depth: Depth,
}

/// A mount that has to do with a watch, the same way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountFigures {
    /// Where it is mounted.
    pub point: Vec<u8>,
    /// Answers of its scout so far.
    pub answers: u64,
    /// It takes longer than usual.
    pub slow: bool,
    /// It does not answer.
    pub silent: bool,
    /// Questions that were asked and not answered.
    pub asked: u64,
    /// Questions that wait to be asked.
    pub waiting: u64,
}

/// What can be told of the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoreFigures {
    /// Now.
    pub now: Mono,
    /// Directories that are known.
    pub directories: u64,
    /// inotify watches.
    pub inotify_watches: u64,
    /// How often the kernel's queue of events overflowed.
    pub overflows: u64,
    /// Files that are remembered.
    pub remembered: u64,
    /// The journal has room.
    pub room: bool,
}

impl Core {
    /// Goes on with a count, by up to `visits` candidates and jobs.
    pub fn count_on(&self, census: &mut Census, visits: usize) {
        let mut left = visits;
        if let At::Candidates(from) = census.at {
            let from = from.map_or(Unbounded, Excluded);
            let mut at = census.at;
            for (key, candidate) in self.candidates.range((from, Unbounded)).take(left) {
                left -= 1;
                at = At::Candidates(Some(*key));
                if let Some(node) = self.tree.get(candidate.dir) {
                    let depth = census.depth(node.watch);
                    depth.candidates += 1;
                    let since = candidate.since;
                    depth.oldest = Some(depth.oldest.map_or(since, |oldest| oldest.min(since)));
                }
            }
            census.at = if left > 0 { At::Jobs(JobId(0)) } else { at };
        }
        if let At::Jobs(from) = census.at {
            let mut at = census.at;
            for (id, job) in self.jobs.range((Excluded(from), Unbounded)).take(left) {
                left -= 1;
                at = At::Jobs(*id);
                if let Some(count) = census.depth(job.watch).jobs.get_mut(state_of(&job.phase)) {
                    *count += 1;
                }
            }
            census.at = if left > 0 { At::End } else { at };
        }
    }

    /// The watches of the configuration, and those that were taken out of it and still have something to do: of `most`
    /// from index `from` on. And whether there are more.
    pub fn watch_figures<'a>(
        &'a self,
        census: &Census,
        from: usize,
        most: usize,
    ) -> (Vec<WatchFigures<'a>>, bool) {
        let all = self.watches.iter().enumerate().skip(from).take(most);
        let all = all.map(|(index, watch)| {
            let depth = census.depths.get(index).copied().unwrap_or_default();
            let figures = WatchFigures {
                name: &watch.plan.name,
                present: watch.state == Root::Bound,
                counts: &watch.counts,
                depth,
            };
            (figures, watch.active)
        });
        let busy = |depth: &Depth| *depth != Depth::default();
        let figures = all
            .filter(|(figures, active)| *active || busy(&figures.depth))
            .map(|(figures, _)| figures)
            .collect();
        (figures, from.saturating_add(most) < self.watches.len())
    }

    /// The mounts that have to do with a watch: of `most` after this one. And after which the next call goes on, if there
    /// are more. Of those that are mounted over each other the sum is told with the first.
    pub fn mount_figures(
        &self,
        after: Option<MountId>,
        most: usize,
    ) -> (Vec<MountFigures>, Option<MountId>) {
        let from = after.map_or(Unbounded, Excluded);
        let mut rest = self.lanes.range((from, Unbounded));
        let (mut all, mut last) = (Vec::new(), None);
        for (id, _) in rest.by_ref().take(most) {
            last = Some(*id);
            all.extend(self.figures_at(*id));
        }
        (all, last.filter(|_| rest.next().is_some()))
    }

    /// `None` where an earlier mount has the same place.
    fn figures_at(&self, first: MountId) -> Option<MountFigures> {
        let point = &self.mounts.get(&first)?.point;
        let mut sum = MountFigures {
            point: point.clone(),
            answers: 0,
            slow: false,
            silent: false,
            asked: 0,
            waiting: 0,
        };
        for (id, lane) in &self.lanes {
            if self
                .mounts
                .get(id)
                .is_none_or(|mount| mount.point != *point)
            {
                continue;
            }
            if *id < first {
                return None;
            }
            let (asked, waiting) = lane.waiting();
            sum.answers += lane.answers;
            sum.slow |= lane.slow;
            sum.silent |= lane.silent.is_some();
            sum.asked += asked as u64;
            sum.waiting += waiting as u64;
        }
        Some(sum)
    }

    /// See [`CoreFigures`].
    pub fn figures(&self) -> CoreFigures {
        let (directories, inotify_watches) = self.tree.count();
        let (remembered, _) = self.files.count();
        CoreFigures {
            now: self.now.mono,
            directories: directories as u64,
            inotify_watches: inotify_watches as u64,
            overflows: self.overflows,
            remembered: remembered as u64,
            room: self.room,
        }
    }

    /// Alert commands that were started, by what they told; and how many failed.
    pub fn alert_figures(&self) -> (impl Iterator<Item = (&'static str, u64)>, u64) {
        (self.alerts.told(), self.alerts.failed())
    }

    /// Counts in a watch.
    pub(super) fn count(&mut self, watch: u32, count: impl FnOnce(&mut WatchCounts)) {
        if let Some(watch) = self.watches.get_mut(watch as usize) {
            count(&mut watch.counts);
        }
    }

    /// A first attempt waited from when its job settled.
    pub(super) fn count_start(&mut self, watch: u32, settled: Wall, first: bool) {
        let waited = self.now.wall.since(settled);
        self.count(watch, |counts| {
            counts.started += 1;
            match first {
                true => counts.queued.observe(waited),
                false => counts.retries += 1,
            }
        });
    }

    /// An attempt ended; how long it took, if it was one.
    pub(super) fn count_end(&mut self, watch: u32, end: AttemptEnd, ran: Duration) {
        let made = !super::ends::never_ran(end) && end != AttemptEnd::Elsewhere;
        // One of an earlier life has no time of its own.
        if made && !ran.is_zero() {
            self.count(watch, |counts| counts.run.observe(ran));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_what_is_within_each_bound() {
        let mut histogram = Histogram::new(&OF_FILES);
        for ns in [0, MS, MS + 1, 86_400 * S, 86_400 * S + 1] {
            histogram.observe(Duration::from_nanos(ns));
        }
        let within: Vec<u64> = histogram.within().map(|(_, count)| count).collect();
        assert_eq!(within[0], 2, "a bound is within itself");
        assert_eq!(within[1], 3);
        assert_eq!(within[BOUNDS - 1], 4);
        assert_eq!(histogram.count(), 5);
        assert_eq!(histogram.sum_ns(), 2 * 86_400 * S + 2 * MS + 2);
    }

    #[test]
    fn what_is_counted_for_a_watch_is_small() {
        assert!(size_of::<WatchCounts>() < 1024);
    }

    #[test]
    fn each_result_and_outcome_has_its_own_count() {
        let mut counts = WatchCounts::default();
        for (number, (result, _)) in AttemptResult::ALL.iter().enumerate() {
            (0..=number).for_each(|_| counts.attempt(*result));
        }
        for (number, (outcome, _)) in OUTCOMES.iter().enumerate() {
            (0..=number).for_each(|_| counts.outcome(*outcome));
        }
        let results: Vec<u64> = counts.results().map(|(_, count)| count).collect();
        let outcomes: Vec<u64> = counts.outcomes().map(|(_, count)| count).collect();
        assert_eq!(results, [1, 2, 3, 4, 5, 6]);
        assert_eq!(outcomes, [1, 2, 3, 4, 5]);
    }
}
