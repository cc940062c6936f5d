//! Looks at a job's file: before it is handed to a worker, when its child found another version, and when its command
//! succeeded though something was heard of the file meanwhile.

use super::ask::{Facts, Fault, Held, Kind, Question, Stat, Version};
use super::files::{FileKey, version_digest};
use super::ids::{DirId, JobId};
use super::job::Phase;
use super::record::{AttemptEnd, Outcome};
use super::settle::Signal;
use super::time::Mono;
use super::timers::Timer;
use super::tree::Dir;
use super::{Asked, Core, ScoutId};
use crate::plan::{Level, OnChange};
use std::time::Duration;

const ENOENT: i32 = 2;
const ENOTDIR: i32 = 20;

/// When a look was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct When {
    pub(super) at: Mono,
    /// Number of the last event before.
    pub(super) heard: u64,
    /// To hand the job to a worker: the lease was asked for, too.
    pub(super) handing: bool,
}

impl Core {
    pub(super) fn look(&mut self, id: JobId) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.phase = Phase::Looking;
        }
        self.ask_look(id);
    }

    pub(super) fn ask_look(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let when = When {
            at: self.now.mono,
            heard: self.last_event,
            handing: matches!(job.phase, Phase::Handing { .. }),
        };
        match self.tree.place(job.dir, &job.name) {
            Some(place) => {
                let lane = place.mount;
                if !self.may_look(lane, id) {
                    return;
                }
                let path = place.path();
                let lease = when.handing && self.lease_can_be_trusted(lane);
                self.ask(
                    ScoutId::Mount(lane),
                    Question::Probe {
                        place,
                        lock: false,
                        flock: false,
                        lease,
                    },
                    Asked::Look {
                        job: id,
                        lane,
                        path,
                        when,
                    },
                );
            }
            None if self.tree.get(job.dir).is_none() => {
                self.looked(id, Vec::new(), when, Err(Fault::Here(ENOENT)));
            }
            None => self.look_later(id),
        }
    }

    /// The root is missing: asked again when it may be back.
    fn look_later(&mut self, id: JobId) {
        self.timers.set(
            Timer::Dispose(id),
            self.now.mono.after(Duration::from_secs(1)),
        );
    }

    /// [`Timer::Dispose`] of a job that is not disposed of yet.
    pub(super) fn look_again(&mut self, id: JobId) {
        self.ask_look(id);
    }

    /// A look's answer.
    pub(super) fn looked(
        &mut self,
        id: JobId,
        path: Vec<u8>,
        When { at, heard, handing }: When,
        result: Result<Facts, Fault>,
    ) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        if !handing && matches!(job.phase, Phase::Handing { .. }) {
            // Asked before there was a worker for it, and not for a lease. The look that was is under way.
            return;
        }
        let (dir, name, watch, version) = (job.dir, job.name.clone(), job.watch, job.version);
        let key = FileKey::new(dir, &name);
        if self
            .candidates
            .get(&key)
            .is_some_and(|candidate| self.heard_at(candidate) > at)
        {
            // Something happened to it after the question: the answer is about what was before.
            self.ask_look(id);
            return;
        }
        let moved = self
            .tree
            .is_at(dir, &name, &path)
            .is_some_and(|there| !there);
        let written = matches!(&result, Ok(facts) if matches!(facts.lease, Held::By(_)));
        let found = match result {
            // Its directory is gone: what lies under that path now is another file.
            _ if self.tree.get(dir).is_none() => None,
            Ok(facts) if facts.stat.kind == Kind::File => Some(facts.stat),
            Ok(_) => None,
            Err(Fault::Here(ENOENT | ENOTDIR) | Fault::Crossed(_)) if moved => {
                self.ask_look(id);
                return;
            }
            Err(Fault::Here(ENOENT | ENOTDIR) | Fault::Crossed(_))
                if !self.is_bound(watch) || self.is_on_its_way(dir) =>
            {
                self.look_later(id);
                return;
            }
            Err(Fault::Here(ENOENT | ENOTDIR) | Fault::Crossed(_))
                if self.came_after(dir, heard) =>
            {
                self.ask_look(id);
                return;
            }
            Err(Fault::Here(ENOENT | ENOTDIR) | Fault::Crossed(_)) => None,
            Err(Fault::Base(_)) => {
                self.resolve_root(watch);
                self.look_later(id);
                return;
            }
            Err(Fault::Here(_)) => {
                self.look_later(id);
                return;
            }
        };
        let same = found.is_some_and(|stat| stat.version == version);
        let hands = matches!(
            self.jobs.get(&id).map(|job| &job.phase),
            Some(Phase::Handing { .. })
        );
        if moved && (hands || !same) {
            // Its worker is told the new path: that is where it has to be. And whatever else lies under the former one is
            // another file.
            self.ask_look(id);
            return;
        }
        match (self.jobs.get(&id).map(|job| job.phase.clone()), found) {
            (Some(Phase::Looking), Some(_)) if same && self.was_only_asked_for(id) => {
                self.rest(id);
            }
            (Some(Phase::Looking), Some(_)) if same => {
                // It is the file after all: renamed away and back, or touched twice.
                self.again(id, AttemptEnd::NotTheFile, Vec::new(), false, None);
            }
            (Some(Phase::Handing { run }), Some(_)) if same && !written => {
                self.hand_over(id, run);
            }
            (Some(Phase::Handing { run }), Some(_)) if same => {
                self.not_handed(id, run);
                self.rest(id);
            }
            (Some(Phase::Handing { run }), Some(stat)) => {
                self.not_handed(id, run);
                self.supersede(id);
                self.hint(watch, dir, &name, Signal::Scan, Some(stat));
            }
            (Some(Phase::Handing { run }), None) => {
                self.not_handed(id, run);
                self.log_job(Level::Info, id, || "gone before its attempt".into());
                self.conclude(id, Outcome::Gone, None, Vec::new());
            }
            (Some(Phase::Halted), Some(_)) if same => {}
            (Some(Phase::Looking | Phase::Halted), Some(stat)) => {
                self.supersede(id);
                self.hint(watch, dir, &name, Signal::Scan, Some(stat));
            }
            (Some(Phase::Looking | Phase::Halted), None) => {
                self.log_job(Level::Info, id, || "gone before its attempt".into());
                self.conclude(id, Outcome::Gone, None, Vec::new());
            }
            (Some(Phase::PostLook { end }), Some(stat)) => self.found_after(id, end, stat, heard),
            (Some(Phase::PostLook { end }), None) => self.done(id, end),
            _ => {}
        }
    }

    /// Whether a directory, or one above it, went by a rename of which the other half may come.
    fn is_on_its_way(&self, dir: DirId) -> bool {
        self.up_from(dir).any(|node| {
            let key = FileKey::new(node.parent, &node.name);
            self.half_at.contains_key(&key)
        })
    }

    /// Whether a directory, or one above it, was put where it is by a later event than that.
    fn came_after(&self, dir: DirId, heard: u64) -> bool {
        self.up_from(dir).any(|node| node.placed > heard)
    }

    fn up_from(&self, dir: DirId) -> impl Iterator<Item = &Dir> {
        let first = self.tree.get(dir);
        std::iter::successors(first, |node| self.tree.get(node.parent))
    }

    /// The command succeeded and the file is there: the version it succeeded on, or another. It was looked at after the event
    /// with that number.
    fn found_after(&mut self, id: JobId, end: AttemptEnd, stat: Stat, heard: u64) {
        let Some((watch, before)) = self.jobs.get(&id).map(|job| (job.watch, job.version)) else {
            return;
        };
        let accept = self
            .watches
            .get(watch as usize)
            .is_some_and(|watch| watch.plan.on_change == OnChange::Accept)
            && !self.came_from_elsewhere(id, &before, &stat.version);
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        if accept {
            job.version = stat.version;
            job.ctime_ns = stat.ctime_ns;
        }
        let before = version_digest(&before);
        let (dir, name) = (job.dir, job.name.clone());
        if job.version == stat.version {
            if accept {
                self.half_learns(FileKey::new(dir, &name), before, heard);
            }
            self.done(id, end);
            return;
        }
        self.log_job(Level::Info, id, || {
            "superseded: the file changed while its job ran".into()
        });
        // The newer version is a candidate already, or becomes one, while this job still counts as running.
        self.hint(watch, dir, &name, Signal::Scan, Some(stat));
        self.conclude(id, Outcome::Superseded, Some(end), Vec::new());
    }

    /// Whether what lies under a job's name after its command is not the command's work but a file that is remembered
    /// or owed under another name, and was renamed there unheard.
    fn came_from_elsewhere(&mut self, id: JobId, before: &Version, found: &Version) -> bool {
        let Some(job) = self.jobs.get(&id) else {
            return false;
        };
        let (watch, key) = (job.watch, FileKey::new(job.dir, &job.name));
        let digest = version_digest(found);
        if (before.ino, before.btime_ns) == (found.ino, found.btime_ns)
            || !self.may_be_known(watch, digest)
        {
            return false;
        }
        let mut owed = self.jobs.values();
        owed.any(|job| {
            job.watch == watch && job.version == *found && FileKey::new(job.dir, &job.name) != key
        }) || self.files.iter().any(|(other, known)| {
            known.version == digest && !known.gone && other != key && self.is_in(watch, other.dir())
        })
    }
}
