//! Questions about the state, answered without changing it, a bounded part of an answer at a time.

use super::Core;
use super::files::FileKey;
use super::ids::{DirId, JobId, MountId};
use super::job::{Job, Phase};
use super::observe::PRIVATE_PREFIX;
use super::select::{Pattern, Verdict};
use super::settle::Candidate;
use super::view::{DaemonRow, FileRow, Finding, MountRow, Nearest, WatchRow, shown};
use super::watch::{Root, Watch};
use crate::plan::{OnCtime, WatchPlan};

/// How far a list has come. What is there from its beginning to its end is told once; what comes and goes
/// meanwhile may be told or not, and what settles meanwhile may be told twice, as what it was and what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// Candidates above this one; at first all.
    Candidates(Option<FileKey>),
    /// Jobs above this one.
    Jobs(JobId),
    /// All was told.
    End,
}

/// How far an answer about a path has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Explained {
    /// The next watch.
    watch: usize,
    /// Bytes of the path below its root: the directories up to there are judged.
    judged: usize,
}

/// Bytes that are matched at once, at least one directory's path: a path may lead through two thousand.
const JUDGED_AT_ONCE: usize = 64 * 1024;

/// Which files are asked for. What is empty asks for all.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Of these watches.
    pub watches: Vec<String>,
    /// In these states, [`super::words::STATES`].
    pub states: Vec<String>,
    /// Whose name, or path below the root, this matches.
    pub name: Option<Pattern>,
    /// That came before this time.
    pub before_ns: Option<i64>,
    /// That came after this time.
    pub after_ns: Option<i64>,
}

impl Wanted {
    fn wants(&self, watch: &str, state: &str, came_ns: i64) -> bool {
        (self.watches.is_empty() || self.watches.iter().any(|name| name == watch))
            && (self.states.is_empty() || self.states.iter().any(|word| word == state))
            && self.before_ns.is_none_or(|at| came_ns < at)
            && self.after_ns.is_none_or(|at| came_ns > at)
    }
}

impl Core {
    // ---- status ----

    /// The state directory.
    pub fn state(&self) -> &std::path::Path {
        &self.daemon.state
    }

    /// What can be told of the whole without going through it. The edge adds what it alone knows.
    pub fn daemon_row(&self) -> DaemonRow {
        let (dirs, wds) = self.tree.count();
        let (known, gone) = self.files.count();
        DaemonRow {
            journal: format!("{:08x}", self.journal),
            state: self.daemon.state.display().to_string(),
            mode: self.mode_word().into(),
            now_ns: self.now.wall.0,
            no_room: !self.room,
            running: self.jobs_running() as u64,
            owed: self.jobs.len() as u64,
            candidates: self.candidates.len() as u64,
            directories: dirs as u64,
            inotify_watches: wds as u64,
            remembered: known as u64,
            gone: gone as u64,
            questions: self.asks.len() as u64,
            ..DaemonRow::default()
        }
    }

    /// Up to `most` watches from the one with this index on; how many there are in all.
    pub fn watch_rows(&self, from: usize, most: usize) -> (Vec<WatchRow>, usize) {
        let rows = self.watches.iter().enumerate().skip(from).take(most);
        let rows = rows.map(|(index, watch)| self.watch_row(index, watch));
        (rows.collect(), self.watches.len())
    }

    fn watch_row(&self, index: usize, watch: &Watch) -> WatchRow {
        let (path, path_hex) = shown(&watch.plan.path);
        WatchRow {
            watch: watch.plan.name.clone(),
            path,
            path_hex,
            state: self.watch_words(watch).into(),
            observed: self.observed_text(index as u32),
            configured: watch.active,
            paused: watch.paused,
            listing: watch.scan.is_some(),
            running: self.jobs_running_in(index as u32) as u64,
            ready: self.ready_in(index) as u64,
            halted: watch.halted.len() as u64,
            expected: self.expect_row(watch),
        }
    }

    /// The mounts that have to do with a watch: of `most` after this one. And after which the next call goes on, if there
    /// are more.
    pub fn mount_rows(
        &self,
        after: Option<MountId>,
        most: usize,
    ) -> (Vec<MountRow>, Option<MountId>) {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        let mut rest = self.lanes.range((from, Unbounded));
        let mut last = None;
        let lanes = rest
            .by_ref()
            .take(most)
            .inspect(|(id, _)| last = Some(**id));
        let rows = lanes.filter_map(|(id, lane)| {
            let mount = self.mounts.get(id)?;
            let (path, path_hex) = shown(&mount.point);
            let (asked, waiting) = lane.waiting();
            Some(MountRow {
                path,
                path_hex,
                fstype: mount.fstype.clone(),
                state: self.lane_words(lane),
                silent: lane.silent.is_some(),
                asked: asked as u64,
                waiting: waiting as u64,
            })
        });
        let rows = rows.collect();
        (rows, last.filter(|_| rest.next().is_some()))
    }

    // ---- list ----

    /// Files that something is to happen to, from `cursor` on: looks at up to `visits` of them, and leaves the cursor
    /// where the next call goes on.
    pub fn file_rows(&self, cursor: &mut Cursor, wanted: &Wanted, visits: usize) -> Vec<FileRow> {
        let mut rows = Vec::new();
        let mut left = visits;
        if let Cursor::Candidates(from) = *cursor {
            use std::ops::Bound::{Excluded, Unbounded};
            let from = from.map_or(Unbounded, Excluded);
            for (key, candidate) in self.candidates.range((from, Unbounded)).take(left) {
                left -= 1;
                *cursor = Cursor::Candidates(Some(*key));
                rows.extend(self.wanted_candidate(candidate, wanted));
            }
            if left == 0 {
                return rows;
            }
            *cursor = Cursor::Jobs(JobId(0));
        }
        if let Cursor::Jobs(JobId(from)) = *cursor {
            for (id, job) in self.jobs.range(JobId(from + 1)..).take(left) {
                left -= 1;
                *cursor = Cursor::Jobs(*id);
                rows.extend(self.wanted_job(*id, job, wanted));
            }
            if left > 0 {
                *cursor = Cursor::End;
            }
        }
        rows
    }

    fn wanted_candidate(&self, candidate: &Candidate, wanted: &Wanted) -> Option<FileRow> {
        let node = self.tree.get(candidate.dir)?;
        let watch = &self.watches.get(node.watch as usize)?.plan.name;
        let since = self.wall_of(candidate.since);
        if !wanted.wants(watch, "waiting", since)
            || !self.is_named(candidate.dir, &candidate.name, wanted)
        {
            return None;
        }
        Some(self.candidate_row(node.watch, candidate))
    }

    fn wanted_job(&self, id: JobId, job: &Job, wanted: &Wanted) -> Option<FileRow> {
        let watch = &self.watches.get(job.watch as usize)?.plan.name;
        let wants = wanted.wants(watch, Core::job_word(job), job.settled.0)
            && self.is_named(job.dir, &job.name, wanted);
        wants.then(|| self.job_row(id, job))
    }

    fn is_named(&self, dir: DirId, name: &[u8], wanted: &Wanted) -> bool {
        let matches = |pattern: &Pattern| match pattern.text().contains('/') {
            true => pattern.matches(&self.tree.rel(dir, name)),
            false => pattern.matches(name),
        };
        wanted.name.as_ref().is_none_or(matches)
    }

    pub(super) fn candidate_row(&self, watch: u32, candidate: &Candidate) -> FileRow {
        let (path, path_hex) = shown(&self.path_of(watch, candidate.dir, &candidate.name));
        let seen = candidate.seen().map(|(version, _)| version);
        FileRow {
            watch: self.watch_name(watch),
            path,
            path_hex,
            state: "waiting".into(),
            text: candidate.waits.to_string(),
            since_ns: self.wall_of(candidate.since),
            size: seen.map_or(0, |version| version.size),
            mtime_ns: seen.map_or(0, |version| version.mtime_ns),
            ..FileRow::default()
        }
    }

    pub(super) fn job_row(&self, id: JobId, job: &Job) -> FileRow {
        let (path, path_hex) = shown(&self.path_of(job.watch, job.dir, &job.name));
        let (text, since) = self.job_words(job);
        FileRow {
            watch: self.watch_name(job.watch),
            path,
            path_hex,
            state: Core::job_word(job).into(),
            text,
            since_ns: since.0,
            job: self.job_name(id),
            key: String::from_utf8_lossy(&job.key).into_owned(),
            attempt: job.begun,
            pid: 0,
            size: job.version.size,
            mtime_ns: job.version.mtime_ns,
            settled_ns: job.settled.0,
            run: match job.phase {
                Phase::Running { run } => Some(run),
                _ => None,
            },
        }
    }

    // ---- explain ----

    /// A part of what the watches have to say about an absolute path, those whose roots have it below them, in the
    /// configuration or not: what one of them says, if that came of it. And whether there is more to come.
    pub fn explain_on(&self, path: &[u8], at: &mut Explained) -> (Option<Finding>, bool) {
        let Some(watch) = self.watches.get(at.watch) else {
            return (None, false);
        };
        let found = self.rel_in(watch, path);
        if let Some(rel) = found.filter(|_| watch.active) {
            let (judged, left_out) = judge_way(&watch.plan, rel, at.judged, JUDGED_AT_ONCE);
            at.judged = judged;
            if judged < rel.len() && left_out.is_none() {
                return (None, true);
            }
        }
        let found = found.map(|rel| self.finding(at.watch as u32, watch, rel, at.judged));
        *at = Explained {
            watch: at.watch + 1,
            judged: 0,
        };
        (found, at.watch < self.watches.len())
    }

    /// A path below the root of a watch. A root that is reached by a symbolic link has two names.
    fn rel_in<'p>(&self, watch: &Watch, path: &'p [u8]) -> Option<&'p [u8]> {
        below(path, &watch.plan.path).or_else(|| below(path, &self.tree.path(watch.root, b"")?))
    }

    /// The directory and the name of a path that may be a file's, as far as its directory is known.
    pub(super) fn place_of<'p>(&self, watch: &Watch, path: &'p [u8]) -> Option<(DirId, &'p [u8])> {
        let rel = self.rel_in(watch, path)?;
        match self.walk(watch.root, rel) {
            (Some(dir), name, false) => Some((dir, name)),
            _ => None,
        }
    }

    /// The watch whose root has the most names in common with a path that is below none.
    pub fn nearest(&self, path: &[u8]) -> Option<Nearest> {
        let watches = self.watches.iter().filter(|watch| watch.active);
        let found = nearest(watches.map(|watch| &watch.plan), path)?;
        Some(Nearest {
            silent: self.is_below_silent(path),
            ..found
        })
    }

    /// Whether the way to a path leads over a mount that does not answer.
    fn is_below_silent(&self, path: &[u8]) -> bool {
        self.lanes.keys().any(|id| {
            let mount = self.mounts.get(id);
            mount.is_some_and(|mount| below(path, &mount.point).is_some())
                && self.does_not_answer(*id)
        })
    }

    /// The directories on the way are judged up to this byte: none of them is left out.
    fn finding(&self, index: u32, watch: &Watch, rel: &[u8], judged: usize) -> Finding {
        let (text, hex) = shown(rel);
        let mut found = Finding {
            watch: watch.plan.name.clone(),
            root: shown(&watch.plan.path).0,
            rel: text,
            rel_hex: hex,
            silent: watch.root_silent || self.is_silent(watch, rel),
            state: self.watch_words(watch).into(),
            limits: limits(&watch.plan),
            ..Finding::default()
        };
        let (dir, name, is_dir) = self.walk(watch.root, rel);
        found.is_directory = is_dir;
        match watch.active {
            true => judge(&watch.plan, rel, is_dir, judged, &mut found),
            false => found.rule = "not-configured".into(),
        }
        found.directory = match dir {
            Some(dir) => self.directory_words(watch, dir),
            None => "not known: it is not there, or nothing has listed it yet".into(),
        };
        let Some(dir) = dir.filter(|_| !is_dir) else {
            return found;
        };
        let key = FileKey::new(dir, name);
        if let Some(candidate) = self.candidates.get(&key) {
            found.candidate = Some(self.candidate_row(index, candidate));
            found.evidence = self.evidence(candidate);
            found.waits = self.candidate_waits(candidate);
        }
        if let Some((id, job)) = self
            .job_of
            .get(&key)
            .and_then(|id| Some((*id, self.jobs.get(id)?)))
        {
            found.job = Some(self.job_row(id, job));
            found.waits.extend(self.job_waits(id, job));
        }
        if let Some(known) = self.files.get(key) {
            let at = i64::from(known.at_s) * 1_000_000_000;
            match known.gone {
                true => found.gone_ns = at,
                false => {
                    found.concluded_ns = at;
                    found.version = format!("{:016x}", known.version);
                    found.ctime = known.ctime;
                    found.ignores_ctime = watch.plan.on_ctime == OnCtime::Ignore;
                }
            }
            found.away = known.away;
        }
        found
    }

    /// Whether what is at a path below a root does not answer, or a directory on the way to it; by the root's own path
    /// and by where that leads.
    fn is_silent(&self, watch: &Watch, rel: &[u8]) -> bool {
        let mut dir = watch.root;
        for name in rel.split(|byte| *byte == b'/') {
            match self.tree.child(dir, name) {
                Some(child) => dir = child,
                None => break,
            }
        }
        let mount = self.tree.mount(dir);
        let below_silent = |root: &[u8]| {
            let root = root.strip_suffix(b"/").unwrap_or(root);
            self.is_below_silent(&[root, b"/", rel].concat())
        };
        mount.is_some_and(|mount| self.does_not_answer(mount))
            || below_silent(&watch.plan.path)
            || (self.tree.path(watch.root, b"")).is_some_and(|root| below_silent(&root))
    }

    /// The directory of a path below a root as far as it is known, the last name, and whether that is a directory
    /// itself.
    fn walk<'r>(&self, root: DirId, rel: &'r [u8]) -> (Option<DirId>, &'r [u8], bool) {
        if rel.is_empty() {
            return (Some(root).filter(|root| *root != DirId(0)), rel, true);
        }
        let mut dir = root;
        let mut names = rel.split(|byte| *byte == b'/').peekable();
        while let Some(name) = names.next() {
            let child = self.tree.child(dir, name);
            match (child, names.peek()) {
                (Some(child), None) => return (Some(child), name, true),
                (None, None) => return (Some(dir).filter(|dir| *dir != DirId(0)), name, false),
                (Some(child), Some(_)) => dir = child,
                (None, Some(_)) => return (None, name, false),
            }
        }
        (None, rel, false)
    }

    fn directory_words(&self, watch: &Watch, dir: DirId) -> String {
        let Some(node) = self.tree.get(dir) else {
            return "not known".into();
        };
        let how = match (node.wd.is_some(), node.deaf, node.unwatched) {
            (_, true, _) => "it cannot be read, and is tried again",
            (true, _, _) => "watched by inotify",
            (_, _, true) => "listed: no inotify watch was left for it",
            _ if watch.state == Root::Bound && node.bound => "listed",
            _ => "not listed yet",
        };
        match self.tree.mount(dir) {
            Some(mount) if self.does_not_answer(mount) => {
                format!("{how}; its mount does not answer")
            }
            _ => how.into(),
        }
    }
}

/// The watch whose root has the most names in common with a path that is below none.
pub fn nearest<'p>(watches: impl Iterator<Item = &'p WatchPlan>, path: &[u8]) -> Option<Nearest> {
    let common = |root: &[u8]| {
        let names = root.split(|byte| *byte == b'/');
        let mut of_path = path.split(|byte| *byte == b'/');
        names
            .take_while(|name| of_path.next() == Some(*name))
            .count()
    };
    let plan = watches.max_by_key(|plan| common(&plan.path))?;
    Some(Nearest {
        watch: plan.name.clone(),
        root: shown(&plan.path).0,
        text: match below(&plan.path, path) {
            Some(_) => "its root lies below the path",
            None => "the path does not lie below its root",
        }
        .into(),
        silent: false,
    })
}

/// Looks for a directory on the way to a path that is left out, from the one on whose path ends at byte `from` or behind
/// it, and matches not much more than `most` bytes. From where to go on, which is the end of the path when all were
/// judged; or where the one ends that is left out, and why.
fn judge_way<'r>(
    plan: &WatchPlan,
    rel: &'r [u8],
    from: usize,
    most: usize,
) -> (usize, Option<(Verdict, &'r [u8])>) {
    let mut matched = 0;
    let slashes = rel.iter().enumerate().skip(from);
    for (at, _) in slashes.filter(|(_, byte)| **byte == b'/') {
        if matched >= most {
            return (at, None);
        }
        let on_the_way = rel.get(..at).unwrap_or_default();
        if !plan.recursive {
            return (at, Some((Verdict::NotIncluded, on_the_way)));
        }
        matched += on_the_way.len().saturating_mul(plan.select.weight());
        match plan.select.enter(on_the_way) {
            Verdict::NotIncluded | Verdict::Yes => {}
            no => return (at, Some((no, on_the_way))),
        }
    }
    (rel.len(), None)
}

/// By which rule a path below the root of a watch is selected or not. The directories on the way are judged from byte
/// `judged` on.
pub fn judge(plan: &WatchPlan, rel: &[u8], is_dir: bool, judged: usize, found: &mut Finding) {
    let mut no = |rule: &str, pattern: &str, at: &[u8]| {
        found.rule = rule.into();
        found.pattern = pattern.into();
        found.at = shown(at).0;
    };
    if let Some(own) = plan.excluded.iter().find(|own| below(rel, own).is_some()) {
        return no("own", &shown(own).0, own);
    }
    match judge_way(plan, rel, judged, usize::MAX).1 {
        Some((Verdict::BuiltIn(pattern), at)) => return no("built-in", pattern, at),
        Some((Verdict::Excluded(pattern), at)) => return no("exclude", &pattern, at),
        Some((_, at)) => return no("recursive", "", at),
        None => {}
    }
    let name = rel.rsplit(|byte| *byte == b'/').next().unwrap_or(rel);
    if name.starts_with(PRIVATE_PREFIX) {
        return no("private", ".settled-*", b"");
    }
    let verdict = match is_dir {
        true if rel.is_empty() => Verdict::Yes,
        true if !plan.recursive => return no("recursive", "", rel),
        true => plan.select.enter(rel),
        false => plan.select.file(rel),
    };
    match verdict {
        Verdict::Yes => found.selected = true,
        Verdict::BuiltIn(pattern) => no("built-in", pattern, b""),
        Verdict::Excluded(pattern) => no("exclude", &pattern, b""),
        Verdict::NotIncluded => no("include", "", b""),
    }
}

/// The sizes and ages that are selected.
fn limits(plan: &WatchPlan) -> String {
    let select = &plan.select;
    let mut words = Vec::new();
    if let Some(size) = select.min_size {
        words.push(format!("min_size is {size} bytes"));
    }
    if let Some(size) = select.max_size {
        words.push(format!("max_size is {size} bytes"));
    }
    if let Some(age) = select.min_age {
        words.push(format!("min_age is {} s", age.as_secs_f64()));
    }
    if let Some(age) = select.ignore_older {
        words.push(format!("ignore_older is {} s", age.as_secs_f64()));
    }
    words.join(", ")
}

/// `path` below `root`, which may be relative or absolute like it.
fn below<'p>(path: &'p [u8], root: &[u8]) -> Option<&'p [u8]> {
    let root = root.strip_suffix(b"/").unwrap_or(root);
    let rest = path.strip_prefix(root)?;
    match rest {
        [] => Some(rest),
        [b'/', rest @ ..] => Some(rest),
        _ => None,
    }
}
