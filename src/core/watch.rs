//! One watch at work: its plan, its root's state, its scan, its queue.

use super::claims::Claims;
use super::counts::WatchCounts;
use super::expect::{Judged, Window};
use super::files::{FileKey, Known};
use super::ids::{DirId, JobId, WatchId};
use super::queue::Queue;
use super::scan::Scan;
use super::sieve::Sieve;
use super::time::{Mono, Wall};
use super::workers::Post;
use crate::plan::WatchPlan;
use std::collections::{BTreeMap, BTreeSet};

/// Where the root stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// Not asked for yet.
    Unknown,
    /// The resolver is on its way.
    Resolving,
    /// It is there.
    Bound,
    /// It is not, and is looked for.
    Missing,
}

/// A watch.
#[derive(Debug)]
pub struct Watch {
    /// What is to be done.
    pub plan: WatchPlan,
    /// Its number in the journal; 0 until it has one.
    pub id: WatchId,
    /// In the configuration. A watch that was taken out keeps its history and its running jobs.
    pub active: bool,
    /// Nothing of it is started, because a person said so.
    pub paused: bool,
    /// Its root directory in the tree; 0 until it has one.
    pub root: DirId,
    /// See [`Root`].
    pub state: Root,
    /// It moved while it was looked for: to be looked for again.
    pub resolve_again: bool,
    /// The scan under way.
    pub scan: Option<Scan>,
    /// Another scan is to follow it.
    pub scan_again: bool,
    /// A scan was completed in this life of the daemon.
    pub scanned: bool,
    /// When the last scan began that could be compared.
    pub compared: Option<Mono>,
    /// A scan was completed ever: from then on everything new is an arrival.
    pub scanned_ever: bool,
    /// Anything remembered, or a job from the journal: a scan has something to compare with.
    pub history: bool,
    /// Running children.
    pub running: u32,
    /// What it has done so far, in numbers.
    pub counts: WatchCounts,
    /// Where it stands with what is expected of it.
    pub(super) window: Option<Window>,
    /// What was found in the last window that closed in this life of the daemon.
    pub(super) judged: Option<Judged>,
    /// When a file settled last, as far as that is remembered and something is expected.
    pub(super) came: Option<Wall>,
    /// Ready jobs; where claims are made, those that are not claimed.
    pub queue: Queue,
    /// Where claims are made.
    pub(super) claims: Option<Claims>,
    /// Since when jobs that are ready wait for others of their batch.
    pub batch_since: Option<Mono>,
    /// When `rate` lets the next job start.
    pub next_start: Mono,
    /// Dead jobs that hold up others.
    pub halted: BTreeSet<JobId>,
    /// Its workers.
    pub(super) posts: Vec<Post>,
    /// What looks for its root does not answer.
    pub root_silent: bool,
    /// Said already that the root is missing.
    pub said_missing: bool,
    /// What was said last of who may write to it over NFS.
    pub said_exported: Option<String>,
    /// Said already that leases cannot be asked.
    pub said_no_lease: bool,
    /// Said already that inotify watches have run out.
    pub said_no_watch: bool,
    /// How long the last scan took for each of its directories, in nanoseconds.
    pub last_cost_ns: u64,
    /// The same, or of the scan before if that took less.
    pub dir_cost_ns: u64,
    /// How many directories it had.
    pub scan_dirs: u64,
    /// Versions that are remembered or owed, where a scan's end is waited for.
    pub sieve: Option<Sieve>,
    /// What the last scan missed of a watch that no events tell about: gone if the next misses it, too.
    pub missed: BTreeSet<(FileKey, u64)>,
    /// The same of directories.
    pub missed_dirs: BTreeSet<DirId>,
    /// By version: what was remembered under names that were deleted or left while a scan was under way. Each may be of a
    /// file that is there under another name, and nothing told.
    pub(super) deleted: BTreeMap<u64, Known>,
}

impl Watch {
    /// A watch as configured, with no state.
    pub fn new(plan: WatchPlan) -> Watch {
        let queue = Queue::new(plan.per_key());
        let claims = plan.claim.as_ref().map(|_| Claims::new(plan.per_key()));
        Watch {
            plan,
            id: WatchId(0),
            active: true,
            paused: false,
            root: DirId(0),
            state: Root::Unknown,
            resolve_again: false,
            scan: None,
            scan_again: false,
            scanned: false,
            compared: None,
            scanned_ever: false,
            history: false,
            running: 0,
            counts: WatchCounts::default(),
            window: None,
            judged: None,
            came: None,
            queue,
            claims,
            batch_since: None,
            next_start: Mono::default(),
            halted: BTreeSet::new(),
            posts: Vec::new(),
            root_silent: false,
            said_missing: false,
            said_exported: None,
            said_no_lease: false,
            said_no_watch: false,
            last_cost_ns: 0,
            dir_cost_ns: 0,
            scan_dirs: 0,
            sieve: None,
            missed: BTreeSet::new(),
            missed_dirs: BTreeSet::new(),
            deleted: BTreeMap::new(),
        }
    }

    /// Whether what was listed, or is still to be, waits for the comparison at a scan's end: of one that is under way, or
    /// that waits for its root to be found.
    pub(super) fn is_to_scan(&self) -> bool {
        self.scan.is_some() || self.scan_again
    }

    /// The jobs that may start.
    pub(super) fn startable(&self) -> &Queue {
        self.claims
            .as_ref()
            .map_or(&self.queue, |claims| &claims.ready)
    }

    /// The same.
    pub(super) fn startable_mut(&mut self) -> &mut Queue {
        match &mut self.claims {
            Some(claims) => &mut claims.ready,
            None => &mut self.queue,
        }
    }

    /// A dead job holds up all others: where each key has one place, it holds that alone.
    pub fn is_halted(&self) -> bool {
        !self.plan.serial && !self.halted.is_empty()
    }

    /// Files found now are a baseline, not arrivals.
    pub fn is_baseline(&self) -> bool {
        !self.scanned_ever && self.plan.existing == crate::plan::Existing::Skip
    }
}
