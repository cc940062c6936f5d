//! What was written, what was run, and whether the promises were kept. It knows nothing of how the daemon works.

use super::Done;
use super::bed::{Run, fnv, parse_run};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
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
    results: PathBuf,
    read: u64,
    runs: Vec<Run>,
    waiting: usize,
    repeated: usize,
    late: usize,
}

impl Oracle {
    pub fn new(results: PathBuf) -> Oracle {
        Oracle(Arc::new(Mutex::new(Book {
            versions: Vec::new(),
            by_hash: BTreeMap::new(),
            run: BTreeSet::new(),
            results,
            read: 0,
            runs: Vec::new(),
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
        self.book().runs.iter().any(|run| run.path == path)
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
            if let Some(id) = book.by_hash.get(&run.hash).copied()
                && book.run.insert(id)
                && book.versions[id].at_rest
            {
                book.waiting -= 1;
            }
            book.runs.push(run);
        }
        book.runs.len()
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
    pub fn judge(&self, done: Done, inside: &Path, archive: &Path, log: &Path) {
        let book = &mut *self.book();
        let mut wrong = book.judge_runs(inside);
        wrong.extend(book.judge_places(done, inside, archive));
        let log = fs::read(log).unwrap();
        for line in String::from_utf8_lossy(&log).lines() {
            if line.contains("; dead") || line.contains("panicked") {
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
    fn judge_runs(&mut self, inside: &Path) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut jobs: BTreeMap<&str, Vec<&Run>> = BTreeMap::new();
        for run in &self.runs {
            jobs.entry(&run.job).or_default().push(run);
        }
        let mut by_version: BTreeMap<VersionId, Vec<&str>> = BTreeMap::new();
        for (job, runs) in &mut jobs {
            // An attempt that was ordered by a daemon killed meanwhile may come later than its repetition.
            runs.sort_by_key(|run| run.attempt);
            self.repeated += runs.len() - 1;
            if runs.iter().any(|run| run.recovered != (run.attempt > 1)) {
                wrong.push(format!(
                    "an attempt repeated does not say so, or one not repeated does: {runs:#?}"
                ));
            }
            for pair in runs.windows(2) {
                if pair[0].attempt == pair[1].attempt || pair[0].life >= pair[1].life {
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
