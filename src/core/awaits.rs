//! The end of a scan has to wait for some candidates: a name that came by an event may be a missing file's new one, and
//! which file has it only its probe tells. What comes after the last listing is not waited for, unless it comes where
//! nothing was gone over yet.

use super::Core;
use super::files::FileKey;
use super::ids::DirId;
use super::timers::Timer;
use std::collections::BTreeMap;

/// Candidates and directories that are gone over in one turn, at most: there may be a million.
const VISITS_A_TURN: usize = 4096;

/// What the end of a watch's scan waits for.
#[derive(Debug)]
pub struct Awaits {
    /// Directories whose candidates are still to be gone over, the next one last.
    dirs: Vec<DirId>,
    /// In that one, those before this key were.
    next: Option<FileKey>,
    /// The candidates, and whether a probe of each has answered since.
    keys: BTreeMap<FileKey, bool>,
}

impl Core {
    /// Whether the end of a scan, of which nothing is outstanding, has to wait.
    pub(super) fn awaits(&mut self, watch: u32) -> bool {
        let dirs = |core: &Core| {
            if core.candidates.is_empty() {
                return Vec::new();
            }
            let mut dirs = core.tree.of_watch(watch);
            dirs.reverse();
            dirs
        };
        let Some(scan) = self
            .watches
            .get_mut(watch as usize)
            .and_then(|state| state.scan.as_mut())
        else {
            return false;
        };
        let mut awaits = match scan.awaits.take() {
            Some(awaits) => awaits,
            None => Awaits {
                dirs: dirs(self),
                next: None,
                keys: BTreeMap::new(),
            },
        };
        if !awaits.dirs.is_empty() {
            self.go_over(watch, &mut awaits);
        }
        if !awaits.dirs.is_empty() {
            self.timers.set(Timer::Awaits(watch), self.now.mono);
        }
        let any = !awaits.dirs.is_empty() || !awaits.keys.is_empty();
        if let Some(scan) = self
            .watches
            .get_mut(watch as usize)
            .and_then(|state| state.scan.as_mut())
        {
            scan.awaits = Some(awaits);
        }
        any
    }

    /// Finds some of those of which something was heard since they were looked at.
    fn go_over(&mut self, watch: u32, awaits: &mut Awaits) {
        let mut left = VISITS_A_TURN;
        while let Some(dir) = awaits.dirs.last().copied()
            && left > 0
        {
            left -= 1;
            if !self.is_in(watch, dir) {
                // Gone meanwhile; another watch's may have its number.
                awaits.next = None;
                awaits.dirs.pop();
                continue;
            }
            let (first, last) = FileKey::range(dir).into_inner();
            let first = awaits.next.take().unwrap_or(first);
            let mut keys: Vec<FileKey> = (self.candidates.range(first..=last))
                .map(|(key, _)| *key)
                .take(left + 1)
                .collect();
            awaits.next = (keys.len() > left).then(|| keys.pop()).flatten();
            left -= keys.len();
            if awaits.next.is_none() {
                awaits.dirs.pop();
            }
            for key in keys {
                self.catch_up(key);
                let candidate = self.candidates.get(&key);
                if candidate.is_some_and(|candidate| !candidate.fresh) {
                    awaits.keys.insert(key, false);
                    self.queue_probe(key);
                }
            }
        }
    }

    fn awaited(&mut self, watch: u32) -> Option<&mut Awaits> {
        let scan = self.watches.get_mut(watch as usize)?.scan.as_mut()?;
        scan.awaits.as_mut()
    }

    fn awaited_in(&mut self, dir: DirId) -> Option<&mut Awaits> {
        let watch = self.tree.get(dir)?.watch;
        self.awaited(watch)
    }

    /// The candidate was seen, or is none any longer.
    pub(super) fn scan_awaits_not(&mut self, key: FileKey) {
        if let Some(awaits) = self.awaited_in(key.dir()) {
            awaits.keys.remove(&key);
        }
    }

    /// A probe answered, and something was heard of its file meanwhile. The answer to the question after it is from
    /// after the last listing, whatever goes on to be heard: a file that is written all the time holds up no scan.
    pub(super) fn scan_awaits_once_more(&mut self, key: FileKey) {
        if let Some(awaits) = self.awaited_in(key.dir())
            && let Some(answered) = awaits.keys.get_mut(&key)
            && std::mem::replace(answered, true)
        {
            awaits.keys.remove(&key);
        }
    }

    /// What the scan waits for was renamed before it was seen.
    pub(super) fn scan_awaits_instead(&mut self, watch: u32, from: FileKey, to: FileKey) {
        self.catch_up(to);
        if self
            .candidates
            .get(&to)
            .is_none_or(|candidate| candidate.fresh)
        {
            return;
        }
        // Not gone over yet, it may have been one, and have gone where nothing is to be gone over any more.
        if let Some(awaits) = self.awaited(watch)
            && (awaits.keys.contains_key(&from) || !awaits.dirs.is_empty())
        {
            awaits.keys.insert(to, false);
            self.queue_probe(to);
        }
    }
}
