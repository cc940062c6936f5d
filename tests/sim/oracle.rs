//! What was promised (DESIGN, "Promises"), checked against what happened. It knows the disk and what the
//! daemon made durable and did, and nothing of how the core decides.

use crate::children::Child;
use crate::disk::*;
use settled::core::ask::{Act, Facts, Held, Version};
use settled::core::files::name_hash;
use settled::core::ids::{DirId, JobId, WatchId};
use settled::core::record::*;
use settled::core::select::Verdict;
use settled::plan::{Existing, OnChange, OnCtime, WatchPlan};
use std::collections::{BTreeMap, BTreeSet};

/// What a watch covers, by real path.
#[derive(Clone, Debug)]
pub struct Covers {
    pub root: Vec<u8>,
    pub plan: WatchPlan,
}

impl Covers {
    /// Whether the file `name` in the directory at `dir` is this watch's.
    pub fn file(&self, dir: &[u8], name: &[u8]) -> bool {
        let Some(rel) = self.rel_dir(dir) else {
            return false;
        };
        if name.starts_with(b".settled-") {
            return false;
        }
        let mut rel = rel;
        if !rel.is_empty() {
            rel.push(b'/');
        }
        rel.extend_from_slice(name);
        !self.own(&rel) && self.plan.select.file(&rel) == Verdict::Yes
    }

    fn own(&self, rel: &[u8]) -> bool {
        self.plan.excluded.iter().any(|path| below(rel, path))
    }

    /// Path below the root of a directory that this watch enters.
    pub fn rel_dir(&self, dir: &[u8]) -> Option<Vec<u8>> {
        if !below(dir, &self.root) {
            return None;
        }
        let rel = dir[self.root.len()..].strip_prefix(b"/").unwrap_or(b"");
        if rel.is_empty() {
            return Some(Vec::new());
        }
        if !self.plan.recursive {
            return None;
        }
        let mut end = 0;
        while end < rel.len() {
            end += rel[end..]
                .iter()
                .position(|&b| b == b'/')
                .unwrap_or(rel.len() - end);
            if self.own(&rel[..end]) || self.plan.select.enter(&rel[..end]) != Verdict::Yes {
                return None;
            }
            end += 1;
        }
        Some(rel.to_vec())
    }
}

/// One job as the journal and the world saw it.
#[derive(Debug, Default)]
pub struct Ledger {
    pub watch: usize,
    pub started: u32,
    /// The last of its records is `Started`, or an end that was cut short.
    pub open: bool,
    pub cut: bool,
    pub failed_known: u32,
    /// Version and content of each run that succeeded.
    pub succeeded: Vec<(Version, u64)>,
    pub concluded: Option<Outcome>,
    pub version: Option<Version>,
    pub disposal: Option<Disposal>,
    pub disposed: bool,
    pub key: Option<Vec<u8>>,
    /// Where it settled; nothing once something of its path was renamed.
    pub place: Option<(DirId, [u8; 12])>,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Count {
    pub done: u64,
    /// Of those, with the file left where it is.
    pub left: u64,
    pub baseline: u64,
}

#[derive(Debug, Default)]
pub struct Oracle {
    pub watches: Vec<Covers>,
    pub jobs: BTreeMap<JobId, Ledger>,
    pub allowed: BTreeMap<(usize, Version), u64>,
    pub counts: BTreeMap<(usize, Version), Count>,
    pub violation: Option<String>,
    watch_ids: BTreeMap<WatchId, usize>,
    scanned: Vec<WatchId>,
    dirs: BTreeMap<DirId, WatchId>,
    /// Versions that a full probe has found free of writers and locks, as far as it could ask.
    free: BTreeSet<Version>,
    last_job: u64,
}

impl Oracle {
    pub fn new(watches: Vec<Covers>) -> Oracle {
        Oracle {
            watches,
            ..Oracle::default()
        }
    }

    pub fn broken(&mut self, text: String) {
        if self.violation.is_none() {
            self.violation = Some(text);
        }
    }

    // ---- the disk changed ----

    /// Counts how often each version may be concluded: once for each time a name of it came to be.
    pub fn observe(&mut self, disk: &mut Disk) {
        for change in std::mem::take(&mut disk.changes) {
            match change {
                Change::Content(uid) => {
                    for (parent, name) in disk.paths_of(uid) {
                        self.allow(disk, uid, parent, &name, None);
                    }
                }
                Change::Linked { inode, dent } => {
                    let name = disk.names[dent].clone();
                    self.allow(disk, inode, name.parent, &name.name, None);
                }
                Change::Moved {
                    inode,
                    from,
                    was,
                    dent,
                } => {
                    let name = disk.names[dent].clone();
                    let old = disk.path_of_dir(from);
                    if disk.inodes[inode].dir {
                        let old = old.map(|mut path| {
                            path.push(b'/');
                            path.extend_from_slice(&was);
                            path
                        });
                        self.allow_below(disk, inode, old.as_deref());
                    } else {
                        // Between a watched directory and a polled one, a rename is a removal and an arrival.
                        let torn = disk.notify.watches_max < 100;
                        let old = old.filter(|_| !torn).map(|path| (path, was));
                        self.allow(disk, inode, name.parent, &name.name, old);
                    }
                }
                Change::IdleClose(uid) => {
                    // A close-write or chmod that moved nothing: may be taken for a rewrite.
                    for (parent, name) in disk.paths_of(uid) {
                        self.allow(disk, uid, parent, &name, None);
                    }
                }
                Change::Ctime(uid) => {
                    if self
                        .watches
                        .iter()
                        .any(|watch| watch.plan.on_ctime == OnCtime::Run)
                        && !disk.inodes[uid].dir
                    {
                        for (parent, name) in disk.paths_of(uid) {
                            self.allow(disk, uid, parent, &name, None);
                        }
                    }
                }
            }
        }
    }

    fn allow(
        &mut self,
        disk: &Disk,
        uid: Uid,
        parent: Uid,
        name: &[u8],
        old: Option<(Vec<u8>, Vec<u8>)>,
    ) {
        let Some(dir) = disk.path_of_dir(parent) else {
            return;
        };
        let version = disk.version(uid);
        for (index, watch) in self.watches.iter().enumerate() {
            let was = old
                .as_ref()
                .is_some_and(|(dir, name)| watch.file(dir, name));
            if !was && watch.file(&dir, name) {
                *self.allowed.entry((index, version)).or_default() += 1;
            }
        }
    }

    fn allow_below(&mut self, disk: &Disk, dir: Uid, old: Option<&[u8]>) {
        for (name, dent) in &disk.inodes[dir].entries {
            let uid = disk.names[*dent].inode;
            let below = old.map(|path| [path, b"/", name].concat());
            if disk.inodes[uid].dir {
                self.allow_below(disk, uid, below.as_deref());
            } else {
                let was = old.map(|path| (path.to_vec(), name.clone()));
                self.allow(disk, uid, dir, name, was);
            }
        }
    }

    // ---- what the daemon was told ----

    pub fn told(&mut self, facts: &Facts) {
        let held = |held: Held| matches!(held, Held::By(_));
        if facts.lock != Held::NotAsked && !held(facts.lock) && !held(facts.lease) {
            self.free.insert(facts.stat.version);
        }
    }

    /// The mover has unlinked a file for good.
    pub fn unlinked(&mut self, version: &Version) {
        let concluded = |(_, count): (&(usize, Version), &Count)| count.done > 0;
        let mut of_it = self.counts.iter().filter(|((_, v), _)| v == version);
        if !of_it.any(concluded) {
            self.broken(format!("{version:?} is unlinked and was never concluded"));
        }
    }

    /// Whether a job is concluded, and its file is nowhere where its watch looks.
    pub fn waits_for_return(&self, record: &Record, disk: &Disk) -> bool {
        let Record::Settled { job, version, .. } = record else {
            return false;
        };
        let Some(ledger) = self.jobs.get(job) else {
            return false;
        };
        let watch = &self.watches[ledger.watch];
        let there = (0..disk.inodes.len())
            .filter(|uid| disk.version(*uid) == *version)
            .flat_map(|uid| disk.paths_of(uid))
            .filter_map(|(parent, _)| disk.path_of_dir(parent))
            .any(|dir| watch.rel_dir(&dir).is_some());
        ledger.concluded.is_some() && !ledger.disposed && !there
    }

    // ---- records became durable ----

    pub fn record(&mut self, record: &Record, disk: &Disk) {
        match record {
            Record::Watch { watch, name } => {
                if let Some(index) = self.watches.iter().position(|w| &w.plan.name == name) {
                    self.watch_ids.insert(*watch, index);
                }
            }
            Record::Scanned { watch } => self.scanned.push(*watch),
            Record::Dir {
                dir, watch, parent, ..
            } => {
                if *parent != DirId(0) && !self.dirs.contains_key(parent) {
                    self.broken(format!("{record:?}: its parent was not recorded"));
                }
                if self.dirs.insert(*dir, *watch).is_some() {
                    // Said again: it may have been renamed, and what lies below it with it.
                    for ledger in self.jobs.values_mut() {
                        ledger.place = None;
                    }
                }
            }
            Record::DirGone { dir } => {
                if self.dirs.remove(dir).is_none() {
                    self.broken(format!("{record:?}: never recorded"));
                }
            }
            Record::Settled {
                job,
                dir,
                name,
                version,
                ..
            } => {
                if !self.free.contains(version) {
                    self.broken(format!("{record:?}: never told that nobody holds it"));
                }
                let watch = self.watch_of(*dir, record);
                if job.0 <= self.last_job {
                    self.broken(format!("{record:?}: the number was used before"));
                }
                self.last_job = job.0;
                self.jobs.insert(
                    *job,
                    Ledger {
                        watch,
                        place: Some((*dir, name_hash(name))),
                        ..Ledger::default()
                    },
                );
            }
            Record::Baseline { dir, version, .. } => {
                let watch = self.watch_of(*dir, record);
                let id = self.dirs.get(dir).copied().unwrap_or_default();
                if self.watches[watch].plan.existing != Existing::Skip || self.scanned.contains(&id)
                {
                    self.broken(format!("{record:?}: no baseline here, or no longer"));
                }
                self.counts.entry((watch, *version)).or_default().baseline += 1;
            }
            Record::Started { job, attempt } => {
                let Some(ledger) = self.jobs.get_mut(job) else {
                    return self.broken(format!("{record:?}: no such job"));
                };
                let text = match ledger.concluded {
                    Some(outcome) => Some(format!("{record:?}: concluded before: {outcome:?}")),
                    None if *attempt != ledger.started + 1 => {
                        Some(format!("{record:?}: after attempt {}", ledger.started))
                    }
                    None => None,
                };
                ledger.started = *attempt;
                ledger.cut = ledger.open;
                ledger.open = true;
                if let Some(text) = text {
                    self.broken(text);
                }
            }
            Record::Ended {
                job,
                end,
                counted,
                attempt,
                ..
            } => {
                let Some(ledger) = self.jobs.get_mut(job) else {
                    return self.broken(format!("{record:?}: no such job"));
                };
                ledger.open = *end == AttemptEnd::CutShort;
                let free = matches!(
                    end,
                    AttemptEnd::CutShort | AttemptEnd::NotTheFile | AttemptEnd::StillWritten
                ) || matches!(end, AttemptEnd::NotStarted { step: 1 | 2, .. });
                if !free {
                    ledger.failed_known += 1;
                }
                let text = if *counted != ledger.failed_known || *attempt != ledger.started {
                    Some(format!(
                        "{record:?}: {} failed, attempt {} was begun",
                        ledger.failed_known, ledger.started
                    ))
                } else if *counted >= self.watches[ledger.watch].plan.attempts {
                    Some(format!("{record:?}: no attempt is left"))
                } else {
                    None
                };
                if let Some(text) = text {
                    self.broken(text);
                }
            }
            Record::Concluded {
                job,
                outcome,
                end,
                disposal,
                version,
                ..
            } => self.concluded(*job, *outcome, *end, disposal, version, record, disk),
            Record::Retarget { job, rel } => {
                if let Some(ledger) = self.jobs.get_mut(job)
                    && let Some(Disposal::Move { rel: old, .. }) = &mut ledger.disposal
                {
                    *old = rel.clone();
                }
            }
            Record::Disposed { job, how } => {
                let Some(ledger) = self.jobs.get_mut(job) else {
                    return self.broken(format!("{record:?}: no such job"));
                };
                if *how != DisposedHow::Done
                    && let Some(version) = ledger.version
                {
                    // Taken away before its disposition: wherever it turns up again, it is a new arrival.
                    *self.allowed.entry((ledger.watch, version)).or_default() += 1;
                }
                if ledger.concluded.is_none() || ledger.disposed {
                    self.broken(format!(
                        "{record:?}: not concluded, or disposed before: {how:?}"
                    ));
                } else {
                    ledger.disposed = true;
                }
            }
            Record::Renamed { dir, name_hash, .. } => {
                for ledger in self.jobs.values_mut() {
                    if ledger.place == Some((*dir, *name_hash)) {
                        ledger.place = None;
                    }
                }
            }
            Record::Gone { .. } | Record::Remembered { .. } => {}
        }
    }

    fn watch_of(&mut self, dir: DirId, record: &Record) -> usize {
        let found = self
            .dirs
            .get(&dir)
            .and_then(|id| self.watch_ids.get(id))
            .copied();
        match found {
            Some(watch) => watch,
            None => {
                self.broken(format!("{record:?}: its directory was not recorded"));
                0
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn concluded(
        &mut self,
        job: JobId,
        outcome: Outcome,
        end: Option<AttemptEnd>,
        disposal: &Disposal,
        version: &Version,
        record: &Record,
        _disk: &Disk,
    ) {
        let Some(ledger) = self.jobs.get_mut(&job) else {
            return self.broken(format!("{record:?}: no such job"));
        };
        let plan = &self.watches[ledger.watch].plan;
        let mut wrong = None;
        let accepted =
            outcome == Outcome::Done && !ledger.succeeded.iter().any(|(ran, _)| ran == version);
        if let Some(before) = ledger.concluded {
            wrong = Some(format!("concluded before: {before:?}"));
        }
        ledger.concluded = Some(outcome);
        ledger.version = Some(*version);
        ledger.open = false;
        ledger.disposal = Some(disposal.clone());
        match outcome {
            Outcome::Done => {
                if plan.on_change == OnChange::Run
                    && !ledger.succeeded.iter().any(|(ran, _)| ran == version)
                    || ledger.succeeded.is_empty()
                {
                    wrong = Some(format!(
                        "no run of this version succeeded: {:?}",
                        ledger.succeeded
                    ));
                }
            }
            Outcome::Dead => {
                let fatal = end == Some(AttemptEnd::Exit(65));
                if !fatal && ledger.failed_known + 1 < plan.attempts {
                    wrong = Some(format!(
                        "only {} of {} attempts failed",
                        ledger.failed_known + 1,
                        plan.attempts
                    ));
                }
            }
            Outcome::Superseded | Outcome::Gone | Outcome::Held => {}
        }
        if matches!(outcome, Outcome::Done | Outcome::Dead | Outcome::Held) {
            let count = self.counts.entry((ledger.watch, *version)).or_default();
            // `accept` concludes what lies there without having run on it: no repetition.
            if !accepted || count.done == 0 {
                count.done += 1;
            }
            if *disposal == Disposal::Keep {
                count.left += 1;
            }
        }
        if let Some(wrong) = wrong {
            self.broken(format!("{record:?}: {wrong}"));
        }
    }

    // ---- effects ----

    /// A child is spawned. `alive` are the others of this life that the core has not seen end.
    pub fn spawned(&mut self, child: &Child, alive: &[&Child], concurrency: u32) {
        let order = &child.order;
        let env = |name: &str| {
            order
                .env
                .iter()
                .find(|(key, _)| key == name.as_bytes())
                .map(|(_, value)| value.clone())
        };
        let recovered = env("SETTLED_RECOVERED").is_some();
        let attempt = env("SETTLED_ATTEMPT").unwrap_or_default();
        let Some(ledger) = self.jobs.get_mut(&order.job) else {
            return self.broken(format!("{:?} is run and was never settled", order.job));
        };
        let plan = &self.watches[ledger.watch].plan;
        let mut wrong = None;
        if order.watch != plan.name {
            wrong = Some(format!("job of {} is run by {}", plan.name, order.watch));
        }
        if ledger.started != order.attempt
            || attempt != ledger.started.to_string().as_bytes()
            || !ledger.open
            || ledger.concluded.is_some()
        {
            wrong = Some("its start was not recorded first".into());
        }
        if recovered != ledger.cut {
            wrong = Some(format!(
                "the attempt before was{} cut short, and SETTLED_RECOVERED is{} set",
                if ledger.cut { "" } else { " not" },
                if recovered { "" } else { " not" },
            ));
        }
        if ledger.failed_known >= plan.attempts {
            wrong = Some(format!("{} attempts failed before", ledger.failed_known));
        }
        let of_watch = alive.iter().filter(|c| c.watch == ledger.watch).count();
        if alive.len() >= concurrency as usize || of_watch >= plan.concurrency as usize {
            wrong = Some(format!(
                "{} others run, {of_watch} of this watch",
                alive.len()
            ));
        }
        if plan.serial {
            let (watch, key) = (ledger.watch, env("SETTLED_KEY"));
            ledger.key = key.clone();
            let placed = ledger.place.is_some();
            // A retry keeps its key; where a rename has made two keys one, one of them has to wait begun.
            let holder = self.jobs.iter().find(|(id, other)| {
                **id != order.job
                    && other.watch == watch
                    && other.key == key
                    && other.started > 0
                    && other.concluded.is_none()
                    && (placed && other.place.is_some()
                        || alive.iter().any(|child| child.order.job == **id))
            });
            if let Some((other, _)) = holder {
                wrong = Some(format!("{other:?} has its key and is not over"));
            }
        }
        if let Some(wrong) = wrong {
            self.broken(format!(
                "{:?} attempt {}: {wrong}",
                order.job, order.attempt
            ));
        }
    }

    /// A child's look has passed: it is going to read this file.
    pub fn dispatched(&mut self, child: &Child, uid: Uid, disk: &Disk) {
        let plan = &self.watches[child.watch].plan;
        let inode = &disk.inodes[uid];
        let fs = &disk.fss[inode.fs];
        let lease = !fs.remote && fs.lease_errno == 0;
        let mut wrong = None;
        if lease && inode.writers > 0 {
            wrong = Some(format!("{} writers have it open", inode.writers));
        }
        let quiet = match plan.settle {
            Some(quiet) => quiet.as_nanos() as u64,
            None if lease && (inode.unheard || inode.placed >= inode.changed) => 0,
            None if lease => 1_000_000_000,
            None => 5_000_000_000.max(u64::from(fs.cache_s) * 1_000_000_000),
        };
        let since = disk.mono - inode.changed;
        if since < quiet && !inode.disguised {
            wrong = Some(format!("it changed {since} ns ago, quiet time is {quiet}"));
        }
        if let Some(wrong) = wrong {
            self.broken(format!("{:?} is dispatched: {wrong}", child.order.job));
        }
    }

    pub fn succeeded(&mut self, child: &Child) {
        if let (Some(ledger), Some((_, content, version))) =
            (self.jobs.get_mut(&child.order.job), child.got)
        {
            ledger.succeeded.push((version, content));
        }
    }

    /// A scout is asked to dispose of a file.
    pub fn disposing(&mut self, private: &[u8], act: &Act) {
        let number = private
            .iter()
            .rposition(|&b| b == b'-')
            .and_then(|at| std::str::from_utf8(&private[at + 1..]).ok())
            .and_then(|text| text.parse().ok());
        let Some(job) = number.map(JobId) else {
            return self.broken(format!("odd private name {private:?}"));
        };
        let right = self.jobs.get(&job).is_some_and(|ledger| {
            !ledger.disposed
                && match (&ledger.disposal, act) {
                    (Some(Disposal::Delete), Act::Delete) => true,
                    (Some(Disposal::Move { dir, rel }), Act::Move { dir: d, rel: r }) => {
                        (dir, rel) == (d, r)
                    }
                    _ => false,
                }
        });
        if !right {
            self.broken(format!(
                "{job:?} is disposed of by {act:?} without its record"
            ));
        }
    }

    // ---- the end ----

    /// Everything has calmed down: what is on disk was concluded, and no more often than allowed.
    pub fn finish(&mut self, disk: &Disk) {
        let mut present: BTreeMap<(usize, Version), Vec<Vec<u8>>> = BTreeMap::new();
        for fs in &disk.fss {
            let point = fs.point.strip_suffix(b"/").unwrap_or(&fs.point).to_vec();
            self.collect(disk, fs.root, point, &mut present);
        }
        for ((watch, version), paths) in &present {
            let count = self
                .counts
                .get(&(*watch, *version))
                .copied()
                .unwrap_or_default();
            let plan = &self.watches[*watch].plan;
            if count.done + count.baseline < paths.len() as u64 {
                let text = format!(
                    "lost: watch {}, {} ({version:?}): {} names, concluded {} times",
                    plan.name,
                    paths
                        .iter()
                        .map(|p| crate::story::show(p))
                        .collect::<Vec<_>>()
                        .join(", "),
                    paths.len(),
                    count.done
                );
                return self.broken(text);
            }
            if count.left + count.baseline == 0 {
                let text = format!(
                    "left over: watch {}, {}: concluded, and not disposed of",
                    plan.name,
                    crate::story::show(&paths[0])
                );
                return self.broken(text);
            }
        }
        let counts = self.counts.clone();
        for ((watch, version), count) in counts {
            let allowed = self
                .allowed
                .get(&(watch, version))
                .copied()
                .unwrap_or_default();
            if count.done > allowed {
                self.broken(format!(
                    "repeated: watch {}, {version:?} came {allowed} times and was concluded {} times",
                    self.watches[watch].plan.name, count.done
                ));
            }
        }
    }

    fn collect(
        &mut self,
        disk: &Disk,
        dir: Uid,
        path: Vec<u8>,
        present: &mut BTreeMap<(usize, Version), Vec<Vec<u8>>>,
    ) {
        for (name, dent) in &disk.inodes[dir].entries {
            let uid = disk.names[*dent].inode;
            let mut below = path.clone();
            below.push(b'/');
            below.extend_from_slice(name);
            if disk.inodes[uid].dir {
                self.collect(disk, uid, below, present);
                continue;
            }
            if name.starts_with(b".settled-") {
                self.broken(format!(
                    "{} was left under its private name",
                    crate::story::show(&below)
                ));
            }
            for (index, watch) in self.watches.iter().enumerate() {
                if watch.file(if path.is_empty() { b"/" } else { &path }, name) {
                    present
                        .entry((index, disk.version(uid)))
                        .or_default()
                        .push(below.clone());
                }
            }
        }
    }
}
