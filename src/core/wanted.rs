//! Files that a person asked to be run again. What settles of them next is no arrival that somebody expects, is not too
//! old, and whatever other machines know of its end does not keep it from being run.

use super::Core;
use super::files::{FileKey, Known};
use super::ids::DirId;
use super::record::Record;
use super::replay::remembered;
use crate::plan::Level;
use std::collections::BTreeMap;

/// Those that have not settled yet, each with what was remembered of it before. What is in here follows from the records
/// alone: replay puts it in and takes it out as the order and its end did.
#[derive(Debug, Default)]
pub(super) struct Wanted(BTreeMap<FileKey, Option<Known>>);

impl Wanted {
    /// It was asked for.
    pub(super) fn insert(&mut self, key: FileKey, known: Option<Known>) {
        self.0.insert(key, known);
    }

    /// It has settled, or is not to any more. Whether it was asked for.
    pub(super) fn take(&mut self, key: FileKey) -> bool {
        self.0.remove(&key).is_some()
    }

    /// Whether it was asked for.
    pub(super) fn has(&self, key: FileKey) -> bool {
        self.0.contains_key(&key)
    }

    /// A directory is gone.
    pub(super) fn take_dir(&mut self, dir: DirId) {
        if !self.0.is_empty() {
            self.0.retain(|key, _| key.dir() != dir);
        }
    }

    /// As compaction writes them.
    pub(super) fn records(&self) -> impl Iterator<Item = Record> + '_ {
        self.0.iter().flat_map(|(key, known)| {
            let before = known.map(|known| remembered(*key, &known));
            before.into_iter().chain([forgotten(*key)])
        })
    }
}

/// A person asked for a file to be run again.
pub(super) fn forgotten(key: FileKey) -> Record {
    Record::Forgotten {
        dir: key.dir(),
        name_hash: key.hash(),
    }
}

impl Core {
    /// A remembered file is to be run again.
    pub(super) fn want(&mut self, key: FileKey) {
        let known = self.files.take(key);
        self.wanted.insert(key, known);
        self.append(forgotten(key));
    }

    /// The file went away under its name before it had settled: what comes there is another one.
    pub(super) fn wanted_is_gone(&mut self, key: FileKey) {
        if self.wanted.take(key) {
            self.append(Record::Gone {
                dir: key.dir(),
                name_hash: key.hash(),
            });
        }
    }

    /// It is not to be run for its size: it is as concluded as it was before it was asked for.
    pub(super) fn wanted_has_not_its_size(&mut self, watch: u32, key: FileKey, size: u64) {
        let Some(known) = self.wanted.0.remove(&key) else {
            return;
        };
        match known {
            Some(known) => {
                self.files.put(key, known);
                self.append(remembered(key, &known));
            }
            None => self.append(Record::Gone {
                dir: key.dir(),
                name_hash: key.hash(),
            }),
        }
        if let Some(candidate) = self.candidates.get(&key) {
            let (dir, name) = (candidate.dir, candidate.name.clone());
            let text = format!(
                "asked to be run again, and is not: its {size} bytes are not what min_size and max_size select"
            );
            self.log_path(Level::Warning, watch, dir, &name, text);
        }
    }
}
