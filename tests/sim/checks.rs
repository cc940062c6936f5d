//! What the loop's own state must look like: replay against memory, and nothing left over at the end.

use crate::oracle::Rule;
use crate::store::Store;
use crate::story::show;
use crate::world::{JOURNAL, SECOND, World};
use settled::core::ids::JobId;
use settled::core::record::{AttemptEnd, Record};
use settled::core::time::Wall;
use settled::core::{Command, Core, Effect, Input};
use settled::journal::body::{decode, encode, kind};
use std::collections::{BTreeMap, BTreeSet};

impl World {
    /// The journal replayed, and the state written as records and replayed, are the same state.
    pub fn compare(&mut self) {
        let Some(core) = self.core.as_ref() else {
            return;
        };
        let wall = Wall(self.setup.disk.wall);
        let fresh = || Core::new(self.setup.plan.clone(), JOURNAL);
        let snapshot: Vec<Record> = core.snapshot().collect();
        let mut from_snapshot = fresh();
        for record in &snapshot {
            from_snapshot.replay(wall, record.clone());
        }
        // The journal has what went longer ago than that until it is compacted; the state may have it for an hour more.
        let since = wall.before(self.setup.plan.daemon.remember);
        let lasts = |record: &Record| {
            const GONE_OR_AWAY: u8 = 3;
            !matches!(record, Record::Remembered { state, at, .. } if *state & GONE_OR_AWAY != 0 && *at < since)
        };
        // What replay forgets of both, the state itself still has.
        let now = normal(snapshot.into_iter().filter(lasts));
        let mut from_journal = fresh();
        for (at, record) in &self.store.sure {
            if !Store::is_filler(record) {
                from_journal.replay(*at, record.clone());
            }
        }
        let a = normal(from_snapshot.snapshot().filter(lasts));
        let b = normal(from_journal.snapshot().filter(lasts));
        if a != b || now != b {
            let a = if a != b { a } else { now };
            let only = |x: &[Vec<u8>], y: &[Vec<u8>]| {
                x.iter()
                    .filter(|line| !y.contains(line))
                    .map(|line| {
                        let (kind, body) = line.split_at(2);
                        format!("{:?}", decode(u16::from_be_bytes([kind[0], kind[1]]), body))
                    })
                    .collect::<Vec<_>>()
                    .join("\n    ")
            };
            self.oracle.broken(Rule::Replay, format!(
                "the journal and the state differ:\n  only in the state:\n    {}\n  only in the journal:\n    {}",
                only(&a, &b),
                only(&b, &a)
            ));
        }
    }

    /// The calm is over: nothing may be left to do.
    pub fn finish(&mut self) {
        self.compare();
        self.oracle.finish(&self.setup.disk);
        let now = self.clock();
        let Some(core) = self.core.as_mut() else {
            return;
        };
        // A disposition waits as long as another directory lies where the file's was.
        let (away, owed): (Vec<Record>, Vec<Record>) = core
            .snapshot()
            .filter(|record| matches!(record, Record::Settled { dir, .. } if dir.0 != 0))
            .partition(|record| self.oracle.waits_for_return(record, &self.setup.disk));
        if !owed.is_empty() {
            self.oracle
                .broken(Rule::NothingLost, format!("jobs are still owed: {owed:?}"));
        }
        let mut plan = self.setup.plan.clone();
        plan.daemon.log_level = settled::plan::Level::Debug;
        let polls = core
            .deadline()
            .is_some_and(|at| at.0 < self.now + 1000 * SECOND);
        let unwatched = self.setup.disk.notify.watches_max < 100;
        let remote = self.setup.disk.fss.iter().any(|fs| fs.remote);
        if polls
            && away.is_empty()
            && !unwatched
            && !remote
            && plan
                .watches
                .iter()
                .all(|w| matches!(w.observe, settled::plan::Observe::Auto))
        {
            self.oracle.broken(
                Rule::Rest,
                format!(
                    "a timer is left, and nothing is to be done: {}",
                    timers(core)
                ),
            );
        }
        core.step(now, Input::Command(Command::LogState));
        let lines: Vec<String> = core
            .effects()
            .into_iter()
            .filter_map(|effect| match effect {
                Effect::Log(_, line) => Some(format!("{} {}", show(&line.path), line.text)),
                _ => None,
            })
            .collect();
        if let Some(state) = lines.iter().find(|line| line.contains("state: ")) {
            let owed = format!(" {} jobs owed", away.len());
            let clean = [" 0 running", &owed, " 0 candidates", " 0 questions"];
            if clean.iter().any(|part| !state.contains(part)) {
                self.oracle.broken(
                    Rule::Rest,
                    format!("something is left at the end: {}", lines.join("; ")),
                );
            }
        }
        if !unwatched {
            self.check_watches();
        }
    }

    /// Each directory of a watched tree has its inotify watch, and no other has.
    fn check_watches(&mut self) {
        let mut wanted = Vec::new();
        for (uid, inode) in self.setup.disk.inodes.iter().enumerate() {
            if !inode.dir || inode.dead {
                continue;
            }
            let Some(path) = self.setup.disk.path_of_dir(uid) else {
                continue;
            };
            let should = self.oracle.watches.iter().any(|watch| {
                watch.plan.observe != settled::plan::Observe::Poll && watch.rel_dir(&path).is_some()
            });
            if should != inode.wd.is_some() {
                wanted.push(format!(
                    "{} {}",
                    show(&path),
                    if should {
                        "is not watched"
                    } else {
                        "is watched for nobody"
                    }
                ));
            }
        }
        if !wanted.is_empty() {
            self.oracle.broken(Rule::Watched, wanted.join("; "));
        }
    }
}

/// The records as sorted bytes. Of a job that was concluded, its attempts matter no longer.
fn normal(records: impl Iterator<Item = Record>) -> Vec<Vec<u8>> {
    let records: Vec<Record> = records.collect();
    let over: BTreeSet<JobId> = records
        .iter()
        .filter_map(|record| match record {
            Record::Concluded { job, .. } => Some(*job),
            _ => None,
        })
        .collect();
    // Of one that goes on, how often it was begun and what came of that; the last attempt of which no end
    // is known was cut short, or runs.
    let mut attempts: BTreeMap<JobId, (u32, u32, Wall, bool, bool)> = BTreeMap::new();
    let line = |record: &Record| {
        let mut bytes = Vec::with_capacity(64);
        bytes.extend(kind(record).to_be_bytes());
        encode(&mut bytes, record);
        bytes
    };
    let mut lines = Vec::with_capacity(records.len());
    for record in &records {
        match record {
            Record::Started { job, attempt, .. } if !over.contains(job) => {
                let state = attempts.entry(*job).or_default();
                (state.0, state.3) = (*attempt, true);
            }
            Record::Ended {
                job,
                end,
                counted,
                not_before,
                ..
            } if !over.contains(job) => {
                let state = attempts.entry(*job).or_default();
                (state.1, state.2) = (*counted, *not_before);
                state.3 = matches!(end, AttemptEnd::CutShort | AttemptEnd::Together);
                state.4 |= *end == AttemptEnd::Together;
            }
            Record::Started { .. } | Record::Ended { .. } => {}
            other => lines.push(line(other)),
        }
    }
    for (job, (attempt, counted, not_before, cut, alone)) in attempts {
        let end = if cut {
            AttemptEnd::CutShort
        } else {
            AttemptEnd::NotTheFile
        };
        lines.push(line(&Record::Ended {
            job,
            attempt,
            end,
            counted,
            not_before,
            output: vec![u8::from(alone)],
        }));
    }
    lines.sort_unstable();
    lines
}

/// The armed timers, for people.
fn timers(core: &Core) -> String {
    let state = format!("{core:?}");
    let all = state.split("by_time: ").nth(1).unwrap_or_default();
    all.split(", by_name").next().unwrap_or_default().to_owned()
}
