//! A set of versions that may say yes too often and never no: small and quick for a million files.

use super::Core;
use super::doubts::Doubts;
use super::files::{FileKey, version_digest};
use super::ids::JobId;
use super::settle::Waits;
use super::timers::Timer;
use std::time::Duration;

/// Bits for each version: with four probes one in some four hundred strangers is taken for a member.
const BITS: usize = 16;
const PROBES: u32 = 4;
/// Members for which there is room at least.
const MEMBERS_MIN: usize = 1024;
/// Files and jobs that are added in one turn, at most: well below a millisecond each. A job's version has to be hashed.
pub(super) const FILES_MAX: usize = 20_000;
pub(super) const JOBS_MAX: usize = 1_000;
/// Between such turns.
pub(super) const PAUSE: Duration = Duration::from_millis(1);

/// The set. It grows only; what no longer belongs to it goes when it is made anew.
#[derive(Debug)]
pub struct Sieve {
    words: Vec<u64>,
    /// For how many more there is room before it says yes too often.
    room: usize,
    /// What it said yes to wrongly, perhaps.
    pub(super) doubts: Doubts,
    /// The first file that is not added yet, if there is one; what becomes known meanwhile is added at once.
    files: Option<FileKey>,
    /// The same of jobs.
    jobs: Option<JobId>,
}

impl Sieve {
    /// An empty one, made for `members`.
    pub fn new(members: usize) -> Sieve {
        let bits = (members.max(MEMBERS_MIN) * BITS).next_power_of_two();
        Sieve {
            words: vec![0; bits / 64],
            room: bits / BITS,
            doubts: Doubts::default(),
            files: Some(FileKey::FIRST),
            jobs: Some(JobId(0)),
        }
    }

    /// Where a version (see `version_digest`: as good as random) has its bits.
    fn places(&self, version: u64) -> impl Iterator<Item = (usize, u64)> + use<> {
        let mask = self.words.len() as u64 * 64 - 1;
        let step = (version >> 32) | 1;
        (0..PROBES).map(move |probe| {
            let bit = version.wrapping_add(step.wrapping_mul(probe.into())) & mask;
            ((bit / 64) as usize, 1 << (bit % 64))
        })
    }

    /// Adds a version.
    pub fn insert(&mut self, version: u64) {
        self.room = self.room.saturating_sub(1);
        self.doubts.is_known(version);
        for (word, bit) in self.places(version) {
            if let Some(word) = self.words.get_mut(word) {
                *word |= bit;
            }
        }
    }

    /// Whether anything is still to be added.
    fn fills(&self) -> bool {
        self.files.is_some() || self.jobs.is_some()
    }

    /// Whether a version may have been added. No is certain.
    pub fn may_hold(&self, version: u64) -> bool {
        self.places(version)
            .all(|(word, bit)| self.words.get(word).is_some_and(|word| word & bit != 0))
    }
}

impl Core {
    /// Whether a version may be remembered or owed under any name of the watch. No is certain.
    pub(super) fn may_be_known(&mut self, watch: u32, version: u64) -> bool {
        let members = self.files.count().0 + self.jobs.len();
        let Some(state) = self.watches.get_mut(watch as usize) else {
            return false;
        };
        if state.deleted.contains_key(&version) {
            return true;
        }
        if state.sieve.as_ref().is_none_or(|sieve| sieve.room == 0) {
            // Made for as many as there are now, and half as many again.
            let mut sieve = Sieve::new(members + members / 2);
            if let Some(full) = state.sieve.take() {
                sieve.doubts = full.doubts.again();
                self.timers
                    .set(Timer::Sieve(watch), self.now.mono.after(PAUSE));
            }
            if let Some(state) = self.watches.get_mut(watch as usize) {
                state.sieve = Some(sieve);
            }
            self.fill_sieve(watch);
        }
        let sieve = self.watches.get_mut(watch as usize);
        let Some(sieve) = sieve.and_then(|state| state.sieve.as_mut()) else {
            return false;
        };
        if sieve.fills() {
            return true;
        }
        if !sieve.may_hold(version) || sieve.doubts.is_stranger(version) {
            return false;
        }
        if sieve.doubts.ask(version) {
            self.timers
                .set(Timer::Sieve(watch), self.now.mono.after(PAUSE));
        }
        true
    }

    /// A version is remembered or owed from now on.
    pub(super) fn is_known_now(&mut self, watch: u32, version: u64) {
        if let Some(sieve) = self
            .watches
            .get_mut(watch as usize)
            .and_then(|state| state.sieve.as_mut())
        {
            sieve.insert(version);
        }
    }

    /// More is to be added to a watch's sieve. When that was all, what waits because it was not is judged again.
    pub(super) fn sieve_due(&mut self, watch: u32) {
        let fills = |core: &Core| {
            let state = core.watches.get(watch as usize);
            state
                .and_then(|state| state.sieve.as_ref())
                .map(Sieve::fills)
        };
        match fills(self) {
            Some(true) => {
                self.fill_sieve(watch);
                if fills(self) == Some(false) {
                    self.release(watch, Waits::ScanEnd);
                }
            }
            Some(false) => self.resolve_doubts(watch),
            None => {}
        }
    }

    fn fill_sieve(&mut self, watch: u32) {
        let Some(sieve) = self
            .watches
            .get_mut(watch as usize)
            .and_then(|state| state.sieve.as_mut())
        else {
            return;
        };
        if let Some(first) = sieve.files.take() {
            for (n, (key, known)) in self.files.iter_from(first).enumerate() {
                if n == FILES_MAX {
                    sieve.files = Some(key);
                    break;
                }
                if !known.gone {
                    sieve.insert(known.version);
                }
            }
        }
        if let Some(first) = sieve.jobs.take() {
            let mut hashed = 0;
            for (n, (id, job)) in self.jobs.range(first..).enumerate() {
                if n == FILES_MAX || hashed == JOBS_MAX {
                    sieve.jobs = Some(*id);
                    break;
                }
                // Another watch's half a million are gone over quickly: this one's files wait for it.
                if job.watch == watch {
                    hashed += 1;
                    sieve.insert(version_digest(&job.version));
                }
            }
        }
        if sieve.fills() {
            self.timers
                .set(Timer::Sieve(watch), self.now.mono.after(PAUSE));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ask::Version;
    use crate::core::files::{Known, version_digest};
    use crate::core::ids::DirId;
    use crate::plan::{Plan, WatchPlan};

    fn digest(ino: u64) -> u64 {
        version_digest(&Version {
            ino,
            ..Version::default()
        })
    }

    fn known(ino: u64) -> Known {
        Known {
            version: digest(ino),
            ctime: 1,
            at_s: 1,
            gone: false,
            away: false,
            mark: 0,
        }
    }

    fn core(watches: &[&str]) -> Core {
        let plan = Plan {
            daemon: crate::config::daemon_defaults("/var/lib/settled".into()),
            watches: watches
                .iter()
                .map(|name| WatchPlan::placeholder(name))
                .collect(),
            alert: None,
        };
        Core::new(plan, 1)
    }

    #[test]
    fn members_are_held_and_few_strangers() {
        let mut sieve = Sieve::new(10_000);
        (0..10_000).for_each(|ino| sieve.insert(digest(ino)));
        assert!((0..10_000).all(|ino| sieve.may_hold(digest(ino))));
        let strangers = (10_000..30_000)
            .filter(|ino| sieve.may_hold(digest(*ino)))
            .count();
        assert!(strangers < 400, "{strangers} of 20,000");
    }

    #[test]
    fn a_stranger_that_it_takes_for_a_member_is_found_out() {
        let mut core = core(&["a", "b"]);
        let (a, b) = (
            core.tree.add(0, DirId(0), b""),
            core.tree.add(1, DirId(0), b""),
        );
        let name = |ino: u64| ino.to_le_bytes();
        let files = 2 * FILES_MAX as u64;
        (0..files).for_each(|ino| core.files.put(FileKey::new(a, &name(ino)), known(ino)));
        // Remembered by another watch: a stranger to this one.
        core.files.put(FileKey::new(b, &name(files)), known(files));
        core.may_be_known(0, digest(0));
        let turns = |core: &mut Core| (0..10).for_each(|_| core.sieve_due(0));
        turns(&mut core);
        let taken: Vec<u64> = (files..files + 100_000)
            .filter(|ino| core.may_be_known(0, digest(*ino)))
            .collect();
        assert!(taken.len() > 1 && taken[0] == files, "{taken:?}");
        assert!(core.may_be_known(0, digest(7)));
        turns(&mut core);
        assert!(taken.iter().all(|ino| !core.may_be_known(0, digest(*ino))));
        assert!((0..files).all(|ino| core.may_be_known(0, digest(ino))));
        // Known from now on, whatever was found out.
        core.is_known_now(0, digest(taken[1]));
        turns(&mut core);
        assert!(core.may_be_known(0, digest(taken[1])));
    }

    #[test]
    fn it_has_room_for_what_becomes_known() {
        let mut core = core(&["a"]);
        let root = core.tree.add(0, DirId(0), b"");
        for ino in 0..10_000_u64 {
            core.may_be_known(0, digest(ino));
            core.files
                .put(FileKey::new(root, &ino.to_le_bytes()), known(ino));
            core.is_known_now(0, digest(ino));
        }
        core.sieve_due(0);
        let taken = (10_000..30_000).filter(|ino| core.may_be_known(0, digest(*ino)));
        assert!(taken.count() < 400);
    }

    #[test]
    fn it_is_filled_in_turns_and_says_perhaps_until_then() {
        let mut core = core(&["a"]);
        let root = core.tree.add(0, DirId(0), b"");
        let key = |ino: u64| FileKey::new(root, &ino.to_le_bytes());
        let files = 2 * FILES_MAX as u64 + 2;
        (0..files).for_each(|ino| core.files.put(key(ino), known(ino)));
        let strangers = (files..files + 100).collect::<Vec<u64>>();
        assert!(
            strangers
                .iter()
                .all(|ino| core.may_be_known(0, digest(*ino)))
        );
        // The last file of all goes where the sieve has been already.
        let mut all: Vec<FileKey> = (0..files).map(key).collect();
        all.sort_unstable();
        let last = (0..files).find(|ino| Some(&key(*ino)) == all.last());
        let last = last.expect("a last one");
        let name = (files..)
            .find(|name| Some(&key(*name)) < all.first())
            .expect("a lower one");
        core.carry(key(last), root, &name.to_le_bytes());
        core.sieve_due(0);
        assert!(
            strangers
                .iter()
                .all(|ino| core.may_be_known(0, digest(*ino)))
        );
        core.sieve_due(0);
        assert!(
            strangers
                .iter()
                .any(|ino| !core.may_be_known(0, digest(*ino)))
        );
        assert!((0..files).all(|ino| core.may_be_known(0, digest(ino))));
    }
}
