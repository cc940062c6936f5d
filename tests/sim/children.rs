//! The commands that are run: they succeed, fail, hang, edit their file, and outlive the daemon.

use crate::disk::*;
use crate::rng::Rng;
use settled::core::ask::Version;
use settled::core::{ChildEnd, NotStarted, SpawnFile, SpawnOrder, StartStep};
use std::collections::BTreeSet;

/// What a child is going to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Exit(i32),
    Signal(i32),
    /// Until it is killed; whether it heeds SIGTERM.
    Hang {
        heeds: bool,
    },
    /// Edits its own file, then exits with 0.
    Edit,
    FailsToStart(StartStep, i32),
    /// Takes its file away, then exits with 0.
    Consume,
    /// Exits with 0, and something it left behind goes on to write.
    Linger,
}

#[derive(Debug)]
pub struct Child {
    pub order: SpawnOrder,
    pub fate: Fate,
    pub life: u32,
    pub phase: Phase,
    /// What it was given, for each of its jobs.
    pub got: Vec<(Uid, u64, Version)>,
    /// The files of which an event has said meanwhile that they changed.
    pub heard: BTreeSet<usize>,
    /// The worker that has this one job; then this is no process.
    pub worker: Option<usize>,
    /// A signal was sent to it in the life that it belongs to.
    pub killed: bool,
    /// The oracle's name for the watch.
    pub watch: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Starting,
    Running,
    Ended(ChildEnd),
    /// Its end was told to the core.
    Reaped,
}

/// How likely each fate is in this schedule.
#[derive(Clone, Copy, Debug, Default)]
pub struct Temper {
    /// In a thousand.
    pub fails: u64,
    pub hangs: u64,
    pub edits: u64,
    pub consumes: u64,
    pub lingers: u64,
    /// Of those that are asked to end, how many say that all went well.
    pub lies: u64,
}

pub fn fate(rng: &mut Rng, temper: Temper) -> Fate {
    let roll = rng.below(1000);
    if roll < temper.fails {
        match rng.below(7) {
            0 => Fate::Exit(75),
            1 => Fate::Exit(65),
            2 => Fate::Signal(11),
            3 => Fate::FailsToStart(StartStep::Fork, 11),
            4 => Fate::FailsToStart(StartStep::Exec, 2),
            _ => Fate::Exit(1),
        }
    } else if roll < temper.fails + temper.hangs {
        Fate::Hang {
            heeds: rng.chance(1, 2),
        }
    } else if roll < temper.fails + temper.hangs + temper.edits {
        Fate::Edit
    } else {
        Fate::Exit(0)
    }
}

/// The look between fork and exec: at each file, up to the first that is not as it has to be.
pub fn look(disk: &Disk, order: &SpawnOrder) -> Result<Vec<Uid>, (NotStarted, u32)> {
    let one = |(number, file)| look_at(disk, file).map_err(|why| (why, number as u32));
    order.files.iter().enumerate().map(one).collect()
}

fn look_at(disk: &Disk, file: &SpawnFile) -> Result<Uid, NotStarted> {
    let found = disk
        .resolve(&file.place.base)
        .and_then(|base| disk.walk(base, &file.place.rel));
    let uid = match found {
        Ok(uid) => uid,
        Err(ENOENT | ENOTDIR) => return Err(NotStarted::NotTheFile),
        Err(errno) => return Err(NotStarted::Failed(StartStep::OpenFile, errno)),
    };
    let inode = &disk.inodes[uid];
    if inode.dir || disk.version(uid) != file.expect {
        return Err(NotStarted::NotTheFile);
    }
    if inode.unreadable {
        return Err(NotStarted::Failed(StartStep::OpenFile, EACCES));
    }
    if file.lease && disk.fss[inode.fs].lease_errno == 0 && inode.writers > 0 {
        return Err(NotStarted::StillWritten);
    }
    Ok(uid)
}
