//! What was written, what was run, and whether the promises were kept. It knows nothing of how the daemon works.

use super::bed::{Run, fnv, parse_run};
use super::owed::number_of;
use super::{Campaign, Done};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

/// A version of a file, in the order in which they were written.
pub type VersionId = usize;

/// Shared by all who know something.
#[derive(Clone)]
pub struct Oracle(Arc<Mutex<Book>>);

struct Version {
    path: PathBuf,
    hash: u64,
    /// Fully written, under its name.
    at_rest: bool,
    /// It never came to its name.
    void: bool,
    /// Its writer has taken it away or written over it, after it was run.
    taken: bool,
    /// What its writer did and when, in nanoseconds since 1970.
    story: Vec<(i128, String)>,
}

fn wall() -> i128 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos().cast_signed())
}

struct Book {
    versions: Vec<Version>,
    by_hash: BTreeMap<u64, VersionId>,
    run: BTreeSet<VersionId>,
    /// Of each job the oldest version that an attempt has read: its own. A repetition may read a newer one.
    own: BTreeMap<String, VersionId>,
    results: PathBuf,
    read: u64,
    runs: Vec<Run>,
    /// Where files are delivered to, and what was seen there: each counts as a run.
    target: Option<PathBuf>,
    delivered: BTreeSet<(PathBuf, Seen)>,
    /// Processes that were killed one by one, and in which life of the daemon.
    killed: BTreeSet<(i32, u32)>,
    /// What cannot be seen any more at the end.
    wrong: Vec<String>,
    waiting: usize,
    repeated: usize,
    late: usize,
}

/// Inode and ctime: one file of all that had a name.
type Seen = (u64, i64, i64);

/// What was run, for others to judge.
pub struct Deeds {
    pub runs: Vec<Run>,
    by_job: BTreeMap<u64, Vec<usize>>,
}

impl Deeds {
    /// All runs of a job.
    pub fn of(&self, job: u64) -> &[usize] {
        self.by_job.get(&job).map_or(&[], Vec::as_slice)
    }
}

impl Oracle {
    /// `target`: files are not run, but delivered there.
    pub fn new(results: PathBuf, target: Option<PathBuf>) -> Oracle {
        Oracle(Arc::new(Mutex::new(Book {
            versions: Vec::new(),
            by_hash: BTreeMap::new(),
            run: BTreeSet::new(),
            own: BTreeMap::new(),
            results,
            read: 0,
            runs: Vec::new(),
            target,
            delivered: BTreeSet::new(),
            killed: BTreeSet::new(),
            wrong: Vec::new(),
            waiting: 0,
            repeated: 0,
            late: 0,
        })))
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().expect("no panic elsewhere")
    }

    /// To be said before its first byte is written.
    pub fn announce(&self, path: &Path, content: &[u8]) -> VersionId {
        let mut book = self.book();
        let id = book.versions.len();
        let hash = fnv(content);
        assert!(
            book.by_hash.insert(hash, id).is_none(),
            "two versions alike"
        );
        book.versions.push(Version {
            path: path.to_owned(),
            hash,
            at_rest: false,
            void: false,
            taken: false,
            story: vec![(wall(), format!("begun, {}", path.display()))],
        });
        id
    }

    pub fn at_rest(&self, id: VersionId) {
        let mut book = self.book();
        book.versions[id].at_rest = true;
        book.versions[id].story.push((wall(), "at rest".into()));
        if !book.run.contains(&id) {
            book.waiting += 1;
        }
    }

    pub fn void(&self, id: VersionId) {
        self.book().versions[id].void = true;
    }

    /// To be said before it is done.
    pub fn taken(&self, id: VersionId) {
        let mut book = self.book();
        book.versions[id].taken = true;
        book.versions[id]
            .story
            .push((wall(), "about to be taken away".into()));
    }

    pub fn now_at(&self, id: VersionId, path: &Path) {
        let mut book = self.book();
        book.versions[id].path = path.to_owned();
        book.versions[id]
            .story
            .push((wall(), format!("renamed to {}", path.display())));
    }

    pub fn is_run(&self, id: VersionId) -> bool {
        self.book().run.contains(&id)
    }

    pub fn waiting(&self) -> usize {
        self.book().waiting
    }

    pub fn all_run(&self) -> bool {
        let book = self.book();
        book.waiting == 0
            && book
                .versions
                .iter()
                .all(|version| version.at_rest || version.void)
    }

    pub fn has_run(&self, path: &Path) -> bool {
        self.read();
        let book = self.book();
        let name = path.file_name();
        book.runs.iter().any(|run| run.path == path)
            || book
                .delivered
                .iter()
                .any(|(path, _)| path.file_name() == name)
    }

    /// How many versions came to rest.
    pub fn versions(&self) -> usize {
        let book = self.book();
        book.versions.iter().filter(|version| !version.void).count()
    }

    /// A process that does the work was killed.
    pub fn killed(&self, pid: i32, life: u32) {
        self.book().killed.insert((pid, life));
    }

    /// Files with these names are not run any more: nobody waits for them.
    pub fn held(&self, names: &[String]) {
        let book = &mut *self.book();
        let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        for (id, version) in book.versions.iter().enumerate() {
            let name = version.path.file_name().unwrap_or_default();
            if names.contains(&*name.to_string_lossy()) && version.at_rest && book.run.insert(id) {
                book.waiting -= 1;
            }
        }
    }

    pub fn deeds(&self) -> Deeds {
        let runs = self.book().runs.clone();
        let mut by_job: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (at, run) in runs.iter().enumerate() {
            by_job.entry(number_of(&run.job)).or_default().push(at);
        }
        Deeds { runs, by_job }
    }

    /// Takes note of new results; how many there are now.
    pub fn read(&self) -> usize {
        let book = &mut *self.book();
        let mut text = String::new();
        if let Ok(mut file) = File::open(&book.results) {
            file.seek(SeekFrom::Start(book.read)).expect("a file");
            file.read_to_string(&mut text).expect("text");
        }
        let end = text.rfind('\n').map_or(0, |end| end + 1);
        book.read += end as u64;
        for line in text[..end].lines() {
            let run = parse_run(line);
            if let Some(id) = book.by_hash.get(&run.hash).copied() {
                let own = book.own.entry(run.job.clone()).or_insert(id);
                *own = id.min(*own);
                if *own == id && book.run.insert(id) && book.versions[id].at_rest {
                    book.waiting -= 1;
                }
            }
            book.runs.push(run);
        }
        if let Some(target) = book.target.clone() {
            book.look_at(&target);
        }
        book.runs.len() + book.delivered.len()
    }

    /// The last runs, for a message.
    pub fn tail(&self) -> String {
        let book = self.book();
        let skip = book.runs.len().saturating_sub(10);
        format!("{:#?}", &book.runs[skip..])
    }

    pub fn figures(&self) -> String {
        let book = self.book();
        let Book { repeated, late, .. } = *book;
        format!(
            "{} versions, {} runs, {repeated} of them attempts repeated, {late} that read what was just being written over it",
            book.versions.iter().filter(|version| !version.void).count(),
            book.runs.len(),
        )
    }

    /// Holds everything against the promises.
    pub fn judge(
        &self,
        campaign: &Campaign,
        inside: &Path,
        archive: &Path,
        held: &[String],
        (log, more): (&str, Vec<String>),
    ) {
        let book = &mut *self.book();
        let mut wrong = more;
        wrong.append(&mut book.wrong);
        match book.target.clone() {
            Some(target) => wrong.extend(book.judge_target(inside, &target)),
            None => wrong.extend(book.judge_runs(campaign, inside, held)),
        }
        wrong.extend(book.judge_places(campaign.done, inside, archive));
        if campaign.serial() {
            wrong.extend(book.judge_order());
        }
        let beside = book.results.with_extension("more");
        for line in fs::read_to_string(beside).unwrap_or_default().lines() {
            if line.starts_with("beside ") {
                wrong.push(format!("two at once: {line}"));
            }
        }
        for line in log.lines() {
            let dead = line.contains("; dead") && !(campaign.poison() && line.contains("/p"));
            if dead || line.contains("panicked") {
                wrong.push(format!("in the log: {line}"));
            }
        }
        assert!(
            wrong.is_empty(),
            "{} violations:\n{}",
            wrong.len(),
            wrong.join("\n")
        );
    }
}

impl Book {
    /// What is visible is whole, and has its own name, from the first moment.
    fn look_at(&mut self, target: &Path) {
        for path in files_below(target) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(".settled-") {
                continue;
            }
            let meta = fs::metadata(&path).unwrap();
            let seen = (meta.ino(), meta.ctime(), meta.ctime_nsec());
            if !self.delivered.insert((path.clone(), seen)) {
                continue;
            }
            let content = fs::read(&path).unwrap();
            match self.by_hash.get(&fnv(&content)).copied() {
                Some(id) => {
                    if self.run.insert(id) && self.versions[id].at_rest {
                        self.waiting -= 1;
                    }
                }
                None if name.starts_with("fence.") && content == name.as_bytes() => {}
                None => self
                    .wrong
                    .push(format!("nobody wrote that: {}", path.display())),
            }
        }
    }

    fn judge_target(&self, inside: &Path, target: &Path) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut wanted: BTreeMap<PathBuf, u64> = BTreeMap::new();
        for version in self.versions.iter().filter(|version| !version.void) {
            let rel = version.path.strip_prefix(inside).unwrap();
            wanted.insert(target.join(rel), version.hash);
        }
        for path in files_below(target) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let content = fs::read(&path).unwrap();
            if name.starts_with("fence.") && content == name.as_bytes() {
                continue;
            }
            if wanted.remove(&path) != Some(fnv(&content)) {
                wrong.push(format!("not what was to be there: {}", path.display()));
            }
        }
        let missing = wanted.keys();
        wrong.extend(missing.map(|path| format!("never delivered: {}", path.display())));
        wrong
    }

    /// Jobs of a key, which is the directory, begin in the order of their numbers.
    fn judge_order(&self) -> Vec<String> {
        let mut last: BTreeMap<&Path, &Run> = BTreeMap::new();
        let mut wrong = Vec::new();
        for run in &self.runs {
            let key = run.path.parent().unwrap_or(&run.path);
            if let Some(before) = last.insert(key, run)
                && number_of(&before.job) > number_of(&run.job)
            {
                wrong.push(format!("out of order: {before:?} {run:?}"));
            }
        }
        wrong
    }

    /// Attempts that failed, as they said themselves.
    fn failed(&self) -> BTreeSet<(String, String)> {
        let more = fs::read_to_string(self.results.with_extension("more")).unwrap_or_default();
        let failed = more.lines().filter_map(|line| line.strip_prefix("failed "));
        failed
            .filter_map(|line| {
                let mut words = line.split(' ');
                Some((words.next()?.to_owned(), words.next()?.to_owned()))
            })
            .collect()
    }

    fn judge_runs(&mut self, campaign: &Campaign, inside: &Path, held: &[String]) -> Vec<String> {
        let mut wrong = Vec::new();
        let failed = self.failed();
        let mut jobs: BTreeMap<&str, Vec<&Run>> = BTreeMap::new();
        for run in &self.runs {
            jobs.entry(&run.job).or_default().push(run);
        }
        let mut by_version: BTreeMap<VersionId, Vec<&str>> = BTreeMap::new();
        for (job, runs) in &mut jobs {
            // An attempt that was ordered by a daemon killed meanwhile may come later than its repetition.
            runs.sort_by_key(|run| run.attempt);
            self.repeated += runs.len() - 1;
            // Where the journal has everything, it is asked.
            if !campaign.journalled() && runs.iter().any(|run| run.recovered != (run.attempt > 1)) {
                wrong.push(format!(
                    "an attempt repeated does not say so, or one not repeated does: {runs:#?}"
                ));
            }
            for pair in runs.windows(2) {
                let apart = pair[0].life < pair[1].life
                    || self.killed.contains(&(pair[0].pid, pair[0].life))
                    || failed.contains(&(pair[0].job.clone(), pair[0].attempt.to_string()));
                if pair[0].attempt == pair[1].attempt || !apart || campaign.once() {
                    wrong.push(format!(
                        "repeated though the daemon was not killed between: {runs:#?}"
                    ));
                }
            }
            let known: Vec<VersionId> = runs
                .iter()
                .filter_map(|run| self.by_hash.get(&run.hash).copied())
                .collect();
            // When one attempt of a job has been seen the writer may write over the file; another attempt, which
            // was cut short or repeats that, may then read some of the new version.
            let own = known.iter().min().copied();
            match own {
                Some(id) => {
                    self.late += runs.len() - known.iter().filter(|of| **of == id).count();
                    by_version.entry(id).or_default().push(job);
                }
                None if runs[0].path.parent() == Some(inside)
                    && runs[0].name().to_string_lossy().starts_with("fence.") => {}
                None => wrong.push(format!("run with what nobody wrote: {runs:#?}")),
            }
        }
        for (id, version) in self.versions.iter().enumerate() {
            let of = by_version.get(&id).map_or(&[][..], Vec::as_slice);
            let path = version.path.display();
            match (of, version.void) {
                ([], true) | ([_], false) => {}
                ([], false) if held.contains(&name_of(&version.path)) => {}
                ([], false) => {
                    wrong.push(format!(
                        "version {id} of {path} was never run: {:#?}",
                        version.story
                    ));
                }
                (_, true) => wrong.push(format!(
                    "version {id} of {path} was run and never came there"
                )),
                (of, false) => {
                    let runs: Vec<_> = of.iter().flat_map(|job| &jobs[job]).collect();
                    wrong.push(format!(
                        "version {id} of {path} was run by {} jobs: {:#?} {runs:#?}",
                        of.len(),
                        version.story
                    ));
                }
            }
        }
        wrong
    }

    fn judge_places(&self, done: Done, inside: &Path, archive: &Path) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut found: BTreeMap<u64, Vec<PathBuf>> = BTreeMap::new();
        let archived = files_below(archive);
        for path in files_below(inside).iter().chain(&archived) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(".settled-") {
                wrong.push(format!("a private name is left: {}", path.display()));
            }
            let content = fs::read(path).unwrap();
            found.entry(fnv(&content)).or_default().push(path.clone());
        }
        for (hash, paths) in &found {
            let fence = paths[0].file_name().is_some_and(|name| {
                let name = name.to_string_lossy();
                name.starts_with("fence.") && fnv(name.as_bytes()) == *hash
            });
            if !self.by_hash.contains_key(hash) && !fence {
                wrong.push(format!("nobody wrote what is in {paths:?}"));
            }
            if paths.len() > 1 {
                wrong.push(format!("there more than once: {paths:?}"));
            }
        }
        for version in &self.versions {
            let at = found.get(&version.hash).map(|paths| &paths[0]);
            let path = version.path.display();
            match done {
                Done::Keep if version.taken || version.void => {}
                Done::Keep if at != Some(&version.path) => {
                    wrong.push(format!("not where it was kept: {path}, but at {at:?}"));
                }
                Done::Delete if at.is_some() => wrong.push(format!("not deleted: {at:?}")),
                Done::Move | Done::MoveElsewhere if version.taken || version.void => {}
                Done::Move | Done::MoveElsewhere
                    if !at.is_some_and(|at| at.starts_with(archive)) =>
                {
                    wrong.push(format!("not moved: {path}, but at {at:?}"));
                }
                _ => {}
            }
        }
        wrong
    }
}

fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// All regular files below a directory, which may be missing, or change meanwhile.
pub fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => dirs.push(entry.path()),
                Ok(_) => found.push(entry.path()),
                Err(_) => {}
            }
        }
    }
    found
}
