//! Renames of which nothing was heard, all that one scan found: names that change hands among files, as a log's
//! rotation does it, or in a ring.

use super::Core;
use super::files::FileKey;
use super::time::Mono;
use std::collections::{BTreeMap, BTreeSet};

/// A name that stands in while names change hands in a ring; the built-in excludes select no such file.
const SPARE: &[u8] = b".settled-renamed-";

/// Whether a name is one that stands in.
pub(super) fn is_spare(name: &[u8]) -> bool {
    name.starts_with(SPARE)
}

/// What went from where to where.
#[derive(Debug)]
pub(super) struct Moves {
    /// When the scan began.
    started: Mono,
    /// By the name that was left: the versions that were there, and the names that they have.
    from: BTreeMap<FileKey, Vec<(u64, FileKey)>>,
}

impl Moves {
    /// None, of a scan that began then.
    pub(super) fn new(started: Mono) -> Moves {
        Moves {
            started,
            from: BTreeMap::new(),
        }
    }

    /// The file that was `version` under the name `from` has the name `to`.
    pub(super) fn add(&mut self, from: FileKey, version: u64, to: FileKey) {
        self.from.entry(from).or_default().push((version, to));
    }
}

impl Core {
    /// Each name is left before it is taken: whatever is remembered and owed goes along with its own file.
    pub(super) fn carry_all(&mut self, moves: Moves) {
        let Moves { started, mut from } = moves;
        let names: Vec<FileKey> = from.keys().copied().collect();
        for name in names {
            let mut spares = BTreeMap::new();
            let mut chain = vec![name];
            let mut links = BTreeSet::from([name]);
            while let Some(top) = chain.last().copied() {
                let taken = from.get(&top).into_iter().flatten().map(|(_, to)| *to);
                let mut waits: Vec<FileKey> = taken.filter(|to| from.contains_key(to)).collect();
                if let Some(next) = waits.iter().find(|to| !links.contains(to)) {
                    links.insert(*next);
                    chain.push(*next);
                    continue;
                }
                waits.retain(|to| !spares.contains_key(to));
                for ring in waits {
                    let spare = self.set_aside(ring, spares.len());
                    spares.insert(ring, spare);
                }
                let left = spares.get(&top).copied().unwrap_or(top);
                let (before, now): (Vec<_>, Vec<_>) = from
                    .remove(&top)
                    .unwrap_or_default()
                    .into_iter()
                    .partition(|(version, _)| self.version_at(left) != Some(*version));
                // What was there before the job's file is to be found before that takes all along.
                for (version, to) in before.into_iter().chain(now) {
                    if self.has_moved(left, version, to, started)
                        && let Some((cookie, watch)) = self.half_at.get(&top).copied()
                    {
                        self.drop_half(cookie, watch);
                    }
                }
                if left != top {
                    self.lose_name(left);
                }
                chain.pop();
            }
        }
    }

    /// What is at `key` is not in the way of what comes there, and is found under the name that this returns.
    fn set_aside(&mut self, key: FileKey, n: usize) -> FileKey {
        let dir = key.dir();
        let name = [SPARE, n.to_string().as_bytes()].concat();
        self.carry(key, dir, &name);
        FileKey::new(dir, &name)
    }

    /// `true` if everything under `from` went along.
    fn has_moved(&mut self, from: FileKey, version: u64, to: FileKey, started: Mono) -> bool {
        // What is remembered may have changed since the listing; or another file has come under the name,
        // and has a job.
        if self.version_at(from) != Some(version) {
            let known = self.files.get(from).copied();
            if let Some(known) = known.filter(|known| !known.gone && known.version == version) {
                self.adopt(to, known);
            }
            return false;
        }
        // Events may have come since the listing: the candidate is looked at again.
        self.catch_up(to);
        let Some(mut candidate) = self.candidates.remove(&to) else {
            return false;
        };
        let (to_dir, to_name) = (candidate.dir, candidate.name.clone());
        self.carry(from, to_dir, &to_name);
        // A close before that was of the file that had the name before.
        candidate.closed &= candidate.hinted > started;
        self.candidates.insert(to, candidate);
        self.queue_probe(to);
        true
    }

    /// Whatever is left under a name: another file has it.
    fn lose_name(&mut self, key: FileKey) {
        self.known_gone(key);
        self.job_gone(key);
        self.lose_file_unheard(key);
    }
}
