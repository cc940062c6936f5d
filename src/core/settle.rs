//! The ladder of evidence (DESIGN, "Settle"): cheapest first; the first that is missing names what the
//! file waits for.

use super::Core;
use super::ask::{Facts, Fault, Held, Kind, Stat, Version};
use super::files::{CTIME_UNKNOWN, FileKey, Known, ctime_digest, version_digest};
use super::ids::{AskId, DirId};
use super::job::Phase;
use super::observe::errno_text;
use super::operate::Mode;
use super::record::Record;
use super::replay::remembered;
use super::time::{Mono, Wall};
use super::timers::Timer;
use crate::plan::{Level, OnCtime};
use std::time::Duration;

const ENOENT: i32 = 2;
const ENOTDIR: i32 = 20;

/// First and longest wait before a file that is held is asked again; doubles in between.
const REFUSED_FIRST: Duration = Duration::from_millis(100);
const REFUSED_MAX: Duration = Duration::from_secs(30);
/// A path re-run by its own job this many times in a row is held.
pub const RERUNS_MAX: u8 = 3;

/// What named the candidate, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// A listing.
    Scan,
    /// IN_CREATE: a link, or the beginning of a write.
    Link,
    /// IN_MOVED_TO.
    Moved,
    /// IN_CLOSE_WRITE.
    Close,
}

/// What a candidate waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// The answer of its probe.
    Probe,
    /// Quiet time.
    Quiet,
    /// A lock to be let go; the holder's pid where known.
    Lock(i32),
    /// A flock to be let go.
    Flock,
    /// A writer to close.
    Writer,
    /// To be old enough (`min_age`).
    Age,
    /// Its own job, which runs on the version before.
    Job,
    /// The end of a scan, which tells a renamed file from a new one.
    ScanEnd,
    /// Room in the journal.
    Room,
    /// The file cannot be looked at: errno.
    Errno(i32),
}

/// A file that some hint named, not yet judged. In a burst there are half a million, of which few were looked at. What is
/// said here of events holds once it has been told of those that concern all ([`Core::catch_up`]).
#[derive(Debug)]
pub struct Candidate {
    /// Its directory.
    pub dir: DirId,
    /// Its name.
    pub name: Box<[u8]>,
    /// The last signal.
    pub signal: Signal,
    /// A close-write was among them.
    pub closed: bool,
    /// When the last event came.
    pub hinted: Mono,
    /// When the first one did.
    pub since: Mono,
    /// Version and ctime last seen.
    pub seen: Option<Box<(Version, i64)>>,
    /// When they were first seen so.
    pub seen_at: Mono,
    /// The number of the last look or listing that saw them: of two names with one version, the file is under the
    /// one with the higher.
    pub sighted: u64,
    /// The question on its way.
    pub asked: Option<AskId>,
    /// When the last one went out: what it finds is from then or later, however late its answer comes.
    pub asked_at: Mono,
    /// An event came after that question.
    pub stale: bool,
    /// `seen` is from after the last event.
    pub fresh: bool,
    /// In its lane.
    pub queued: bool,
    /// Since when the lease has been granted each time that it was asked, with nothing seen or heard of the file.
    pub granted: Option<Mono>,
    /// Times in a row that somebody held it.
    pub refusals: u8,
    /// What it waits for.
    pub waits: Waits,
    /// How often it may have changed with all others, as far as it was told.
    pub upheavals: u32,
    /// A person was told that it waits.
    pub alerted: bool,
    /// Job changes in a row before this one, if an event came while its job ran.
    pub reruns: u8,
}

impl Candidate {
    /// Anything may have happened to it at that time.
    pub(super) fn anything_may_have_happened(&mut self, at: Mono) {
        // A close may be among it: what looked like a link may be a file half written.
        self.signal = Signal::Scan;
        self.hinted = at;
        self.granted = None;
        self.stale = self.asked.is_some();
        self.fresh = false;
    }

    /// Version and ctime last seen.
    pub(super) fn seen(&self) -> Option<(Version, i64)> {
        self.seen.as_deref().copied()
    }
}

impl Core {
    /// Something named a file. `stat` comes with a listing.
    pub(super) fn hint(
        &mut self,
        watch: u32,
        dir: DirId,
        name: &[u8],
        signal: Signal,
        stat: Option<Stat>,
    ) {
        // Of a directory that is gone nothing can be asked.
        if self.tree.get(dir).is_none() || !self.selects(watch, dir, name) {
            return;
        }
        let key = FileKey::new(dir, name);
        let now = self.now.mono;
        let reruns = match self.live_phase(key) {
            Some((id, Phase::Running { .. } | Phase::Orphaned { .. } | Phase::PostLook { .. })) => {
                self.jobs
                    .get(&id)
                    .map_or(0, |job| job.reruns.saturating_add(1))
            }
            _ => 0,
        };
        let upheavals = self.seen.upheavals();
        let candidate = self.candidates.entry(key).or_insert_with(|| {
            Box::new(Candidate {
                dir,
                name: name.into(),
                signal,
                closed: false,
                hinted: now,
                since: now,
                seen: None,
                seen_at: now,
                sighted: 0,
                asked: None,
                asked_at: now,
                stale: false,
                fresh: false,
                queued: false,
                granted: None,
                refusals: 0,
                waits: Waits::Probe,
                upheavals,
                alerted: false,
                reruns: 0,
            })
        });
        self.seen.tell(candidate);
        candidate.reruns = candidate.reruns.max(reruns);
        if signal == Signal::Scan {
            let Some(stat) = stat else { return };
            let seen = (stat.version, stat.ctime_ns);
            if candidate.seen.is_some() || candidate.asked.is_some() || candidate.queued {
                // Its own probes see what the listing saw, and later.
                let same = candidate.seen() == Some(seen);
                candidate.fresh &= same;
                if same {
                    self.sight(key);
                }
                return;
            }
            candidate.seen_at = now;
            candidate.fresh = true;
            self.see(key, Some(seen));
        } else {
            candidate.signal = signal;
            candidate.closed |= signal == Signal::Close;
            candidate.hinted = now;
            candidate.refusals = 0;
            candidate.granted = None;
            candidate.stale = candidate.asked.is_some();
            candidate.fresh = false;
            self.alert_waiting(key);
        }
        self.ask_when_due(key);
    }

    /// A file is there, and no event told how it came: quiet time is due, as after a close.
    pub(super) fn hint_unheard(&mut self, watch: u32, dir: DirId, name: &[u8]) {
        self.hint(watch, dir, name, Signal::Close, None);
        if let Some(candidate) = self.candidates.get_mut(&FileKey::new(dir, name)) {
            candidate.signal = Signal::Scan;
            candidate.closed = false;
        }
    }

    pub(super) fn queue_probe(&mut self, key: FileKey) {
        self.timers.clear(Timer::Candidate(key));
        let Some(candidate) = self.candidates.get_mut(&key) else {
            return;
        };
        if candidate.asked.is_some() || candidate.queued {
            return;
        }
        match self.tree.mount(candidate.dir) {
            Some(mount) => {
                candidate.queued = true;
                let watch = self.tree.get(candidate.dir).map_or(0, |node| node.watch);
                self.lane(mount).probes.push_back(watch, key);
            }
            None => {
                // The root is missing; the scan at its return does not name what is a candidate
                // already, so this asks again then.
                self.timers.set(
                    Timer::Candidate(key),
                    self.now.mono.after(Duration::from_secs(1)),
                );
            }
        }
    }

    pub(super) fn candidate_due(&mut self, key: FileKey) {
        self.queue_probe(key);
    }

    pub(super) fn drop_candidate(&mut self, key: FileKey) {
        if self.take_candidate(key).is_some() {
            self.timers.clear(Timer::Candidate(key));
            self.scan_awaits_not(key);
        }
    }

    /// A probe's answer.
    pub(super) fn probed(
        &mut self,
        ask: AskId,
        key: FileKey,
        path: Vec<u8>,
        result: Result<Facts, Fault>,
    ) {
        self.judge(ask, key, path, result);
        self.alert_waiting(key);
        if self
            .candidates
            .get(&key)
            .is_none_or(|candidate| candidate.fresh)
        {
            self.scan_awaits_not(key);
        } else {
            self.scan_awaits_once_more(key);
        }
    }

    /// Judges a candidate by what its probe found.
    fn judge(&mut self, ask: AskId, key: FileKey, path: Vec<u8>, result: Result<Facts, Fault>) {
        self.catch_up(key);
        let Some(candidate) = self.candidates.get_mut(&key) else {
            return;
        };
        if candidate.asked != Some(ask) {
            return;
        }
        candidate.asked = None;
        let stale = std::mem::take(&mut candidate.stale);
        let dir = candidate.dir;
        if self.tree.is_at(dir, &candidate.name, &path) == Some(false) {
            // Its directory was renamed since the question: no look before a hand-over is spared for this one.
            self.renamed = Some(self.now.mono);
        }
        let Some(watch) = self.tree.get(dir).map(|node| node.watch) else {
            self.drop_candidate(key);
            return;
        };
        let facts = match result {
            Ok(facts) => facts,
            Err(fault) => {
                self.probe_failed(watch, key, path, stale, fault);
                return;
            }
        };
        if facts.stat.kind != Kind::File {
            self.drop_candidate(key);
            return;
        }
        let now = self.now.mono;
        let seen = (facts.stat.version, facts.stat.ctime_ns);
        let Some(candidate) = self.candidates.get_mut(&key) else {
            return;
        };
        if candidate.seen().map(|(version, _)| version) != Some(seen.0) {
            candidate.seen_at = now;
            candidate.granted = None;
        }
        if let Some((before, _)) = candidate.seen()
            && (before.ino, before.btime_ns) == (seen.0.ino, seen.0.btime_ns)
            && before != seen.0
            && matches!(candidate.signal, Signal::Moved | Signal::Link)
        {
            // Written after it was linked or renamed: its writer's close may go by another name.
            candidate.signal = Signal::Close;
        }
        if candidate.fresh
            && candidate.seen().is_some_and(|(before, _)| {
                (before.ino, before.btime_ns) != (seen.0.ino, seen.0.btime_ns)
            })
        {
            // Another file is here, and nothing was heard of it: what was heard before was of the one before.
            candidate.signal = Signal::Scan;
            candidate.closed = false;
        }
        // A listing found another file here: whether this one was known under another name, the next tells.
        let another = candidate.signal == Signal::Scan
            && candidate.seen().is_some_and(|(before, _)| {
                (before.ino, before.btime_ns) != (seen.0.ino, seen.0.btime_ns)
            });
        let closed = candidate.closed;
        self.see(key, Some(seen));
        // A name that changed hands unheard; where the listing showed none, this is the first word of it.
        self.note_displaced(watch, key, &facts.stat.version);
        if stale {
            // What was asked before the last event says nothing about after it.
            self.ask_when_due(key);
            return;
        }
        if let Some(candidate) = self.candidates.get_mut(&key) {
            candidate.fresh = true;
        }
        if self.is_concluded(watch, key, &facts.stat, closed) {
            self.learn_ctime(key, &facts.stat);
            // A scan under way may have missed it before it came back.
            let mark = self.tree.get(dir).map_or(0, |node| node.mark);
            self.file_seen(key, mark, Some(&facts.stat.version));
            let owed = self.job_of.get(&key).and_then(|id| self.jobs.get(id));
            if owed.is_none_or(|job| job.version == facts.stat.version) {
                self.mark_job(key, mark);
            } else {
                // What was done with long ago is here again, in place of the job's file.
                self.look_if_halted(key);
            }
            self.drop_candidate(key);
            return;
        }
        if another {
            self.start_scan(watch);
            if self.may_be_known(watch, version_digest(&facts.stat.version)) {
                self.hold(key, Waits::ScanEnd);
                return;
            }
        }
        if !self.of_size_and_age(watch, key, &facts.stat.version) {
            return;
        }
        if let Some(waits) = held(&facts) {
            self.refused(key, waits);
            return;
        }
        if facts.lock == Held::NotAsked {
            self.ask_when_due(key);
            return;
        }
        if let Held::CannotAsk(errno) = facts.lease {
            self.say_no_lease(watch, key, errno);
        }
        // Not asked in a full probe: on this mount a lease proves nothing.
        let lease = match facts.lease {
            Held::NotAsked => Held::CannotAsk(0),
            lease => lease,
        };
        let patience = self.patience(key, lease);
        let Some(candidate) = self.candidates.get_mut(&key) else {
            return;
        };
        if lease == Held::Free {
            candidate.granted.get_or_insert(now);
        }
        let until = patience.over_at(candidate);
        if !patience.quiet.is_zero() && until > candidate.asked_at {
            candidate.waits = Waits::Quiet;
            // Over by now, perhaps; but nobody has looked since.
            self.timers.set(Timer::Candidate(key), until);
            return;
        }
        self.settled(watch, key, facts.stat);
    }

    fn probe_failed(&mut self, watch: u32, key: FileKey, path: Vec<u8>, stale: bool, fault: Fault) {
        let bound = self.is_bound(watch);
        let Some(candidate) = self.candidates.get_mut(&key) else {
            return;
        };
        let moved = self
            .tree
            .is_at(candidate.dir, &candidate.name, &path)
            .is_none_or(|there| !there);
        match fault {
            Fault::Here(ENOENT | ENOTDIR) | Fault::Crossed(_) if !bound => {
                self.refused(key, Waits::Probe);
            }
            Fault::Here(ENOENT | ENOTDIR) | Fault::Crossed(_) if !stale && !moved => {
                let (dir, seen) = (candidate.dir, candidate.seen.is_some());
                self.wanted_is_gone(key);
                self.drop_candidate(key);
                // Seen, and where events tell, one would have told that it went: perhaps its directory did.
                if seen && self.tree.get(dir).is_some_and(|node| node.wd.is_some()) {
                    self.queue_bind(dir);
                }
            }
            Fault::Here(ENOENT | ENOTDIR) | Fault::Crossed(_) => self.queue_probe(key),
            Fault::Base(_) => {
                self.resolve_root(watch);
                self.refused(key, Waits::Probe);
            }
            Fault::Here(errno) => {
                let first = candidate.refusals == 0;
                let (dir, name) = (candidate.dir, candidate.name.clone());
                if first {
                    let text = format!("cannot be looked at: {}; trying again", errno_text(errno));
                    self.log_path(Level::Error, watch, dir, &name, text);
                }
                self.refused(key, Waits::Errno(errno));
            }
        }
    }

    /// Somebody holds the file: it is asked again, less and less often, and at every event.
    fn refused(&mut self, key: FileKey, waits: Waits) {
        let now = self.now.mono;
        let Some(candidate) = self.candidates.get_mut(&key) else {
            return;
        };
        let wait = REFUSED_FIRST
            .saturating_mul(1 << u32::from(candidate.refusals.min(16)))
            .min(REFUSED_MAX);
        let first = candidate.refusals == 0;
        candidate.refusals = candidate.refusals.saturating_add(1);
        candidate.granted = None;
        candidate.waits = waits;
        let (dir, name) = (candidate.dir, candidate.name.clone());
        self.timers.set(Timer::Candidate(key), now.after(wait));
        if first
            && self.daemon.log_level >= Level::Debug
            && let Some(watch) = self.tree.get(dir).map(|node| node.watch)
        {
            self.log_path(Level::Debug, watch, dir, &name, waits.to_string());
        }
    }

    fn say_no_lease(&mut self, watch: u32, key: FileKey, errno: i32) {
        let Some(state) = self.watches.get_mut(watch as usize) else {
            return;
        };
        if std::mem::replace(&mut state.said_no_lease, true) {
            return;
        }
        let Some(candidate) = self.candidates.get(&key) else {
            return;
        };
        let (dir, name) = (candidate.dir, candidate.name.clone());
        let text = format!(
            "the kernel cannot be asked whether a writer has the file open ({}): quiet time alone \
             decides; run as the files' owner or with CAP_LEASE",
            errno_text(errno)
        );
        self.log_path(Level::Warning, watch, dir, &name, text);
    }

    /// Selection by size and age. A file that is too young waits; any other is judged again at its next event.
    fn of_size_and_age(&mut self, watch: u32, key: FileKey, version: &Version) -> bool {
        let Some(state) = self.watches.get(watch as usize) else {
            return false;
        };
        let select = &state.plan.select;
        let age = self.now.wall.since(Wall(version.mtime_ns));
        let size_ok = select.min_size.is_none_or(|min| version.size >= min)
            && select.max_size.is_none_or(|max| version.size <= max);
        if !size_ok {
            self.wanted_has_not_its_size(watch, key, version.size);
            self.drop_candidate(key);
            return false;
        }
        if select.ignore_older.is_some_and(|limit| age > limit) && !self.wanted.has(key) {
            self.drop_candidate(key);
            return false;
        }
        if let Some(min) = select.min_age
            && age < min
        {
            let at = self.now.mono.after(min - age);
            if let Some(candidate) = self.candidates.get_mut(&key) {
                candidate.waits = Waits::Age;
            }
            self.timers.set(Timer::Candidate(key), at);
            return false;
        }
        true
    }

    /// Whether this version was concluded before, or is owed already.
    pub(super) fn is_concluded(&self, watch: u32, key: FileKey, stat: &Stat, closed: bool) -> bool {
        let only_ctime = |ctime_is_same: bool| {
            // A rewrite that put the mtime back, or only a chmod: a close tells them apart.
            ctime_is_same
                || (!closed
                    && self
                        .watches
                        .get(watch as usize)
                        .is_some_and(|watch| watch.plan.on_ctime == OnCtime::Ignore))
        };
        if let Some((id, phase)) = self.live_phase(key)
            && let Some(job) = self.jobs.get(&id)
            && job.version == stat.version
        {
            match phase {
                // The attempt to come reads what is there then.
                Phase::Ready
                | Phase::Backoff
                | Phase::Halted
                | Phase::Handing { .. }
                | Phase::Looking => return true,
                Phase::Running { .. } | Phase::Orphaned { .. } | Phase::PostLook { .. } => {
                    return only_ctime(job.ctime_ns == 0 || job.ctime_ns == stat.ctime_ns);
                }
                Phase::Disposing { .. } => {}
            }
        }
        let Some(known) = self.files.get(key).filter(|known| !known.gone) else {
            return false;
        };
        if known.version != version_digest(&stat.version) {
            return false;
        }
        only_ctime(known.ctime == CTIME_UNKNOWN || known.ctime == ctime_digest(stat.ctime_ns))
    }

    /// A concluded file was looked at for the first time since it was renamed.
    fn learn_ctime(&mut self, key: FileKey, stat: &Stat) {
        let Some(known) = self.files.get(key).copied() else {
            return;
        };
        if known.ctime == CTIME_UNKNOWN && known.version == version_digest(&stat.version) {
            let known = Known {
                ctime: ctime_digest(stat.ctime_ns),
                ..known
            };
            self.files.put(key, known);
            self.append(remembered(key, &known));
        }
    }

    /// The evidence is all there.
    fn settled(&mut self, watch: u32, key: FileKey, stat: Stat) {
        let told = self.is_told(watch);
        let Some(candidate) = self.candidates.get(&key) else {
            return;
        };
        let Some(state) = self.watches.get(watch as usize) else {
            return;
        };
        if !self.room || self.mode != Mode::Running {
            self.hold(key, Waits::Room);
            return;
        }
        // A rename of which only the arrival was heard may have begun where no listing has been yet, or in a directory
        // that cannot be read; one of which nothing was heard, where the last listing was before it, in the first scan of
        // all, too: what that has found may be concluded before it ends. A scan that waits for its root to be found has still
        // to compare what the one before has listed.
        let compared = state
            .compared
            .is_some_and(|began| candidate.seen_at < began);
        let scans = state.is_to_scan();
        let unheard = !compared && !told;
        if (unheard || self.tree.any_deaf(watch) || state.history && scans)
            && self.may_be_known(watch, version_digest(&stat.version))
        {
            self.hold(key, Waits::ScanEnd);
            self.set_poll(watch);
            return;
        }
        if let Some((id, phase)) = self.live_phase(key) {
            match phase {
                Phase::Ready | Phase::Backoff | Phase::Halted => self.supersede(id),
                // Its file is away, with the directory that lay here: this one need not wait for its return.
                Phase::Disposing { .. }
                    if self.files.get(key).is_some_and(|known| known.away)
                        && self
                            .jobs
                            .get(&id)
                            .is_some_and(|job| job.version != stat.version) =>
                {
                    if scans {
                        // Or it was renamed before that: then the scan finds it, and its job goes along.
                        self.hold(key, Waits::ScanEnd);
                        return;
                    }
                    self.lose_file(key);
                }
                Phase::Running { .. }
                | Phase::Orphaned { .. }
                | Phase::Handing { .. }
                | Phase::Looking
                | Phase::PostLook { .. }
                | Phase::Disposing { .. } => {
                    // What is to be disposed of is another version now, whatever kept it from that. One that a
                    // disposition has put back waits for its next try.
                    let overdue = matches!(phase, Phase::Disposing { .. })
                        && self
                            .jobs
                            .get(&id)
                            .is_some_and(|job| job.version != stat.version);
                    if let Some(candidate) = self.candidates.get_mut(&key) {
                        candidate.waits = Waits::Job;
                    }
                    if overdue {
                        self.ask_dispose(id);
                    }
                    return;
                }
            }
        }
        let Some(candidate) = self.take_candidate(key) else {
            return;
        };
        self.timers.clear(Timer::Candidate(key));
        self.arrive(watch, key, *candidate, stat);
    }

    /// Judges again everything in `watch` that waited for `what`.
    pub(super) fn release(&mut self, watch: u32, what: Waits) {
        let keys: Vec<FileKey> = self.held(watch, what).map(|(key, _)| key).collect();
        for key in keys {
            self.queue_probe(key);
        }
    }

    /// A job is over: a newer version that waited for it is judged again.
    pub(super) fn release_key(&mut self, key: FileKey) {
        if self
            .candidates
            .get(&key)
            .is_some_and(|candidate| candidate.waits == Waits::Job)
        {
            self.queue_probe(key);
        }
    }

    /// A file that was there before the watch was: remembered, and left.
    pub(super) fn baseline(&mut self, dir: DirId, name: &[u8], stat: &Stat) {
        self.record_dir(dir);
        self.append(Record::Baseline {
            dir,
            name: name.to_vec(),
            version: stat.version,
            ctime_ns: stat.ctime_ns,
        });
        let mark = self.tree.get(dir).map_or(0, |node| node.mark);
        self.remember(FileKey::new(dir, name), &stat.version, stat.ctime_ns, mark);
    }

    /// Remembers a version as concluded, last seen by the listing with `mark`.
    pub(super) fn remember(&mut self, key: FileKey, version: &Version, ctime_ns: i64, mark: u8) {
        if self.tree.get(key.dir()).is_none() {
            // Its directory went while its job ran: there is no path to remember it by.
            return;
        }
        let digest = version_digest(version);
        self.replaced_by(key, digest);
        if let Some(watch) = self.tree.get(key.dir()).map(|node| node.watch) {
            self.is_known_now(watch, digest);
        }
        self.files.put(
            key,
            Known {
                version: digest,
                ctime: ctime_digest(ctime_ns),
                at_s: self.seconds(),
                gone: false,
                away: false,
                mark,
            },
        );
    }
}

/// Who holds the file, if anybody does.
fn held(facts: &Facts) -> Option<Waits> {
    if let Held::By(pid) = facts.lock {
        return Some(Waits::Lock(pid));
    }
    if let Held::By(_) = facts.flock {
        return Some(Waits::Flock);
    }
    if let Held::By(_) = facts.lease {
        return Some(Waits::Writer);
    }
    None
}

impl std::fmt::Display for Waits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Waits::Probe => write!(f, "waits to be looked at"),
            Waits::Quiet => write!(f, "waits for quiet time"),
            Waits::Lock(pid) if *pid > 0 => write!(f, "waits: process {pid} holds a lock"),
            Waits::Lock(_) => write!(f, "waits: somebody holds a lock"),
            Waits::Flock => write!(f, "waits: somebody holds a flock"),
            Waits::Writer => write!(f, "waits: somebody has it open for writing"),
            Waits::Age => write!(f, "waits to be older than min_age"),
            Waits::Job => write!(f, "waits for its job on the version before"),
            Waits::ScanEnd => write!(f, "waits for the end of the scan"),
            Waits::Room => write!(f, "waits for room in the journal"),
            Waits::Errno(errno) => write!(f, "cannot be looked at: {}", errno_text(*errno)),
        }
    }
}
