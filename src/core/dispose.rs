//! What happens to a file after its last attempt. The mover looks before it acts; this decides
//! what its answers mean.

use super::ask::{Act, Disposal as Answered, Fault, Question, Version, numbered};
use super::files::{FileKey, version_digest};
use super::ids::{DirId, JobId};
use super::job::Phase;
use super::record::{Disposal, DisposedHow, Outcome, Record};
use super::timers::Timer;
use super::watch::Watch;
use super::{Asked, Core, ScoutId};
use crate::core::observe::errno_text;
use crate::plan::Level;
use std::time::Duration;

/// Between looks whether the directory is there of a file that has lost its name to another while it has its private one.
const NAMELESS_WAIT: Duration = Duration::from_secs(5);

/// Between looks whether a file is under its name again, while a scan may find it under another.
const SCAN_WAIT: Duration = Duration::from_secs(2);

impl Core {
    /// Asks the file's mount to do what was recorded; called again until it is done.
    pub(super) fn ask_dispose(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let (dir, name, expect) = (job.dir, job.name.clone(), job.version);
        let Phase::Disposing {
            disposal, asked, ..
        } = &job.phase
        else {
            self.look_again(id);
            return;
        };
        if *asked {
            return;
        }
        let disposal = disposal.clone();
        if !self.may_dispose(id) {
            return;
        }
        let act = match *disposal {
            Disposal::Keep => {
                self.forget_job(id);
                return;
            }
            Disposal::Mark => {
                self.mark_ends(id);
                return;
            }
            Disposal::Delete => Act::Delete,
            Disposal::Move { dir, rel } => Act::Move { dir, rel },
        };
        let Some(place) = self.tree.place(dir, &name) else {
            if self.tree.get(dir).is_none() {
                self.dispose_ends(id, DisposedHow::Gone);
            }
            // Else the root is missing: its return asks again.
            return;
        };
        if self
            .tree
            .get(dir)
            .is_some_and(|node| !node.bound || node.displaced.is_some())
        {
            // Not yet known to be the directory that it was: its listing asks again, but for one that has lost its name.
            self.asks_nameless(id);
            return;
        }
        if let Some(job) = self.jobs.get_mut(&id)
            && let Phase::Disposing { asked, .. } = &mut job.phase
        {
            *asked = true;
        }
        let lease = self.lease_can_be_trusted(place.mount);
        let path = place.path();
        let private = self.private_name(id);
        self.ask(
            ScoutId::Mount(place.mount),
            Question::Dispose {
                place,
                private,
                expect,
                lease,
                act,
            },
            Asked::Dispose { job: id, path },
        );
    }

    /// What waits for its directory is asked for by the names there; what has lost its name asks by itself.
    pub(super) fn asks_nameless(&mut self, id: JobId) {
        let nameless = self.jobs.get(&id).is_some_and(|job| {
            job.displaced && matches!(job.phase, Phase::Disposing { asked: false, .. })
        });
        if nameless && !self.timers.is_set(Timer::Dispose(id)) {
            self.timers
                .set(Timer::Dispose(id), self.now.mono.after(NAMELESS_WAIT));
        }
    }

    fn private_name(&self, id: JobId) -> Vec<u8> {
        let mut name = super::observe::PRIVATE_PREFIX.to_vec();
        name.extend_from_slice(self.job_name(id).as_bytes());
        name
    }

    /// What had a name has a private one now: if that is of the name's own job, what comes under the name is another
    /// file.
    pub(super) fn is_hidden_as(&mut self, key: FileKey, private: &[u8]) {
        let Some(id) = self.job_of.get(&key).copied() else {
            return;
        };
        let own = self.private_name(id) == private;
        if let Some(job) = self.jobs.get_mut(&id) {
            job.hidden = own && matches!(job.phase, Phase::Disposing { .. });
        }
    }

    /// The root is back: what waited for it goes on.
    pub(super) fn redo_disposals(&mut self, watch: u32) {
        let ids: Vec<JobId> = self
            .jobs
            .iter()
            .filter(|(_, job)| {
                job.watch == watch && matches!(job.phase, Phase::Disposing { asked: false, .. })
            })
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.ask_dispose(id);
        }
    }

    /// Lets a job whose file is not where a rename seemed to take it have its former place again.
    fn goes_back(&mut self, id: JobId) -> bool {
        let Some(job) = self.jobs.get_mut(&id) else {
            return false;
        };
        let Some((dir, name)) = job.was.take() else {
            return false;
        };
        let from = FileKey::new(job.dir, &job.name);
        let to = FileKey::new(dir, &name);
        // Another file may have come there since, that is owed or remembered.
        let known = self.files.get(to).is_some_and(|known| !known.gone);
        let free = !self.job_of.contains_key(&to) && !known;
        if self.tree.get(dir).is_none() || self.job_of.get(&from) != Some(&id) || !free {
            return false;
        }
        self.carry(from, dir, &name);
        if let Some(job) = self.jobs.get_mut(&id) {
            job.was = None;
        }
        true
    }

    /// A directory is reached. What is away is asked for only where it may be `back`.
    pub(super) fn redo_disposals_in(&mut self, dir: DirId, back: bool) {
        let ids: Vec<JobId> = self
            .job_of
            .range(FileKey::range(dir))
            .filter(|(key, _)| back || self.files.get(**key).is_none_or(|known| !known.away))
            .map(|(_, id)| *id)
            .filter(|id| {
                self.jobs
                    .get(id)
                    .is_some_and(|job| matches!(job.phase, Phase::Disposing { asked: false, .. }))
            })
            .collect();
        for id in ids {
            self.ask_dispose(id);
        }
    }

    /// Another directory lies where this one was: what was to be disposed of here is remembered as concluded until
    /// it is back, and its disposition waits.
    pub(super) fn disposals_away(&mut self, dir: DirId) {
        let waiting: Vec<JobId> = self
            .job_of
            .range(FileKey::range(dir))
            .map(|(_, id)| *id)
            .collect();
        for id in waiting {
            self.disposal_away(id);
        }
    }

    /// The file of this one is wherever its directory is now. What an older version left behind under its name says
    /// nothing about it.
    fn disposal_away(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let key = FileKey::new(job.dir, &job.name);
        let (version, ctime_ns, mark) = (job.version, job.ctime_ns, job.mark);
        let known = self.files.get(key).map(|known| known.version);
        if matches!(job.phase, Phase::Disposing { .. })
            && self.job_of.get(&key) == Some(&id)
            && known != Some(version_digest(&version))
        {
            self.remember(key, &version, ctime_ns, mark);
            self.files_away([key]);
        }
    }

    /// A file that was away is under its name again, wherever it was meanwhile: its disposition has waited for that.
    pub(super) fn disposal_is_back(&mut self, key: FileKey, version: &Version) {
        if let Some((id, Phase::Disposing { asked: false, .. })) = self.live_phase(key)
            && self
                .jobs
                .get(&id)
                .is_some_and(|job| job.version == *version)
        {
            self.ask_dispose(id);
        }
    }

    pub(super) fn disposed(&mut self, id: JobId, path: Vec<u8>, result: Result<Answered, Fault>) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let (watch, dir, name) = (job.watch, job.dir, job.name.clone());
        let displaced = job.displaced;
        let scans = self
            .watches
            .get(watch as usize)
            .is_some_and(Watch::is_to_scan);
        let moved = self
            .tree
            .is_at(dir, &name, &path)
            .is_some_and(|there| !there);
        let Phase::Disposing { asked, .. } = &mut job.phase else {
            return;
        };
        *asked = false;
        if !moved && matches!(result, Ok(Answered::Gone | Answered::Changed)) && self.goes_back(id)
        {
            // What was renamed was another file that had come under the name meanwhile.
            self.hint_unheard(watch, dir, &name);
            self.ask_dispose(id);
            return;
        }
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let Phase::Disposing {
            disposal, failures, ..
        } = &mut job.phase
        else {
            return;
        };
        match result {
            // Renamed meanwhile, and its job with it: it is disposed of where it is now.
            Ok(Answered::Gone | Answered::Changed) | Err(Fault::Here(2 | 20)) if moved => {
                self.ask_dispose(id);
            }
            // What had the name may have another one, of which nothing was heard: the end of the scan tells.
            Ok(Answered::Gone | Answered::Changed) if scans && !displaced => {
                self.timers
                    .set(Timer::Dispose(id), self.now.mono.after(SCAN_WAIT));
            }
            Ok(Answered::Done) => self.dispose_ends(id, DisposedHow::Done),
            Ok(Answered::Gone)
                if self
                    .files
                    .get(FileKey::new(dir, &name))
                    .is_some_and(|known| known.away && !known.gone) =>
            {
                // It is where its directory is now; the return of that asks again.
                self.disposal_away(id);
            }
            Ok(Answered::Gone) => {
                self.log_job(Level::Info, id, || {
                    "the file was taken away before its disposition".into()
                });
                self.dispose_ends(id, DisposedHow::Gone);
            }
            Ok(Answered::Changed) => {
                let away = self
                    .files
                    .get(FileKey::new(dir, &name))
                    .is_some_and(|known| known.away && !known.gone);
                if away {
                    let private = self.private_name(id);
                    self.log_job(Level::Warning, id, || {
                        format!(
                            "superseded: another directory lies where its own was, with a file of its name, which is \
                             left, as a new arrival; in its own it may be called {}",
                            String::from_utf8_lossy(&private)
                        )
                    });
                } else {
                    self.log_job(Level::Info, id, || {
                        "superseded: another version lies there; it is left, as a new arrival"
                            .into()
                    });
                }
                self.dispose_ends(id, DisposedHow::Changed);
                // Nobody knows how it came about: quiet time is due, as after a close.
                if !displaced {
                    self.hint_unheard(watch, dir, &name);
                }
            }
            Ok(Answered::Taken(number)) => {
                let Disposal::Move { rel, .. } = &mut **disposal else {
                    return;
                };
                let slash = rel.iter().rposition(|&b| b == b'/').map_or(0, |at| at + 1);
                // Numbered from the name that was asked for: each answer leads to another name.
                let (parents, taken) = rel.split_at(slash);
                let mut next = parents.to_vec();
                next.extend(numbered(taken, number.max(1)));
                *rel = next.clone();
                self.append(Record::Retarget { job: id, rel: next });
                self.ask_dispose(id);
            }
            Ok(Answered::Busy) => {
                *failures = failures.saturating_add(1);
                let wait = Duration::from_millis(250 << (*failures).min(7));
                self.timers
                    .set(Timer::Dispose(id), self.now.mono.after(wait));
            }
            Ok(Answered::Failed { errno, step }) => {
                let first = *failures == 0;
                *failures = failures.saturating_add(1);
                let wait = Duration::from_secs(1 << (*failures).min(8));
                self.timers
                    .set(Timer::Dispose(id), self.now.mono.after(wait));
                if first {
                    self.log_job(Level::Error, id, || {
                        format!(
                            "its disposition failed ({step}: {}); the file is still there, trying again",
                            errno_text(errno)
                        )
                    });
                }
            }
            Err(Fault::Here(2 | 20)) => {
                // Its directory is not where it was. If it was renamed, a scan finds it, and in it the file,
                // perhaps under its private name; if it is gone, the next try ends the disposition; if another
                // one lies there, its return asks again.
                if self.is_away(dir) {
                    self.disposals_away(dir);
                    return;
                }
                if let Some(job) = self.jobs.get_mut(&id)
                    && let Phase::Disposing { failures, .. } = &mut job.phase
                {
                    *failures = failures.saturating_add(1);
                    let wait = Duration::from_secs(1 << (*failures).min(8));
                    self.timers
                        .set(Timer::Dispose(id), self.now.mono.after(wait));
                }
                self.start_scan(watch);
            }
            Err(_) => {
                self.resolve_root(watch);
                self.timers.set(
                    Timer::Dispose(id),
                    self.now.mono.after(Duration::from_secs(1)),
                );
            }
        }
    }

    /// The disposition is complete.
    pub(super) fn dispose_ends(&mut self, id: JobId, how: DisposedHow) {
        self.append(Record::Disposed { job: id, how });
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let key = FileKey::new(job.dir, &job.name);
        let (version, ctime_ns, mark) = (job.version, job.ctime_ns, job.mark);
        if job.outcome != Some(Outcome::Superseded) && how != DisposedHow::Changed && !job.displaced
        {
            self.remember(key, &version, ctime_ns, mark);
            self.files.set_gone(key, self.seconds());
            self.set_expiry();
        }
        self.forget_job(id);
    }
}
