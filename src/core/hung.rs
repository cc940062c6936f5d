//! What does not answer: mounts that hang, and what waits for them. Everything else goes on.

use super::ids::{DirId, MountId};
use super::lane::Lane;
use super::operate::Mode;
use super::runs::{Kind, Run};
use super::{Core, Mount};
use crate::plan::{Level, Observe};

impl Core {
    /// Its scout takes longer than usual, or not any more.
    pub(super) fn mount_slow(&mut self, mount: MountId, slow: bool) {
        self.lane(mount).slow = slow;
        if slow && self.mode != Mode::Running {
            self.end_stuck();
        }
    }

    /// Its scout is given up, or has answered.
    pub(super) fn mount_silent(&mut self, mount: MountId, silent: bool) {
        let point = match self.mounts.get(&mount) {
            Some(mount) => mount.point.clone(),
            None => Vec::new(),
        };
        self.alert_mount(mount, silent);
        let now = self.now.mono;
        let lane = self.lane(mount);
        let since = std::mem::replace(&mut lane.silent, silent.then_some(now));
        let (asked, waiting) = lane.waiting();
        if silent && self.mode != Mode::Running {
            self.end_stuck();
        }
        self.log(Level::Warning, |line| {
            line.path = point;
            line.text = match (silent, since) {
                (true, _) => format!(
                    "the mount does not answer; work on it is held ({asked} questions asked, {waiting} to be asked), \
                     everything else goes on"
                ),
                (false, Some(since)) => format!(
                    "the mount answers again, {:.1} s after that was said",
                    now.since(since).as_secs_f64()
                ),
                (false, None) => "the mount answers again".into(),
            };
        });
    }

    /// What looks where a watch's root is does not answer, or has answered.
    pub(super) fn root_silent(&mut self, watch: u32, silent: bool) {
        let Some(state) = self.watches.get_mut(watch as usize) else {
            return;
        };
        if std::mem::replace(&mut state.root_silent, silent) == silent {
            return;
        }
        let text = if silent {
            "the directory does not answer; its watch waits, everything else goes on"
        } else {
            "the directory answers again"
        };
        let (name, path) = (state.plan.name.clone(), state.plan.path.clone());
        self.alert_root(watch, silent);
        self.log(Level::Warning, |line| {
            line.text = text.into();
            line.watch = name;
            line.path = path;
        });
    }

    /// Nothing is begun there. Only of a mount with a server behind it, or a process, is that believed early: a disk that is
    /// slow to write has no reason to be taken for one that hangs.
    pub(super) fn does_not_answer(&self, mount: MountId) -> bool {
        self.lanes.get(&mount).is_some_and(|lane| {
            lane.silent.is_some() || (lane.slow && !self.lease_can_be_trusted(mount))
        })
    }

    /// Whether nothing is to be expected soon of what was asked about a directory's files.
    pub(super) fn is_stuck(&self, dir: DirId) -> bool {
        self.tree
            .mount(dir)
            .is_some_and(|mount| self.does_not_answer(mount) && !self.lease_can_be_trusted(mount))
    }

    /// Children with files on mounts that do not answer: they cannot get on, and take no other's place.
    pub(super) fn children_stuck(&self) -> usize {
        let mut lanes = self.lanes.values();
        if lanes.all(|lane| !lane.slow && lane.silent.is_none()) {
            return 0;
        }
        let runs = self.runs.values();
        runs.filter(|run| run.mount.is_some_and(|mount| self.does_not_answer(mount)))
            .count()
    }

    /// The daemon stops: it does not wait for children whose files cannot be read.
    pub(super) fn end_stuck(&mut self) {
        let stuck = |run: &Run| {
            run.kind == Kind::Child
                && run.mount.is_some_and(|mount| {
                    self.does_not_answer(mount) && !self.lease_can_be_trusted(mount)
                })
        };
        let runs = self.runs.iter().filter(|(_, run)| stuck(run));
        let runs: Vec<_> = runs.map(|(id, _)| *id).collect();
        for run in runs {
            self.end_run(run);
        }
    }

    /// How a watch is observed, and why.
    pub(super) fn observed_text(&self, watch: u32) -> String {
        let Some(state) = self.watches.get(watch as usize) else {
            return String::new();
        };
        let mount = self
            .tree
            .place(state.root, b"")
            .and_then(|place| self.mounts.get(&place.mount));
        let how = match (state.plan.observe, self.polls(watch)) {
            (Observe::Poll, _) => "listed",
            (Observe::Inotify, _) => "by inotify",
            (_, true) => "by inotify and listed",
            (_, false) if self.tree.any_unwatched(watch) => {
                "by inotify, and listed where no inotify watch was left"
            }
            (_, false) => "by inotify",
        };
        match mount {
            Some(Mount {
                fstype,
                remote_writers: true,
                ..
            }) => format!("{how} ({fstype}: others may write to it)"),
            Some(mount) => format!("{how} ({})", mount.fstype),
            None => how.into(),
        }
    }

    /// Whether a mount answers.
    pub(super) fn lane_words(&self, lane: &Lane) -> String {
        match lane.silent {
            Some(since) => format!(
                "does not answer, said {:.1} s ago",
                self.now.mono.since(since).as_secs_f64()
            ),
            None if lane.slow => "is slow to answer".to_owned(),
            None => "answers".to_owned(),
        }
    }

    /// A line for each mount that has to do with a watch.
    pub(super) fn log_mounts(&mut self) {
        let mut lines = Vec::new();
        for (id, lane) in &self.lanes {
            let Some(mount) = self.mounts.get(id) else {
                continue;
            };
            let state = self.lane_words(lane);
            let (asked, waiting) = lane.waiting();
            let text = format!(
                "state: the mount ({}) {state}, {asked} questions asked, {waiting} to be asked",
                mount.fstype
            );
            lines.push((mount.point.clone(), text));
        }
        for (point, text) in lines {
            self.log(Level::Info, |line| {
                line.path = point;
                line.text = text;
            });
        }
    }
}
