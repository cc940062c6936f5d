//! What waits for one mount's scout: bounded in flight, so that a burst costs memory here only once.

use super::ask::Question;
use super::files::FileKey;
use super::ids::{DirId, JobId, MountId};
use super::time::Mono;
use super::timers::Timer;
use super::tree::Bind;
use super::turns::Turns;
use super::{Asked, Core, ScoutId};
use crate::plan::{Action, Observe, Order};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Listings in flight for one scout. A watch that has none may have one beyond that: the scout lists directories below
/// different bases in turns, and a large one of another watch must not keep it waiting.
const BINDS_MAX: usize = 16;
/// Probes in flight for one scout.
const PROBES_MAX: usize = 512;
/// As many go on where workers have no room.
const PROBES_BEHIND: usize = 32;
/// Looks at jobs' files in flight for one scout, besides the probes: a job that waits for its look leaves its place to
/// the next, so that `concurrency` does not bound them. As many as a worker's window usually has: with fewer, that many
/// go to a worker with each flush of the journal.
const LOOKS_MAX: usize = 256;
/// So many looks there may be beside any number of probes.
const LOOKS_BESIDE: usize = 32;
/// Both together.
const ASKED_MAX: usize = PROBES_MAX + LOOKS_BESIDE;

/// One mount.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// Directories to be bound and listed.
    pub binds: Turns<DirId>,
    /// Candidates to be probed.
    pub probes: Turns<FileKey>,
    /// Jobs whose files are to be looked at.
    pub looks: VecDeque<JobId>,
    binds_asked: usize,
    /// How many of them each watch has; none is zero.
    binds_of: BTreeMap<u32, usize>,
    probes_asked: usize,
    looks_asked: usize,
    /// Its scout's answers so far.
    pub answers: u64,
    /// Its scout has owed an answer for longer than usual.
    pub slow: bool,
    /// When its scout last answered something.
    done_at: Mono,
    /// Since when its scout is said not to answer.
    pub silent: Option<Mono>,
}

impl Lane {
    /// How much waits for its scout: what it was asked, and what it will be.
    pub fn waiting(&self) -> (usize, usize) {
        let asked = self.binds_asked + self.probes_asked + self.looks_asked;
        (
            asked,
            self.binds.len() + self.probes.len() + self.looks.len(),
        )
    }

    /// Its scout has given an answer that is of no use.
    pub fn says(&mut self, now: Mono) {
        self.done_at = now;
    }

    fn has_room_for_bind(&self) -> bool {
        self.binds.any(|watch| self.may_bind(watch))
    }

    fn may_bind(&self, watch: u32) -> bool {
        self.binds_asked < BINDS_MAX || !self.binds_of.contains_key(&watch)
    }

    fn next_bind(&mut self) -> Option<(u32, DirId)> {
        let mut binds = std::mem::take(&mut self.binds);
        let next = binds.pop_from(|watch| self.may_bind(watch));
        self.binds = binds;
        next
    }

    fn has_room_for_look(&self) -> bool {
        self.looks_asked < LOOKS_BESIDE
            || (self.looks_asked < LOOKS_MAX && self.looks_asked + self.probes_asked < ASKED_MAX)
    }

    fn has_room_for_probe(&self) -> bool {
        self.probes_asked < PROBES_MAX && self.looks_asked + self.probes_asked < ASKED_MAX
    }
}

impl Core {
    pub(super) fn lane(&mut self, mount: MountId) -> &mut Lane {
        self.lanes.entry(mount).or_default()
    }

    /// Whether a mount's directories are being listed, or will be once it answers.
    pub(super) fn lists(&self, mount: MountId) -> bool {
        self.lanes
            .get(&mount)
            .is_some_and(|lane| lane.binds_asked > 0 || !lane.binds.is_empty())
    }

    /// A directory's scan learns how long the scout was at it for this answer: since it was asked (at the earliest when the
    /// scan began), or gave its last answer to anything, for it does one thing at a time.
    pub(super) fn bind_took(&mut self, lane: MountId, dir: DirId, asked: Option<Mono>) {
        let now = self.now.mono;
        let free = std::mem::replace(&mut self.lane(lane).done_at, now);
        let Some(node) = self.tree.get(dir).filter(|node| node.in_scan) else {
            return;
        };
        let watch = self.watches.get_mut(node.watch as usize);
        if let Some(scan) = watch.and_then(|watch| watch.scan.as_mut()) {
            let begun = free.max(scan.started).max(asked.unwrap_or_default());
            scan.cost += now.since(begun);
        }
    }

    pub(super) fn bind_answered(&mut self, lane: MountId, watch: u32) {
        let now = self.now.mono;
        let of = self.lane(lane);
        of.binds_asked -= 1;
        if let Entry::Occupied(mut of_watch) = of.binds_of.entry(watch) {
            *of_watch.get_mut() -= 1;
            if *of_watch.get() == 0 {
                of_watch.remove();
            }
        }
        of.answers += 1;
        of.done_at = now;
        self.binds_asked -= 1;
        if self.binds_asked == 0 {
            // Whatever is still kept belongs to directories that are gone.
            self.stash.clear();
            self.dead_wds.clear();
            if std::mem::take(&mut self.stash_lost) {
                self.rescan_all("too many events of new directories");
            }
        }
    }

    pub(super) fn probe_answered(&mut self, lane: MountId) {
        let now = self.now.mono;
        let lane = self.lane(lane);
        lane.probes_asked -= 1;
        lane.answers += 1;
        lane.done_at = now;
    }

    pub(super) fn look_answered(&mut self, lane: MountId) {
        let now = self.now.mono;
        let lane = self.lane(lane);
        lane.looks_asked -= 1;
        lane.answers += 1;
        lane.done_at = now;
    }

    /// Takes a place for a look, if there is one; else the job waits for it.
    pub(super) fn may_look(&mut self, lane: MountId, job: JobId) -> bool {
        let lane = self.lane(lane);
        let free = lane.has_room_for_look();
        if free {
            lane.looks_asked += 1;
        } else {
            lane.looks.push_back(job);
        }
        free
    }

    /// Asks what the lanes have room for.
    pub(super) fn pump(&mut self) {
        if self.awaits_exports() {
            return;
        }
        let mounts: Vec<MountId> = self
            .lanes
            .iter()
            .filter(|(_, lane)| {
                lane.silent.is_none()
                    && (lane.has_room_for_bind()
                        || (!lane.looks.is_empty() && lane.has_room_for_look())
                        || (!lane.probes.is_empty() && lane.has_room_for_probe()))
            })
            .map(|(mount, _)| *mount)
            .collect();
        for mount in mounts {
            while let Some((watch, dir)) = self.lane(mount).next_bind() {
                // One that is gone may have left its number to another watch's, which has its own turn.
                if self.is_in(watch, dir) {
                    self.ask_bind(mount, dir);
                }
            }
            while self.lane(mount).has_room_for_look() {
                let Some(job) = self.lane(mount).looks.pop_front() else {
                    break;
                };
                self.ask_look(job);
            }
            self.pump_probes(mount);
        }
    }

    fn pump_probes(&mut self, mount: MountId) {
        let Some(mut probes) = self
            .lanes
            .get_mut(&mount)
            .map(|lane| std::mem::take(&mut lane.probes))
        else {
            return;
        };
        while let Some(lane) = self.lanes.get(&mount)
            && lane.has_room_for_probe()
        {
            let asked = lane.probes_asked;
            let Some(key) = probes.pop_front_of(|watch| asked < self.probes_of_use(watch)) else {
                break;
            };
            self.ask_probe(mount, key);
        }
        self.lane(mount).probes = probes;
    }

    /// How many files may be looked at at a time for a watch. What settles and is handed to a worker at once is looked at
    /// once; what has to wait for its place there is looked at twice: as many as its workers take, while nothing waits.
    /// Where the order of what is ready is not that of settling, as much as possible is to be ready: as many as the lane has
    /// room for.
    fn probes_of_use(&self, watch: u32) -> usize {
        let Some(state) = self.watches.get(watch as usize) else {
            return usize::MAX;
        };
        let at_once = matches!(state.plan.action, Action::Worker(_))
            && state.plan.order == Order::Arrival
            && state.plan.batch.is_none()
            && !state.queue.is_keyed();
        if !at_once {
            return usize::MAX;
        }
        let (room, all) = self.room_at_workers(state);
        match state.queue.len() <= room {
            true => PROBES_BEHIND.max(all),
            false => PROBES_BEHIND,
        }
    }

    /// A listing, or what may spare it, is on its way.
    pub(super) fn bind_goes(&mut self, lane: MountId, watch: u32) {
        let of = self.lane(lane);
        of.binds_asked += 1;
        *of.binds_of.entry(watch).or_default() += 1;
        self.binds_asked += 1;
    }

    pub(super) fn ask_bind(&mut self, lane: MountId, dir: DirId) {
        let place = self.tree.place(dir, b"");
        // Of a question before this one, or of a directory that had the id before.
        self.forget_told(dir);
        let Some(node) = self.tree.get_mut(dir) else {
            return;
        };
        if node.bind != Bind::Queued {
            return;
        }
        let Some(place) = place else {
            // The root went missing meanwhile; its return lists everything.
            node.bind = Bind::Idle;
            self.left_scan(dir);
            return;
        };
        if node.sparing && self.ask_moved(lane, dir) {
            return;
        }
        let now = self.now.mono;
        let Some(node) = self.tree.get_mut(dir) else {
            return;
        };
        node.bind = Bind::Asked;
        node.bound_at = now;
        node.flawed = false;
        node.asked_at = self.last_event;
        // From here on: what becomes known later than the question must not look unseen by its answer.
        node.mark = node.mark.wrapping_add(1);
        let watch = node.watch;
        let inotify = self
            .watches
            .get(watch as usize)
            .is_some_and(|watch| watch.plan.observe != Observe::Poll);
        self.bind_goes(lane, watch);
        let ask = self.ask(
            ScoutId::Mount(place.mount),
            Question::Bind {
                place,
                watch: inotify,
            },
            Asked::Bind { dir, lane, watch },
        );
        if let Some(node) = self.tree.get_mut(dir) {
            node.asked = ask;
        }
    }

    fn ask_probe(&mut self, lane: MountId, key: FileKey) {
        self.catch_up(key);
        let Some(candidate) = self.candidates.get(&key) else {
            return;
        };
        if !candidate.queued {
            return;
        }
        let place = self.tree.place(candidate.dir, &candidate.name);
        let full = self.wants_all(key);
        let flock = full && self.flock_wanted(key);
        let lease = full
            && place
                .as_ref()
                .is_some_and(|place| self.lease_can_be_trusted(place.mount));
        let Some(candidate) = self.candidates.get_mut(&key) else {
            return;
        };
        candidate.queued = false;
        let Some(place) = place else {
            // The root went missing meanwhile.
            self.timers.set(
                Timer::Candidate(key),
                self.now.mono.after(Duration::from_secs(1)),
            );
            return;
        };
        self.lane(lane).probes_asked += 1;
        let path = place.path();
        let ask = self.ask(
            ScoutId::Mount(place.mount),
            Question::Probe {
                place,
                lock: full,
                flock,
                lease,
            },
            Asked::Probe { key, lane, path },
        );
        let now = self.now.mono;
        if let Some(candidate) = self.candidates.get_mut(&key) {
            candidate.asked = Some(ask);
            candidate.asked_at = now;
            candidate.stale = false;
        }
    }
}
